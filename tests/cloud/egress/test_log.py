"""The egress log: written before sending, and any change to it is seen."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.cloud.egress.log import EgressLog, verify_log
from medorchestra.cloud.outgoing import Piece, PieceKind
from medorchestra.egress_format import FIRST_PREVIOUS, read_requests
from medorchestra.errors import EgressError, SettingsError, StorageError

PIECES = [
    Piece(PieceKind.INSTRUCTION, "decompose", "List the findings."),
    Piece(PieceKind.GUIDELINE, "3.1", "Contact ≤ 180°"),
]
KEY = "sk-test-0123456789abcdef"


def request(log, step="decompose", pieces=PIECES, endpoint="https://api.example.com/v1"):
    return log.record_request(step=step, endpoint=endpoint, model="big-model", request_digest="sha256:1", pieces=pieces)


def reply(log, number, digest="sha256:2"):
    log.record_reply(number, reply_digest=digest, input_tokens=120, output_tokens=30)


def write(path, rounds=3):
    with EgressLog.open(path) as log:
        for _ in range(rounds):
            reply(log, request(log))
        return log.head


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_request_is_on_disk_with_its_whole_text_before_it_is_sent(tmp_path):
    path = tmp_path / "egress.jsonl"
    with EgressLog.open(path) as log:
        assert request(log) == 1
        entry = entries(path)[-1]
    assert entry["pieces"][1] == {"kind": "guideline", "origin": "3.1", "text": "Contact ≤ 180°"}
    assert (entry["number"], entry["step"], entry["model"]) == (1, "decompose", "big-model")
    assert entry["endpoint"] == "https://api.example.com/v1"
    assert entry["time"].endswith("+00:00")


def test_a_whole_log_verifies_and_counts(tmp_path):
    path = tmp_path / "egress.jsonl"
    head = write(path)
    check = verify_log(path)
    assert (check.intact, check.entries, check.requests, check.replies) == (True, 7, 3, 3)
    assert (check.head, check.unfinished_bytes, check.interruptions) == (head, 0, 0)
    assert [one["number"] for one in read_requests(path)] == [1, 2, 3]


def test_a_later_process_goes_on_with_the_next_number(tmp_path):
    path = tmp_path / "egress.jsonl"
    write(path, 2)
    with EgressLog.open(path) as log:
        assert request(log) == 3
    assert verify_log(path).intact


def test_a_reply_may_come_from_a_later_process_but_only_once(tmp_path):
    path = tmp_path / "egress.jsonl"
    with EgressLog.open(path) as log:
        request(log)
    with EgressLog.open(path) as log:
        reply(log, 1)
        for number in (1, 2):
            with pytest.raises(EgressError, match=f"request {number} waits for no reply"):
                reply(log, number)
    assert verify_log(path).intact


def test_the_key_never_enters_the_log(tmp_path):
    path = tmp_path / "egress.jsonl"
    with EgressLog.open(path, secrets=[KEY]) as log:
        with pytest.raises(EgressError, match="holds the key") as caught:
            request(log, pieces=[Piece(PieceKind.PLAN, "p", f"use {KEY} to sign in")])
        with pytest.raises(EgressError, match="would hold the key"):
            request(log, step=KEY)
        request(log, endpoint=f"https://user:{KEY}@api.example.com/v1?api-key={KEY}#{KEY}")
    assert KEY not in path.read_text()
    assert KEY not in str(caught.value)
    assert entries(path)[-1]["endpoint"] == "https://api.example.com/v1"
    assert verify_log(path).intact
    with pytest.raises(SettingsError, match="fewer than 8"):
        EgressLog.open(path, secrets=["short"])


@pytest.mark.skipif(os.name == "nt", reason="locks and modes are those of POSIX")
def test_one_process_writes_at_a_time_and_the_file_is_its_owners(tmp_path):
    path = tmp_path / "logs" / "egress.jsonl"
    with EgressLog.open(path), pytest.raises(StorageError, match="another process writes"):
        EgressLog.open(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_closed_log_takes_no_request(tmp_path):
    log = EgressLog.open(tmp_path / "egress.jsonl")
    log.close()
    with pytest.raises(StorageError, match="closed"):
        request(log)


def test_a_write_that_fails_stops_the_sending(tmp_path, monkeypatch):
    log = EgressLog.open(tmp_path / "egress.jsonl")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medorchestra.cloud.egress.log.os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device; nothing was sent"):
        request(log)
    monkeypatch.undo()
    with pytest.raises(StorageError, match="closed"):
        request(log)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_line_left_half_written_is_told_apart_and_closed_off(tmp_path, cut):
    path = tmp_path / "egress.jsonl"
    write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    check = verify_log(path)
    assert check.intact
    # Only the line break is missing: the entry is there.
    assert (check.unfinished_bytes > 0) == (cut > 1)
    with EgressLog.open(path) as log:
        request(log)
    after = verify_log(path)
    assert after.intact
    assert (after.requests, after.interruptions) == (3, int(cut > 1))
    assert path.read_bytes().startswith(whole[:-cut])


def test_the_half_line_cannot_be_changed_afterwards(tmp_path):
    path = tmp_path / "egress.jsonl"
    write(path, 2)
    path.write_bytes(path.read_bytes()[:-40])
    write(path, 1)
    lines = path.read_bytes().split(b"\n")
    place = next(i for i, line in enumerate(lines) if b'"interrupted"' in line) - 1
    lines[place] = lines[place].replace(b"sha256", b"sha265")
    path.write_bytes(b"\n".join(lines))
    assert f"line {place + 1}: is no entry" in verify_log(path).problems[0]


def test_a_removed_end_is_seen_by_the_head_that_was_noted(tmp_path):
    path = tmp_path / "egress.jsonl"
    head = write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    assert verify_log(path).intact
    assert "its end was cut off" in verify_log(path, head=head).problems[0]
    write(path)
    assert "written anew" in verify_log(path, head=head).problems[0]


def test_a_head_noted_earlier_stays_valid_while_the_log_grows(tmp_path):
    path = tmp_path / "egress.jsonl"
    head = write(path)
    write(path)
    assert verify_log(path, head=head).intact
    assert verify_log(path, head=FIRST_PREVIOUS).intact


def test_a_log_that_does_not_hold_together_is_neither_continued_nor_read(tmp_path):
    path = tmp_path / "egress.jsonl"
    write(path)
    path.write_bytes(path.read_bytes().replace(b"big-model", b"bad-model", 1))
    with pytest.raises(EgressError, match="line 2: is no entry, or was changed"):
        EgressLog.open(path)
    with pytest.raises(EgressError, match="egress verify"):
        list(read_requests(path))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: lines[:2] + lines[3:], 3),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:3], b"\n", *lines[3:]], 4),
    ],
    ids=["removed", "swapped", "doubled", "first removed", "blank line"],
)
def test_a_removed_moved_or_added_line_is_named(tmp_path, change, line):
    path = tmp_path / "egress.jsonl"
    write(path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert verify_log(path).problems[0].startswith(f"line {line}: ")


def test_a_missing_log_is_no_empty_log(tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        verify_log(tmp_path / "none.jsonl")


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "egress.jsonl"
    write(path, 2)
    return path.read_bytes()


@given(st.data())
def test_any_single_edit_is_detected(whole_log, tmp_path_factory, data):
    """One byte changed, removed or added anywhere, but for the line break at the end, which says nothing."""
    place = data.draw(st.integers(0, len(whole_log) - 2))
    byte = bytes([data.draw(st.integers(0, 255))])
    how = data.draw(st.sampled_from(["change", "remove", "add"]))
    rest = {"change": place + 1, "remove": place + 1, "add": place}[how]
    edited = whole_log[:place] + (b"" if how == "remove" else byte) + whole_log[rest:]
    if edited == whole_log:
        return
    path = Path(tmp_path_factory.getbasetemp()) / "edited.jsonl"
    path.write_bytes(edited)
    assert not verify_log(path).intact


def test_the_gates_allowances_stand_in_the_log(tmp_path):
    class Gate:
        def described(self):
            return {"allowed": [{"text": "Dr. Jane Doe", "reason": "author"}]}

    path = tmp_path / "egress.jsonl"
    EgressLog.open(path, gate=Gate()).close()
    assert entries(path)[0]["allowed"] == [{"text": "Dr. Jane Doe", "reason": "author"}]


def test_nothing_of_a_piece_shows_in_reprs(tmp_path):
    with EgressLog.open(tmp_path / "egress.jsonl") as log:
        request(log)
        assert "findings" not in repr(log)
