"""The notebook runs from top to bottom with the default model, and is kept without outputs."""

from __future__ import annotations

import csv
from pathlib import Path

import nbformat
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FEW = 2
"""Reports that the notebook stages here: the default model takes seconds for each."""


@pytest.fixture
def notebook():
    return nbformat.read(EXAMPLES / "staging.ipynb", as_version=4)


def shown(cell, kind):
    return "".join(output["data"].get(kind, "") for output in cell.outputs if "data" in output)


def test_the_notebook_is_kept_without_outputs_so_that_nothing_in_it_rots(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.model
# ResourceWarning, DeprecationWarning: nbclient and its zmq client leave sockets and old event-loop calls behind.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_notebook_runs_and_shows_batch_decision_and_what_if(notebook, tmp_path):
    from nbclient import NotebookClient

    with (EXAMPLES / "pancreas_reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "pancreas_reports.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows[: FEW + 1])
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    batch, decision = (
        next(cell for cell in notebook.cells if cell.source.rstrip().endswith(ending))
        for ending in ('model="default")\nresults', "results[1]")
    )
    assert f"{FEW} reports" in shown(batch, "text/html")
    assert "SMA encasement." in shown(decision, "text/html")
    assert "SMA encasement." not in shown(batch, "text/html") + shown(decision, "text/plain")
    what_if = next(cell for cell in notebook.cells if "reconstructible: plan" in cell.source)
    assert shown(what_if, "text/plain") == "{'yes': 'borderline_resectable', 'no': 'locally_advanced'}"
