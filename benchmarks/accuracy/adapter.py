"""Measures a plan with its adapter on the held-out synthetic cases of a topic, against the bare base.

    python benchmarks/accuracy/adapter.py --plan pancreatic_cancer [--plan-file FILE --cases DIR] [--model NAME]
        --adapter auto|FILE [--bare-too [--bare-form FORM]] --ledger DIR --out benchmarks/accuracy/adapter

Writes results.md, risk_coverage.svg, reliability.svg and errors.jsonl into `--out`. Killed, it goes on where it was,
since answers are kept in `--ledger`. Only held-out cases are read by a model; of the other splits it takes the names
of styles, and sees that no text stands in two. The bare base is measured with the long instructed questions, meant for
a model as it comes, and with the few words that the adapter was trained on, so that it is not beaten by its prompt.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import adapter_tables as tables
from adapter_measures import (
    FORMS,
    SEEN,
    Reader,
    TrainedStyles,
    error_rows,
    measure,
    of_form,
    outcome_share,
    review_share,
    trained_styles,
    unreviewed_share,
)
from adapter_pictures import draw_reliability, draw_risk_coverage

import medorchestra as mo
from medorchestra.errors import CaseError, ModelError
from medorchestra.local.adapters import chosen_adapter
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.local.engine.protocol import Engine
from medorchestra.phrases.phrase_bank import PhraseBank, read_phrase_bank
from medorchestra.plan_files import plan_path
from medorchestra.plan_terminal import Told
from medorchestra.rehearsal_scores import CaseReading
from medorchestra.synthetic import SyntheticCase, cases_digest, check_case
from medorchestra.topics import cases_folder
from medorchestra.whole_files import write_whole

OpenEngine = Callable[[Path | None], Engine]
"""Makes the engine with this adapter, or without one; it is closed after its rehearsal."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured.

    Attributes:
        plan: the plan, as it runs with the adapter.
        cases: of the held-out split.
        trained: styles that training has seen.
        adapter: the GGUF.
        record: its training record; empty where there is none beside it.
        bare_forms: forms of the questions in which the bare base is measured; none: it is not.
    """

    plan: mo.Plan
    cases: tuple[SyntheticCase, ...]
    trained: TrainedStyles
    adapter: Path
    record: dict[str, Any]
    bare_forms: tuple[str, ...] = ()


def held_out(plan: mo.Plan, cases: Sequence[SyntheticCase]) -> tuple[SyntheticCase, ...]:
    """The held-out cases, checked.

    Raises:
        CaseError: there are none, one contradicts the plan, or a text stands in another split too.
    """
    found = tuple(case for case in cases if case.split == "held_out")
    if not found:
        raise CaseError("no case of the held-out split; make some, nothing else may be measured on")
    for case in found:
        check_case(case, plan)
    elsewhere = {case.text: case.id for case in cases if case.split != "held_out"}
    doubled = [case.id for case in found if case.text in elsewhere]
    if doubled:
        raise CaseError(f"{len(doubled)} held-out texts stand in another split too, first: {doubled[0]}; remove them")
    return found


def measure_all(wanted: Wanted, open_engine: OpenEngine, ledgers: Path, *, quiet: bool = False) -> list[Reader]:
    """Base + adapter first, then the bare base in every form asked for. One engine is open at a time.

    Args:
        wanted: what is measured.
        open_engine: makes the engines.
        ledgers: folder for a ledger each.
        quiet: no progress.
    """
    readers: list[Reader] = []
    with Told(quiet=quiet) as told:
        with _opened(open_engine(wanted.adapter)) as engine:
            progress = _counting(told, "base + adapter", len(wanted.cases))
            ledger = ledgers / "adapter.sqlite"
            readers.append(
                measure("base + adapter", wanted.plan, wanted.cases, engine, ledger=ledger, progress=progress)
            )
        if not wanted.bare_forms:
            return readers
        with _opened(open_engine(None)) as engine:
            for form, plan in bare_plans(wanted.plan, wanted.bare_forms).items():
                name = f"base, {form}"
                progress = _counting(told, name, len(wanted.cases))
                ledger = ledgers / "base.sqlite"
                readers.append(measure(name, plan, wanted.cases, engine, ledger=ledger, progress=progress))
    return readers


def bare_plans(plan: mo.Plan, forms: Sequence[str]) -> dict[str, mo.Plan]:
    """Form -> the plan with its questions in this form; once where two forms ask the same."""
    found: dict[str, mo.Plan] = {}
    for form in forms:
        other = plan
        if form != plan.profile.prompt_form:
            profile = plan.profile.model_copy(update={"prompt_form": form})
            other = plan.model_copy(update={"profile": profile})
        if other.questions_digest not in {one.questions_digest for one in found.values()}:
            found[form] = other
    return found


@contextmanager
def _opened(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.close()


def _counting(told: Told, name: str, total: int) -> Callable[[CaseReading], None]:
    done = count(1)

    def tell(_: CaseReading) -> None:
        number = next(done)
        told.say(f"{name}: {number}/{total} reports", lasting=number == total)

    return tell


# ------------------------------------------------------------------------------------------------ what is written


def write_results(wanted: Wanted, readers: Sequence[Reader], out: Path, made_on: date) -> None:
    """results.md, the two pictures and errors.jsonl."""
    tuned, *bare = readers
    names = [finding.name for finding in wanted.plan.findings]
    perfect = measure("perfect reader", wanted.plan, wanted.cases, mo.perfect_reader(wanted.plan, wanted.cases))
    most_left = 1 - review_share(perfect.scores).count / len(wanted.cases)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "results.md", "\n".join(result_lines(wanted, [tuned, *bare, perfect], made_on)) + "\n")
    rows = error_rows(tuned, names, wanted.trained)
    write_whole(out / "errors.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    draw_risk_coverage(out / "risk_coverage.svg", tuned, bare, made_on, most_left=most_left)
    draw_reliability(out / "reliability.svg", wanted.plan, tuned, made_on)


def result_lines(wanted: Wanted, readers: Sequence[Reader], made_on: date) -> list[str]:
    """The text of results.md; of the readers, the first has the adapter and the last is the perfect one."""
    tuned, *bare, _ = readers
    names = [finding.name for finding in wanted.plan.findings]
    return [
        f"# {wanted.plan.title}: the adapter on held-out cases",
        "",
        *_facts(wanted, tuned, made_on),
        "",
        "## Right and wrong",
        "",
        "Intervals: 95 % Wilson. `+a −b`: cases that only the adapter, or only the base, has right; p: exact two-sided",
        "McNemar test, not corrected for the number of findings. The most frequent value is that of the held-out cases",
        "themselves: the best that a reader who never looks could do.",
        "",
        "Outcome, over the cases whose expected outcome is certain (first number) of all:",
        "",
        *tables.outcome_table(tuned, bare),
        "",
        "Findings:",
        "",
        *tables.finding_table(wanted.plan, tuned, bare),
        "",
        "## What a person has to look at",
        "",
        "An open case (no outcome is certain) that is left unreviewed counts as wrong. The perfect reader gives the",
        "expected findings, each with certainty: what it sends to review, the plan's own rules send there.",
        "",
        *tables.selection_table(readers),
        "",
        "Why reports go to review (several reasons may hold at once):",
        "",
        *tables.reason_table(readers),
        "",
        "![risk and coverage](risk_coverage.svg)",
        "",
        "Base + adapter by style. Held out: no development case, layout or phrase is of a style of this name.",
        "",
        *tables.style_table(tuned, names, wanted.trained),
        "",
        "By who wrote the report:",
        "",
        *tables.provenance_table(tuned, names),
        "",
        "## Whether the probabilities mean what they say",
        "",
        "Base + adapter. ECE: expected calibration error of the chosen value, ten bins; Brier: 0 to 2. Nothing here",
        "was fitted to held-out cases. In the picture, answers to one report count as independent, which they are not.",
        "",
        *tables.calibration_table(wanted.plan, tuned),
        "",
        "![reliability](reliability.svg)",
        "",
        "## What goes wrong",
        "",
        *tables.confusion_tables(tuned, names),
        "",
        "`errors.jsonl` has every wrong outcome with its report, those first that nobody would look at. Whoever",
        "changes prompts, phrases or training after reading them needs new held-out cases.",
    ]


def _facts(wanted: Wanted, tuned: Reader, made_on: date) -> list[str]:
    scores, record, calibration = tuned.scores, wanted.record, tuned.calibration
    trained = "none beside the adapter"
    if record:
        counted = ", ".join(f"{n} {kind}" for kind, n in record["data"].items() if n)
        trained = f"{counted} reports ({record['trained_on']}), {record['seconds'] / 60:.0f} min on {record['device']}"
    fitted = "none: probabilities as they come, threshold of the plan's profile"
    if calibration is not None:
        fitted = f"{calibration.n} {calibration.labels} labels, {calibration.made_on}, risk {calibration.risk:.2f}"
    seen = Counter(wanted.trained.seen(case.style) for case in wanted.cases)
    styles = ", ".join(f"{seen[kind]} {kind}" for kind in SEEN)
    return [
        f"`python benchmarks/accuracy/adapter.py {' '.join(sys.argv[1:])}`, {made_on}, medorchestra {mo.__version__}, "
        f"llama-cpp-python {version('llama-cpp-python')}, Python {platform.python_version()}, {platform.machine()}.",
        "",
        f"- {len(wanted.cases)} held-out cases `{cases_digest(wanted.cases)[:23]}`; their styles: {styles}. All are "
        "invented; no radiologist has reviewed them.",
        f"- Plan `{scores.plan_digest[:23]}`, context {wanted.plan.profile.context}, "
        f"{wanted.plan.profile.prompt_form} questions.",
        f"- Model {scores.model} `{scores.model_digest[:23]}`, adapter `{(scores.adapter_digest or 'none')[:23]}`.",
        f"- Training: {trained}.",
        f"- Calibration: {fitted}.",
    ]


def summary_lines(readers: Sequence[Reader]) -> list[str]:
    """What the terminal shows."""
    lines = []
    for reader in readers:
        shares = "; ".join(f"{form.replace('_', ' ')} {outcome_share(of_form(reader.scores, form))}" for form in FORMS)
        lines.append(f"{reader.name}: outcome right: {shares}")
        lines.append(
            f"  sent to review: {review_share(reader.scores)}; right of the rest: {unreviewed_share(reader.scores)}"
        )
    return lines


# ------------------------------------------------------------------------------------------------ command


def read_wanted(args: argparse.Namespace) -> Wanted:
    """What the command line asks for.

    Raises:
        MedorchestraError: plan, cases or adapter cannot be used, or there is no adapter.
    """
    source = args.plan_file or args.plan
    plan = mo.read_plan(source)
    folder = args.cases or cases_folder(plan.topic)
    cases = mo.read_cases(folder)
    adapter = chosen_adapter(plan, args.model, args.adapter, plan_path(source))
    if adapter is None:
        raise ModelError(f"{plan_path(source).parent}: no adapter beside the plan fits it and the model; name one")
    record = read_record(adapter)
    how = record["settings"]["data"] if record else {}
    bank = read_bank(folder) if how.get("composed", 1) else None
    return Wanted(
        plan=plan,
        cases=held_out(plan, cases),
        trained=trained_styles(cases, bank, how.get("without_styles", ())),
        adapter=adapter,
        record=record,
        bare_forms=tuple(args.bare_form or ("instructed", "compact")) if args.bare_too else (),
    )


def read_record(adapter: Path) -> dict[str, Any]:
    """The training record beside an adapter; empty where there is none.

    Raises:
        ModelError: it is the record of another adapter.
    """
    beside = adapter.with_suffix(".json")
    if not beside.is_file():
        return {}
    record: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    if record["adapter_digest"] != file_digest(adapter):
        raise ModelError(f"{beside}: the record of another adapter than {adapter.name}; train again, or remove it")
    return record


def read_bank(folder: Path) -> PhraseBank | None:
    """The phrase bank in a folder of cases or beside it; None where there is none."""
    for file in (folder / "phrase_bank.json", folder.parent / "phrase_bank.json"):
        if file.is_file():
            return read_phrase_bank(file)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="pancreatic_cancer", help="topic")
    parser.add_argument("--plan-file", type=Path, help="a plan that is not the topic's own")
    parser.add_argument("--cases", type=Path, help="folder with the splits and phrase_bank.json; default the topic's")
    parser.add_argument("--model", default="default")
    parser.add_argument("--adapter", default="auto", help="path, or `auto`: the one beside the plan")
    parser.add_argument("--bare-too", action="store_true", help="also the base without adapter")
    parser.add_argument("--bare-form", action="append", choices=["instructed", "compact"], help="default both")
    parser.add_argument("--ledger", type=Path, required=True, help="folder that keeps answers")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    try:
        wanted = read_wanted(args)
        readers = measure_all(
            wanted, lambda adapter: mo.LlamaCppEngine(args.model, adapter=adapter), args.ledger, quiet=args.quiet
        )
        write_results(wanted, readers, args.out, datetime.now(UTC).date())
    except mo.MedorchestraError as error:
        sys.exit(f"adapter.py: {error}")
    print("\n".join(summary_lines(readers)))
    print(f"written: {args.out}/results.md, risk_coverage.svg, reliability.svg, errors.jsonl")


if __name__ == "__main__":
    main()
