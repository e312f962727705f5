"""The command line: options, exit codes, what goes to stdout and what to stderr, and that no report text does."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from medorchestra import __version__, cli
from medorchestra.errors import ModelError
from medorchestra.local.adapters import find_adapter
from medorchestra.local.answer_key import perfect_reader
from medorchestra.local.engine import llama_cpp
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.plan_files import read_plan
from medorchestra.synthetic import read_cases

PLAN = read_plan("pancreatic_cancer")
CASES = read_cases("pancreatic_cancer", "development")[:4]
CANARY = "ZEBRA-4711"


def write_csv(path, rows, header=("report_id", "site", "text")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def reports(tmp_path):
    """A CSV with four invented reports."""
    return write_csv(tmp_path / "reports.csv", [(case.id, "A", case.text) for case in CASES])


@pytest.fixture
def engines(monkeypatch):
    """Puts a perfect reader of the cases in the place of the real engine; notes what engines are asked for."""
    made = []

    def make(model, **options):
        made.append({"model": model, **options})
        return perfect_reader(PLAN, CASES)

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", make)
    return made


def scripted(monkeypatch, reply):
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", lambda model, **options: ScriptedEngine(reply))


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a whole command, through the entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medorchestra", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def refused(capsys, *arguments):
    """What a command that does nothing says on stderr."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert CANARY not in err
    return err


# ------------------------------------------------------------------ a run


def test_a_batch_is_staged_into_a_folder(capsys, engines, reports, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = run(capsys, "stage", reports, "--unvalidated", "--out", out)
    assert code == 0
    assert stdout.startswith(f"reports: 4\n{PLAN.outcomes[0].name}: ")
    assert f"results: {out}" in stdout
    assert stderr.startswith("staged 4/4 reports, ")
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["report_id"], row["site"], row["outcome"] or None) for row in rows] == [
        (case.id, "A", case.outcome) for case in CASES
    ]
    assert json.loads((out / "run.json").read_text("utf-8"))["input"]["name"] == str(reports)
    (asked,) = engines
    adapter = asked.pop("adapter")  # the one that lies beside the plan
    assert adapter == find_adapter(read_plan("pancreatic_cancer"), "default")
    assert asked == {"model": "default", "context_tokens": None, "gpu_layers": 0, "threads": None}


def test_without_an_adapter_the_model_reads_as_it_comes(capsys, engines, reports, tmp_path):
    run(capsys, "stage", reports, "--unvalidated", "--adapter", "none", "--out", tmp_path / "out")
    assert [asked["adapter"] for asked in engines] == [None]


def test_a_lazy_run_asks_less_and_decides_the_same(capsys, engines, reports, tmp_path):
    run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "full", "-q")
    code, _, _ = run(capsys, "stage", reports, "--unvalidated", "--lazy", "--out", tmp_path / "lazy", "-q")
    assert code == 0
    full, lazy = (json.loads((tmp_path / name / "run.json").read_text("utf-8"))["counts"] for name in ("full", "lazy"))
    assert lazy["skipped_answers"] >= 4 * 2  # size and regional nodes decide nothing
    assert (lazy["outcomes"], lazy["review"]) == (full["outcomes"], full["review"])


def test_options_reach_the_engine_and_the_reader(capsys, engines, tmp_path):
    source = write_csv(tmp_path / "r.csv", [("1", CASES[0].text)], header=("MRN", "Befund"))
    options = ["--model", "m.gguf", "--adapter", "a.gguf", "--gpu-layers", "-1", "--threads", "2", "--context", "4096"]
    columns = ["--id-column", "MRN", "--text-column", "Befund", "--encoding", "utf-8-sig"]
    code, _, _ = run(capsys, "stage", source, "--unvalidated", "--out", tmp_path / "out", *options, *columns)
    assert code == 0
    (asked,) = engines
    assert (asked["model"], str(asked["adapter"])) == ("m.gguf", "a.gguf")
    assert (asked["gpu_layers"], asked["threads"], asked["context_tokens"]) == (-1, 2, 4096)


def test_no_report_text_is_printed_unless_decisions_are_asked_for(capsys, engines, reports, tmp_path):
    quotes = [quote for case in CASES for quote in case.text.split(". ") if len(quote) > 30]
    _, stdout, stderr = run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "1")
    assert not any(quote in stdout + stderr for quote in quotes)
    _, stdout, stderr = run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "2", "--show")
    assert "rests on " in stdout
    assert "rests on " not in stderr


