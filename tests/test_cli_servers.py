"""Model servers for `evaluate`, `requalify`, `calibrate` and `plan rehearse`, named as `stage` takes them.

Real HTTP on the loopback interface, read by a script.
"""

from __future__ import annotations

import csv
import json
import sys

import pytest
from local.evaluation.small_study import CANARY, CONTACTS, GUIDELINE, QUOTED, Readers, study_rows, write_rows
from local.served_batch import CHOOSES, SCORES, serving_reader, shown_to
from local.small_batch import PLAN, small_reports

from medorchestra import cli
from medorchestra.local.engine import llama_cpp
from medorchestra.local.evaluation import evaluation_files
from medorchestra.plan_files import read_plan, write_plan
from medorchestra.synthetic import labelled, write_cases

NOBODY = "http://127.0.0.1:9"
SPREAD = ("no", "yes")


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.delenv("MEDORCHESTRA_SERVERS", raising=False)


@pytest.fixture(autouse=True)
def readers(monkeypatch):
    """Scripted models in the place of llama.cpp; a page without pictures."""
    readers = Readers()
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", readers.open)
    monkeypatch.setattr(evaluation_files, "evaluation_page", lambda made, *, texts=None: f"{made.title} {texts}")
    return readers


@pytest.fixture
def folder(tmp_path):
    """plan.yaml, its guideline and held-out cases, cases.csv with 30 labelled reports, labels.csv apart."""
    write_plan(PLAN, tmp_path / "plan.yaml")
    (tmp_path / "guideline.md").write_text(GUIDELINE, "utf-8")
    rows = study_rows(30)
    write_rows(tmp_path / "cases.csv", rows)
    write_rows(tmp_path / "reports.csv", [{"report_id": row["report_id"], "text": row["text"]} for row in rows])
    names = ("sma_contact", "liver_mets", "size_cm")
    write_rows(
        tmp_path / "labels.csv", [{"id": row["report_id"], **{name: row[name] for name in names}} for row in rows]
    )
    write_cases([held_out(number, report) for number, report in enumerate(small_reports(6))], tmp_path / "cases")
    return tmp_path


def held_out(number, report):
    findings = {
        "sma_contact": CONTACTS[number % 6],
        "liver_mets": SPREAD[number % 2],
        "size_cm": 2 + number % 10 / 10,
    }
    told = {"split": "held_out", "form": "free_text", "style": "short", "text": report.text}
    return labelled(PLAN, findings, id=report.report_id, **told)


