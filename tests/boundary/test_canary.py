"""No report text where nobody asked for it: a word that stands in every sentence of a report is looked for afterwards.

Looked for on standard output and error, in logs, in exceptions with all that they chain, in reprs of every live object
of the package, in run.json, in file names, and in every file that has no business with quotes. Quotes may stand in
results.jsonl (the trace) and in ledger.sqlite, and with `--show` on the terminal.
"""

from __future__ import annotations

import gc
import logging
import sqlite3
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import medorchestra as mo
from medorchestra import cli
from medorchestra.errors import MedorchestraError, ModelError, SourceError, StorageError
from medorchestra.local import batch, staging
from medorchestra.local.engine import llama_cpp
from medorchestra.local.ledger import Ledger
from medorchestra.local.terminal import ProgressDisplay, decision_view, print_summary

CANARY = "Quillfeather"
NAME = "Zyxomma"
"""In a carried column: a patient's name, say. It may stand in the results, nowhere else."""

REPORT = (
    "CT pancreas with contrast, Quillfeather protocol. A 31 mm mass of the pancreatic head, Quillfeather. "
    "The SMA is in contact with the tumour for 90 degrees (Quillfeather). Coeliac axis and CHA free, Quillfeather. "
    "SMV and portal vein free, Quillfeather. Liver, peritoneum and lungs without metastases, Quillfeather."
)
PLAN = mo.read_plan("pancreatic_cancer")


def first_label(asked):
    """Answers every question somehow."""
    return asked.candidates[0]


def engine_of(reply):
    return mo.ScriptedEngine(reply)


class OpensNothing(mo.ScriptedEngine):
    """Fails where a report is read, with the report in the message."""

    @contextmanager
    def open(self, conversation):
        raise RuntimeError(conversation.report)
        yield


ENGINES = {
    "answers": lambda: engine_of(first_label),
    "raises": lambda: engine_of(lambda asked: ValueError(f"cannot read: {asked.report}")),
    "raises one of ours": lambda: engine_of(lambda asked: ModelError(asked.report)),
    "raises an error of the system": lambda: engine_of(lambda asked: OSError(5, asked.report, asked.report)),
    "answers what was not offered": lambda: engine_of(lambda asked: asked.report),
    "fails at every second question": lambda: engine_of(
        lambda asked: KeyError(asked.report) if len(asked.question) % 2 else asked.candidates[0]
    ),
    "cannot open a report": lambda: OpensNothing(first_label),
}


@pytest.fixture
def source(tmp_path):
    """Two reports, one of them empty, in a CSV file."""
    path = tmp_path / "reports.csv"
    path.write_text(f'report_id,patient,text\n1,{NAME},"{REPORT}"\n2,{NAME},\n', encoding="utf-8")
    return path


def clean(text, *words):
    """Whether none of the words (default: both) is in the text."""
    return all(word.casefold() not in str(text).casefold() for word in words or (CANARY, NAME))


def everything_said(error):
    """An exception as a traceback shows it, and what it and those it chains carry along."""
    said = "".join(traceback.format_exception(error))
    while error is not None:
        said += repr(error) + repr(error.args) + repr(vars(error)) + repr(getattr(error, "doc", ""))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return said


def live_reprs():
    """Class name -> reprs of all live objects of the package."""
    found = {}
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith("medorchestra.local"):
            found.setdefault(kind.__name__, []).append(repr(thing))
    return found


def files_with(folder, word):
    """Names of the files under a folder in whose content (for tables: whose rows) the word stands."""
    return {path.name for path in folder.rglob("*") if path.is_file() and word in content_of(path)}


def content_of(path):
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    return path.read_bytes().decode("utf-8", "replace")


def stage_to(out, source, engine):
    """A run as the command line does it, on a plain stream and on a terminal, shown in full."""
    reports = mo.read_reports(source)
    plain, terminal = Console(stderr=True), Console(stderr=True, force_terminal=True)
    with ProgressDisplay(2, console=plain) as lines, ProgressDisplay(2, console=terminal) as bar:

        def progress(staged):
            lines.advance(staged)
            bar.advance(staged)

        summary = mo.stage_to_files(reports, PLAN, out, model=engine, progress=progress, unvalidated=True)
    print_summary(summary, out)
    return summary