def test_quiet_prints_nothing_at_all(capsys, engines, reports, tmp_path):
    assert run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "out", "--quiet") == (0, "", "")
    assert (tmp_path / "out" / "results.parquet").exists()


def test_files_that_were_left_out_are_named_on_stderr(capsys, engines, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(CASES[0].text, encoding="utf-8")
    (folder / "b.pdf").write_bytes(b"%PDF")
    code, _, stderr = run(capsys, "stage", folder, "--unvalidated", "--out", tmp_path / "out", "-q")
    assert (code, stderr) == (0, "medorchestra: left out, because they are no .txt files: 1 '.pdf'\n")


def test_an_empty_report_is_a_row_and_exit_code_1(capsys, engines, tmp_path):
    source = write_csv(tmp_path / "r.csv", [("a", "A", CASES[0].text), ("b", "A", "  ")])
    code, stdout, _ = run(capsys, "stage", source, "--unvalidated", "--out", tmp_path / "out")
    assert code == 1
    assert "empty: 1\nfailed: 0\n" in stdout
    assert "b,A,empty,," in (tmp_path / "out" / "results.csv").read_text("utf-8")


def test_a_report_that_the_model_cannot_read_is_a_row_and_exit_code_1(capsys, monkeypatch, tmp_path):
    scripted(monkeypatch, lambda asked: ValueError(asked.report))
    source = write_csv(tmp_path / "r.csv", [("a", "A", f"Mass of the pancreas, {CANARY}.")])
    code, stdout, stderr = run(capsys, "stage", source, "--unvalidated", "--out", tmp_path / "out")
    assert code == 1
    assert "failed: 1" in stdout
    assert f"{len(PLAN.subtasks)} answers could not be read; see results.jsonl" in stdout
    assert CANARY not in stdout + stderr
    assert CANARY not in (tmp_path / "out" / "results.csv").read_text("utf-8")


def test_a_report_of_20000_words_is_staged_in_part_and_goes_to_a_person(capsys, monkeypatch, tmp_path):
    scripted(monkeypatch, lambda asked: "yes" if asked.candidates[0] == "yes" else asked.candidates[-1])
    text = "Mass of the pancreatic head. " + "The spleen and the kidneys are normal in size and shape. " * 2000
    source = write_csv(tmp_path / "r.csv", [("a", "A", text)])
    run(capsys, "stage", source, "--unvalidated", "--out", tmp_path / "out")
    (trace,) = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()]
    assert trace["decision"]["review"]
    assert any("report read in part" in reason for reason in trace["decision"]["review_reasons"])
    assert all(answer["characters_read"] < answer["characters_total"] == len(text) for answer in trace["answers"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "CT Abdomen. Raumforderung im Pankreaskopf mit Kontakt zur Arteria mesenterica. Leber frei.",
            "language looks",
        ),
        ("MRI of the left knee. Tear of the medial meniscus. The ligaments are intact.", "scope: no word for "),
        ("CT abdomen. Pancreas normal. Renal cell carcinoma of 4 cm in the left kidney.", "renal cell carcinoma"),
    ],
)
def test_a_report_that_the_plan_is_not_for_is_not_staged_without_a_flag(capsys, monkeypatch, tmp_path, text, reason):
    scripted(monkeypatch, lambda asked: asked.candidates[0])
    source = write_csv(tmp_path / "r.csv", [("a", "A", text)])
    run(capsys, "stage", source, "--unvalidated", "--out", tmp_path / "out")
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["review"].lower() == "true"
    assert f"scope: {reason}" in row["review_reason"] or reason in row["review_reason"]


def test_a_run_started_again_goes_on_where_it_stopped(capsys, engines, monkeypatch, reports, tmp_path):
    run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "out")
    scripted_answers = []
    reader = perfect_reader(PLAN, CASES)
    reader._reply = scripted_answers.append  # any question would be noted, and fail
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", lambda model, **options: reader)
    code, stdout, _ = run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "out")
    assert (code, scripted_answers) == (0, [])
    assert stdout.startswith("reports: 4\n")


