"""The prediction store: keys, exactly once, foreign and damaged files, full disks, several writers."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from medorchestra.errors import StorageError
from medorchestra.local import private_store
from medorchestra.local.evaluation.prediction_store import STORE_VERSION, PredictionKey, PredictionStore
from medorchestra.local.evaluation.predictions import Prediction
from medorchestra.local.ledger import Ledger

KEY = PredictionKey(
    text="sha256:text",
    strategy="direct",
    settings="sha256:settings",
    plan="sha256:plan",
    model="sha256:model",
    adapter="",
    engine="sha256:engine",
)
SAID = Prediction(
    "case-1", "resectable", probabilities={"resectable": 0.1 + 0.2, "metastatic": 0.7 - 1e-17}, seconds=2.5, tokens=90
)
FOUND = replace(SAID, seconds=0.0, tokens=0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "predictions.sqlite"


def rows(path, query="SELECT count(*) FROM prediction"):
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_a_prediction_is_found_again_to_the_last_bit_and_costs_nothing(path):
    with PredictionStore.open(path) as store:
        assert store.find(KEY, "case-1") is None
        store.add(KEY, SAID)
        assert store.find(KEY, "case-1") == FOUND
    with PredictionStore.open(path) as store:
        assert store.find(KEY, "case-1") == FOUND
        assert list(store.find(KEY, "case-1").probabilities) == ["resectable", "metastatic"]


def test_the_same_text_under_another_id_finds_it_under_that_id(path):
    with PredictionStore.open(path) as store:
        store.add(KEY, SAID)
        assert store.find(KEY, "case-2") == replace(FOUND, case_id="case-2")
    assert b"case-1" not in path.read_bytes()


@pytest.mark.parametrize("part", PredictionKey.__slots__)
def test_a_prediction_is_never_found_under_another_key(path, part):
    with PredictionStore.open(path) as store:
        store.add(KEY, SAID)
        assert store.find(replace(KEY, **{part: "sha256:other"}), "case-1") is None


def test_parts_of_a_key_cannot_be_taken_for_one_another():
    assert replace(KEY, text="a", strategy="bc").digest != replace(KEY, text="ab", strategy="c").digest
    assert replace(KEY, model="m", adapter="").digest != replace(KEY, model="", adapter="m").digest


def test_what_is_kept_stays_as_it_is(path):
    with PredictionStore.open(path) as store:
        store.add(KEY, SAID)
        store.add(KEY, replace(SAID, outcome="metastatic"))
        assert store.find(KEY, "case-1") == FOUND
    for change in ("UPDATE prediction SET content = ''", "DELETE FROM prediction"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            rows(path, change)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": None, "error": "ModelError at x.py:1"},
        {"probabilities": {}},
        {"is_open": True},
        {"staged": object()},
    ],
)
def test_what_would_not_come_back_whole_is_not_taken(path, changes):
    with PredictionStore.open(path) as store:
        with pytest.raises(ValueError, match=r"case-1.*can be kept"):
            store.add(KEY, replace(SAID, **changes))
        assert store.find(KEY, "case-1") is None


def test_a_new_store_and_its_journal_are_for_their_owner_only(tmp_path):
    path = tmp_path / "new" / "folder" / "predictions.sqlite"
    earlier = os.umask(0)
    try:
        with PredictionStore.open(path) as store:
            store.add(KEY, SAID)
            with store._transaction():
                store._connection.execute("INSERT INTO prediction VALUES ('a', 'b')")
                modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(earlier)
    assert modes == {"predictions.sqlite": 0o600, "predictions.sqlite-journal": 0o600}


def test_the_store_prints_as_its_path(path):
    with PredictionStore.open(path) as store:
        assert repr(store) == f"PredictionStore({str(path)!r})"


# ------------------------------------------------------------------ bad files


def test_a_store_of_another_version_is_refused_and_left_as_it_is(path):
    PredictionStore.open(path).close()
    rows(path, f"PRAGMA user_version = {STORE_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=rf"predictions\.sqlite: a prediction store of version {STORE_VERSION + 1};"):
        PredictionStore.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda path: rows(path, "CREATE TABLE patients (name TEXT)"),
        lambda path: path.write_text("report_id,text\n1,normal\n" * 50),
        lambda path: Ledger.open(path).close(),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(path, make):
    make(path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"predictions\.sqlite: this file is not a prediction store\. Give another"):
        PredictionStore.open(path)
    assert path.read_bytes() == before


def test_an_empty_file_as_a_killed_process_leaves_it_becomes_a_store(path):
    path.touch()
    with PredictionStore.open(path) as store:
        store.add(KEY, SAID)
        assert store.find(KEY, "case-1") == FOUND


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"outcome": "x", "probabilities": 1}', '{"outcome": "x", "probabilities": {"y": 1}}'],
)
def test_what_cannot_be_read_back_is_damage(path, content):
    with PredictionStore.open(path) as store:
        store._connection.execute("INSERT INTO prediction VALUES (?, ?)", (KEY.digest, content))
        with pytest.raises(StorageError, match="the prediction store is damaged"):
            store.find(KEY, "case-1")


def test_a_store_that_was_cut_off_is_named_as_damaged(path):
    with PredictionStore.open(path) as store:
        for number in range(300):
            store.add(replace(KEY, text=f"sha256:{number}"), SAID)
    os.truncate(path, path.stat().st_size // 2)

    def read_all():
        with PredictionStore.open(path) as store:
            for number in range(300):
                store.find(replace(KEY, text=f"sha256:{number}"), "case-1")

    with pytest.raises(StorageError, match="the prediction store is damaged"):
        read_all()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"out/predictions\.sqlite: the prediction store cannot be made: .* Give a"):
        PredictionStore.open(tmp_path / "out" / "predictions.sqlite")


# ---------------------------------------------------------- full disks, other processes


def fill(store):
    """Add predictions until it fails; returns how many were added, and the error's message."""
    for number in range(100_000):
        try:
            store.add(replace(KEY, text=f"sha256:{number}"), SAID)
        except StorageError as error:
            return number, str(error)
    raise AssertionError("the disk never became full")


