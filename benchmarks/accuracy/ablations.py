"""Trains small adapters that differ from a reference in one thing each, and measures them on the calibration split.

    python benchmarks/accuracy/ablations.py --plan pancreatic_cancer [--plan-file FILE --cases DIR] [--model NAME]
        [--reports 320] [--written 320] [--repeats 1] [--measured 120] [--only NAME] [--list]
        --work DIR --out benchmarks/accuracy/ablations

Writes ablations.jsonl (a row for each setting, with every wrong reading by case id) and ablations.md into `--out`.
Adapters, checkpoints and answers stay in `--work`: killed, it goes on where it was, and a finished setting is trained
again only where plan, cases, bank, base or setting have changed. Trained on the development split, measured on the
calibration split, since an ablation decides something; held-out cases are never read. To be done in hours, a setting is
smaller than the shipped adapter: some of the reports written in full, read once.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ablation_tables import REFERENCE, WITHOUT_STYLES, Row, findings_of, outcome_of, table_lines
from adapter import read_bank
from adapter_tables import percent

import medorchestra as mo
from medorchestra.errors import CaseError, SettingsError
from medorchestra.finetune.branched_model import LoraSettings
from medorchestra.finetune.finetuning import FinetunedAdapter, FinetuneSettings, finetune
from medorchestra.finetune.training import TrainingProgress
from medorchestra.finetune.training_set import TrainingSetSettings
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.local.engine.model_files import find_model
from medorchestra.local.engine.protocol import Engine
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import content_digest
from medorchestra.plan_terminal import Told
from medorchestra.rehearsal_scores import RehearsalScores
from medorchestra.synthetic import SyntheticCase, cases_digest, check_case
from medorchestra.topics import cases_folder
from medorchestra.whole_files import write_whole

RANK = 16
SEED = 1
"""Of the choice of cases; that of training is in its settings."""


class Train(Protocol):
    """Makes an adapter; `finetune`, or what stands in for it."""

    def __call__(
        self,
        plan: mo.Plan,
        cases: Sequence[SyntheticCase],
        out: Path,
        *,
        bank: PhraseBank | None,
        settings: FinetuneSettings,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> FinetunedAdapter: ...


@dataclass(frozen=True, slots=True)
class Ablation:
    """A setting that is tried.

    Attributes:
        name: in files and tables.
        differs: in what from the reference.
        plan: the plan, with the context of this setting.
        settings: how its adapter is made.
        written: development cases that it is trained on; None: all of the material's.
    """

    name: str
    differs: str
    plan: mo.Plan
    settings: FinetuneSettings
    written: int | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What all settings share.

    Attributes:
        cases: development cases are trained on, calibration cases measured on; there are no others.
        bank: for composed reports.
        base_digest: of the base model.
        work: folder for adapters, checkpoints and answers.
    """

    cases: tuple[SyntheticCase, ...]
    bank: PhraseBank
    base_digest: str
    work: Path

    def of(self, split: str) -> tuple[SyntheticCase, ...]:
        """The cases of one split."""
        return tuple(case for case in self.cases if case.split == split)


@dataclass(frozen=True, slots=True)
class Means:
    """What trains and what reads; others can stand in for both.

    Attributes:
        train: makes an adapter.
        open_engine: opens the base with it; closed after its rehearsal.
    """

    train: Train
    open_engine: Callable[[Path], Engine]


# ------------------------------------------------------------------------------------------------ settings


