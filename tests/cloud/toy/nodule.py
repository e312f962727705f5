"""A toy topic with a hosted model that answers every step of the planner, and a local model that reads its reports.

The hosted model writes plain reports from the briefs in a request, and reads reports back from their texts alone.
`ToyCloud.changed` lets a test answer a step otherwise, as a misbehaving model would. Shared by the tests of planner,
rehearsal and command line.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medorchestra.cloud.desk.client import ChatRequest
from medorchestra.cloud.desk.cloud_desk import DESK_INSTRUCTIONS, CloudDesk
from medorchestra.cloud.desk.reply_cache import ReplyCache
from medorchestra.cloud.desk.scripted_cloud import CloudReply, ScriptedCloudModel
from medorchestra.cloud.egress.gate import EgressGate
from medorchestra.cloud.egress.log import EgressLog
from medorchestra.cloud.guideline import read_guideline
from medorchestra.cloud.prompt_texts import packaged_instructions
from medorchestra.local.engine.scripted import Reply, ScriptedEngine, ScriptedQuestion
from medorchestra.plan import Citation, PromptForms, Subtask

FOLDER = Path(__file__).parent
GUIDELINE_FILE = FOLDER / "guideline.md"
GUIDELINE = read_guideline(GUIDELINE_FILE)
DECOMPOSITION: dict[str, Any] = json.loads((FOLDER / "decomposition.json").read_text("utf-8"))
SUBTASKS: dict[str, Any] = json.loads((FOLDER / "subtasks.json").read_text("utf-8"))

SAYS: dict[str, dict[str, Sequence[str]]] = {
    "nodule": {
        "yes": (
            "There is a nodule in the upper lobe.",
            "A solitary nodule is seen.",
            "Single nodule of the lower lobe.",
        ),
        "no": ("No nodule is seen.", "The lungs are free of nodules.", "There is no nodule."),
    },
    "calcified": {
        "yes": ("It is densely calcified throughout.", "Dense calcification throughout.", "Calcified in all parts."),
        "no": ("It shows no calcification.", "Calcification is absent.", "Without calcification."),
    },
    "growth": {
        "yes": ("It has grown since the earlier examination.", "In comparison it has grown.", "Clearly grown by now."),
        "no": ("It is stable in comparison.", "Stable since the earlier examination.", "It has remained stable."),
    },
    "size_mm": {"number": ("It measures {:g} mm.", "The diameter is {:g} mm.", "Largest diameter {:g} mm.")},
}
"""How the reports of the toy state a value; silence has no words."""

FIELDS: dict[str, tuple[str, dict[str, Sequence[str]]]] = {
    "nodule": (
        "Lung nodule: ",
        {"yes": ("present", "seen", "found", "visible"), "no": ("absent", "nil", "missing", "nowhere")},
    ),
    "calcified": (
        "Calcium: ",
        {"yes": ("dense", "throughout", "in all parts", "full"), "no": ("lacking", "zero", "void", "empty")},
    ),
    "growth": (
        "Growth: ",
        {"yes": ("grown", "larger", "increased", "bigger"), "no": ("stable", "same", "constant", "equal")},
    ),
    "size_mm": ("Size: ", {"number": ("{} mm", "about {} mm", "{} mm today", "{} mm at most")}),
}
"""Field of a form, and how its entries state a value."""
_OPENINGS = ("", "On thin slices: ", "On both readings: ", "By the second reader: ")

_ORGANS = (
    "heart spleen kidney trachea oesophagus liver stomach thyroid pleura rib vertebra clavicle sternum axilla "
    "diaphragm adrenal bowel bladder aorta vein duct gland muscle skin fascia tendon cartilage marrow node sinus"
)
_SHAPES = "regular smooth slim wide plain thin even slender clear usual narrow soft firm round flat straight"


def _parts() -> list[tuple[str, str]]:
    return [(organ, shape) for organ in _ORGANS.split() for shape in _SHAPES.split()]


def report_text(findings: dict[str, str | float], words: int, seed: str) -> str:
    """A report that states these findings and nothing else of the toy, of about so many words."""
    rng = random.Random(seed)
    stated = []
    for name, value in findings.items():
        if value == "not_stated":
            continue
        ways = SAYS[name]["number" if isinstance(value, float) else value]
        stated.append(rng.choice(ways).format(value))
    filler = []
    while sum(len(sentence.split()) for sentence in (*stated, *filler)) < words:
        (organ, shape), (other, _) = rng.sample(_parts(), 2)
        filler.append(f"The {organ} and the {other} are {shape}.")
    # The filler in two parts: the stated sentences stand neither first nor last.
    half = len(filler) // 2
    return " ".join(["CT of the chest.", *filler[:half], *stated, *filler[half:]])


def read_text(text: str) -> dict[str, str | float]:
    """What a report of the toy states, from its words alone."""
    found: dict[str, str | float] = dict.fromkeys(SAYS, "not_stated")
    for name, values in SAYS.items():
        for value, ways in values.items():
            for way in ways:
                pattern = re.escape(way).replace(re.escape("{:g}"), r"([\d.]+)")
                hit = re.search(pattern, text)
                if hit:
                    found[name] = float(hit[1]) if value == "number" else value
    for name, (label, values) in FIELDS.items():
        for value, entries in values.items():
            for entry in sorted(entries, key=len, reverse=True):
                hit = re.search(rf"(?m)^{label}{re.escape(entry).replace(re.escape('{}'), '([0-9.]+)')}$", text)
                if hit:
                    found[name] = float(hit[1]) if value == "number" else value
    return found


class ToyCloud:
    """Scripts for `ScriptedCloudModel`: one answer for each step.

    Attributes:
        changed: prompt -> what is answered instead, as a function of the request and of how often it was asked
            before; None from it falls back on the good answer.
        asked: prompts in the order in which they were asked.
    """

    def __init__(self, **changed: Callable[[ChatRequest, int], CloudReply | dict[str, Any] | None]) -> None:
        self.changed = changed
        self.asked: list[str] = []

    def model(self) -> ScriptedCloudModel:
        """The hosted model."""
        return ScriptedCloudModel(self.reply, name="toy-cloud")

    def reply(self, request: ChatRequest) -> CloudReply:
        """The answer to a request."""
        prompt = re.match(r"# instruction: (\w+)", request.system)[1]
        times = self.asked.count(prompt)
        self.asked.append(prompt)
        answer = self.changed[prompt](request, times) if prompt in self.changed else None
        if answer is None:
            answer = getattr(self, f"_{prompt}")(request)
        return json.dumps(answer) if isinstance(answer, dict) else answer

    def _decompose(self, _: ChatRequest) -> dict[str, Any]:
        return DECOMPOSITION

    def _write_subtasks(self, _: ChatRequest) -> dict[str, Any]:
        return SUBTASKS

    def _revise_subtasks(self, request: ChatRequest) -> dict[str, Any]:
        """The same questions, marked as better."""
        asked = re.search(r"the findings ([\w, ]+) on which", " ".join(request.system.split()))[1].split(", ")
        better = [
            subtask | {"instructed": f"Read again. {subtask['instructed']}"}
            for subtask in SUBTASKS["subtasks"]
            if subtask["finding"] in asked
        ]
        return {"subtasks": better}

    def _write_cases(self, request: ChatRequest) -> dict[str, Any]:
        reports = []
        for brief in re.split(r"(?m)^brief ", request.user)[1:]:
            case_id = brief.split("\n", 1)[0].strip()
            words = int(re.search(r"about (\d+) words", brief)[1])
            findings: dict[str, str | float] = {}
            for name, value in re.findall(r"(?m)^- (\w+) = ([^\s(]+)", brief):
                findings[name] = float(value) if name == "size_mm" else value
            reports.append({"brief": case_id, "text": report_text(findings, words, case_id), "unwritable": None})
        return {"reports": reports}

    def _read_back(self, request: ChatRequest) -> dict[str, Any]:
        reports = []
        for part in re.split(r"(?m)^# case: ", request.user)[1:]:
            case_id, text = part.split("\n", 1)
            read = read_text(text)
            reports.append({"case": case_id, "findings": [{"name": n, "value": v} for n, v in read.items()]})
        return {"reports": reports}

    def _write_frame(self, _: ChatRequest) -> dict[str, Any]:
        rests = [{"finding": name, "on": "nodule", "among": ["yes"]} for name in SAYS if name != "nodule"]
        return {"dependencies": rests, "numbers": [{"finding": "size_mm", "low": 2, "high": 40}]}

    def _write_layouts(self, request: ChatRequest) -> dict[str, Any]:
        asked = " ".join(request.system.split())
        form = re.search(r"all of the form `(\w+)`", asked)[1]
        styles = re.findall(r"(?m)^- ([^:\n]+): ", request.user.split("# plan: styles")[1])
        rng = random.Random(" ".join(styles) + form)
        skeletons = [_layout(form, style, rng) for style in styles for _ in range(2)]
        other = {"section": "other", "form": "free_text", "states": []}
        distractors = [other | {"text": f"The {organ} is {shape}."} for organ, shape in rng.sample(_parts(), 20)]
        return {"skeletons": skeletons, "distractors": distractors}

    def _write_phrases(self, request: ChatRequest) -> dict[str, Any]:
        asked = re.search(r"phrases for these findings: ([\w, ]+)\.", " ".join(request.system.split()))[1].split(", ")
        phrases = []
        for name in asked:
            for value, ways in SAYS[name].items():
                state = {"states": [{"finding": name, "value": value}], "section": name}
                sentences = [opening + way.replace("{:g}", "{mm}") for opening in _OPENINGS for way in ways]
                phrases += [state | {"text": text, "form": "free_text"} for text in sentences]
                entries = [entry.replace("{}", "{mm}") for entry in FIELDS[name][1][value]]
                phrases += [state | {"text": text, "form": "structured"} for text in entries]
        return {"phrases": phrases, "unsayable": []}


def _layout(form: str, style: str, rng: random.Random) -> dict[str, Any]:
    """A layout with a place for every finding, in an order of its own."""
    names = rng.sample(list(SAYS), len(SAYS))
    other = {"heading": rng.choice(["Also: ", "Other: ", "Besides: "]), "sections": ["other"]}
    if form == "free_text":
        places = [{"heading": rng.choice(["Findings: ", "CT: ", "Report: "]), "sections": names}, other]
    else:
        places = [{"heading": FIELDS[name][0], "findings": [name], "silent": "not provided"} for name in names]
        places.append(other)
    conclusion = {"heading": rng.choice(["Impression: ", "Opinion: "]), "sections": ["conclusion"]}
    return {"form": form, "style": style, "phrase_styles": [], "places": [*places, conclusion]}


def toy_reading(asked: ScriptedQuestion) -> Reply:
    """The right answer of a local model to a question of the toy's plan."""
    read = read_text(asked.report)
    words = {"largest diameter": "size_mm", "calcified": "calcified", "grown": "growth", "a nodule in": "nodule"}
    finding = next(name for word, name in words.items() if word in asked.question.split("\n")[0])
    value = read[finding]
    if finding == "size_mm":
        return "not stated" if value == "not_stated" else f"{value:g} mm"
    (subtask,) = (subtask for subtask in SUBTASKS["subtasks"] if subtask["finding"] == finding)
    return next(label["label"] for label in subtask["labels"] if label["value"] == value)


