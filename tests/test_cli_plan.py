"""`medorchestra plan`: its commands, exit codes and messages, with a hosted model on the loopback interface."""

from __future__ import annotations

import shutil
import sys

import pytest
from cloud.loopback import completion, failing, serving
from cloud.toy.nodule import GUIDELINE_FILE, ToyCloud, toy_engine, toy_reading
from typer.testing import CliRunner

import medorchestra as mo
from medorchestra import cli
from medorchestra.cloud.desk.client import read_wire_body
from medorchestra.errors import ModelError
from medorchestra.local.engine import llama_cpp
from medorchestra.rehearsal import PlanMaking, make_plan

KEY = "sk-planted-0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a plan that was made: plan.yaml, cases/, run.json."""
    out = tmp_path_factory.mktemp("made")
    settings = mo.PlannerSettings(cases=24, phrase_bank=False)
    engine, making = toy_engine(), PlanMaking(planner=settings)
    make_plan(GUIDELINE_FILE, cloud=ToyCloud().model(), out=out, local=engine, making=making)
    (out / "guideline.md").write_text(GUIDELINE_FILE.read_text("utf-8"), encoding="utf-8")
    return out


@pytest.fixture
def plan_file(folder, tmp_path):
    """A copy of the plan beside its guideline and cases, for commands that write."""
    shutil.copytree(folder, tmp_path / "made")
    return tmp_path / "made" / "plan.yaml"


@pytest.fixture
def local(monkeypatch):
    """Puts the toy's local model in the place of llama.cpp; notes what engines are asked for."""
    made = []

    def make(model, **options):
        made.append({"model": model, **options})
        return toy_engine()

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", make)
    return made


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a whole command, through the entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medorchestra", "plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    out, err = capsys.readouterr()
    assert KEY not in out + err
    return caught.value.code or 0, out, err