def ablations(plan: mo.Plan, cases: Sequence[SyntheticCase], reports: int, repeats: int) -> list[Ablation]:
    """The reference, and what differs from it in one thing.

    Args:
        plan: the plan, as it will run.
        cases: all that may be used; decides how many reports written in full there are, and which styles.
        reports: composed reports of the reference.
        repeats: how often the reference reads each report that was written in full.

    Raises:
        SettingsError: too few reports to halve.
    """
    written = sum(case.split == "development" for case in cases)
    if reports < 8 or written < 8:
        raise SettingsError(f"{reports} composed, {written} full reports: at least 8 of both, or nothing can be halved")
    readings = reports + repeats * written
    data = TrainingSetSettings(composed=reports, repeats=repeats)
    reference = FinetuneSettings(data=data, lora=LoraSettings(rank=RANK, alpha=2 * RANK))

    def trained(**changes: Any) -> FinetuneSettings:
        return replace(reference, data=replace(data, **changes))

    found = [Ablation(REFERENCE, f"{reports} composed, {written} full reports, rank {RANK}", plan, reference)]
    full_only = trained(composed=0, repeats=max(1, round(readings / written)))
    found.append(Ablation("full_only", "full reports alone, as many readings", plan, full_only))
    half = trained(composed=reports // 2)
    found.append(Ablation("half", "half of both kinds of reports", plan, half, written // 2))
    styles = shared_styles(cases)
    if styles:
        without = trained(without_styles=frozenset(styles))
        found.append(Ablation(WITHOUT_STYLES, f"without the {len(styles)} styles of both splits", plan, without))
    found.append(
        Ablation("bank_only", "composed reports alone, as many readings", plan, trained(composed=readings, repeats=0))
    )
    context = "focused" if plan.profile.context == "full" else "full"
    other = plan.model_copy(update={"profile": plan.profile.model_copy(update={"context": context})})
    found.append(Ablation(f"context_{context}", f"context {context}", other, reference))
    for rank in (RANK // 4, 4 * RANK):
        settings = replace(reference, lora=LoraSettings(rank=rank, alpha=2 * rank))
        found.append(Ablation(f"rank_{rank}", f"rank {rank}", plan, settings))
    return found


def shared_styles(cases: Sequence[SyntheticCase]) -> list[str]:
    """Styles that are both trained on and measured on."""
    styles = {split: {case.style for case in cases if case.split == split} for split in ("development", "calibration")}
    return sorted(styles["development"] & styles["calibration"])


def some_of(cases: Sequence[SyntheticCase], written: int | None, measured: int | None) -> tuple[SyntheticCase, ...]:
    """A choice by seed from both splits; None: all.

    Args:
        cases: development and calibration cases.
        written: development cases.
        measured: calibration cases with a certain outcome: those of styles that are trained on too, then others.
    """
    own = _drawn([case for case in cases if case.split == "development"], written)
    styles = {case.style for case in own}
    decided = [case for case in cases if case.split == "calibration" and case.outcome is not None]
    if measured is None:
        return (*own, *(case for case in cases if case.split == "calibration"))
    shared = _drawn([case for case in decided if case.style in styles], measured)
    others = _drawn([case for case in decided if case.style not in styles], measured - len(shared))
    return (*own, *shared, *others)


def _drawn(cases: Sequence[SyntheticCase], most: int | None) -> list[SyntheticCase]:
    ordered = sorted(cases, key=lambda case: case.id)
    return ordered if most is None or most >= len(ordered) else random.Random(SEED).sample(ordered, most)


def identity_of(ablation: Ablation, material: Material) -> str:
    """`sha256:…` of everything that decides what a setting comes to."""
    return content_digest(
        {
            "plan": ablation.plan.digest,
            "base": material.base_digest,
            "cases": cases_digest(material.cases),
            "bank": material.bank.digest,
            "settings": ablation.settings.facts(),
            "written": ablation.written,
        }
    )


# ------------------------------------------------------------------------------------------------ running


def run_one(ablation: Ablation, material: Material, means: Means, *, told: Told) -> Row:
    """Train one setting and measure it on the calibration split; `told` shows how far it is."""
    identity = identity_of(ablation, material)
    path = material.work / f"{ablation.name}-{identity.removeprefix('sha256:')[:12]}.gguf"

    def trained(done: TrainingProgress) -> None:
        left = f"loss {done.loss:.3f}, about {done.seconds_left / 60:.0f} min left"
        told.say(f"{ablation.name}: step {done.step} of {done.steps}, {left}", lasting=done.step == done.steps)

    cases = some_of(material.cases, ablation.written, None)
    made = means.train(ablation.plan, cases, path, bank=material.bank, settings=ablation.settings, progress=trained)
    bare = ablation.plan.model_copy(update={"calibrations": ()})
    engine = means.open_engine(made.path)
    try:
        ledger = material.work / "answers.sqlite"
        scores = mo.rehearse(bare, material.of("calibration"), engine, ledger=ledger)
    finally:
        engine.close()
    return row_of(ablation, identity, made, scores)


def row_of(ablation: Ablation, identity: str, made: FinetunedAdapter, scores: RehearsalScores) -> Row:
    """The row of a measured setting: counts, and the ids of what was read wrongly. No texts."""
    record = made.record
    findings = [finding.name for finding in ablation.plan.findings]
    return {
        "name": ablation.name,
        "differs": ablation.differs,
        "identity": identity,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan_digest": scores.plan_digest,
        "model_digest": scores.model_digest,
        "adapter_digest": scores.adapter_digest,
        "settings": ablation.settings.facts(),
        "trained_on": record["data"],
        "tokens": record["tokens"],
        "seconds": record["seconds"],
        "device": record["device"],
        "last_loss": record["losses"][-1][1] if record["losses"] else None,
        "parity": made.parity,
        "cases": {
            reading.case.id: {
                "form": reading.case.form,
                "style": reading.case.style,
                "decided": reading.case.outcome is not None,
            }
            for reading in scores.readings
        },
        "wrong_outcomes": [reading.case.id for reading in scores.decided if not reading.is_outcome_right],
        "wrong_findings": {
            name: [reading.case.id for reading in scores.readings if not reading.is_right(name)] for name in findings
        },
    }


def read_rows(path: Path) -> dict[str, Row]:
    """Identity -> the row measured before; none where there is no file.

    Raises:
        CaseError: a line is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise CaseError(f"{path}: not JSON lines: {error.msg}; remove it to measure again") from None
    return {row["identity"]: row for row in rows}


def run_all(
    settings: Sequence[Ablation],
    material: Material,
    out: Path,
    means: Means,
    *,
    only: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Row]:
    """Train and measure what is not measured yet; the files are written after every setting.

    Rows of other plans, cases or settings stay in ablations.jsonl and out of the tables.

    Args:
        settings: all there are.
        material: what all share.
        out: folder for ablations.jsonl and ablations.md.
        means: what trains and what reads.
        only: names of those to measure now; none: all.
        quiet: no progress.

    Returns:
        name -> row of every one of the settings that is measured.
    """
    identities = {one.name: identity_of(one, material) for one in settings}
    rows = read_rows(out / "ablations.jsonl")
    with Told(quiet=quiet) as told:
        for ablation in chosen(settings, only):
            if identities[ablation.name] in rows:
                told.say(f"{ablation.name}: measured already", lasting=True)
                continue
            row = run_one(ablation, material, means, told=told)
            rows[row["identity"]] = row
            _write_rows(rows, identities, out)
    _write_rows(rows, identities, out)
    return {name: rows[identity] for name, identity in identities.items() if identity in rows}


def chosen(settings: Sequence[Ablation], only: Sequence[str]) -> list[Ablation]:
    """The settings of these names; all where none is named.

    Raises:
        SettingsError: there is none of a name.
    """
    names = [one.name for one in settings]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise SettingsError(f"no setting {', '.join(unknown)}; there are: {', '.join(names)}")
    return [one for one in settings if not only or one.name in only]


def _write_rows(rows: Mapping[str, Row], identities: Mapping[str, str], out: Path) -> None:
    """ablations.jsonl with all rows, ablations.md with those of these settings."""
    current = [rows[identity] for identity in identities.values() if identity in rows]
    write_whole(out / "ablations.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values()))
    write_whole(out / "ablations.md", "\n".join(table_lines(current)) + "\n")


# ------------------------------------------------------------------------------------------------ command


def read_material(args: argparse.Namespace, plan: mo.Plan) -> Material:
    """Cases (held-out ones are dropped at once) and bank.

    Raises:
        MedorchestraError: they cannot be used.
    """
    folder = args.cases or cases_folder(plan.topic)
    known = [case for case in mo.read_cases(folder) if case.split in ("development", "calibration")]
    cases = some_of(known, args.written, args.measured)
    for case in cases:
        check_case(case, plan)
    if not any(case.split == "calibration" for case in cases):
        raise CaseError(f"{folder}: no case of the calibration split to measure on")
    bank = read_bank(folder)
    if bank is None:
        raise CaseError(f"{folder}: no phrase_bank.json, in it or beside it, to compose reports from")
    return Material(cases, bank, file_digest(find_model(args.model)), args.work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="pancreatic_cancer", help="topic")
    parser.add_argument("--plan-file", type=Path, help="a plan that is not the topic's own")
    parser.add_argument("--cases", type=Path, help="folder with the splits and phrase_bank.json; default the topic's")
    parser.add_argument("--model", default="default")
    parser.add_argument("--reports", type=int, default=320, help="composed reports of the reference")
    parser.add_argument("--written", type=int, default=320, help="full reports of the reference, drawn by seed")
    parser.add_argument("--repeats", type=int, default=1, help="how often the reference reads each of them")
    parser.add_argument("--measured", type=int, default=120, help="calibration cases, drawn by seed")
    parser.add_argument("--only", action="append", metavar="NAME", default=[], help="only this; may be repeated")
    parser.add_argument("--list", action="store_true", help="show the settings and train none")
    parser.add_argument("--work", type=Path, required=True, help="folder for adapters, checkpoints and answers")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    try:
        plan = mo.read_plan(args.plan_file or args.plan)
        material = read_material(args, plan)
        settings = ablations(plan, material.cases, args.reports, args.repeats)
        if args.list:
            print("\n".join(f"{one.name}: {one.differs}" for one in chosen(settings, args.only)))
            return
        means = Means(
            train=partial(finetune, base=args.model),
            open_engine=lambda adapter: mo.LlamaCppEngine(args.model, adapter=adapter),
        )
        rows = run_all(settings, material, args.out, means, only=args.only, quiet=args.quiet)
    except mo.MedorchestraError as error:
        sys.exit(f"ablations.py: {error}")
    except KeyboardInterrupt:
        sys.exit("ablations.py: interrupted; the same command goes on where it was")
    for name, row in rows.items():
        print(f"{name}: outcome {outcome_of(row)}; findings {percent(findings_of(row))}")
    print(f"written: {args.out}/ablations.jsonl, ablations.md")


if __name__ == "__main__":
    main()
