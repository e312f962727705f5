"""How a brief makes a report hard to read: wordings of comparators, and traps. Pure and seeded.

Traps are known errors of readers (and of small models), told as instructions to the writer and made from the plan's
names and values alone, so that they fit any plan. None of them changes what a careful reader takes from the report.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medorchestra.cloud.cases.case_targets import UNREMARKABLE, Targets, step_of, unremarkable_value
from medorchestra.plan import Finding, Plan
from medorchestra.rules import NOT_STATED

_COMPARATOR = re.compile(r"(?P<sign><=|>=|<|>)(?P<number>\d+(?:\.\d+)?)")
_RANGE = re.compile(r"(?P<low>\d+(?:\.\d+)?)(?:_to_|-|_)(?P<high>\d+(?:\.\d+)?)(?![\d.])")
_FULL_CIRCLE = 360.0


@dataclass(frozen=True, slots=True)
class Trap:
    """What a hasty reader would get wrong.

    Attributes:
        name: of the kind; stands in the case.
        asks: what the writer is told.
    """

    name: str
    asks: str


# ------------------------------------------------------------------------------------------------------------- wordings


def wordings_of(finding: Finding, value: str | float, rng: random.Random) -> tuple[str, ...]:
    """Ways to word a value that is a comparator, a range or a length: at the bound, next to it, away from it, in words.

    Empty where the value needs no such hint.
    """
    if value == NOT_STATED:
        return ()
    if finding.number is not None:
        return _number_wordings(finding, float(value))
    name = str(value)
    if (comparator := _COMPARATOR.match(name)) is not None:
        return _comparator_wordings(finding, name, comparator["sign"], float(comparator["number"]), rng)
    if (span := _RANGE.match(name)) is not None and float(span["low"]) < float(span["high"]):
        unit = _unit_of(finding, name, span["high"])
        return (f"exactly {span['low']}{unit}", f"exactly {span['high']}{unit}", "in your own words")
    return ()


def _comparator_wordings(finding: Finding, value: str, sign: str, bound: float, rng: random.Random) -> tuple[str, ...]:
    unit = _unit_of(finding, value, f"{bound:g}")
    # Nodes, vessels and degrees come whole.
    step = 0.1 if bound < 10 and (unit in (" cm", " mm") or bound != round(bound)) else 1.0
    coarse = 10.0 if bound >= 30 else step
    if sign in ("<=", "<"):
        near, low, high = bound - step, bound / 3, bound - coarse
    else:
        near, low, high = bound + step, bound + coarse, _FULL_CIRCLE if unit == " degrees" else bound * 2
    away = min(max(round(rng.uniform(low, high) / coarse) * coarse, low), high)
    ways = [f"as {away:.4g}{unit}", f"as {near:.4g}{unit}", "in words only, without any number"]
    if sign in ("<=", ">="):
        ways.insert(1, f"as exactly {bound:g}{unit}")
    return tuple(ways)


def _unit_of(finding: Finding, value: str, number: str) -> str:
    """The word behind the number in the descriptions (` degrees`, ` cm`), or nothing."""
    described = f"{(finding.values or {}).get(value, '')} {finding.description}"
    found = re.search(rf"(?<![\d.]){re.escape(number)}\s+([a-z]+)\b", described)
    return f" {found[1]}" if found is not None else ""


def _number_wordings(finding: Finding, number: float) -> tuple[str, ...]:
    assert finding.number is not None  # noqa: S101 - only number findings come here
    unit = finding.number.unit
    if unit not in ("cm", "mm"):
        return ()
    other = f"{number * 10:g} mm" if unit == "cm" else f"{number / 10:g} cm"
    step = step_of(finding.number, number)
    return (
        f"as {number:g} {unit}",
        f"as {other}",
        f"in two dimensions, the larger being {number:g} {unit} and the smaller by {step:g} {unit} or more",
        f"in three dimensions, the largest being {number:g} {unit}",
    )


# ---------------------------------------------------------------------------------------------------------------- traps


def choose_traps(plan: Plan, targets: Targets, wording: Mapping[str, str], rng: random.Random) -> tuple[Trap, ...]:
    """None to three traps that fit the targets, of different kinds."""
    by_kind: dict[str, list[Trap]] = defaultdict(list)
    for trap in _possible_traps(plan, targets, wording, rng):
        by_kind[trap.name].append(trap)
    kinds = rng.sample(list(by_kind), min(len(by_kind), rng.choices((0, 1, 2, 3), (2, 4, 3, 1))[0]))
    return tuple(rng.choice(by_kind[kind]) for kind in kinds)


def _possible_traps(plan: Plan, targets: Targets, wording: Mapping[str, str], rng: random.Random) -> Iterator[Trap]:
    stated = [finding for finding in plan.findings if targets[finding.name] != NOT_STATED]
    silent = [finding for finding in plan.findings if targets[finding.name] == NOT_STATED]
    calm = [finding for finding in stated if targets[finding.name] == unremarkable_value(finding)]
    for finding in stated:
        if finding.number is None and len(finding.values or ()) < 3:
            continue  # what is only there or not there makes no good comparison
        yield Trap(
            "prior_value",
            f"give an earlier value of {finding.name} that differs from today's and is marked as earlier",
        )
    if len(stated) > 1:
        first, second = rng.sample(stated, 2)
        yield Trap("same_sentence", f"state {first.name} and {second.name} in one and the same sentence")
    yield from _blanket_traps(calm, targets, rng)
    for finding in calm:
        yield Trap("negation", f"state {finding.name} by a negation, with the negating word far from what it negates")
        yield Trap(
            "near_miss",
            f"mention something that a hasty reader takes for another value of {finding.name}, but that by the "
            f"descriptions leaves it {targets[finding.name]}",
        )
    for finding in silent:
        yield Trap(
            "asked_not_answered",
            f"let the request or history ask about {finding.name}, while the report itself leaves it unsaid",
        )
    if any(char.isdigit() for text in wording.values() for char in text):
        yield Trap("other_numbers", "let numbers of other structures stand close to the numbers that are asked for")
    yield Trap("typos", "two or three typing or dictation errors that leave every fact certain")
    yield Trap("unrelated_finding", "an incidental finding that no item asks about, described at some length")


def _blanket_traps(calm: list[Finding], targets: Targets, rng: random.Random) -> Iterator[Trap]:
    """Several findings of one value in one statement: `no …` over all of them."""
    alike: dict[str | float, list[str]] = defaultdict(list)
    for finding in calm:
        if targets[finding.name] in UNREMARKABLE:
            alike[targets[finding.name]].append(finding.name)
    for value, names in alike.items():
        if len(names) > 1:
            covered = sorted(rng.sample(names, rng.randint(2, min(4, len(names)))), key=names.index)
            yield Trap(
                "blanket_statement",
                f"say {', '.join(covered)} (all {value}) in one blanket statement that covers them together, and "
                "nowhere one by one",
            )
