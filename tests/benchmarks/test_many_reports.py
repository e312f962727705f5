"""`benchmarks/speed/many_reports.py`: what it measures on few reports, and what it makes of the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import many_reports
import many_reports_costs as costs_module
import many_reports_table as tables
import pytest

import medorchestra as mo
from medorchestra.local.ledger import Ledger

PLAN = mo.read_plan("pancreatic_cancer")


def costs(**given: Any) -> Any:
    """Costs of a report without a model of its own."""
    fields: dict[str, Any] = {"model_seconds": (2.0,), "worker_seconds": 0.0, "writing_seconds": 0.0}
    fields |= {"gather_seconds": 0.0, "resume_seconds": 0.001, "ledger_bytes": 10_000.0, "result_bytes": 5_000.0}
    return costs_module.Costs(**(fields | {"measured_on": 100} | given))


def told() -> dict[str, Any]:
    """Two runs, look-ups and a model, as the script keeps them."""
    runs = {}
    for count in (1_000, 10_000):
        seconds = {"workers": count * 0.01, "reader": count * 0.002, "writing": count * 0.001, "all": count * 0.012}
        curve = [(done, 200.0) for done in range(0, count + 1, count // 20)]
        run = {"seconds": seconds, "asked": 0, "memory_mb": curve}
        sizes = {"ledger_bytes": count * 10_000, "result_bytes": {"results.csv": count * 5_000}}
        runs[str(count)] = {"reports": count, "workers": 2, "subtasks": 24, "first_run": run, "resume": run, **sizes}
        runs[str(count)] |= {"gather": {"files": 2, "seconds": 1.0}, "memory_late_by_early": 1.0}
    look_ups = {
        rows: {"reports": 1, "there": [there, there + 2], "not_there": [10.0, 10.0]}
        for rows, there in (("1000", 200.0), ("100000", 210.0))
    }
    model = {"threads": 1, "seconds": [2.0, 4.0], "tokens": [400, 600], "model": "a model"}
    return {
        "commands": ["many_reports.py"],
        "about": {"measured": "2026-11-25T12:00", "processor": "p", "cores": "2", "python": "3"},
        "runs": runs,
        "look_ups": look_ups,
        "model": model,
    }


def test_a_run_over_few_reports_is_resumed_without_a_question_and_its_memory_is_read_on_the_way() -> None:
    found = many_reports.measure(40, 2, 10)

    assert found["first_run"]["asked"] >= 40 * 20
    assert found["first_run"]["answers_from_ledger"] == 0
    assert found["resume"]["asked"] == 0
    assert found["resume"]["answers_from_ledger"] == 40 * len(PLAN.subtasks)
    assert [done for done, _ in found["first_run"]["memory_mb"]] == [0, 16, 32, 40]
    seconds = found["first_run"]["seconds"]
    assert 0 < seconds["reader"] < seconds["workers"] < seconds["all"]
    assert found["gather"]["files"] == 2
    assert found["ledger_bytes"] > 0
    assert all(found["result_bytes"].values())


def test_memory_that_doubles_is_seen_and_one_that_was_read_too_seldom_gives_no_ratio() -> None:
    growing = [(done, 100.0 if done <= 50 else 200.0) for done in range(0, 101, 5)]

    assert many_reports.late_by_early(growing, 100) == 2.0
    assert many_reports.late_by_early([(0, 100.0), (50, 100.0), (100, 100.0)], 100) is None


def test_a_filled_ledger_has_all_answers_to_its_reports_and_none_to_others(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        key = many_reports.fill(ledger, PLAN, 3)

        assert len(ledger.find(many_reports.digest_of("R", 2), key)) == len(PLAN.subtasks)
        assert ledger.find(many_reports.digest_of("R", 3), key) == {}
        assert ledger.find(many_reports.digest_of("absent", 2), key) == {}


def test_look_ups_are_timed_in_every_ledger_and_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_reports, "LOOK_UPS", 3)

    found = many_reports.look_ups([24, 48])

    assert {rows: one["reports"] for rows, one in found.items()} == {"24": 1, "48": 2}
    assert all(len(one["there"]) == len(one["not_there"]) == many_reports.ROUNDS for one in found.values())


def test_one_worker_takes_the_sum_of_all_and_two_take_half() -> None:
    one = costs_module.simulate(costs(worker_seconds=0.5), 3_200, 1)
    two = costs_module.simulate(costs(worker_seconds=0.5), 3_200, 2)

    assert one.hours == pytest.approx(3_200 * 2.5 / 3600)
    assert two.hours == pytest.approx(one.hours / 2)
    assert one.workers_busy == pytest.approx(1.0)
    assert one.model_share == pytest.approx(0.8)


def test_a_slow_writer_keeps_many_workers_waiting() -> None:
    slow = costs(writing_seconds=1.0)

    found = costs_module.simulate(slow, 1_600, 64)

    assert slow.most_workers == pytest.approx(2.0)
    assert found.hours >= 1_600 / 3600
    assert found.workers_busy < 0.05
    assert found.writer_busy > 0.9


def test_gathering_comes_behind_the_run_and_the_last_batch_may_be_small() -> None:
    found = costs_module.simulate(costs(gather_seconds=0.5), 17, 8)

    assert found.hours == pytest.approx((16 * 2.0 + 17 * 0.5) / 3600)


def test_costs_are_those_of_the_largest_run_and_the_scripted_reader_is_not_among_them() -> None:
    found = costs_module.costs_of(told())

    assert found.measured_on == 10_000
    assert found.worker_seconds == pytest.approx(0.008)
    assert found.gather_seconds == pytest.approx(0.0001)
    assert found.model_mean == 3.0
    million = costs_module.extrapolated(found, 1_000_000)
    assert million["ledger_gb"] == pytest.approx(10.0)
    assert million["results_gb"] == pytest.approx(5.0)
    assert [one["workers"] for one in million["simulated"]] == [1, 8, 64]


def test_what_grows_with_the_logarithm_lies_on_a_line() -> None:
    start, slope = costs_module.growth([1_000, 100_000], [30.0, 50.0])

    assert (start, slope) == (pytest.approx(0.0), pytest.approx(10.0))


def test_tables_say_which_goals_were_missed() -> None:
    found = told()
    found["runs"]["10000"]["memory_late_by_early"] = 1.3
    found["look_ups"]["100000"]["there"] = [20_000.0]
    found["million"] = costs_module.extrapolated(costs_module.costs_of(found), 1_000_000)

    text = "\n".join(tables.table_lines(found))

    assert "1,000 reports: memory at most 1.1 times: 1.000, reached" in text
    assert "10,000 reports: memory at most 1.1 times: 1.300, missed" in text
    assert (
        "10,000 reports: resume within a minute: 120.0 s, missed (looking up what is finished takes about 200.0 s"
        in text
    )
    assert "the logarithm allows 1.67: missed" in text
    assert "not there: +0.0" in text
    assert "| 64 | " in text


def test_the_memory_curve_is_drawn_alike_twice(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        tables.draw(told()["runs"], tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_what_was_measured_is_kept_for_the_next_start_and_left_aside_under_another_plan(tmp_path: Path) -> None:
    kept = many_reports.Kept(tmp_path, PLAN)
    kept.told |= {name: part for name, part in told().items() if name != "about"}
    kept.keep()

    again = many_reports.Kept(tmp_path, PLAN)
    assert list(again.told["runs"]) == ["1000", "10000"]
    assert again.told["million"]["reports"] == 1_000_000
    assert {"many_reports.json", "many_reports.md", "memory.svg"} == {file.name for file in tmp_path.iterdir()}
    kept.path.write_text(json.dumps(again.told | {"plan": "sha256:another"}), encoding="utf-8")
    assert many_reports.Kept(tmp_path, PLAN).told["runs"] == {}
