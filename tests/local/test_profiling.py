"""The profile of a run: a file that speedscope opens, with names and seconds and nothing else."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from small_batch import PLAN, small_engine, small_reports

from medorchestra.errors import SettingsError, StorageError
from medorchestra.local import profiling
from medorchestra.local.batch import as_batch, stage_to_files
from medorchestra.local.profiling import PROFILE_FILE, profiled

CANARY = "Quillfeather"


def slow(report):
    """Some hundredths of a second in a function that has report text in its variables."""
    until = time.perf_counter() + 0.06
    while time.perf_counter() < until:
        "".join(sorted(report))


def slow_until(ended):
    slow(CANARY)
    raise ended


def read(folder):
    return json.loads((folder / PROFILE_FILE).read_text(encoding="utf-8"))


def seconds_of(profile, name):
    """Wall time of the stacks that a function is in."""
    numbers = {i for i, frame in enumerate(profile["shared"]["frames"]) if frame["name"] == name}
    (shown,) = profile["profiles"]
    pairs = zip(shown["samples"], shown["weights"], strict=True)
    return sum(weight for stack, weight in pairs if numbers & {*stack})


def test_the_profile_says_which_functions_took_the_time(tmp_path):
    started = time.perf_counter()
    with profiled(tmp_path):
        slow(CANARY)
    took = time.perf_counter() - started
    profile = read(tmp_path)
    (shown,) = profile["profiles"]
    assert profile["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert (shown["type"], shown["unit"], shown["startValue"]) == ("sampled", "seconds", 0)
    assert shown["endValue"] == pytest.approx(sum(shown["weights"]))
    assert all(0 <= number < len(profile["shared"]["frames"]) for stack in shown["samples"] for number in stack)
    assert 0.03 < seconds_of(profile, "slow") <= shown["endValue"] <= took


def test_a_run_in_a_profile_holds_no_report_text_no_id_and_no_folder_of_the_machine(tmp_path):
    folder = tmp_path / "patient-4711"
    reports = [type(one)(f"{CANARY}-{one.report_id}", f"{one.text} {CANARY}.") for one in small_reports(8)]
    engine = small_engine(lambda asked: slow(asked.report))
    with profiled(folder):
        stage_to_files(as_batch(reports), PLAN, folder, model=engine, adapter=None, unvalidated=True)
    text = (folder / PROFILE_FILE).read_text(encoding="utf-8")
    profile = read(folder)
    assert seconds_of(profile, "Stager.stage_one") > 0.3
    assert not any(frame["file"].startswith("/") for frame in profile["shared"]["frames"])
    assert any(frame["file"].endswith("medorchestra/local/staging.py") for frame in profile["shared"]["frames"])
    for word in (CANARY, "patient-4711", "hypoenhancing", str(Path.home()), sys.prefix):
        assert word.lower() not in text.lower()


def test_stacks_are_added_up_so_that_memory_does_not_grow_with_the_run(tmp_path):
    samples = profiling._Samples()
    stack = ["MainThread\x00<thread>\x00140", "stage\x00/a/b/batch.py\x007\x01cStager\x01l9"]
    for _ in range(1000):
        samples.add(stack, 0.005, None)
    content = samples.to_speedscope()
    assert content["profiles"][0]["samples"] == [(0, 1)]
    assert content["profiles"][0]["weights"] == [pytest.approx(5.0)]
    assert content["shared"]["frames"] == [
        {"name": "MainThread", "file": "<thread>", "line": 0},
        {"name": "Stager.stage", "file": "batch.py", "line": 7},
    ]


@pytest.mark.parametrize("ended", [KeyboardInterrupt, StorageError])
def test_what_there_is_is_written_when_the_run_is_interrupted_or_fails(tmp_path, ended):
    told = []
    with pytest.raises(ended), profiled(tmp_path, notes=told.append):
        slow_until(ended)
    assert seconds_of(read(tmp_path), "slow") > 0.03
    assert len(told) == 1
    assert str(tmp_path / PROFILE_FILE) in told[0]


def test_a_run_that_never_began_leaves_no_folder_behind(tmp_path):
    told = []
    with pytest.raises(StorageError), profiled(tmp_path / "out", notes=told.append):
        raise StorageError("no")
    assert not (tmp_path / "out").exists()
    assert told == []


def test_nothing_is_sampled_after_the_block(tmp_path):
    with profiled(tmp_path):
        pass
    assert sys.getprofile() is None


def test_a_profile_that_cannot_be_written_is_told_but_hides_no_other_error(tmp_path):
    (tmp_path / PROFILE_FILE).mkdir()
    with pytest.raises(StorageError, match="the profile cannot be written"), profiled(tmp_path):
        slow(CANARY)
    with pytest.raises(ValueError, match="first"), profiled(tmp_path):
        raise ValueError("first")
    assert [path.name for path in tmp_path.iterdir()] == [PROFILE_FILE]


def test_without_pyinstrument_the_block_never_begins_and_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyinstrument.stack_sampler", None)
    begun = []
    with pytest.raises(SettingsError, match=r"pip install 'medorchestra\[profile\]'"), profiled(tmp_path):
        begun.append(True)
    assert begun == []
