"""Who may import whom: the contracts hold, and each of them notices what it is there for.

What the contracts cannot see is read here from the source: imports that only type checkers follow, and imports by name.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "src" / "medorchestra"

PLANTED = [
    ("layers", "rules.py", "import medorchestra.plan"),
    ("layers", "intervals.py", "import medorchestra.synthetic"),
    ("layers", "stray.py", '"""A module that nobody gave a layer."""'),
    ("layers", "local/records.py", "import medorchestra.cli"),
    ("two-sides", "local/staging.py", "from medorchestra.cloud import guideline"),
    ("two-sides", "local/engine/chat.py", "def late():\n    import medorchestra.cloud.guideline"),
    ("two-sides", "cloud/guideline.py", "from medorchestra.local.records import Report"),
    ("two-sides", "errors.py", "from medorchestra.local import records"),  # which the cloud side imports
    ("front-door", "__init__.py", "from medorchestra.local.records import Report"),
    ("front-door", "__init__.py", "import medorchestra.cloud.guideline"),
    ("no-way-round", "cloud/guideline.py", "import medorchestra as mo"),
    ("no-way-round", "local/records.py", "from medorchestra import read_guideline"),
    ("no-way-round", "topics.py", "from medorchestra import stage"),
    ("contract-modules", "plan.py", "from medorchestra.cloud.guideline import Guideline"),
    ("contract-modules", "rules.py", "from medorchestra.local.answers import Answer"),
    ("contract-modules", "synthetic.py", "from medorchestra.local.records import Report"),
    ("contract-modules", "templates.py", "import llama_cpp"),
    ("no-network", "local/executor.py", "import httpx"),
    ("no-network", "local/scope.py", "from urllib.request import urlopen"),
    ("no-network", "local/ledger.py", "def late():\n    from http.client import HTTPSConnection"),
    ("no-network", "local/records.py", "import socket"),
    (
        "no-network",
        "local/engine/llama_cpp.py",
        "from huggingface_hub import hf_hub_download",
    ),  # one module may, not all
    ("no-network", "local/engine/server.py", "from http.client import HTTPConnection"),  # as above
    ("no-network", "local/engine/server_client.py", "import socket"),
    ("no-network", "local/engine/server_client.py", "import urllib.request"),
    ("no-network", "local/scale_out.py", "import ray"),  # as above
    ("no-network", "plan.py", "import openai"),
]


@pytest.fixture
def copied(tmp_path):
    """A copy of package and contracts, in which a violation may be planted."""
    shutil.copytree(SOURCE, tmp_path / "medorchestra", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder, *arguments):
    """Run the import linter on the package in this folder."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [program, "--no-logo", "--no-cache", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def plant(folder, module, line):
    path = folder / "medorchestra" / module
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")


def test_all_contracts_are_kept():
    checked = lint_imports(CHECKOUT)
    assert checked.returncode == 0, checked.stdout
    assert "6 kept, 0 broken" in checked.stdout


@pytest.mark.parametrize(("contract", "module", "line"), PLANTED)
def test_a_planted_violation_breaks_its_contract(copied, contract, module, line):
    kept = lint_imports(copied, "--contract", contract)
    assert kept.returncode == 0, kept.stdout
    plant(copied, module, line)
    broken = lint_imports(copied, "--contract", contract)
    assert broken.returncode == 1
    assert "BROKEN" in broken.stdout


def contracts():
    """Contracts of the project: id -> settings."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def test_every_contract_has_a_planted_violation():
    assert set(contracts()) == {contract for contract, _, _ in PLANTED}


COMMANDS = {
    "cli",
    "cli_egress",
    "cli_evaluate",
    "cli_fit",
    "cli_plan",
    "cli_publish",
    "evaluation_terminal",
    "fit_terminal",
    "plan_terminal",
}
HOLD_BOTH_SIDES = {"__init__", "__main__", "rehearsal", "fitting", "publishing"} | COMMANDS


@pytest.mark.parametrize("contract", ["no-way-round", "contract-modules", "no-network"])
def test_no_shared_module_is_left_out_of_a_contract(contract):
    modules = {path.stem for path in SOURCE.glob("*.py")} - HOLD_BOTH_SIDES
    assert {f"medorchestra.{module}" for module in modules} <= set(contracts()[contract]["source_modules"])


TYPED_TOO = ["--contract", "two-sides", "--contract", "contract-modules", "--contract", "no-way-round"]


def test_the_sides_do_not_name_each_other_for_type_checkers_either(copied):
    settings = copied / "pyproject.toml"
    switch = "exclude_type_checking_imports = "
    text = settings.read_text(encoding="utf-8")
    assert f"{switch}true" in text
    settings.write_text(text.replace(f"{switch}true", f"{switch}false"), encoding="utf-8")
    kept = lint_imports(copied, *TYPED_TOO)
    assert kept.returncode == 0, kept.stdout
    line = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from medorchestra.local.records import Report"
    plant(copied, "cloud/guideline.py", line)
    assert lint_imports(copied, *TYPED_TOO).returncode == 1


BY_NAME = {"import_module", "__import__", "exec", "eval", "compile", "spec_from_file_location", "exec_module"}


def by_name(source):
    """Calls in a source text that import by name or run text as code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func
            # `re.compile` is an attribute of a module and no danger; `importlib.import_module` is one.
            if isinstance(called, ast.Name) and called.id in BY_NAME:
                yield called.id
            elif isinstance(called, ast.Attribute) and called.attr in BY_NAME - {"compile"}:
                yield called.attr


def test_only_the_front_door_imports_by_name_and_nothing_runs_text_as_code():
    found = {
        path.relative_to(SOURCE).as_posix(): names
        for path in sorted(SOURCE.rglob("*.py"))
        if (names := list(by_name(path.read_text(encoding="utf-8"))))
    }
    assert found == {"__init__.py": ["import_module"]}


@pytest.mark.parametrize("line", ["__import__('os')", "importlib.import_module(name)", "exec(text)", "eval(text)"])
def test_an_import_by_name_would_be_noticed(line):
    assert list(by_name(line))


SPEAKS = {"_socket", "asyncio", "ftplib", "http", "smtplib", "socket", "socketserver", "ssl", "urllib", "xmlrpc"}


def imported(source):
    """Top-level names that a source text imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def test_one_module_of_the_local_side_speaks_http():
    found = {
        path.relative_to(SOURCE).as_posix(): names
        for path in sorted((SOURCE / "local").rglob("*.py"))
        if (names := set(imported(path.read_text(encoding="utf-8"))) & SPEAKS)
    }
    assert found == {"local/engine/server_client.py": {"http"}}
    exceptions = [line.split(" -> ") for line in contracts()["no-network"]["ignore_imports"]]
    assert [pair for pair in exceptions if pair[1] in SPEAKS] == [["medorchestra.local.engine.server_client", "http"]]
