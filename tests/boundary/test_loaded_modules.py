"""What a fresh interpreter has loaded after an import: the front door loads neither side, and no side the other.

Static contracts miss imports made by name or by a dependency; `sys.modules` does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LOAD_ALL = """
import importlib, pkgutil
for package in {packages}:
    here = importlib.import_module(package)
    for module in pkgutil.walk_packages(here.__path__, package + "."):
        importlib.import_module(module.name)
"""
SHOW = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))\n"

NETWORK_CLIENTS = {
    "aiohttp",
    "anthropic",
    "grpc",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "llm",
    "openai",
    "paramiko",
    "requests",
    "smtplib",
    "urllib3",
    "websockets",
}
SETTINGS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
SHARED = next(
    contract["source_modules"]
    for contract in SETTINGS["tool"]["importlinter"]["contracts"]
    if contract["id"] == "contract-modules"
)
"""Modules that both sides share, as the import contract lists them."""


def loaded_after(code):
    """Names of the modules that a fresh interpreter has loaded after this code."""
    ran = subprocess.run([sys.executable, "-c", code + SHOW], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def of_side(modules, side):
    return {name for name in modules if f"{name}.".startswith(f"medorchestra.{side}.")}


def clients_in(modules):
    return {name.split(".")[0] for name in modules} & NETWORK_CLIENTS


def test_importing_the_package_loads_nothing_else_of_it():
    modules = loaded_after("import medorchestra; dir(medorchestra)")
    assert {name for name in modules if name.startswith("medorchestra")} == {"medorchestra"}
    assert not clients_in(modules)


def test_importing_the_command_line_loads_neither_side():
    modules = loaded_after("import medorchestra.cli")
    assert not of_side(modules, "local") | of_side(modules, "cloud")


@pytest.mark.parametrize("module", SHARED)
def test_what_both_sides_share_loads_neither(module):
    modules = loaded_after(f"import {module}")
    assert not of_side(modules, "local") | of_side(modules, "cloud") | clients_in(modules)
    assert "llama_cpp" not in modules


def test_the_whole_local_side_loads_no_cloud_module_and_no_network_client():
    modules = loaded_after(LOAD_ALL.format(packages=["medorchestra.local"]))
    assert len(of_side(modules, "local")) > 20
    assert not of_side(modules, "cloud")
    assert not clients_in(modules)


def test_the_whole_cloud_side_loads_no_local_module_and_no_model():
    modules = loaded_after(LOAD_ALL.format(packages=["medorchestra.cloud"]))
    assert "medorchestra.cloud.guideline" in modules
    assert not of_side(modules, "local")
    assert "llama_cpp" not in modules


def test_a_name_of_one_side_at_the_front_door_does_not_load_the_other():
    assert not of_side(loaded_after("import medorchestra as mo; mo.read_guideline"), "local")
    assert not of_side(loaded_after("import medorchestra as mo; mo.Report, mo.stage, mo.read_reports"), "cloud")


def test_a_staged_batch_has_loaded_no_cloud_module_and_no_network_client():
    run = """
import medorchestra as mo
plan, cases = mo.read_plan("pancreatic_cancer"), mo.read_cases("pancreatic_cancer", "held_out")[:2]
reader = mo.perfect_reader(plan, cases)
results = mo.stage([mo.Report(case.id, case.text) for case in cases], plan, model=reader, unvalidated=True)
assert [staged.decision.outcome for staged in results] == [case.outcome for case in cases]
results._repr_html_()
"""
    modules = loaded_after(run)
    assert not of_side(modules, "cloud")
    assert not clients_in(modules)


def test_a_rehearsal_loads_no_cloud_module_and_no_network_client():
    run = """
import medorchestra as mo
plan, cases = mo.read_plan("pancreatic_cancer"), mo.read_cases("pancreatic_cancer", "held_out")[:2]
scores = mo.rehearse(plan, cases, mo.perfect_reader(plan, cases))
assert mo.validated(plan, scores).validation[-1].model == scores.model
"""
    modules = loaded_after(run)
    assert not of_side(modules, "cloud")
    assert not clients_in(modules)


@pytest.mark.model
def test_the_default_model_loads_no_network_client():
    modules = loaded_after("import medorchestra as mo\nwith mo.LlamaCppEngine(): pass")
    assert "llama_cpp" in modules
    assert not of_side(modules, "cloud")
    assert not clients_in(modules)


def test_a_network_client_would_be_noticed():
    assert clients_in(loaded_after("import openai")) >= {"openai"}
    assert of_side(loaded_after("import medorchestra.cloud.guideline"), "cloud")
