"""Would several reports in one batch be faster on a processor than one after the other?

    python benchmarks/speed/reports_in_flight.py [--together 1 2 4 8] [--lengths 150 600] [--repeats 3]
        [--neighbours 2 4] [--batch-tokens 512] [--threads 2] --out benchmarks/speed/reports_in_flight

The library reads a report, asks all its questions as branches in one batch, and goes on to the next report. Here, below
it, k reports are kept in memory at once, as k sequences:

- text: their tokens in common batches, against each report by itself, in one memory for all or in one divided among
  them;
- questions: the branches of all of them in common batches, against those of one report after the other.

For each k a process of its own; in each round both ways read the same k reports, in an order that is drawn. Ratios are
seconds of one after the other over seconds together, above 1 is faster together. Same model, adapter, questions and
threads as the library. Also: what k reports take of memory; how far answers move; and whether the logits behind a
report change when only its neighbours do, which would make a resumed run differ from one that was not interrupted.
Writes reports_in_flight.json and reports_in_flight.md into `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from in_flight import HEAD, MOST_SEQUENCES, Flight, FlightSettings, branches_of, groups, report_places
from in_flight_table import table_lines
from peer_row import peak_mb
from peer_task import PeerTask, in_form, make_task
from peers import machine

from medorchestra.local.engine.label_trie import candidate_probabilities
from medorchestra.local.engine.llama_reader import BATCH_TOKENS, BRANCHES, Logits
from medorchestra.local.engine.question_tree import QuestionTree, TokenQuestion, TreeLimits, question_trees

TOPIC, SPLIT = "pancreatic_cancer", "development"
CELLS = 256
"""llama.cpp rounds memory up to this."""


@dataclass(frozen=True)
class Material:
    """What is read.

    Attributes:
        model, adapter: paths.
        threads, batch_tokens: as the library reads, unless told otherwise.
        head: tokens before every report.
        questions: with their answers.
        reports: of about the same length.
        cell_bytes: memory that a token takes.
    """

    model: str
    adapter: str | None
    threads: int
    batch_tokens: int
    head: list[int]
    questions: tuple[TokenQuestion, ...]
    reports: tuple[list[int], ...]
    cell_bytes: int

    def trees(self) -> list[QuestionTree]:
        """The questions on one report, as the library lays them out."""
        trees, alone = question_trees(self.questions, TreeLimits(BATCH_TOKENS, BRANCHES, BRANCHES))
        assert not alone
        return trees


@dataclass
class Timed:
    """One way of reading k reports, once."""

    text: float = 0.0
    questions: float = 0.0


Answers = dict[object, Logits]
"""Logits behind a report, under its number; behind a branch, under (number, path). Reports are numbered from 1."""


class Reading:
    """k reports in a context, in both ways."""

    def __init__(self, flight: Flight, material: Material, reports: Sequence[list[int]]) -> None:
        self._flight, self._material, self._reports = flight, material, reports
        self._trees = material.trees()
        self._leaves = sum(len(tree.leaves()) for tree in self._trees)

    def one_by_one(self, *, questions: bool = True) -> tuple[Timed, Answers]:
        """Each report, and the questions on it, before the next."""
        flight, timed, answers = self._flight, Timed(), Answers()
        for number, report in enumerate(self._reports, start=1):
            flight.forget_reports()
            started = time.perf_counter()
            flight.fork(HEAD, [number], flight.head)
            answers |= flight.compute(report_places(number, flight.head, report))
            read = time.perf_counter()
            if questions:
                for tree in self._trees:  # one tree is one batch, as in the library
                    answers |= self._ask([(number, tree)])
            timed.text += read - started
            timed.questions += time.perf_counter() - read
        return timed, answers

    def together(self, *, questions: bool = True) -> tuple[Timed, Answers]:
        """All reports in common batches, then the questions on all of them in common batches."""
        flight = self._flight
        flight.forget_reports()
        started = time.perf_counter()
        numbers = range(1, 1 + len(self._reports))
        flight.fork(HEAD, numbers, flight.head)
        places = [report_places(number, flight.head, self._reports[number - 1]) for number in numbers]
        answers = flight.compute(list(chain.from_iterable(places)))
        read = time.perf_counter()
        if questions:
            room = flight.settings.sequences - 1 - len(self._reports)
            for group in groups([self._leaves] * len(self._reports), room):
                answers |= self._ask([(numbers[place], tree) for place in group for tree in self._trees])
        return Timed(read - started, time.perf_counter() - read), answers

    def _ask(self, asked: Sequence[tuple[int, QuestionTree]]) -> Answers:
        """Trees behind reports, in batches as full as can be; their branches are forgotten then."""
        flight, first, found = self._flight, 1 + len(self._reports), []
        for number, tree in asked:
            length = flight.head + len(self._reports[number - 1])
            found.append(branches_of(tree, number, length, first))
            flight.fork(number, found[-1].sequences, length)
            first += len(found[-1].sequences)
        answers = flight.compute([place for branches in found for place in branches.places])
        for branches in found:
            flight.forget(branches.sequences)
        return answers


def flight_for(material: Material, reports: Sequence[list[int]], *, unified: bool) -> Flight:
    """A context with room for these reports and, where memory is for all, for the questions on them."""
    head, count = len(material.head), len(reports)
    if unified:
        trees = sum(len(tree.tokens) for tree in material.trees())
        cells = head + sum(map(len, reports)) + count * trees
        sequences = min(MOST_SEQUENCES, 1 + count + count * sum(len(tree.leaves()) for tree in material.trees()))
    else:  # each sequence has a part of its own, head included
        cells = (1 + count) * CELLS * math.ceil((head + max(map(len, reports))) / CELLS)
        sequences = 1 + count
    flight = Flight(
        FlightSettings(
            material.model,
            material.adapter,
            material.threads,
            material.batch_tokens,
            CELLS * math.ceil(cells / CELLS),
            sequences,
            unified,
        )
    )
    flight.read_head(material.head)
    return flight


def measure(material: Material, together: int, repeats: int, *, neighbours: bool) -> dict[str, Any]:
    """All that is measured with so many reports, in this process."""
    reports = list(material.reports[:together])
    flight = flight_for(material, reports, unified=True)
    reading = Reading(flight, material, reports)
    found = {"together": together, "tokens": sum(map(len, reports)), "context_tokens": flight.settings.context_tokens}
    found |= {"memory_mb": flight.settings.context_tokens * material.cell_bytes / 2**20}
    Reading(flight, material, reports[:1]).one_by_one()  # warm up
    chance, rounds = random.Random(together), []
    moved: dict[str, Any] = {}
    for _ in range(repeats):
        alone, common = _both(reading, chance, questions=True)
        rounds.append(_round(alone[0], common[0]))
        moved = answers_moved(material, alone[1], common[1])
    found |= {"unified": rounds, "moved": moved, "peak_mb": peak_mb("self")}
    if neighbours:
        found["neighbours"] = neighbours_moved(flight, material, reports)
    flight.close()
    divided = flight_for(material, reports, unified=False)
    reading, rounds = Reading(divided, material, reports), []
    Reading(divided, material, reports[:1]).one_by_one(questions=False)
    for _ in range(repeats):
        alone, common = _both(reading, chance, questions=False)
        rounds.append(_round(alone[0], common[0]))
    divided.close()
    return found | {"divided": rounds}


def _both(reading: Reading, chance: random.Random, *, questions: bool) -> tuple[Any, Any]:
    """Both ways, in an order that is drawn."""
    ways = [("alone", reading.one_by_one), ("together", reading.together)]
    chance.shuffle(ways)
    found = {name: way(questions=questions) for name, way in ways}
    return found["alone"], found["together"]


def _round(alone: Timed, together: Timed) -> dict[str, float]:
    return {
        "alone_text": alone.text,
        "alone_questions": alone.questions,
        "together_text": together.text,
        "together_questions": together.questions,
    }


def answers_moved(material: Material, one: Answers, other: Answers) -> dict[str, Any]:
    """How far the answers to all questions on all reports lie apart."""
    numbers = sorted(key for key in one if isinstance(key, int))
    apart, changed = [], 0
    for number in numbers:
        for question in material.questions:
            here, there = (_probabilities(question, number, answers) for answers in (one, other))
            apart.append(max(abs(a - b) for a, b in zip(here, there, strict=True)))
            changed += here.index(max(here)) != there.index(max(there))
    return {"answers": len(apart), "changed": changed, "largest": max(apart)}


def _probabilities(question: TokenQuestion, number: int, answers: Answers) -> list[float]:
    def logits_at(before: tuple[int, ...], possible: Sequence[int]) -> list[float]:
        logits = answers[number, (*question.asked, *before)]
        return [float(logits[token]) for token in possible]

    return candidate_probabilities(question.answers, logits_at)


def neighbours_moved(flight: Flight, material: Material, reports: Sequence[list[int]]) -> list[dict[str, Any]]:
    """Whether the logits behind the first report change with what is read beside it.

    Against the same batch: that batch again; neighbours with other text and the same lengths; shorter ones. The report
    stands before its neighbours or behind them.
    """
    own, others = reports[0], list(reports[1:])
    beside = {
        "the same again": others,
        "other text, same lengths": [other[::-1] for other in others],
        "shorter neighbours": [other[: 2 * len(other) // 3] for other in others],
    }
    found = []
    for first in (True, False):
        number = 1 if first else 1 + len(others)

        def logits(near: list[list[int]], *, first: bool = first, number: int = number) -> Logits:
            reading = Reading(flight, material, [own, *near] if first else [*near, own])
            return reading.together(questions=False)[1][number]

        before = logits(others)
        for name, near in beside.items():
            now = logits(near)
            largest = float(np.abs(now - before).max())
            found.append({"first": first, "beside": name, "same": bool((now == before).all()), "largest": largest})
        alone = Reading(flight, material, [own]).one_by_one(questions=False)[1][1]
        largest = float(np.abs(alone - before).max())
        found.append({"first": first, "beside": "nothing", "same": bool((alone == before).all()), "largest": largest})
    return found


def make_material(task: PeerTask, length: int, batch_tokens: int) -> Material:
    """Reports of a length, and all questions of the plan with closed values, in tokens."""
    import medorchestra as mo
    from medorchestra.local.engine.gguf_file import read_gguf_header

    plan = in_form(mo.read_plan(task.topic), "compact")
    header = read_gguf_header(Path(task.model))
    keys = (header.count(name) for name in (".embedding_length", ".attention.head_count"))
    width, heads = (key or 0 for key in keys)
    layers, kept = header.count(".block_count") or 0, header.count(".attention.head_count_kv") or heads
    with mo.LlamaCppEngine(Path(task.model), context_tokens=512, threads=1) as engine:
        questions = tuple(
            TokenQuestion(
                tuple(engine.prompts.question(plan.question(subtask))),
                tuple(engine.prompts.answer(label) for label in subtask.labels.values()),
            )
            for subtask in plan.subtasks
            if subtask.answer == "choice"
        )
    return Material(
        task.model,
        task.adapter,
        task.threads,
        batch_tokens,
        task.head_tokens["compact"],
        questions,
        tuple(report.tokens for report in task.reports[str(length)]),
        cell_bytes=2 * 2 * layers * kept * width // heads,  # key and value, two bytes each
    )


def in_process(*given: Any, **named: Any) -> dict[str, Any]:
    """`measure`, in a process of its own: what it has taken of memory is then its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *given, **named).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--together", type=int, nargs="+", default=[1, 2, 4, 8], help="reports")
    parser.add_argument("--lengths", type=int, nargs="+", default=[150, 600], help="tokens of a report")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--neighbours", type=int, nargs="*", default=[2, 4], help="for which k they are exchanged")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    task = make_task(
        topic=TOPIC,
        split=SPLIT,
        lengths=args.lengths,
        reports=max(args.together),
        threads=args.threads,
        context_tokens=2048,
    )
    rows, sizes = [], {}
    for length in args.lengths:
        material = make_material(task, length, args.batch_tokens)
        trees = material.trees()
        sizes = {"questions": len(material.questions), "tokens": [len(tree.tokens) for tree in trees]}
        sizes |= {"branches": [len(tree.leaves()) for tree in trees], "head": len(material.head)}
        for together in args.together:
            exchanged = together > 1 and together in args.neighbours
            row = in_process(material, together, args.repeats, neighbours=exchanged)
            rows.append({"length": length, **row})
            print(f"{length} tokens, {together} together: done", file=sys.stderr)
    about = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/speed/reports_in_flight.py " + " ".join(sys.argv[1:]),
        "model": Path(task.model).name,
        "adapter": None if task.adapter is None else Path(task.adapter).name,
        "threads": args.threads,
        "batch_tokens": args.batch_tokens,
        "repeats": args.repeats,
        "tree": sizes,
        **machine(),
    }
    lines = table_lines(rows, about)
    args.out.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"about": about, "rows": rows}, indent=1)
    (args.out / "reports_in_flight.json").write_text(told + "\n", encoding="utf-8")
    (args.out / "reports_in_flight.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
