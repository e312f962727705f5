"""The ledger: keys, exactly once, killed processes, full disks, foreign and damaged files, several writers."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import answers

from medorchestra.errors import StorageError
from medorchestra.local import ledger as ledger_module
from medorchestra.local import private_store
from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.local.ledger import LEDGER_VERSION, Ledger, RunKey

KEY = RunKey(plan="sha256:plan", model="sha256:model", adapter="", settings="sha256:settings")
QUOTE = Quote(4, 20, "the SMA is free.", 0.5, "focus_terms")
FREE = Answer("sma_contact", "sma_contact", AnswerStatus.OK, "none", {"none": 0.9, ">180": 0.1}, (QUOTE,), 90, 90)
NO_METS = Answer("liver_mets", "liver_mets", AnswerStatus.NOT_STATED, None, {"yes": 0.2, "not_stated": 0.8})
BOTH = {"sha256:sma": FREE, "sha256:liver": NO_METS}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def rows(path, query="SELECT count(*) FROM answer"):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_answers_are_found_again_by_another_process_of_the_run(path):
    with Ledger.open(path) as ledger:
        assert ledger.find("sha256:report", KEY) == {}
        ledger.add("sha256:report", KEY, BOTH)
        assert ledger.find("sha256:report", KEY) == BOTH
    with Ledger.open(path) as ledger:
        assert ledger.find("sha256:report", KEY) == BOTH


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.dictionaries(st.text(min_size=1), answers(), min_size=1, max_size=4))
def test_any_answers_come_back_equal(tmp_path, kept):
    with Ledger.open(tmp_path / f"{uuid4()}.sqlite") as ledger:
        ledger.add("sha256:report", KEY, kept)
        assert ledger.find("sha256:report", KEY) == kept


def test_a_quote_with_characters_that_are_no_valid_unicode_comes_back_equal(path):
    odd = replace(FREE, quotes=(Quote(0, 3, "a\ud800\x00", 1.0, "model"),))
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, {"sha256:sma": odd})
        assert ledger.find("sha256:report", KEY) == {"sha256:sma": odd}


@pytest.mark.parametrize("part", ["plan", "model", "adapter", "settings"])
def test_an_answer_is_never_found_under_another_run_key(path, part):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
        assert ledger.find("sha256:report", replace(KEY, **{part: "sha256:other"})) == {}
        assert ledger.find("sha256:other", KEY) == {}


def test_what_is_in_the_ledger_stays_as_it_is(path):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, {"sha256:sma": FREE})
        ledger.add("sha256:report", KEY, {"sha256:sma": replace(FREE, value=">180"), "sha256:liver": NO_METS})
        assert ledger.find("sha256:report", KEY) == BOTH
    for change in ("UPDATE answer SET content = ''", "DELETE FROM answer", "DELETE FROM run", "DELETE FROM report"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            rows(path, change)


def test_of_a_report_that_cannot_be_kept_whole_nothing_is_kept(path):
    with Ledger.open(path) as ledger:
        with pytest.raises(StorageError, match="cannot be used"):
            ledger.add("sha256:report", KEY, {**BOTH, None: FREE})
        assert ledger.find("sha256:report", KEY) == {}
    assert rows(path, "SELECT count(*) FROM report") == [(0,)]


def test_a_digest_is_written_once_however_many_answers_it_has(path):
    with Ledger.open(path) as ledger:
        for number in range(5):
            ledger.add(f"sha256:report-{number}", KEY, BOTH)
    assert rows(path, "SELECT (SELECT count(*) FROM run), (SELECT count(*) FROM subtask)") == [(1, 2)]
    assert path.read_bytes().count(b"sha256:model") == 2  # in its table and in that table's index


def test_a_look_up_goes_through_indexes_only(path):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
        plan = ledger._connection.execute(f"EXPLAIN QUERY PLAN {ledger_module._FIND}", ("", "", "", "", "")).fetchall()
    steps = [row[3] for row in plan]
    assert any("answer" in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN")]


def test_a_new_ledger_and_its_journal_are_for_their_owner_only(tmp_path):
    path = tmp_path / "new" / "folder" / "ledger.sqlite"
    earlier = os.umask(0)
    try:
        with Ledger.open(path) as ledger:
            ledger.add("sha256:report", KEY, BOTH)
            with ledger._transaction():
                ledger._connection.execute("INSERT INTO report (digest) VALUES ('sha256:other')")
                modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(earlier)
    assert modes == {"ledger.sqlite": 0o600, "ledger.sqlite-journal": 0o600}


def test_a_closed_ledger_is_one_file_that_can_be_copied(path):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    with Ledger.open(copy) as ledger:
        assert ledger.find("sha256:report", KEY) == BOTH


def test_the_ledger_prints_as_its_path(path):
    with Ledger.open(path) as ledger:
        assert repr(ledger) == f"Ledger({str(path)!r})"


# ------------------------------------------------------------------ bad files


def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(path):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
    rows(path, f"PRAGMA user_version = {LEDGER_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=rf"ledger\.sqlite: a ledger of version {LEDGER_VERSION + 1}; .*version 1"):
        Ledger.open(path)
    assert path.read_bytes() == before


def foreign_database(path):
    rows(path, "CREATE TABLE patients (name TEXT)")


@pytest.mark.parametrize(
    "make",
    [
        foreign_database,
        lambda path: path.write_text("report_id,text\n1,normal\n" * 50),
        lambda path: path.write_text("id\n"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(path, make):
    make(path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"ledger\.sqlite: this file is not a ledger\. Give another"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_an_empty_file_as_a_killed_process_leaves_it_becomes_a_ledger(path):
    path.touch()
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
        assert ledger.find("sha256:report", KEY) == BOTH


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_ledger_that_was_cut_off_is_named_as_damaged(path, share):
    with Ledger.open(path) as ledger:
        for number in range(20):
            ledger.add(f"sha256:report-{number}", KEY, {f"sha256:subtask-{i}": FREE for i in range(24)})
    os.truncate(path, int(path.stat().st_size * share))

    def read_all():
        with Ledger.open(path) as ledger:
            for number in range(20):
                ledger.find(f"sha256:report-{number}", KEY)

    with pytest.raises(StorageError, match=r"ledger\.sqlite: the ledger is damaged\. Put a copy of it back"):
        read_all()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"status": "guessed"}'])
def test_an_answer_that_cannot_be_read_back_is_damage_and_not_silence(path, content):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
        ledger._connection.execute("DROP TRIGGER answer_update")
        ledger._connection.execute("UPDATE answer SET content = ?", (content,))
        with pytest.raises(StorageError, match="the ledger is damaged"):
            ledger.find("sha256:report", KEY)


def test_a_folder_in_the_place_of_the_ledger_is_named(tmp_path):
    with pytest.raises(StorageError, match=f"{tmp_path}: cannot be used"):
        Ledger.open(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"out/ledger\.sqlite: the ledger cannot be made: .* Give a folder"):
        Ledger.open(tmp_path / "out" / "ledger.sqlite")


# -------------------------------------------------------------------- full disks


@contextmanager
def largest_file(size):
    """Let no file of this process grow beyond a size: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(ledger):
    """Add reports until it fails; returns how many were added, and the error's message."""
    for number in range(100_000):
        try:
            ledger.add(f"sha256:report-{number}", KEY, BOTH)
        except StorageError as error:
            return number, str(error)
    raise AssertionError("the disk never became full")