@pytest.mark.parametrize("behaviour", ENGINES)
def test_whatever_the_engine_does_nothing_is_shown_and_no_other_file_holds_it(
    tmp_path, source, capfd, caplog, behaviour
):
    out = tmp_path / "out"
    caplog.set_level(logging.DEBUG)
    summary = stage_to(out, source, ENGINES[behaviour]())
    shown = capfd.readouterr()
    assert "staged 2/2" in shown.err
    assert clean(shown.out)
    assert clean(shown.err)
    assert clean(caplog.text)
    assert clean(repr(summary))
    assert clean("\n".join(path.as_posix() for path in tmp_path.rglob("*")))
    assert files_with(out, NAME) == {"results.parquet", "results.csv", "results.jsonl"}
    quoted = {"results.jsonl", "ledger.sqlite"} if behaviour in ("answers", "fails at every second question") else set()
    assert files_with(out, CANARY) == quoted


def test_a_quote_is_shown_only_where_it_was_asked_for(tmp_path, source, capfd):
    staged = mo.stage(source, PLAN, model=ENGINES["answers"](), unvalidated=True)[0]
    assert clean(capfd.readouterr().out)
    Console(width=200).print(decision_view(staged))
    assert not clean(capfd.readouterr().out, CANARY)
    assert not clean(staged._repr_html_(), CANARY)


REPRS_SEEN = {
    "Conversation",
    "Excerpt",
    "Executor",
    "FocusedReading",
    "Inquiry",
    "Ledger",
    "Report",
    "ReportBatch",
    "ScriptedEngine",
    "ScriptedQuestion",
    "ScriptedSession",
    "Stager",
}
"""Alive while a question is asked."""

REPRS_KEPT = {"Answer", "Decision", "Quote", "Report", "Results", "StagedReport"}
"""Alive in what a batch returns."""


def test_no_live_object_of_the_package_prints_report_text(tmp_path, source):
    during = {}

    def reply(asked):
        if not during:
            during.update(live_reprs())
        return asked.candidates[0]

    results = mo.stage(source, PLAN, model=engine_of(reply), ledger=tmp_path / "ledger.sqlite", unvalidated=True)
    after = live_reprs()
    assert set(during) >= REPRS_SEEN
    assert set(after) >= REPRS_KEPT
    for reprs in (*during.values(), *after.values(), [repr(results.for_review()), str(results), f"{results[0]}"]):
        assert clean("\n".join(reprs))


def test_an_error_in_scope_or_rules_is_a_status_without_its_message(tmp_path, source, capfd, monkeypatch):
    def fails(text, scope):
        raise ValueError(text)

    monkeypatch.setattr(staging, "scope_problems", fails)
    out = tmp_path / "out"
    summary = stage_to(out, source, ENGINES["answers"]())
    assert summary.statuses["failed"] == 1
    assert clean("".join(capfd.readouterr()))
    assert "ValueError at test_canary.py" in content_of(out / "results.csv")
    assert clean(content_of(out / "results.csv"), CANARY)


# ------------------------------------------------------------------ storage


def test_a_full_disk_under_the_ledger_is_an_error_without_report_text(tmp_path, source, capfd, monkeypatch):
    prepare = Ledger._prepare

    def prepare_small(ledger):
        prepare(ledger)
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr(Ledger, "_prepare", prepare_small)
    with pytest.raises(StorageError, match="full") as caught:
        stage_to(tmp_path / "out", source, ENGINES["answers"]())
    assert clean(everything_said(caught.value))
    assert clean("".join(capfd.readouterr()))
    assert not files_with(tmp_path / "out", CANARY)


def test_a_damaged_ledger_is_an_error_without_report_text(tmp_path, source, capfd):
    out = tmp_path / "out"
    stage_to(out, source, ENGINES["answers"]())
    with sqlite3.connect(out / "ledger.sqlite") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE answer SET content = '{\"value\": ' || content")
    connection.close()
    capfd.readouterr()
    with pytest.raises(StorageError, match="damaged") as caught:
        stage_to(out, source, ENGINES["answers"]())
    assert clean(everything_said(caught.value))
    assert clean("".join(capfd.readouterr()))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("name", ["results.csv", "results.jsonl"])
