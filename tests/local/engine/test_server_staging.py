"""Whole runs with a model server: by the Python call and the command line, with and without probabilities."""

from __future__ import annotations

import sys

import pytest
from local.engine.model_server import model_server

import medorchestra as mo
from medorchestra import cli
from medorchestra.errors import SettingsError
from medorchestra.local.aggregator import decide
from medorchestra.local.answers import AnswerStatus
from medorchestra.local.engine.protocol import Scored

CANARY = "Quillfeather"
TEXT = f"CT pancreas. A 31 mm mass of the pancreatic head, {CANARY}. SMA, coeliac axis, CHA, SMV and portal vein free."
PLAN = mo.read_plan("pancreatic_cancer")
VLLM = {"style": "vllm", "honours": ("structured_outputs",), "likeliest": 20, "context": 100_000}
OLLAMA = {"style": "ollama", "honours": ("response_format",)}


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.delenv("MEDORCHESTRA_SERVERS", raising=False)


def label_answers():
    """The toy model likes every label of the plan a little, and `no` most; and what the probe and the report offer."""
    labels = {label for subtask in PLAN.subtasks for label in subtask.labels.values()} | {"yes", "31 mm"}
    return {label: (3.0 if label == "no" else 1.0) for label in labels}


def test_without_probabilities_no_certainty_is_invented_and_every_decision_goes_to_a_person():
    with model_server(**OLLAMA, answers=label_answers()) as server:
        staged = mo.stage([mo.Report("1", TEXT)], PLAN, model=server.url, unvalidated=True)[0]
    read = [answer for answer in staged.answers if answer.status in (AnswerStatus.OK, AnswerStatus.NOT_STATED)]
    assert read
    assert all(answer.probability is None for answer in read)
    assert staged.review
    assert any(reason.startswith("chosen without probabilities") for reason in staged.decision.review_reasons)
    assert staged.decision.probability < 0.999
    assert staged.decision.outcome_set is None


def test_values_alone_still_decide_and_the_outcome_that_follows_is_the_one_shown():
    cases = mo.read_cases("pancreatic_cancer", "held_out")[:1]
    scored = mo.stage([mo.Report("1", cases[0].text)], PLAN, model=mo.perfect_reader(PLAN, cases), unvalidated=True)[0]
    chosen = [
        type(answer)(answer.subtask, answer.finding, answer.status, answer.value, {}, answer.quotes)
        for answer in scored.answers
    ]
    decision = decide(PLAN, chosen)
    assert decision.outcome == decision.best_outcome == scored.decision.outcome == cases[0].outcome
    assert decision.review
    assert 0 < decision.probability < scored.decision.probability


def test_a_score_says_whether_it_is_one():
    assert Scored((0.6, 0.4), 3).scored
    assert "scored=False" in repr(Scored((1.0, 0.0), 3, scored=False))


def command(monkeypatch, capfd, *arguments):
    monkeypatch.setattr(sys, "argv", ["medorchestra", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capfd.readouterr()
    return ended.value.code, shown.out + shown.err


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_text(f'report_id,text\n1,"{TEXT}"\n', encoding="utf-8")
    return path


def test_the_command_stages_with_a_server_of_this_machine_and_says_what_it_lacks(monkeypatch, capfd, tmp_path, source):
    arguments = ["stage", source, "--out", tmp_path / "out", "--unvalidated", "--model"]
    with model_server(**OLLAMA, answers=label_answers()) as server:
        code, shown = command(monkeypatch, capfd, *arguments, server.url)
    assert code in (0, 1)
    assert "without probabilities every decision goes to a person" in shown
    assert CANARY not in shown
    assert "not its file" in (tmp_path / "out" / "run.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "http://192.0.2.1:8080"], "--allow-server 192.0.2.1:8080"),
        (["--model", "http://192.0.2.1:8080", "--allow-server", "192.0.2.1"], "is not HOST:PORT"),
        (
            ["--model", "http://127.0.0.1:9", "--threads", "2", "--gpu-layers", "-1"],
            "--gpu-layers, --threads: a matter of",
        ),
        (
            ["--model", "http://127.0.0.1:9", "--adapter", "a.gguf"],
            "adapter a.gguf: a model server reads with the adapter",
        ),
        (["--model", "http://user:word@127.0.0.1:9"], "cannot be read"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(monkeypatch, capfd, tmp_path, source, options, says):
    code, shown = command(monkeypatch, capfd, "stage", source, "--out", tmp_path / "out", "--unvalidated", *options)
    assert code == 2
    assert says in shown
    assert not (tmp_path / "out").exists()


def test_an_adapter_for_a_server_is_refused():
    with pytest.raises(SettingsError, match="a model server reads with the adapter that it was started with"):
        mo.stage([mo.Report("1", TEXT)], PLAN, model="http://127.0.0.1:9", adapter="a.gguf", unvalidated=True)


def test_a_server_that_scores_gives_every_value_its_probability():
    with model_server(**VLLM, answers=label_answers()) as server:
        staged = mo.stage([mo.Report("1", TEXT)], PLAN, model=server.url, unvalidated=True)[0]
    choices = [subtask.id for subtask in PLAN.subtasks if subtask.answer == "choice"]
    assert all(answer.probability for answer in staged.answers if answer.subtask in choices)
    assert not any("without probabilities" in reason for reason in staged.decision.review_reasons)