def refused(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return err


def answering(cloud):
    """A server that answers as the toy's hosted model does."""
    return lambda connection: completion(cloud.reply(read_wire_body(connection.body)))(connection)


def with_title(plan_file, title):
    other = plan_file.with_name("other.yaml")
    text = plan_file.read_text("utf-8").replace("title: A solitary nodule of the lung\n", f"title: {title}\n")
    other.write_text(text, encoding="utf-8")
    return other


# ------------------------------------------------------------------------------ making


def test_a_guideline_becomes_a_plan_over_the_wire(capsys, local, tmp_path):
    cloud, out = ToyCloud(), tmp_path / "out"
    with serving(answering(cloud)) as server:
        options = ["--cloud", "large-1", "--base-url", server.url, "--local", "small.gguf", "--out", out]
        few = ["--write-cases", "24", "--no-phrases", "--threads", "2", "--price", "1,10"]
        code, stdout, stderr = run(capsys, GUIDELINE_FILE, *options, *few)
    assert code == 0, stderr
    assert local == [{"model": "small.gguf", "adapter": None, "context_tokens": None, "gpu_layers": 0, "threads": 2}]
    plan = mo.read_plan(out / "plan.yaml")
    lines = stdout.splitlines()
    assert lines[0] == f"plan: {out / 'plan.yaml'} (4 findings, 6 rules, {plan.digest[:19]})"
    assert "holds" in lines[1]
    assert any(line.startswith("cases: 24 (development ") for line in lines)
    assert any(line.startswith("validated for toy (sha256:") for line in lines)
    # 100 and 10 tokens a reply, as the server counts; 1 and 10 dollars per million
    requests = len(server.bodies)
    spent = f"{requests} requests and 0 kept replies, {100 * requests:,} + {10 * requests:,} tokens"
    assert lines[-1] == f"cloud: large-1, {spent}, ${200 * requests / 1e6:.2f} at the list price of large-1"
    told = stderr.splitlines()
    assert told[0].startswith("decomposing the guideline (0 requests")
    assert any(line.startswith("4 findings, 6 rules; writing subtasks (1 requests") for line in told)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    for path in out.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_the_command_again_pays_for_nothing(capsys, local, tmp_path):
    cloud, out = ToyCloud(), tmp_path / "out"
    with serving(answering(cloud)) as server:
        call = [GUIDELINE_FILE, "--cloud", "large-1", "--base-url", server.url, "--local", "x", "--out", out]
        call += ["--write-cases", "24", "--no-phrases"]
        assert run(capsys, *call)[0] == 0
        asked = len(cloud.asked)
        code, stdout, _ = run(capsys, *call)
    assert (code, len(cloud.asked)) == (0, asked)
    assert f"0 requests and {asked} kept replies" in stdout


def test_make_may_be_written_out_and_options_may_come_first(capsys, tmp_path):
    with serving(answering(ToyCloud())) as server:
        common = ["--cloud", "m", "--base-url", server.url, "--write-cases", "24", "--no-phrases", "--quiet"]
        assert run(capsys, "make", GUIDELINE_FILE, *common, "--out", tmp_path / "a") == (0, "", "")
        assert run(capsys, *common, "--out", tmp_path / "b", GUIDELINE_FILE) == (0, "", "")
    assert (tmp_path / "a" / "plan.yaml").is_file()
    assert mo.read_plan(tmp_path / "a" / "plan.yaml") == mo.read_plan(tmp_path / "b" / "plan.yaml")


def test_a_guideline_that_is_named_like_a_command_is_made_by_its_path(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "check").write_text(GUIDELINE_FILE.read_text("utf-8"), encoding="utf-8")
    with serving(answering(ToyCloud())) as server:
        common = ["--cloud", "m", "--base-url", server.url, "--write-cases", "24", "--no-phrases", "-q"]
        assert run(capsys, "./check", *common, "--out", "out")[0] == 0


def test_a_proof_that_does_not_hold_leaves_a_draft_and_says_what_is_wrong(capsys, tmp_path):
    with serving(answering(ToyCloud())) as server:
        common = ["--cloud", "m", "--base-url", server.url, "--write-cases", "0", "--no-phrases", "-q"]
        err = refused(capsys, GUIDELINE_FILE, *common, "--out", tmp_path / "out")
    assert "the proof does not hold" in err
    assert "outcome no_nodule" in err
    assert (tmp_path / "out" / "plan.draft.yaml").is_file()
    assert not (tmp_path / "out" / "plan.yaml").exists()


def test_a_refused_key_is_one_message_without_the_key(capsys, tmp_path):
    with serving(failing(401, "invalid_api_key")) as server:
        err = refused(capsys, GUIDELINE_FILE, "--cloud", "m", "--base-url", server.url, "--out", tmp_path / "o", "-q")
    assert "decompose: " in err
    assert "the key in OPENAI_API_KEY was not accepted" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-cost", "2"], "--max-cost: no list price is known for this model"),
        (["--price", "cheap"], "--price: two numbers are needed"),
        (["--adapter", "a.gguf"], "--adapter: name the local model"),
        (["--base-url", "https://user:secret@host/v1"], "the base URL holds credentials"),
        (["--base-url", "https://api.example/v1"], "hosted models are switched off here"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_sent(capsys, tmp_path, arguments, says):
    err = refused(capsys, GUIDELINE_FILE, "--cloud", "large-1", "--out", tmp_path / "out", *arguments)
    assert says in err
    assert "secret" not in err
    assert not (tmp_path / "out").exists()


def test_without_a_key_the_variable_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(failing(500)) as server:
        err = refused(capsys, GUIDELINE_FILE, "--cloud", "m", "--base-url", server.url, "--out", tmp_path / "o")
        assert server.bodies == []
    assert "set the environment variable OPENAI_API_KEY" in err


def test_a_missing_guideline_is_named_and_a_budget_is_kept(capsys, tmp_path):
    err = refused(capsys, tmp_path / "missing.md", "--cloud", "m", "--out", tmp_path / "out")
    assert str(tmp_path / "missing.md") in err
    cloud = ToyCloud()
    with serving(answering(cloud)) as server:
        common = ["--cloud", "m", "--base-url", server.url, "--no-phrases", "-q", "--max-requests", "2"]
        err = refused(capsys, GUIDELINE_FILE, *common, "--out", tmp_path / "out")
    assert "the budget of 2 requests is used up" in err
    assert len(cloud.asked) == 2


def test_an_interruption_says_how_to_go_on(capsys, local, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("medorchestra.rehearsal.make_plan", interrupt)
    with serving(failing(500)) as server:
        code, out, err = run(capsys, GUIDELINE_FILE, "--cloud", "m", "--base-url", server.url, "--out", tmp_path)
    assert (code, out) == (130, "")
    assert err == "medorchestra: interrupted; run the same command again to go on\n"


# ------------------------------------------------------------------------------ proving


def test_check_says_that_a_plan_holds_with_what_lies_beside_it(capsys, folder):
    code, stdout, stderr = run(capsys, "check", folder / "plan.yaml")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("Proof of lung_nodule (sha256:")
    assert "cases 24" in stdout


def test_check_names_every_fault_and_ends_with_3(capsys, plan_file):
    text = plan_file.read_text("utf-8")
    faulty = plan_file.with_name("faulty.yaml")
    faulty.write_text(
        text.replace("at_least: 8.0", "at_least: 5.0").replace("goes to biopsy\n", "is resected\n"), "utf-8"
    )
    assert faulty.read_text("utf-8").count("at_least: 5.0") == text.count("at_least: 8.0") > 0
    code, stdout, _ = run(capsys, "check", faulty)
    assert code == 3
    assert "rule medium" in stdout
    assert "rule grown" in stdout


def test_check_proves_a_topic_that_comes_with_the_library(capsys):
    code, stdout, stderr = run(capsys, "check", "pancreatic_cancer")
    assert code in (0, 3)
    assert stdout.startswith("Proof of pancreatic_cancer")
    assert stderr == ""


def test_check_without_cases_says_so(capsys, plan_file, tmp_path):
    alone = tmp_path / "alone.yaml"
    alone.write_text(plan_file.read_text("utf-8"), encoding="utf-8")
    code, stdout, stderr = run(capsys, "check", alone, "--guideline", GUIDELINE_FILE)
    assert code == 0
    assert "no synthetic cases found; name their folder with --cases" in stderr
    assert "cases 24" not in stdout
    assert "no guideline.md beside the plan" in refused(capsys, "check", alone)


def test_a_plan_that_is_none_is_named(capsys, tmp_path):
    (tmp_path / "plan.yaml").write_text("topic: x\n", encoding="utf-8")
    assert "places to mend" in refused(capsys, "check", tmp_path / "plan.yaml")
    assert "one of the topics: pancreatic_cancer" in refused(capsys, "check", "pancreas")


# ------------------------------------------------------------------------------ rehearsing


def test_rehearse_shows_how_well_the_held_out_cases_are_read(capsys, local, folder):
    code, stdout, stderr = run(capsys, "rehearse", folder / "plan.yaml", "--model", "small.gguf")
    assert code == 0
    lines = stdout.splitlines()
    assert lines[0].startswith("model: toy (sha256:")
    assert lines[2].startswith("outcome: ")
    assert {line.split(":")[0] for line in lines[3:]} == {"nodule", "calcified", "growth", "size_mm"}
    assert "100 % (95 % interval" in lines[3]
    assert "calibration error 0.00, Brier 0.00" in stdout
    assert stderr.splitlines()[-1].endswith("about 0 s left")


def test_rehearse_tells_what_was_confused(capsys, monkeypatch, folder):
    def blind(asked):
        return "without calcification" if "calcified" in asked.question.split("\n")[0] else toy_reading(asked)

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", lambda model, **options: toy_engine(blind, "blind"))
    _, stdout, _ = run(capsys, "rehearse", folder / "plan.yaml", "--split", "development", "--quiet")
    assert "yes read as no" in next(line for line in stdout.splitlines() if line.startswith("calcified: "))


def test_rehearse_writes_the_record_with_which_the_plan_may_be_staged(capsys, local, plan_file, tmp_path):
    bare = mo.read_plan(plan_file).model_copy(update={"validation": ()})
    mo.write_plan(bare, plan_file)
    reports = tmp_path / "reports.csv"
    reports.write_text("report_id,text\n1,CT of the chest. A solitary nodule is seen. It measures 9 mm.\n", "utf-8")
    stage = ["stage", str(reports), "--plan", str(plan_file), "--out", str(tmp_path / "out"), "--quiet"]
    assert CliRunner().invoke(cli.app, stage).exit_code == 1
    code, stdout, _ = run(capsys, "rehearse", plan_file, "--model", "default", "--write", "--quiet")
    assert code == 0
    assert stdout.splitlines()[-1] == f"validation record written into {plan_file}"
    plan = mo.read_plan(plan_file)
    assert plan.digest == bare.digest
    assert len(plan.validation) == 1
    assert CliRunner().invoke(cli.app, stage).exit_code == 0


@pytest.mark.parametrize("options", [["--split", "development"], ["--limit", "3"], ["--split", "calibration"]])
def test_rehearse_writes_no_record_of_cases_that_are_not_all_the_held_out_ones(capsys, local, plan_file, options):
    before = plan_file.read_bytes()
    err = refused(capsys, "rehearse", plan_file, "--write", *options)
    assert "a validation record is of all held-out cases" in err
    assert plan_file.read_bytes() == before
    assert local == []


def test_rehearse_reads_a_few_cases_of_any_split_where_asked_to(capsys, local, folder, tmp_path):
    options = ["--split", "calibration", "--limit", "2", "--ledger", tmp_path / "ledger.sqlite", "-q"]
    code, stdout, _ = run(capsys, "rehearse", folder / "plan.yaml", *options)
    assert code == 0
    assert "cases: 2, for review" in stdout
    assert (tmp_path / "ledger.sqlite").is_file()


def test_rehearse_names_a_model_or_cases_that_are_not_there(capsys, monkeypatch, folder, tmp_path):
    def missing(model, **options):
        raise ModelError(f"{model}: no such file")

    (tmp_path / "cases").mkdir()
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", missing)
    assert "x.gguf: no such file" in refused(capsys, "rehearse", folder / "plan.yaml", "--model", "x.gguf")
    assert "none of these files is there" in refused(
        capsys, "rehearse", folder / "plan.yaml", "--cases", tmp_path / "cases"
    )


# ------------------------------------------------------------------------------ showing and comparing


def test_show_prints_rules_citations_and_validation(capsys, folder):
    code, stdout, _ = run(capsys, "show", folder / "plan.yaml")
    assert code == 0
    assert stdout.startswith("A solitary nodule of the lung\n")
    assert "medium" in stdout
    assert "A nodule of 6 mm or more, but below 8 mm, is followed up." in stdout
    assert "\x1b" not in stdout


def test_show_writes_one_page_that_stands_alone(capsys, folder, tmp_path):
    page = tmp_path / "plan.html"
    code, stdout, _ = run(capsys, "show", folder / "plan.yaml", "--html", page)
    assert (code, stdout) == (0, f"written: {page}\n")
    html = page.read_text("utf-8")
    assert html.lstrip().lower().startswith("<!doctype html>")
    assert "<script" not in html
    assert "A nodule below 6 mm needs no follow-up." in html


def test_show_says_how_many_cases_do_not_fit(capsys, folder, tmp_path):
    for path in (folder / "cases").glob("*.jsonl"):
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace('"follow_up"', '"biopsy"'), "utf-8")
    _, _, stderr = run(capsys, "show", folder / "plan.yaml", "--cases", tmp_path)
    assert "cases do not fit the plan; see `plan check`" in stderr


def test_diff_of_a_plan_with_itself_is_nothing_and_of_two_plans_is_1(capsys, plan_file):
    code, stdout, _ = run(capsys, "diff", plan_file, plan_file)
    assert code == 0
    assert "cases: 0 of 24 come out otherwise" in stdout
    code, stdout, _ = run(capsys, "diff", plan_file, with_title(plan_file, "A nodule"))
    assert code == 1
    assert "plan: title: 'A solitary nodule of the lung' -> 'A nodule'" in stdout


# ------------------------------------------------------------------------------ help and slips


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["plan", *arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_the_group_shows_its_commands_and_how_a_plan_is_made(flag):
    page = invoke(flag)
    assert page.exit_code == 0
    assert "medorchestra plan GUIDELINE" in page.output
    assert all(name in page.output for name in ("make", "check", "rehearse", "show", "diff"))


@pytest.mark.parametrize("command", ["make", "check", "rehearse", "show", "diff"])
def test_every_command_has_a_help_page_with_its_exit_codes(command):
    page = invoke(command, "--help")
    assert page.exit_code == 0
    assert f"medorchestra plan {command}" in page.output
    assert "Exit code 0:" in page.output


def test_help_behind_a_guideline_is_that_of_making():
    assert "--cloud" in invoke("guideline.md", "--help").output


def test_without_arguments_help_is_shown():
    assert "Usage:" in invoke().output


def test_a_slip_of_the_pen_is_not_taken_for_a_guideline():
    page = invoke("chek", "plan.yaml")
    assert page.exit_code == 2
    assert "No such command 'chek'" in page.output
