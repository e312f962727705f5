"""Words of a report that left are found; ids and counts are all that is told."""

from __future__ import annotations

import tracemalloc

import pytest

from medorchestra.cloud.egress.log import EgressLog
from medorchestra.cloud.outgoing import Piece, PieceKind
from medorchestra.errors import EgressError, SettingsError
from medorchestra.local.egress_check import check_egress
from medorchestra.local.records import Report

COMMON = "There is no evidence of metastatic disease in the chest or in the abdomen"
PASTED = (
    "Ill-defined hypoattenuating mass in the uncinate process measuring 2.7 cm, abutting the SMA over 95 degrees, with "
    "a replaced right hepatic artery coursing through the tumour bed and a short occlusion of the first jejunal vein."
)


@pytest.fixture
def log_with(tmp_path):
    def write(*requests):
        path = tmp_path / "egress.jsonl"
        with EgressLog.open(path) as log:
            for pieces in requests:
                log.record_request(step="s", endpoint="https://x", model="m", request_digest="sha256:1", pieces=pieces)
        return path

    return write


def plan(text):
    return Piece(PieceKind.PLAN, "subtasks", text)


def case(text, case_id="c1"):
    return Piece(PieceKind.CASE, case_id, text)


def test_a_report_pasted_into_a_plan_is_found_with_its_request(log_with):
    path = log_with([plan("nothing of note")], [plan(f"Example: {PASTED}")])
    overlap = check_egress(path, [Report("R1", PASTED), Report("R2", "Normal pancreas, normal vessels, normal liver.")])
    assert (overlap.reports, overlap.sharing, overlap.too_short) == (2, 1, 1)
    shared = overlap.longest[0]
    assert (shared.report_id, shared.kinds, shared.requests) == ("R1", ("plan",), (2,))
    assert shared.longest_run == 37
    assert overlap.sharing_by_kind == {"plan": 1}
    assert overlap.sharing_by_run == {8: 1, 12: 1, 20: 1, 40: 0}


def test_case_line_breaks_and_punctuation_hide_nothing_but_other_numbers_differ(log_with):
    path = log_with([plan("Mass abutting the SMA over 95 degrees, of 2.7 cm.")])
    same = "MASS ABUTTING\nthe SMA: over 95 degrees of 2.7 cm"
    other = "Mass abutting the SMA over 100 degrees, of 2.7 cm."
    overlap = check_egress(path, [Report("same", same), Report("other", other)])
    assert [shared.report_id for shared in overlap.longest] == ["same"]


def test_the_longest_run_tells_a_paste_from_a_common_phrase(log_with):
    path = log_with([case(f"{COMMON}. Pancreas normal."), plan(PASTED)])
    reports = [Report(f"R{number}", f"Chest clear. {COMMON}.") for number in range(3)] + [Report("paste", PASTED)]
    overlap = check_egress(path, reports, keep=2)
    assert [shared.report_id for shared in overlap.longest] == ["paste", "R0"]
    assert overlap.sharing == 4
    assert overlap.sharing_by_kind == {"case": 3, "plan": 1}


def test_a_known_phrase_is_left_out_and_what_surrounds_it_is_not(log_with):
    path = log_with([case(f"{COMMON}. Pancreas normal."), plan(PASTED)])
    reports = [Report("R1", f"Chest clear. {COMMON}."), Report("paste", f"{COMMON}. {PASTED}")]
    overlap = check_egress(path, reports, known=[COMMON.upper()])
    assert [shared.report_id for shared in overlap.longest] == ["paste"]


def test_a_shorter_sequence_finds_more(log_with):
    path = log_with([plan("abutting the SMA over 95 degrees today")])
    reports = [Report("R1", "Tumour abutting the SMA over 95 degrees.")]
    assert check_egress(path, reports).sharing == 0
    assert check_egress(path, reports, words=5).sharing == 1
    with pytest.raises(SettingsError, match="at least 4"):
        check_egress(path, reports, words=3)


def test_a_piece_sent_many_times_counts_once_with_its_first_request(log_with):
    path = log_with([plan(PASTED)], [plan(PASTED)], [plan(PASTED)])
    overlap = check_egress(path, [Report("R1", PASTED)])
    assert (overlap.requests, overlap.pieces, overlap.longest[0].requests) == (3, 1, (1,))


def test_a_log_that_was_changed_proves_nothing(log_with):
    path = log_with([plan(PASTED)])
    path.write_bytes(path.read_bytes().replace(b"uncinate", b"oncinate"))
    with pytest.raises(EgressError, match="does not hold together"):
        check_egress(path, [Report("R1", PASTED)])


def test_no_text_shows_in_the_result(log_with):
    path = log_with([plan(PASTED)])
    assert "uncinate" not in repr(check_egress(path, [Report("R1", PASTED)]))


def test_memory_does_not_grow_with_the_reports(log_with):
    path = log_with([plan(PASTED), case(COMMON)])

    def peak(count):
        reports = (Report(f"R{number}", f"{PASTED} {COMMON} case {number}") for number in range(count))
        tracemalloc.start()
        check_egress(path, reports, keep=10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # The texts alone of the longer run are over 900,000 bytes.
    assert peak(3000) < peak(100) + 400_000
