"""The comparison with peers: what it measures, and how rows become ratios and goals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peer_task import PeerTask, TaskReport, lengthened, value_of
from peers_table import Measured, goal_lines, summary_rows, table_lines

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"
ABOUT = {"measured": "2026-11-25T10:00:00+00:00", "command": "peers.py", "reports": 2, "repeats": 2} | {
    "processor": "a processor",
    "cores": "2",
    "python": "3.11",
}


def two_reports() -> PeerTask:
    reports = [TaskReport(name, "text", [1] * 90, {"liver_mets": "no"}) for name in ("r-1", "r-2")]
    return PeerTask(
        model="model.gguf",
        adapter=None,
        fused="model.gguf",
        threads=2,
        context_tokens=512,
        topic="topic",
        split="calibration",
        acknowledgement="",
        heads={},
        questions={},
        labels={"liver_mets": {"yes": "present", "no": "absent", "not_stated": "silent"}},
        descriptions={},
        head_tokens={},
        question_tokens={"compact": {"liver_mets": [1] * 10}, "instructed": {"liver_mets": [1] * 110}},
        reports={"600": reports},
        warm_up=reports[0],
        example={},
    )


def measured(name: str, seconds: list[float], tokens: int, answers: dict[str, dict[str, str | None]]) -> Measured:
    rounds = [{"seconds": one, "tokens": tokens, "answers": answers} for one in seconds]
    return Measured(name, {"600": rounds}, peak_mb=100.0)


def test_ratios_are_those_of_the_same_round_and_goals_are_held_against_their_medians():
    right = {"r-1": {"liver_mets": "no"}, "r-2": {"liver_mets": "no"}}
    half = {"r-1": {"liver_mets": "no"}, "r-2": {"liver_mets": None}}
    found = {
        "a": measured("a", [2.0, 4.0], 208, right),
        "b": measured("b", [20.0, 56.0], 900, half),
        "e": measured("e", [1.0, 2.0], 200, {}),
        "f": Measured("f", why_not="not installed"),
    }
    rows = {row["row"]: row for row in summary_rows(two_reports(), found)}
    assert rows["a"]["times_floor"] == [2.0, 2.0]
    assert rows["a"]["tokens_to_unique"] == pytest.approx(208 / 200)
    assert rows["b"]["times_a"] == [10.0, 14.0]
    assert (rows["b"]["right"], rows["b"]["asked"]) == (1, 2)
    assert (rows["e"]["right"], rows["e"]["asked"]) == (None, 0)
    assert goal_lines(list(rows.values())) == [
        "600: tokens at most 1.05 times the unique ones: 1.04, reached",
        "600: at most 1.25 times the floor: 2.00, missed",
        "600: at least 12 times faster than (b): 12.0, reached",
    ]
    text = "\n".join(table_lines(two_reports(), list(rows.values()), ABOUT))
    assert "1 of 2, 50 % (9–91)" in text
    assert "not measured: not installed" in text


def test_a_report_is_lengthened_only_as_long_as_that_brings_it_nearer():
    def words(text: str) -> int:
        return len(text.split())

    assert lengthened("one two", 3, words) == "one two"
    longer = lengthened("one two", 30, words)
    assert longer.startswith("one two\n")
    assert abs(words(longer) - 30) < abs(words("one two") - 30)


def test_a_label_is_read_without_regard_to_case_and_nothing_else_is_an_answer():
    labels = {"yes": "Present", "no": "Absent"}
    assert value_of(" present ", labels) == "yes"
    assert value_of("perhaps", labels) is None
    assert value_of(None, labels) is None


@pytest.mark.model
def test_medorchestra_computes_hardly_more_than_the_unique_tokens(tmp_path):
    command = [sys.executable, str(SPEED / "peers.py"), "--reports", "1", "--repeats", "1", "--lengths", "150"]
    done = subprocess.run(
        [*command, "--rows", "a", "e", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads((tmp_path / "peers.json").read_text())["rows"]}
    assert rows["e"]["tokens_to_unique"] == 1.0
    assert 1.0 <= rows["a"]["tokens_to_unique"] <= 1.1
    assert "not measured" not in (tmp_path / "peers.md").read_text()
