"""One ledger for many workers: what one has kept, all find, whoever was killed and whenever the files are gathered."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medorchestra.errors import StorageError
from medorchestra.local import ledger as ledger_module
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.ledger import Ledger, RunKey
from medorchestra.local.shared_ledger import SharedLedger, gather, worker_files, workers_folder

KEY = RunKey(plan="sha256:plan", model="sha256:model", adapter="", settings="sha256:settings")
OTHER_KEY = RunKey(plan="sha256:plan", model="sha256:another", adapter="", settings="sha256:settings")
FREE = Answer("sma_contact", "sma_contact", AnswerStatus.OK, "none", {"none": 0.9, ">180": 0.1})
ENCASED = Answer("sma_contact", "sma_contact", AnswerStatus.OK, ">180", {"none": 0.1, ">180": 0.9})
NO_METS = Answer("liver_mets", "liver_mets", AnswerStatus.NOT_STATED, None, {"yes": 0.2, "not_stated": 0.8})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def answers_in(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM answer").fetchone()[0]
    finally:
        connection.close()


def test_what_a_worker_keeps_another_that_was_open_already_finds(path):
    with SharedLedger.open(path) as first, SharedLedger.open(path) as second:
        assert second.find("sha256:a", KEY) == {}
        first.add("sha256:a", KEY, {"sha256:sma": FREE})
        assert second.find("sha256:a", KEY) == {"sha256:sma": FREE}
        assert second.find("sha256:a", OTHER_KEY) == {}
        second.add("sha256:b", KEY, {"sha256:sma": ENCASED})
        first.add("sha256:c", KEY, {"sha256:sma": FREE})
        assert first.find("sha256:b", KEY) == {"sha256:sma": ENCASED}
        assert second.find("sha256:c", KEY) == {"sha256:sma": FREE}
    assert len(worker_files(path)) == 2


def test_answers_to_one_report_are_put_together_from_all_files(path):
    """An answer that failed in one run is asked in the next, and then lies in another file than the rest."""
    with Ledger.open(path) as ledger:
        ledger.add("sha256:a", KEY, {"sha256:sma": FREE})
    with SharedLedger.open(path) as worker:
        worker.add("sha256:a", KEY, {"sha256:liver": NO_METS})
        assert worker.find("sha256:a", KEY) == {"sha256:sma": FREE, "sha256:liver": NO_METS}


def test_what_the_ledger_has_stands_before_what_a_worker_has(path):
    with Ledger.open(path) as ledger:
        ledger.add("sha256:a", KEY, {"sha256:sma": FREE})
    with SharedLedger.open(path) as worker:
        worker.add("sha256:a", KEY, {"sha256:sma": ENCASED})
        assert worker.find("sha256:a", KEY) == {"sha256:sma": FREE}
    gather(path)
    with Ledger.open(path) as ledger:
        assert ledger.find("sha256:a", KEY) == {"sha256:sma": FREE}


def test_gathered_answers_are_in_the_ledger_once_and_the_files_are_gone(path):
    with SharedLedger.open(path) as first, SharedLedger.open(path) as second:
        first.add("sha256:a", KEY, {"sha256:sma": FREE, "sha256:liver": NO_METS})
        first.add("sha256:b", OTHER_KEY, {"sha256:sma": FREE})
        second.add("sha256:a", KEY, {"sha256:sma": FREE})
    assert gather(path) == 2
    assert (worker_files(path), answers_in(path)) == ([], 3)
    assert gather(path) == 0
    with Ledger.open(path) as ledger:
        assert ledger.find("sha256:a", KEY) == {"sha256:sma": FREE, "sha256:liver": NO_METS}
        assert ledger.find("sha256:b", OTHER_KEY) == {"sha256:sma": FREE}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from(["x", "y"])), max_size=12),
    st.integers(1, 6),
)
def test_whoever_keeps_what_in_whatever_order_nothing_is_lost_by_gathering(tmp_path, kept, at_once):
    path = tmp_path / str(len(list(tmp_path.iterdir()))) / "ledger.sqlite"
    workers = [SharedLedger.open(path) for _ in range(3)]
    for worker, report, subtask in kept:
        workers[worker].add(f"sha256:{report}", KEY, {f"sha256:{subtask}": FREE})
    before = {report: workers[0].find(f"sha256:{report}", KEY) for report in range(6)}
    for worker in workers:
        worker.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "AT_ONCE", at_once)
        gather(path)
    with Ledger.open(path) as ledger:
        assert {report: ledger.find(f"sha256:{report}", KEY) for report in range(6)} == before
    assert answers_in(path) == len({(report, subtask) for _, report, subtask in kept})


def test_a_worker_that_was_killed_in_a_transaction_leaves_what_it_had_finished(path):
    program = f"""
import os, signal
from medorchestra.local.shared_ledger import SharedLedger
from test_shared_ledger import FREE, KEY
worker = SharedLedger.open({str(path)!r})
worker.add("sha256:a", KEY, {{"sha256:sma": FREE}})
own = worker._own._connection
own.execute("PRAGMA cache_size = 1")  # so that pages are written before the end of the transaction
own.execute("BEGIN IMMEDIATE")
for number in range(2000):
    own.execute("INSERT INTO report (digest) VALUES (?)", (f"sha256:{{number}}",))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=False)
    assert ran.returncode == -9
    assert list(workers_folder(path).glob("*-journal"))
    with SharedLedger.open(path) as worker:
        assert worker.find("sha256:a", KEY) == {"sha256:sma": FREE}
        assert worker.find("sha256:7", KEY) == {}
    assert gather(path) == 1
    with Ledger.open(path) as ledger:
        assert ledger.find("sha256:a", KEY) == {"sha256:sma": FREE}


def test_a_machine_that_sees_another_folder_under_the_path_is_refused(path):
    with pytest.raises(StorageError, match=r"not there on this machine.*machines of the cluster share"):
        SharedLedger.open(path, existing=True)
    assert not path.exists()


def test_a_foreign_file_among_the_workers_is_named_and_left_and_nothing_of_it_taken(path):
    with SharedLedger.open(path) as worker:
        worker.add("sha256:a", KEY, {"sha256:sma": FREE})
    stray = workers_folder(path) / "0.sqlite"
    stray.write_text("no database")
    with pytest.raises(StorageError, match=r"0\.sqlite: this file is not a ledger"):
        gather(path)
    assert (stray.read_text(), len(worker_files(path))) == ("no database", 2)