def toy_engine(reading: Callable[[ScriptedQuestion], Reply] = toy_reading, name: str = "toy") -> ScriptedEngine:
    """A local model for the toy's reports."""
    return ScriptedEngine(reading, name=name)


@contextmanager
def toy_desk(cloud: ToyCloud, folder: Path, **settings: Any) -> Iterator[CloudDesk]:
    """A desk with a real gate, log and cache in front of the hosted model."""
    gate = EgressGate(GUIDELINE, packaged_instructions() | DESK_INSTRUCTIONS)
    with EgressLog.open(folder / "egress.jsonl", gate=gate) as log:
        yield CloudDesk(cloud.model(), gate=gate, log=log, cache=ReplyCache(folder / "replies"), **settings)


def decomposition_with(**changes: Any) -> dict[str, Any]:
    """The toy's decomposition with other top-level fields."""
    return json.loads(json.dumps(DECOMPOSITION | changes))


def subtasks_with(finding: str, **changes: Any) -> dict[str, Any]:
    """The toy's questions, one of them changed."""
    return {"subtasks": [one | changes if one["finding"] == finding else one for one in SUBTASKS["subtasks"]]}


def toy_subtasks() -> list[Subtask]:
    """The toy's questions as subtasks of a plan."""
    return [
        Subtask(
            id=one["finding"],
            finding=one["finding"],
            answer="number" if one["finding"] == "size_mm" else "choice",
            prompt=PromptForms(instructed=one["instructed"], compact=one["compact"]),
            labels={label["value"]: label["label"] for label in one["labels"]},
            focus_terms=one["focus_terms"],
            citation=Citation(**one["citation"]),
        )
        for one in SUBTASKS["subtasks"]
    ]
