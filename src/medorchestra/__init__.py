"""medorchestra: stage reports inside the hospital, by a plan compiled from a guideline outside it.

The front door: names are loaded when they are first used, so importing the package loads neither side.

    import medorchestra as mo

    plan = mo.read_plan("pancreatic_cancer")
    results = mo.stage("reports.csv", plan, model="default")
    results.for_review().to_pandas()

medorchestra supports clinicians and researchers; it is not a certified medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Plan": "medorchestra.plan",
    "read_plan": "medorchestra.plan_files",
    "write_plan": "medorchestra.plan_files",
    "topics": "medorchestra.topics",
    "SyntheticCase": "medorchestra.synthetic",
    "read_cases": "medorchestra.synthetic",
    "MedorchestraError": "medorchestra.errors",
    "Guideline": "medorchestra.cloud.guideline",
    "read_guideline": "medorchestra.cloud.guideline",
    "OpenAICloudModel": "medorchestra.cloud.desk.client",
    "ScriptedCloudModel": "medorchestra.cloud.desk.scripted_cloud",
    "PlannerSettings": "medorchestra.cloud.planner",
    "make_plan": "medorchestra.rehearsal",
    "rehearse": "medorchestra.rehearsal",
    "validated": "medorchestra.rehearsal",
    "PlanMaking": "medorchestra.rehearsal",
    "Report": "medorchestra.local.records",
    "read_reports": "medorchestra.local.connectors",
    "stage": "medorchestra.local.batch",
    "stage_to_files": "medorchestra.local.batch",
    "stage_dataset": "medorchestra.local.ray_staging",
    "evaluate": "medorchestra.local.evaluation.study",
    "EvaluationSettings": "medorchestra.local.evaluation.evaluating",
    "LabelColumns": "medorchestra.local.evaluation.labelled_set",
    "Results": "medorchestra.local.results",
    "StagedReport": "medorchestra.local.staged_report",
    "Decision": "medorchestra.local.aggregator",
    "Answer": "medorchestra.local.answers",
    "LlamaCppEngine": "medorchestra.local.engine.llama_cpp",
    "ScriptedEngine": "medorchestra.local.engine.scripted",
    "ServerEngine": "medorchestra.local.engine.server",
    "perfect_reader": "medorchestra.local.answer_key",
}

__all__ = [
    "Answer",
    "Decision",
    "EvaluationSettings",
    "Guideline",
    "LabelColumns",
    "LlamaCppEngine",
    "MedorchestraError",
    "OpenAICloudModel",
    "Plan",
    "PlanMaking",
    "PlannerSettings",
    "Report",
    "Results",
    "ScriptedCloudModel",
    "ScriptedEngine",
    "ServerEngine",
    "StagedReport",
    "SyntheticCase",
    "__version__",
    "evaluate",
    "make_plan",
    "perfect_reader",
    "read_cases",
    "read_guideline",
    "read_plan",
    "read_reports",
    "rehearse",
    "stage",
    "stage_dataset",
    "stage_to_files",
    "topics",
    "validated",
    "write_plan",
]

if TYPE_CHECKING:
    from medorchestra.cloud.desk.client import OpenAICloudModel
    from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
    from medorchestra.cloud.guideline import Guideline, read_guideline
    from medorchestra.cloud.planner import PlannerSettings
    from medorchestra.errors import MedorchestraError
    from medorchestra.local.aggregator import Decision
    from medorchestra.local.answer_key import perfect_reader
    from medorchestra.local.answers import Answer
    from medorchestra.local.batch import stage, stage_to_files
    from medorchestra.local.connectors import read_reports
    from medorchestra.local.engine.llama_cpp import LlamaCppEngine
    from medorchestra.local.engine.scripted import ScriptedEngine
    from medorchestra.local.engine.server import ServerEngine
    from medorchestra.local.evaluation.evaluating import EvaluationSettings
    from medorchestra.local.evaluation.labelled_set import LabelColumns
    from medorchestra.local.evaluation.study import evaluate
    from medorchestra.local.ray_staging import stage_dataset
    from medorchestra.local.records import Report
    from medorchestra.local.results import Results
    from medorchestra.local.staged_report import StagedReport
    from medorchestra.plan import Plan
    from medorchestra.plan_files import read_plan, write_plan
    from medorchestra.rehearsal import PlanMaking, make_plan, rehearse, validated
    from medorchestra.synthetic import SyntheticCase, read_cases
    from medorchestra.topics import topics


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'medorchestra' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