def test_a_full_disk_leaves_the_store_readable_and_it_goes_on_when_there_is_room(path):
    with PredictionStore.open(path) as store:
        store._connection.execute("PRAGMA max_page_count = 8")
        added, message = fill(store)
        assert added > 5
        assert message.startswith(f"{path}: the disk is full. Make room, then run the same command again")
    with PredictionStore.open(path) as store:
        kept = [store.find(replace(KEY, text=f"sha256:{number}"), "case-1") for number in range(added + 1)]
        assert kept == [FOUND] * added + [None]
        store.add(replace(KEY, text=f"sha256:{added}"), SAID)
    assert rows(path) == [(added + 1,)]


def test_a_store_that_another_process_does_not_let_go_is_named(path, monkeypatch):
    monkeypatch.setattr(private_store, "BUSY_SECONDS", 0.05)
    with PredictionStore.open(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="other processes have held it"):
            store.add(KEY, SAID)
        other.execute("ROLLBACK")
        other.close()
        store.add(KEY, SAID)
        assert store.find(KEY, "case-1") == FOUND


KILLED = """
import os, signal, sys
from medorchestra.local.evaluation.prediction_store import PredictionStore
store = PredictionStore.open(sys.argv[1])
store._connection.execute("PRAGMA cache_size = 1")  # pages reach the file before the transaction ends
with store._transaction():
    for number in range(2000):
        store._connection.execute("INSERT INTO prediction VALUES (?, 'x')", (f"sha256:{number}",))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_transaction_cut_off_in_its_middle_is_undone_by_the_next_process(path):
    with PredictionStore.open(path) as store:
        store.add(KEY, SAID)
    size = path.stat().st_size
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=120)
    assert killed.returncode < 0
    assert path.stat().st_size > size, "otherwise this shows nothing"
    with PredictionStore.open(path) as store:
        assert store.find(KEY, "case-1") == FOUND
    assert rows(path) == [(1,)]
