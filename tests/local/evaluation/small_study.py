"""A small labelled set, and scripted readers in the place of llama.cpp that note what they are asked."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from local.small_batch import scripted_reading, small_reports

from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.plan import content_digest

CANARY = "Quillfeather"
"""In a sentence of every report that no answer rests on."""
QUOTED = "Tanglewood"
"""In a sentence of every report that an answer rests on: quotes are kept in the ledger."""
TRUTHS = ("resectable", "metastatic", "locally_advanced", "metastatic", "open", "metastatic")
CONTACTS = ("none", "none", ">180", ">180", "not_stated", "not_stated")
GUIDELINE = "## 1. Order\n\nMetastases decide first, then the arteries."


def study_rows(count=12):
    """Reports with outcome, findings, one human reader and two groups: 5 of 6 are decided, the fifth is open.

    The reader is right but for every fifth report, which is `metastatic` to it; it read neither case-1 nor case-8.
    """
    rows = []
    for number, report in enumerate(small_reports(count)):
        truth = TRUTHS[number % 6]
        said = "metastatic" if number % 5 == 0 else truth
        text = report.text.replace("Hypoenhancing mass", f"Hypoenhancing {QUOTED} mass")
        rows.append(
            {
                "report_id": report.report_id,
                "text": f"{text} Read by {CANARY}.",
                "outcome": truth,
                "sma_contact": CONTACTS[number % 6],
                "liver_mets": ("no", "yes")[number % 2],
                "size_cm": f"2.{number % 10}",
                "reader_1": "" if number % 7 == 1 else said,
                "ward": f"W{number % 3}",
                "sex": ("f", "m", "")[number % 4 % 3],
            }
        )
    return rows


def write_rows(path, rows):
    """A CSV file; returns its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


class Readers:
    """Opens scripted engines as `LlamaCppEngine` would be opened, one at a time.

    A model with an adapter reads the small reports as they are meant; without one it takes encasement for abutment.
    Asked for the outcome it looks at the liver alone.

    Attributes:
        opened: (model, adapter) of every engine, in order.
        asked: (model, adapter, report, question, seed) of every question that was answered.
        before: called ahead of every answer; may raise.
        reads_well: whether a model with an adapter (file name or None) sees encasement.
        thoughts: what is written where text is asked for.
    """

    def __init__(self):
        self.opened, self.asked, self._engines = [], [], []
        self.before = lambda asked: None
        self.reads_well = lambda model, adapter: adapter is not None
        self.thoughts = lambda asked: f"thought {asked.seed}"

    def open(self, model, *, adapter=None, **_):
        assert all(engine._closed for engine in self._engines), "one model in memory at a time"
        who = (str(model), None if adapter is None else Path(adapter).name)
        self.opened.append(who)

        def reply(asked):
            self.before(asked)
            self.asked.append((*who, asked.report, asked.question, asked.seed))
            return self._reply(asked, well=self.reads_well(*who))

        engine = ScriptedEngine(reply, name=who[0])
        if who[1] is not None:
            engine._identity = replace(engine.identity, adapter=who[1], adapter_digest=content_digest(who[1]))
        self._engines.append(engine)
        return engine

    def _reply(self, asked, *, well):
        if asked.candidates is None:
            return self.thoughts(asked)
        if "which of these outcomes" in asked.question:
            spread = "Liver metastases" in asked.report or "liver mets: yes" in asked.report
            return {"metastatic": 0.8, "resectable": 0.2} if spread else {"metastatic": 0.3, "resectable": 0.7}
        if not well and "SMA" in asked.question and "encased" in asked.report:
            return {"abutment": 0.6, "encasement": 0.4}
        return scripted_reading(asked)


def interrupting(after):
    """A `before` that interrupts the run ahead of one of its answers."""
    left = [after]

    def before(asked):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return before
