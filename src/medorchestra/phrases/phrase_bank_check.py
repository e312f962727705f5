"""A phrase bank held against its plan: every problem in a readable line, and what the bank was seen to yield.

Lines name ids, findings, values and counts, never the text of a phrase. Knows banks and plans; mends nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from medorchestra.errors import CaseError
from medorchestra.phrases.composition import Composer
from medorchestra.phrases.layout_fit import LayoutFit, holds, value_name
from medorchestra.phrases.phrase_bank import NUMBER, SLOT, UNITS, Phrase, PhraseBank, RangeSlot, UnitSlot, read_slot
from medorchestra.phrases.targets import breaks
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED, evaluate, findings_in
from medorchestra.synthetic import Split

MINIMUM: Mapping[Split, int] = {"development": 5, "calibration": 2, "held_out": 2}
"""Phrases that every value needs in each split."""
_COMPARATOR = re.compile(r"(<=|>=|<|>)(\d+(?:\.\d+)?)")
_DEGREES = re.compile(r"(\{[^{}]*\}|\d+)(?:\s*(?:to|-|–)\s*(\d+))?\s*(?:°|deg)", re.IGNORECASE)
_EARLIER = re.compile(r"previous|prior|earlier|formerly|from \d|was |were |before|outside", re.IGNORECASE)


def check_bank(bank: PhraseBank, plan: Plan, *, minimum: Mapping[Split, int] | None = None) -> tuple[str, ...]:
    """Every problem of a bank, as one line each; empty where it can be used.

    Args:
        bank: the bank.
        plan: the plan it speaks of.
        minimum: split -> phrases that every value needs there; a split left out is not checked. Default `MINIMUM`.
    """
    if bank.topic != plan.topic:
        return (f"bank of topic {bank.topic!r}, plan of topic {plan.topic!r}",)
    minimum = MINIMUM if minimum is None else minimum
    problems = [*_frame_problems(bank, plan)]
    if problems:
        return tuple(problems)  # the rest would only repeat them
    for phrase in (*bank.phrases, *bank.distractors):
        problems += phrase_problems(phrase, bank, plan)
    problems += skeleton_problems(bank, plan)
    if problems:
        return tuple(problems)
    problems += _doubled_texts(bank)
    problems += _contained_texts(bank)
    for split, wanted in minimum.items():
        problems += _thin_values(bank, plan, split, wanted)
        problems += _unusable(bank, plan, split)
    return tuple(problems)


def _frame_problems(bank: PhraseBank, plan: Plan) -> Iterator[str]:
    """What is wrong with the bank besides its pieces."""
    values = _values_of(plan)
    unknown = sorted(set(bank.findings) - set(values))
    if unknown:
        yield f"findings: not in the plan: {', '.join(unknown)}"
        return
    named: list[tuple[str, str, tuple[str, ...]]] = []
    if bank.closing is not None and bank.closing.finding is not None:
        of_closing = (bank.closing.agrees, bank.closing.conflicts)
        named.append(("closing", bank.closing.finding, tuple(value for value in of_closing if value)))
    named += [("derived", one.finding, (one.value,)) for one in bank.derived]
    named += [("dependencies", one.finding, one.values) for one in bank.dependencies]
    named += [("dependencies", one.on, one.among) for one in bank.dependencies]
    for where, finding, said in named:
        yield from _unknown_values(where, {finding: said}, values)
    for habit in bank.numbers:
        number = plan.finding(habit.finding).number
        if number is None or habit.low < number.minimum or habit.high > number.maximum:
            yield f"numbers: {habit.finding}: not a number finding, or outside the plan's range"
    wordings = Counter(wording.lower() for words in bank.synonyms for wording in dict.fromkeys(words))
    doubled = [wording for wording, count in wordings.items() if count > 1]
    if doubled:
        yield f"synonyms: {len(doubled)} wordings are in more than one set, first: {doubled[0]!r}"


def _values_of(plan: Plan) -> dict[str, frozenset[str]]:
    """Finding -> what may be said of it: its values, or `number`; and `not_stated`."""
    return {f.name: frozenset((*(f.values or (NUMBER,)), NOT_STATED)) for f in plan.findings}


def _unknown_values(
    where: str, said: Mapping[str, Iterable[str]], values: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    for finding, these in said.items():
        if finding not in values:
            yield f"{where}: unknown finding {finding!r}"
            continue
        unknown = sorted(set(these) - values[finding])
        if unknown:
            there = ", ".join(sorted(values[finding]))
            yield f"{where}: finding {finding} has no value {', '.join(map(repr, unknown))}; it has: {there}"


# ---------------------------------------------------------------------------------------------------------- pieces


def phrase_problems(phrase: Phrase, bank: PhraseBank, plan: Plan) -> list[str]:
    """What is wrong with one phrase or distractor."""
    where = f"{'phrase' if phrase.states else 'distractor'} {phrase.id}"
    values = _values_of(plan)
    problems = list(_unknown_values(where, {f: (v,) for f, v in phrase.states.items()}, values))
    problems += _unknown_values(f"{where}, needs", phrase.needs, values)
    problems += _unknown_values(f"{where}, not_with", phrase.not_with, values)
    if problems:
        return problems
    if NOT_STATED in phrase.states.values():
        return [f"{where}: states that a finding is not stated; leave it out of `states`"]
    stated = dict.fromkeys(values, NOT_STATED) | dict(phrase.states)
    if not holds({f: a for f, a in phrase.needs.items() if f in phrase.states}, stated):
        problems.append(f"{where}: needs other values than it states")
    if any(stated[f] != NOT_STATED and stated[f] in among for f, among in phrase.not_with.items()):
        problems.append(f"{where}: must not stand with what it states")
    known = {name: value for name, value in phrase.states.items() if value != NUMBER}
    unspoken = bank.unspoken
    for flag in plan.flags:
        when = plan.expanded(flag.when)
        if flag.kind != "contradiction" or set(findings_in(when)) <= unspoken:
            continue
        if evaluate(when, known, plan.option_settings) is True:
            problems.append(f"{where}: contradicts itself (flag {flag.id})")
    for dependency in bank.dependencies:
        if dependency.on in phrase.states and breaks(dependency, stated):
            problems.append(f"{where}: states {dependency.finding} without the {dependency.on} that it depends on")
    if phrase.form == "structured" and not phrase.states:
        problems.append(f"{where}: a structured distractor has no place; fields of other things are places with `says`")
    return problems + [f"{where}: {line}" for line in (*_number_problems(phrase, plan), *_degree_problems(phrase))]


def _number_problems(phrase: Phrase, plan: Plan) -> Iterator[str]:
    """Slots that state a number no finding of the phrase has, and numbers stated without a slot."""
    families = Counter(
        UNITS[number.unit]
        for name, value in phrase.states.items()
        if value == NUMBER and (number := plan.finding(name).number) is not None
    )
    if any(count > 1 for count in families.values()):
        yield "two numbers of the same kind in one phrase: which slot is whose cannot be told"
    current = [slot for slot in phrase.slots if isinstance(slot, UnitSlot) and not slot.prior]
    for family in {slot.family for slot in current} - set(families):
        yield f"a slot for a number ({family}) that `states` does not name; a range like {{3-9}} states nothing"
    for family in families:
        if not any(slot.family == family and slot.dimension == 1 for slot in current):
            yield f"states a number ({family}) but has no slot for it"
    if len({slot.unit for slot in current if slot.family == "length"}) > 1:
        yield "dimensions in two units"


def _degree_problems(phrase: Phrase) -> Iterator[str]:
    """Degrees that lie on the other side of the bound that the stated value names."""
    bounds = [found.groups() for value in phrase.states.values() if (found := _COMPARATOR.match(value)) is not None]
    if not bounds or _EARLIER.search(phrase.text):
        return
    for found in _DEGREES.finditer(phrase.text):
        written = found[1]
        if written.startswith("{"):
            slot = read_slot(written[1:-1])
            if not isinstance(slot, RangeSlot):
                continue
            ends = (slot.low, slot.high)
        else:
            ends = (float(written), float(found[2] or written))
        if not any(all(_compares(end, sign, float(bound)) for end in ends) for sign, bound in bounds):
            yield f"degrees {ends[0]:g} to {ends[1]:g} do not fit the stated value"


def _compares(number: float, sign: str, bound: float) -> bool:
    return {"<=": number <= bound, "<": number < bound, ">=": number >= bound, ">": number > bound}[sign]


def skeleton_problems(bank: PhraseBank, plan: Plan) -> list[str]:
    """What is wrong with the skeletons."""
    values = _values_of(plan)
    problems: list[str] = []
    for skeleton in bank.skeletons:
        where = f"skeleton {skeleton.id}"
        for place in skeleton.places:
            problems += _unknown_values(f"{where}, needs", place.needs, values)
            if not place.values:
                continue
            finding = place.findings[0]
            problems += _unknown_values(f"{where}, values", {finding: place.values}, values)
            if NOT_STATED in place.values:
                problems.append(f"{where}: field of {finding}: what it has for silence is `silent`")
            texts = Counter(_plain(text) for text in (*place.values.values(), place.silent or "\0"))
            if any(count > 1 for count in texts.values()):
                problems.append(f"{where}: field of {finding}: the same text for two values")
            problems += _value_slot_problems(f"{where}: field of {finding}", place.values.get(NUMBER), finding, plan)
    return problems


def _value_slot_problems(where: str, text: str | None, finding: str, plan: Plan) -> Iterator[str]:
    number = plan.finding(finding).number
    if text is None or number is None:
        return
    slots = [read_slot(inside) for inside in SLOT.findall(text)]
    if not any(isinstance(s, UnitSlot) and s.dimension == 1 and s.family == UNITS[number.unit] for s in slots):
        yield f"{where}: no slot in a unit of {number.unit}"


# ---------------------------------------------------------------------------------------------------------- between


def _plain(text: str) -> str:
    """A text as a reader sees it, for comparison: slots alike, blanks and capitals and the last point ignored."""
    return " ".join(SLOT.sub("#", text).lower().split()).rstrip(".")


def _doubled_texts(bank: PhraseBank) -> Iterator[str]:
    """Texts that state different things in two phrases, or that are in two splits."""
    seen: dict[str, Phrase] = {}
    for phrase in (*bank.phrases, *bank.distractors):
        # A fragment of a form says different things in different fields.
        kind = "|".join(sorted(phrase.states)) if phrase.form == "structured" else ""
        key = f"{kind}\0{_plain(phrase.text)}"
        other = seen.setdefault(key, phrase)
        if other is phrase:
            continue
        if dict(other.states) != dict(phrase.states):
            yield f"phrases {other.id} and {phrase.id}: the same text states different things"
        elif other.split != phrase.split:
            yield f"phrases {other.id} and {phrase.id}: the same text in two splits"
    layouts = Counter(skeleton.model_dump_json(include={"places", "join"}) for skeleton in bank.skeletons)
    if any(count > 1 for count in layouts.values()):
        yield f"{sum(count - 1 for count in layouts.values())} skeletons have the same layout as another"


def _contained_texts(bank: PhraseBank, least_words: int = 3) -> Iterator[str]:
    """Sentences that stand whole inside a sentence with another value: what they state depends on what is around."""
    by_value: dict[str, dict[str, list[tuple[str, Phrase]]]] = defaultdict(lambda: defaultdict(list))
    for phrase in bank.phrases:
        if phrase.form != "structured":
            for finding, value in phrase.states.items():
                by_value[finding][value].append((f" {_plain(phrase.text)} ", phrase))
    for of_finding in by_value.values():
        whole = {value: "\n".join(text for text, _ in said) for value, said in of_finding.items()}
        for value, said in of_finding.items():
            for text, phrase in said:
                if len(text.split()) < least_words:
                    continue
                for other in (v for v in whole if v != value and text in whole[v]):
                    around = next(p for longer, p in of_finding[other] if text in longer)
                    if around.states.items() >= phrase.states.items():
                        continue
                    yield f"phrases {phrase.id} and {around.id}: the first is whole in the second, with another value"


def _thin_values(bank: PhraseBank, plan: Plan, split: Split, wanted: int) -> Iterator[str]:
    """Values with fewer different phrases than wanted."""
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    for phrase in bank.phrases:
        if phrase.split == split and not phrase.rest and phrase.section not in bank.closing_sections:
            for stated in phrase.states.items():
                said[stated].add(_plain(phrase.text))
    for skeleton in bank.skeletons:
        if skeleton.split == split:
            for place in skeleton.places:
                for value, text in place.values.items():
                    said[place.findings[0], value].add(_plain(text))
    for name in bank.findings:
        if name in bank.unspoken:
            continue
        for value in sorted(_values_of(plan)[name] - {NOT_STATED}):
            count = len(said[name, value])
            if count < wanted:
                yield f"finding {name}, value {value}: {count} phrases in {split}, {wanted} wanted"


def _unusable(bank: PhraseBank, plan: Plan, split: Split) -> Iterator[str]:
    """Phrases without a place in any layout of their split, and rules that no report of it can come under."""
    pieces = [phrase for phrase in (*bank.phrases, *bank.distractors) if phrase.split == split]
    skeletons = [skeleton for skeleton in bank.skeletons if skeleton.split == split]
    placed = set().union(*(LayoutFit(bank, plan, skeleton, pieces).placed for skeleton in skeletons))
    homeless = [phrase.id for phrase in pieces if phrase.id not in placed]
    if homeless:
        shown = ", ".join(homeless[:5]) + (" …" if len(homeless) > 5 else "")
        yield f"{len(homeless)} phrases of {split} fit no skeleton of it (section, form or fields): {shown}"
    try:
        composer = Composer(bank, plan, split)
    except CaseError as error:
        yield str(error)
        return
    for stratum in composer.never:
        part = f"part {stratum.part}, " if stratum.part else ""
        yield f"{part}rule {stratum.rule}: no report of {split} can come under it with these phrases"


# ------------------------------------------------------------------------------------------------------------ yield


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a bank was seen to yield.

    Attributes:
        composed: seeds tried.
        distinct: different texts among them.
        distinct_wordings: different texts when numbers count as the same.
        rules: how often each rule (or None: open) decided.
        values: finding -> value -> how often, `not_stated` included, numbers as `number`.
        phrases_used: different phrases and distractors that stood in a report.
    """

    composed: int
    distinct: int
    distinct_wordings: int
    rules: Mapping[str | None, int]
    values: Mapping[str, Mapping[str, int]]
    phrases_used: int


def capacity(bank: PhraseBank, plan: Plan, *, n: int, split: Split, seed: int | str = 0) -> Capacity:
    """Compose for n seeds and count what came of it.

    Raises:
        CaseError: the bank does not suffice.
    """
    texts: set[str] = set()
    wordings: set[str] = set()
    rules: Counter[str | None] = Counter()
    values: dict[str, Counter[str]] = {finding.name: Counter() for finding in plan.findings}
    used: set[str] = set()
    stream = Composer(bank, plan, split).stream(seed)
    for _ in range(n):
        report = next(stream)
        texts.add(report.case.text)
        wordings.add("".join("0" if letter.isdigit() else letter for letter in report.case.text))
        rules[report.case.rule] += 1
        used.update(passage.phrase for passage in report.passages if passage.phrase is not None)
        for name, value in report.case.known().items():
            values[name][value_name(value)] += 1
    return Capacity(n, len(texts), len(wordings), dict(rules), {f: dict(c) for f, c in values.items()}, len(used))