def check_whole(path, added):
    """All reports that were added are there, whole, and nothing else; and there is room for one more."""
    with Ledger.open(path) as ledger:
        assert all(ledger.find(f"sha256:report-{number}", KEY) == BOTH for number in range(added))
        assert ledger.find(f"sha256:report-{added}", KEY) == {}
        ledger.add("sha256:one-more", KEY, BOTH)
    assert rows(path) == [(2 * added + 2,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk_leaves_the_ledger_readable_and_it_goes_on_when_there_is_room(path):
    with Ledger.open(path) as ledger:
        ledger._connection.execute("PRAGMA max_page_count = 18")
        added, message = fill(ledger)
        assert added > 5
        assert message.startswith(f"{path}: the disk is full. Make room, then run the same command again")
        assert ledger.find(f"sha256:report-{added - 1}", KEY) == BOTH
        assert ledger.find(f"sha256:report-{added}", KEY) == {}
    check_whole(path, added)


def test_a_disk_that_takes_no_more_bytes_leaves_the_ledger_readable(path):
    with Ledger.open(path) as ledger:
        with largest_file(70_000):
            added, message = fill(ledger)
        assert added > 5
        assert message.startswith(f"{path}: the disk cannot be read or written. Look at space, quota and mount")
        assert ledger.find(f"sha256:report-{added - 1}", KEY) == BOTH
    check_whole(path, added)


def test_a_disk_that_is_full_from_the_start_is_named_and_leaves_nothing_foreign(path):
    with largest_file(1_000), pytest.raises(StorageError, match=r"ledger\.sqlite: the disk cannot be"):
        Ledger.open(path)
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)


# ------------------------------------------------------------- several processes

WRITER = """
import sys
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.ledger import Ledger, RunKey

path, writer, reports = sys.argv[1], sys.argv[2], range(int(sys.argv[3]), int(sys.argv[4]))
key = RunKey("sha256:plan", "sha256:model", "", "sha256:settings")
with Ledger.open(path) as ledger:
    for number in reports:
        answers = {f"sha256:subtask-{i}": Answer(f"s{i}", None, AnswerStatus.OK, writer * 20) for i in range(24)}
        ledger.add(f"sha256:report-{number}", key, answers)
        print(number, flush=True)
"""


def start_writer(path, writer, first, behind):
    command = [sys.executable, "-c", WRITER, str(path), writer, str(first), str(behind)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_write_one_ledger_and_every_answer_is_there_once(path):
    writers = [start_writer(path, name, first, first + 60) for name, first in (("a", 0), ("b", 30), ("c", 60))]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    assert rows(path) == [(120 * 24,)]
    with Ledger.open(path) as ledger:
        for number in range(120):
            found = ledger.find(f"sha256:report-{number}", KEY)
            assert len(found) == 24
            assert len({answer.value for answer in found.values()}) == 1, "one writer's answers, not a mixture"


def test_a_ledger_that_another_process_does_not_let_go_is_named(path, monkeypatch):
    monkeypatch.setattr(private_store, "BUSY_SECONDS", 0.05)
    with Ledger.open(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="other processes have held it"):
            ledger.add("sha256:report", KEY, BOTH)
        other.execute("ROLLBACK")
        other.close()
        ledger.add("sha256:report", KEY, BOTH)
        assert ledger.find("sha256:report", KEY) == BOTH


@pytest.mark.parametrize("moment", [0.0, 0.013, 0.041, 0.09])
def test_a_process_killed_while_it_writes_leaves_whole_reports_only(path, moment):
    writer = start_writer(path, "a", 0, 1_000_000)
    assert writer.stdout is not None
    told = [writer.stdout.readline()]
    time.sleep(moment)
    os.kill(writer.pid, signal.SIGKILL)
    rest, _ = writer.communicate(timeout=60)
    told += rest.splitlines()
    last = max(int(line) for line in told if line.strip())
    with Ledger.open(path) as ledger:
        sizes = [len(ledger.find(f"sha256:report-{number}", KEY)) for number in range(last + 2)]
    assert sizes[: last + 1] == [24] * (last + 1), "what was added is there"
    assert sizes[last + 1] in (0, 24), "the report in work is there whole or not at all"
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_transaction_cut_off_in_its_middle_is_undone_by_the_next_process(path):
    """The kill comes between two statements of one transaction, with changed pages already in the file."""
    script = f"""
import os, signal
from medorchestra.local.ledger import Ledger
ledger = Ledger.open({str(path)!r})
ledger._connection.execute("PRAGMA cache_size = 1")  # pages reach the file before the transaction ends
with ledger._transaction():
    for number in range(2000):
        ledger._connection.execute("INSERT INTO report (digest) VALUES (?)", ("sha256:%d" % number,))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with Ledger.open(path) as ledger:
        ledger.add("sha256:report", KEY, BOTH)
    size = path.stat().st_size
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.stat().st_size > size, "otherwise this shows nothing"
    assert Path(f"{path}-journal").exists()
    with Ledger.open(path) as ledger:
        assert ledger.find("sha256:report", KEY) == BOTH
    assert rows(path, "SELECT count(*) FROM report") == [(1,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
