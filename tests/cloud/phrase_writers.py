"""A scripted cloud model that writes phrases and layouts in a code of its own, and reads composed reports by that code.

Finding 3 with its second value is `F3 V2`, with the number 2.1 `F3 V 2.1`: words with digits get no typing errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from cloud.case_writers import sections_of

from medorchestra.cloud.desk.client import ChatRequest
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.plan import Plan

Change = Callable[[dict], None]


class PhraseWriter:
    """Answers every request of `write_phrase_bank` for one plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        frame: Change = lambda _: None,
        phrases: Change = lambda _: None,
        layouts: Change = lambda _: None,
        reads: Change = lambda _: None,
    ) -> None:
        self.findings = list(plan.findings)
        self.changes = {"write_frame": frame, "write_phrases": phrases, "write_layouts": layouts, "read_back": reads}
        self.model = ScriptedCloudModel(self.reply)

    def reply(self, request: ChatRequest) -> str:
        name = re.search(r"# instruction: (\w+)", request.system)[1]
        answers = {
            "write_frame": self.frame,
            "write_phrases": self.phrases,
            "write_layouts": self.layouts,
            "read_back": self.read,
        }
        answer = answers[name](request)
        self.changes[name](answer)
        return json.dumps(answer)

    def number(self, name: str) -> int:
        return [finding.name for finding in self.findings].index(name)

    def code(self, finding) -> dict[str, str]:
        """Value -> its code."""
        if finding.number is not None:
            return {"number": f"V {{{finding.number.unit}}}"}
        return {value: f"V{j}" for j, value in enumerate(finding.values)}

    def frame(self, _: ChatRequest) -> dict:
        usual = {"cm": {"low": 0.5, "high": 7.5, "decimals": 1}, "count": {"low": 0, "high": 9}}
        numbers = [{"finding": one.name} | usual[one.number.unit] for one in self.findings if one.number is not None]
        return {"dependencies": [], "derived": [], "agreement": None, "numbers": numbers}

    def phrases(self, request: ChatRequest) -> dict:
        asked = re.search(r"Write phrases for these findings: (.*)\.", request.system)[1].split(", ")
        sentences = int(re.search(r"at least (\d+) sentences", request.system)[1])
        fields = int(re.search(r"at least (\d+) entries", request.system)[1])
        closing = re.search(r"or `(\w+)` for a sentence of the conclusion", request.system)[1]
        styles = re.search(r"over these styles: (.*)\.\n", request.system)[1]
        names = re.findall(r"(\w+) \(", styles)
        found = []
        for finding in self.findings:
            if finding.name not in asked:
                continue
            i = self.number(finding.name)
            for value, code in self.code(finding).items():
                states = [{"finding": finding.name, "value": value}]
                for k in range(sentences):
                    found.append(
                        {
                            "text": f"F{i} {code} s{k}x.",
                            "states": states,
                            "section": finding.name,
                            "form": "free_text",
                            "styles": [names[k % len(names)]],
                        }
                    )
                found.append(
                    {"text": f"Closing F{i} {code} c1x.", "states": states, "section": closing, "form": "free_text"}
                )
                for k in range(fields):
                    found.append(
                        {"text": f"{code} e{k}x", "states": states, "section": finding.name, "form": "structured"}
                    )
        return {"phrases": found, "unsayable": []}

    def layouts(self, request: ChatRequest) -> dict:
        form = re.search(r"of the form `(\w+)`", request.system)[1]
        count = int(re.search(r"Design (\d+) layouts", request.system)[1])
        history, other, closing = (
            re.search(pattern, request.system)[1]
            for pattern in (
                r"`(\w+)` \(the patient's history",
                r"`(\w+)` \(things that no",
                r"`(\w+)` \(the conclusion",
            )
        )
        spoken = [one["name"] for one in json.loads(dict(sections_of(request))["plan: findings"])]
        styles = re.findall(r"(?m)^- ([^:]+):", dict(sections_of(request))["plan: styles"])
        skeletons = [
            self.layout(form, style, n, (history, other, closing), spoken) for style in styles for n in range(count)
        ]
        wanted = int(re.search(r"`distractors`: (\d+) sentences", request.system)[1])
        distractors = [
            {
                "text": f"Unrelated {style} n{k}x {form}.",
                "states": [],
                "section": (history, other)[k % 2],
                "form": "free_text",
            }
            for k, style in zip(range(wanted), styles * wanted, strict=False)
        ]
        return {"skeletons": skeletons, "distractors": distractors}

    def layout(self, form: str, style: str, n: int, extra: tuple[str, str, str], spoken: list[str]) -> dict:
        names = [finding.name for finding in self.findings if finding.name in spoken]
        order = names[n:] + names[:n]
        heading = f"Layout {style} {n}\n"
        places = [{"heading": heading, "sections": [extra[0]]}]
        if form == "free_text":
            places += [{"heading": "", "sections": [*order]}]
        else:
            places += [{"heading": f"F{self.number(name)} ", "findings": [name], "silent": "-"} for name in order]
        places += [{"heading": "Other: ", "sections": [extra[1]]}, {"heading": "End: ", "sections": [extra[2]]}]
        return {"form": form, "style": style, "phrase_styles": ["US"], "places": places}

    def read(self, request: ChatRequest) -> dict:
        reports = []
        for heading, text in sections_of(request):
            if heading.startswith("case: "):
                reports.append(
                    {
                        "case": heading.removeprefix("case: "),
                        "findings": [
                            {"name": finding.name, "value": self.value(i, finding, text)}
                            for i, finding in enumerate(self.findings)
                        ],
                    }
                )
        return {"reports": reports}

    def value(self, i: int, finding, text: str) -> str | float:
        if finding.number is not None:
            found = re.search(rf"F{i}\W+V\s+(\d+(?:[.,]\d+)?)", text, re.IGNORECASE)
            return "not_stated" if found is None else float(found[1].replace(",", "."))
        found = re.search(rf"F{i}\W+V(\d+)", text, re.IGNORECASE)
        return "not_stated" if found is None else list(finding.values)[int(found[1])]