def run(capfd, *command):
    """Exit code, stdout and stderr. Nothing that a report says may be in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medorchestra", *map(str, command)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    out, err = capfd.readouterr()
    assert CANARY not in out + err
    assert QUOTED not in out + err
    assert "internal error" not in err
    return caught.value.code or 0, out, " ".join(err.split())


def command(folder, name, url):
    """A whole command with a server for its model."""
    plan, out = folder / "plan.yaml", folder / "out"
    return {
        "evaluate": ["evaluate", folder / "cases.csv", "--plan", plan, "--out", out, "--model", url],
        "requalify": [
            *("requalify", plan, "--model", url, "--against", "old.gguf", "--out", out),
            *("--cases", folder / "cases.csv"),
        ],
        "the model in use": [
            *("requalify", plan, "--model", "new.gguf", "--against", url, "--out", out),
            *("--cases", folder / "cases.csv"),
        ],
        "calibrate": [
            *("calibrate", plan, folder / "reports.csv", "--labels", folder / "labels.csv"),
            *("--out", folder / "calibrated.yaml", "--model", url),
        ],
        "rehearse": ["plan", "rehearse", plan, "--model", url],
    }[name]


COMMANDS = ("evaluate", "requalify", "the model in use", "calibrate", "rehearse")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_asks_a_model_takes_a_server_and_looks_for_no_adapter(capfd, folder, readers, name):
    with serving_reader() as server:
        code, out, err = run(capfd, *command(folder, name, f"{server.url}#reader-1"))
    assert code in (0, 3), err
    assert out
    # The other model of a requalification is a file, and the only one that is opened as one.
    assert [model for model, _ in readers.opened] == {"requalify": ["old.gguf"], "the model in use": ["new.gguf"]}.get(
        name, []
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_an_adapter_for_a_server_is_refused_before_it_is_asked(capfd, folder, readers, name):
    option = "--against-adapter" if name == "the model in use" else "--adapter"
    code, out, err = run(capfd, *command(folder, name, NOBODY), option, "tuned.gguf")
    assert (code, out) == (2, "")
    assert "adapter tuned.gguf: a model server reads with the adapter that it was started with; load it there" in err
    assert readers.opened == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_server_elsewhere_is_asked_only_if_it_is_allowed(capfd, folder, readers, name):
    code, out, err = run(capfd, *command(folder, name, "http://192.0.2.1:8080"))
    assert (code, out) == (2, "")
    assert "nothing was sent to it" in err
    assert "--allow-server 192.0.2.1:8080" in err
    code, _, err = run(capfd, *command(folder, name, "http://192.0.2.1:8080"), "--allow-server", "192.0.2.1")
    assert code == 2
    assert "allowed server: `192.0.2.1` is not HOST:PORT" in err
    assert readers.opened == []


def test_a_server_that_is_not_there_is_named_before_the_other_model_reads(capfd, folder, readers):
    code, out, err = run(capfd, *command(folder, "requalify", NOBODY))
    assert (code, out) == (2, "")
    assert "127.0.0.1:9" in err
    assert readers.opened == []


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "calibrate"])
def test_what_a_server_lacks_is_said_before_it_reads(capfd, folder, name):
    with serving_reader(CHOOSES) as server:
        code, _, err = run(capfd, *command(folder, name, server.url), "--quiet")
    assert code in (0, 3), err
    assert "medorchestra: model server" in err
    assert "without probabilities every decision goes to a person" in err


# ------------------------------------------------------------------------------ evaluate


def test_a_server_is_measured_as_it_is_in_one_run(capfd, folder):
    with serving_reader() as server:
        code, out, _ = run(capfd, *command(folder, "evaluate", server.url), "--skip-bare", "--strategies", "direct")
        assert (code, out.splitlines()[1].split(",")[0]) == (0, "direct: right 20 of 25")
        code, out, _ = run(capfd, *command(folder, "evaluate", server.url), "--min-accuracy", "1", "--max-review", "1")
    assert code == 0
    assert "orchestrated: right 25 of 25" in out
    assert "gate passed: accuracy of orchestrated: 1.0000" in out
    (model,) = json.loads((folder / "out" / "evaluation.json").read_text("utf-8"))["about"]["models"]
    assert (model["model"], model["adapter"], model["settings"]["server"]) == ("reader-1", None, "vllm")


def test_gates_on_what_nobody_looks_at_are_missed_where_all_goes_to_a_person(capfd, folder):
    with serving_reader(CHOOSES) as server:
        code, out, _ = run(capfd, *command(folder, "evaluate", server.url), "--min-unreviewed", "0.1")
    assert code == 3
    assert "gate missed: unreviewed of orchestrated: not defined over 0 cases" in out


def test_votes_that_would_be_one_vote_are_refused(capfd, folder):
    with serving_reader(free_text=lambda body: "always this") as server:
        code, out, err = run(capfd, *command(folder, "evaluate", server.url), "--strategies", "all")
    assert (code, out) == (2, "")
    assert "it wrote the same for 3 seeds at temperature 1.5" in err
    assert "always this" not in err


# ------------------------------------------------------------------------------ requalify


def between(folder, old, new, *options):
    command = ["requalify", folder / "plan.yaml", "--against", old, "--model", new, "--out", folder / "out"]
    return [*command, "--cases", folder / "cases.csv", "--margin", "0.2", *options]


def test_two_servers_are_compared_and_the_one_that_reads_worse_is_not_accepted(capfd, folder):
    with (
        serving_reader(models=("old",)) as old,
        serving_reader(models=("new",), sees=lambda prompt: False) as new,
    ):
        code, out, _ = run(capfd, *between(folder, old.url, new.url))
        assert code == 3
        assert "in use: right 25 of 25" in out
        assert "new: right 20 of 25" in out
        assert all("Hypoenhancing" in shown_to(server) for server in (old, new))
        code, out, _ = run(capfd, *between(folder, new.url, old.url))
    assert (code, out.splitlines()[0]) == (0, "cases.csv: accept")


def test_two_servers_that_tell_the_same_of_their_models_are_refused_before_they_read(capfd, folder):
    with serving_reader() as old, serving_reader(sees=lambda prompt: False) as new:
        code, out, err = run(capfd, *between(folder, old.url, new.url))
        assert "Hypoenhancing" not in shown_to(old) + shown_to(new)
    assert (code, out) == (2, "")
    assert "both servers tell the same of their models (reader-1, sha256:" in err
    assert not (folder / "out").exists()


# ------------------------------------------------------------------------------ calibrate


def test_a_server_is_calibrated_under_what_it_tells_of_its_model(capfd, folder):
    with serving_reader(SCORES) as server:
        code, out, err = run(capfd, *command(folder, "calibrate", server.url))
    assert code == 0, err
    assert "calibrated on 30 labelled reports (local)" in out
    (calibration,) = read_plan(folder / "calibrated.yaml").calibrations
    assert calibration.adapter_digest is None
    assert calibration.labels == "local"


def test_without_probabilities_a_server_cannot_be_calibrated_and_is_not_asked_to_read(capfd, folder):
    with serving_reader(CHOOSES) as server:
        code, out, err = run(capfd, *command(folder, "calibrate", server.url))
        assert "Hypoenhancing" not in shown_to(server)
    assert (code, out) == (2, "")
    assert "reader-1: its server gives no probabilities that can be relied on, so there is nothing to calibrate" in err
    assert not (folder / "calibrated.yaml").exists()


# ------------------------------------------------------------------------------ rehearse


def test_a_plan_that_was_rehearsed_with_a_server_may_be_staged_with_it_and_with_no_other(capfd, folder):
    stage = ["stage", folder / "reports.csv", "--plan", folder / "plan.yaml", "--out", folder / "staged", "--model"]
    with serving_reader() as server:
        code, _, err = run(capfd, *stage, server.url)
        assert code == 2
        assert "has no validation record for model reader-1" in err
        code, out, _ = run(capfd, *command(folder, "rehearse", server.url), "--write")
        assert code == 0
        assert out.startswith("model: reader-1 (sha256:")
        assert "outcome: 5 of 5" in out
        code, _, err = run(capfd, *stage, server.url)
        assert code == 0, err
    with serving_reader(models=("another",)) as other:
        assert run(capfd, *stage, other.url)[0] == 2
    with (folder / "staged" / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 30


def test_what_is_settled_where_a_server_is_started_is_refused(capfd, folder):
    options = ["--threads", "2", "--gpu-layers", "-1"]
    code, out, err = run(capfd, *command(folder, "rehearse", NOBODY), *options)
    assert (code, out) == (2, "")
    assert "--gpu-layers, --threads: a matter of the model server" in err
    with serving_reader() as server:
        code, _, err = run(capfd, *command(folder, "rehearse", server.url), "--context", "200000")
    assert code == 2
    assert "context_tokens=200000" in err