def test_a_full_disk_under_the_results_is_an_error_without_report_text(tmp_path, source, capfd, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{name}.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        stage_to(out, source, ENGINES["answers"]())
    assert clean(everything_said(caught.value))
    assert clean("".join(capfd.readouterr()))
    assert clean("\n".join(path.as_posix() for path in out.rglob("*")))


# ------------------------------------------------------------------- sources

BAD_SOURCES = {
    "doubled ids": f'report_id,text\n1,"{REPORT}"\n1,"{REPORT}"\n',
    "no such column": f'number,words\n1,"{REPORT}"\n',
    "a row with too many cells": f'report_id,text\n1,"{REPORT}"\n2,"{REPORT}",{CANARY},{CANARY}\n',
    "a row with too few cells": f'report_id,patient,text\n1,{NAME},"{REPORT}"\n{CANARY}\n',
    "an open quotation mark": f'report_id,text\n1,"{REPORT}\n',
    "no id": f'report_id,text\n,"{REPORT}"\n',
    "two columns of one name": f'report_id,text,text\n1,"{REPORT}",{CANARY}\n',
    "another encoding": f'report_id,text\n1,"{REPORT} Größe"\n'.encode("latin-1"),
    "binary": f"report_id,text\n1,\0\1\2{REPORT}\xff\n".encode("latin-1"),
    "not JSON": f'{{"report_id": 1, "text": "{REPORT}"\n',
    "JSON, but no object": f'["{REPORT}"]\n',
    "JSON with a nested text": f'{{"report_id": "1", "text": {{"{NAME}": "{REPORT}"}}}}\n',
}


@pytest.mark.parametrize("what", BAD_SOURCES)
def test_a_bad_source_is_described_without_its_content(tmp_path, capfd, what):
    content = BAD_SOURCES[what]
    path = tmp_path / ("reports.jsonl" if "JSON" in what else "reports.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as caught:
        mo.read_reports(path)
    assert clean(everything_said(caught.value))
    assert clean("".join(capfd.readouterr()))


@pytest.mark.parametrize(
    "reports", [[{"id": "1", "text": [REPORT]}], [REPORT], {"1": REPORT.encode()}, [("1", REPORT)]]
)
def test_bad_reports_of_a_notebook_are_described_without_their_content(reports):
    with pytest.raises(MedorchestraError) as caught:
        mo.stage(reports, PLAN, model=ENGINES["answers"](), unvalidated=True)
    assert clean(everything_said(caught.value))


# -------------------------------------------------------------- command line


def run_command(monkeypatch, capfd, *arguments):
    """Exit code and all output of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["medorchestra", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capfd.readouterr()
    return ended.value.code, shown.out + shown.err


@pytest.fixture
def scripted_model(monkeypatch):
    """The command line gets a scripted engine where it asks for a model."""
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", lambda *_, **__: ENGINES["answers"]())


@pytest.mark.usefixtures("scripted_model")
def test_the_command_shows_counts_and_with_show_quotes(monkeypatch, capfd, tmp_path, source):
    code, shown = run_command(monkeypatch, capfd, "stage", source, "--unvalidated", "--out", tmp_path / "a")
    assert code == 1  # one report is empty
    assert clean(shown)
    code, shown = run_command(monkeypatch, capfd, "stage", source, "--unvalidated", "--out", tmp_path / "b", "--show")
    assert code == 1
    assert not clean(shown, CANARY)


@pytest.mark.usefixtures("scripted_model")
@pytest.mark.parametrize(
    "error",
    [RuntimeError(REPORT), KeyError(REPORT), UnicodeEncodeError("ascii", REPORT, 0, 1, REPORT), OSError(REPORT)],
)
def test_an_internal_error_withholds_its_message(monkeypatch, capfd, tmp_path, source, error):
    def fails(*_, **__):
        raise error from ValueError(REPORT)

    monkeypatch.setattr(batch, "stage_to_files", fails)
    code, shown = run_command(monkeypatch, capfd, "stage", source, "--unvalidated", "--out", tmp_path / "out")
    assert code == 2
    assert f"internal error: {type(error).__name__} at test_canary.py" in shown
    assert clean(shown)


@pytest.mark.usefixtures("scripted_model")
@pytest.mark.parametrize("what", BAD_SOURCES)
def test_the_command_describes_a_bad_source_without_its_content(monkeypatch, capfd, tmp_path, what):
    content = BAD_SOURCES[what]
    path = tmp_path / ("reports.jsonl" if "JSON" in what else "reports.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, shown = run_command(monkeypatch, capfd, "stage", path, "--unvalidated", "--out", tmp_path / "out")
    assert code == 2
    assert "reports." in shown
    assert clean(shown)
    assert not (tmp_path / "out").exists()