def test_an_interruption_says_how_to_go_on_and_keeps_what_is_finished(capsys, monkeypatch, reports, tmp_path):
    def interrupt(asked):
        raise KeyboardInterrupt

    scripted(monkeypatch, interrupt)
    code, stdout, stderr = run(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "out")
    assert (code, stdout) == (130, "")
    assert stderr == "medorchestra: interrupted; run the same command again to go on\n"
    assert (tmp_path / "out" / "ledger.sqlite").exists()


# ------------------------------------------------------------------ a profile


def test_a_profile_is_written_beside_the_results_and_says_where_it_lies(capsys, engines, reports, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = run(capsys, "stage", reports, "--unvalidated", "--out", out, "--profile")
    assert code == 0
    assert stdout.startswith("reports: 4\n")
    path = out / "profile.speedscope.json"
    assert f"medorchestra: profile: {path} " in stderr
    profile = json.loads(path.read_text("utf-8"))
    assert "Stager.stage_one" in {frame["name"] for frame in profile["shared"]["frames"]}
    assert CASES[0].id not in path.read_text("utf-8")
    assert "reports.csv" not in path.read_text("utf-8")


def test_a_profile_of_an_interrupted_run_is_written_and_a_quiet_run_says_nothing_of_it(
    capsys, monkeypatch, reports, tmp_path
):
    def interrupt(asked):
        raise KeyboardInterrupt

    scripted(monkeypatch, interrupt)
    out = tmp_path / "out"
    code, _, stderr = run(capsys, "stage", reports, "--unvalidated", "--out", out, "--profile", "--quiet")
    assert code == 130
    assert stderr == "medorchestra: interrupted; run the same command again to go on\n"
    assert (out / "profile.speedscope.json").exists()


def test_without_a_profiler_no_model_is_loaded(capsys, engines, monkeypatch, reports, tmp_path):
    monkeypatch.setitem(sys.modules, "pyinstrument.stack_sampler", None)
    err = refused(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "out", "--profile")
    assert err == "medorchestra: a profile needs pyinstrument; run `pip install 'medorchestra[profile]'`\n"
    assert engines == []
    assert not (tmp_path / "out").exists()


def test_workers_on_ray_cannot_be_profiled_and_nothing_is_started(capsys, reports, tmp_path):
    err = refused(capsys, "stage", reports, "--out", tmp_path / "out", "--profile", "--ray", "local")
    assert err == "medorchestra: --profile with --ray: it cannot see workers, which are other processes\n"
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ nothing done: exit code 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "no such file or folder"),
        ("empty.csv", b"", "the file is empty"),
        ("header.csv", b"report_id,text\n", "no reports behind it"),
        ("binary.csv", b"PK\x03\x04\x14\x00", "a zip archive or an Office file"),
        ("latin.csv", f"report_id,text\n1,{CANARY} c\xe9liaque\n".encode("latin-1"), "try --encoding cp1252"),
        ("doubled.csv", f"report_id,text\n1,{CANARY}\n1,x\n".encode(), "1 id stands for more than one report"),
        ("columns.csv", f"MRN,Befund\n1,{CANARY}\n".encode(), "the columns are: 'MRN', 'Befund'"),
        ("headerless.csv", f"1,Mass with {CANARY}.\n2,x\n".encode(), "is the row with the names missing?"),
        ("ragged.csv", f"report_id,text\n1,Mass, {CANARY}\n".encode(), "row 1 (line 2): 3 fields, but 2 columns"),
        ("broken.jsonl", f'{{"report_id": 1, "text": "{CANARY}'.encode(), "line 1: not JSON"),
        ("cut.parquet", b"PAR1" + CANARY.encode(), "cannot be read as Parquet"),
        ("reports.xlsx", b"PK\x03\x04", "files of type '.xlsx' are not read"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(capsys, engines, tmp_path, name, content, says):
    source = tmp_path / name
    if content is not None:
        source.write_bytes(content)
    err = refused(capsys, "stage", source, "--unvalidated", "--out", tmp_path / "out")
    assert err.startswith(f"medorchestra: {source}: ")
    assert says in err
    assert err.count("\n") == 1
    assert engines == []
    assert not (tmp_path / "out").exists()


def test_a_missing_or_faulty_plan_is_named(capsys, reports, tmp_path):
    assert "one of the topics: pancreatic_cancer" in refused(
        capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "o", "--plan", "pancreas"
    )
    bomb = tmp_path / "plan.yaml"
    bomb.write_text("a: &a [x]\nb: [*a]\n", encoding="utf-8")
    assert "anchors and aliases" in refused(
        capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "o", "--plan", bomb
    )


@pytest.mark.parametrize("content", [b"not a model", b"GGUF\x03\x00\x00\x00"])
def test_a_file_that_is_no_model_is_named(capsys, reports, tmp_path, content):
    model = tmp_path / "model.gguf"
    model.write_bytes(content)
    assert str(model) in refused(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "o", "--model", model)


def test_a_model_that_cannot_be_loaded_is_named(capsys, monkeypatch, reports, tmp_path):
    def refuse(model, **options):
        raise ModelError("llama-cpp-python is missing; run `pip install medorchestra[local]`")

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", refuse)
    assert "pip install medorchestra[local]" in refused(
        capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "o"
    )


def test_a_folder_that_cannot_be_written_is_named(capsys, engines, reports, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert str(tmp_path / "file") in refused(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "file")


def test_an_encoding_that_does_not_exist_is_named(capsys, engines, reports, tmp_path):
    err = refused(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "o", "--encoding", "utf9")
    assert "no encoding 'utf9'" in err


@pytest.mark.parametrize(
    "arguments",
    [["stage"], ["stage", "x.csv"], ["stage", "x.csv", "--out", "o", "--threads", "0"], ["stages"], ["stage", "--no"]],
)
def test_a_command_that_cannot_be_understood_is_exit_code_2(capsys, arguments):
    assert refused(capsys, *arguments)


def test_an_unforeseen_error_shows_kind_and_place_and_withholds_its_message(capsys, monkeypatch, reports, tmp_path):
    def explode(*_, **__):
        raise RuntimeError(f"while reading {CANARY}")

    monkeypatch.setattr("medorchestra.local.batch.stage_to_files", explode)
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", lambda model, **options: ScriptedEngine(lambda asked: ""))
    err = refused(capsys, "stage", reports, "--unvalidated", "--out", tmp_path / "o")
    assert "internal error: RuntimeError at test_cli.py:" in err
    assert "message withheld" in err


# ------------------------------------------------------------------ the rest of the command line


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_the_version_is_shown():
    assert invoke("--version").output == f"medorchestra {__version__}\n"


def test_topics_are_listed_with_what_they_hold():
    result = invoke("topics")
    assert result.exit_code == 0
    assert result.output.startswith(f"pancreatic_cancer: {PLAN.title} (")
    assert f"{len(PLAN.findings)} findings, {len(PLAN.rules)} rules, origin {PLAN.provenance.origin})" in result.output


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command_and_option(flag):
    top = invoke(flag).output
    assert "stage" in top
    assert "topics" in top
    page = invoke("stage", flag).output
    command = typer.main.get_command(cli.app).commands["stage"]
    assert all(parameter.opts[0] in page or parameter.metavar in page for parameter in command.params)
    assert all(parameter.help for parameter in command.params if parameter.opts != ["--help"])


def test_without_arguments_help_is_shown():
    assert "Usage:" in invoke().output


def as_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "medorchestra", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_as_a_process_bad_input_ends_with_2_and_a_message_on_stderr(tmp_path):
    source = tmp_path / "reports.csv"
    source.write_text(f"MRN,Befund\n1,{CANARY}\n", encoding="utf-8")
    done = as_process("stage", source, "--unvalidated", "--out", tmp_path / "out", PYTHONWARNINGS="error")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"medorchestra: {source}: no column with the report ids ('report_id' or 'Accession Number'); the columns are: "
        "'MRN', 'Befund'. Name it with --id-column (id_column= in Python)\n"
    )


def test_as_a_process_the_version_ends_with_0():
    done = as_process("--version", PYTHONWARNINGS="error")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"medorchestra {__version__}\n", "")


@pytest.mark.model
def test_as_a_process_the_default_model_stages_a_batch_and_an_empty_report_ends_with_1(tmp_path):
    source = write_csv(tmp_path / "r.csv", [("a", "A", f"CT. Mass in the pancreatic head, {CANARY}."), ("b", "A", "")])
    done = as_process("stage", source, "--unvalidated", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout.startswith("reports: 2\n")
    assert done.stderr.splitlines()[-1].startswith("staged 2/2 reports, ")
    assert CANARY not in done.stdout + done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["counts"]["statuses"]["empty"] == 1
