"""The commands that measure: `evaluate` and `requalify`. Parses, calls, prints.

Exit codes: 0 done; 2 nothing done, bad input; 3 a gate was missed, or the new model is not accepted; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medorchestra.errors import SettingsError

if TYPE_CHECKING:
    from medorchestra.local.engine.protocol import Engine
    from medorchestra.local.engine_opening import EngineOptions
    from medorchestra.local.evaluation.labelled_set import LabelColumns, LabelledSet
    from medorchestra.plan import Plan

MISSED = 3
"""Exit code of a missed gate and of a model that is not accepted."""

AllowServer = Annotated[
    list[str] | None, typer.Option("--allow-server", metavar="HOST:PORT", help="As `stage --allow-server`.")
]
OutcomeColumn = Annotated[str, typer.Option("--outcome-column", help="Column with the true outcome.")]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="Column with the report ids.")]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Column with the report text.")]
Encoding = Annotated[str, typer.Option("--encoding", help="Encoding of text input.")]
OutcomeNames = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="LABEL=OUTCOME", help="How the file writes an outcome; may be repeated."),
]
FindingColumns = Annotated[
    list[str] | None,
    typer.Option("--finding", metavar="FINDING=COLUMN", help="Column of a labelled finding; may be repeated."),
]


def evaluate(  # noqa: PLR0913 - one parameter for each option of the command
    labelled: Annotated[Path, typer.Argument(metavar="LABELLED", help="Reports, in any form that `stage` reads.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, evaluation.json, per_case.parquet.")],
    plan: Annotated[str, typer.Option("--plan", help="Topic or path of a plan file.")] = "pancreatic_cancer",
    model: Annotated[str, typer.Option("--model", help="As `stage --model`.")] = "default",
    allow_server: AllowServer = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help="Path of an adapter; `auto`: the one beside the plan; `none`.")
    ] = "auto",
    skip_bare: Annotated[
        bool, typer.Option("--skip-bare", help="With the adapter only; default: also the model as it comes.")
    ] = False,
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies",
            help="`all`, or of direct, guideline, orchestrated, orchestrated-llm, "
            "self-consistency, separated by commas.",
        ),
    ] = "orchestrated",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="CSV with ids and labels, if they are not in LABELLED.")
    ] = None,
    outcome_column: OutcomeColumn = "outcome",
    id_column: IdColumn = None,
    text_column: TextColumn = None,
    encoding: Encoding = "utf-8",
    reader: Annotated[
        list[str] | None, typer.Option("--reader", help="Column with a human reader's outcomes; may be repeated.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="Column whose values make subgroups; may be repeated.")
    ] = None,
    name: OutcomeNames = None,
    finding: FindingColumns = None,
    order: Annotated[
        str, typer.Option("--order", help="Outcomes in their order, separated by commas, for weighted kappa.")
    ] = "",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples of self-consistency.")] = 5,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Run everything so often: repeatability.")] = 1,
    guideline: Annotated[
        Path | None, typer.Option("--guideline", help="Its text; default guideline.md beside the plan or its topic's.")
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Put wrongly decided reports into report.html: report text on disk!")
    ] = False,
    min_accuracy: Annotated[float | None, typer.Option("--min-accuracy", help="Gate: 0.8 is 80 %.")] = None,
    min_unreviewed: Annotated[
        float | None, typer.Option("--min-unreviewed", help="Gate: accuracy among decisions that nobody looks at.")
    ] = None,
    max_review: Annotated[float | None, typer.Option("--max-review", help="Gate: share sent to a person.")] = None,
    on: Annotated[str, typer.Option("--on", help="What gates hold: `point` or `lower-bound`.")] = "point",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")] = False,
) -> None:
    """Measure strategies on labelled reports, side by side, with intervals. Needs the extra `evaluation`.

    A model server is measured as it is, with whatever it was started with: one run of each strategy, and no adapter is
    looked for. Without probabilities from it there is no calibration curve, and every decision goes to a person.

    Gates are held against `orchestrated` with the adapter, where there is one; against the last run, where
    `orchestrated` is not among the strategies. Started again with the same folder, it goes on where it was: answers
    with their quotes are kept there in ledger.sqlite.

    Exit code 0: measured; 2: nothing done, bad input; 3: a gate was missed; 130: interrupted.
    """
    from medorchestra.evaluation_terminal import EvaluationDisplay, evaluation_lines
    from medorchestra.local.engine_opening import EngineOptions, opened_if_server
    from medorchestra.local.evaluation.evaluating import EvaluationSettings
    from medorchestra.local.evaluation.gates import check_gates, gates_from
    from medorchestra.local.evaluation.strategies import STRATEGIES
    from medorchestra.local.evaluation.study import evaluate as measure
    from medorchestra.local.terminal import print_note
    from medorchestra.plan_files import read_plan

    gates = gates_from(min_accuracy=min_accuracy, min_unreviewed=min_unreviewed, max_review=max_review, on=on)
    settings = EvaluationSettings(
        strategies=STRATEGIES if strategies == "all" else _listed(strategies),
        samples=samples,
        repeats=runs,
        order=_listed(order),
        command=("medorchestra", *sys.argv[1:]),
    )
    columns = _columns(
        name, finding, outcome=outcome_column, id_column=id_column, text_column=text_column, encoding=encoding
    )
    columns = replace(columns, readers=tuple(reader or ()), groups=tuple(group or ()))
    labelled_set = _labelled(read_plan(plan), labelled, columns, labels)
    options = EngineOptions(servers=tuple(allow_server or ()))
    try:
        with (
            opened_if_server(model, adapter, options, notes=print_note) as opened,
            EvaluationDisplay(len(labelled_set.cases), quiet=quiet) as display,
        ):
            made = measure(
                labelled_set,
                plan,
                model=opened,
                adapter=adapter,
                bare=not skip_bare,
                settings=settings,
                guideline=guideline,
                out=out,
                with_text=with_text,
                progress=display.advance,
            )
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    for line in evaluation_lines(made):
        typer.echo(line)
    results = check_gates(gates, made.judged)
    for result in results:
        typer.echo(f"gate {result.line}")
    typer.echo(f"written: {out}")
    raise typer.Exit(0 if all(result.passed for result in results) else MISSED)


def requalify(  # noqa: PLR0913 - one parameter for each option of the command
    source: Annotated[str, typer.Argument(metavar="PLAN", help="Path of a plan file, or name of a topic.")],
    model: Annotated[str, typer.Option("--model", help="The new model, as `stage --model` takes it.")],
    against: Annotated[str, typer.Option("--against", help="The model in use.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that keeps answers, so that it can be resumed.")],
    adapter: Annotated[str, typer.Option("--adapter", help="Of the new model; `auto`, `none` or a path.")] = "auto",
    against_adapter: Annotated[str, typer.Option("--against-adapter", help="Of the model in use.")] = "auto",
    allow_server: AllowServer = None,
    labelled: Annotated[
        Path | None, typer.Option("--labelled", help="Also judge on labelled reports of your own.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV with ids and labels for --labelled.")] = None,
    outcome_column: OutcomeColumn = "outcome",
    id_column: IdColumn = None,
    text_column: TextColumn = None,
    encoding: Encoding = "utf-8",
    name: OutcomeNames = None,
    finding: FindingColumns = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Synthetic cases (JSONL); default the topic's held-out ones.")
    ] = None,
    margin: Annotated[float, typer.Option("--margin", help="Loss of accuracy from which it is not accepted.")] = 0.03,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")] = False,
) -> None:
    """Judge whether a new model, adapter or quantization may replace the one in use, on the same cases.

    On synthetic held-out cases and, with --labelled, on reports of your own, each by itself; the options on columns,
    labels and encoding say how --labelled is laid out, as in `evaluate`. Either model may be a model server, which is
    taken as it is.

    Exit code 0: accepted on all; 2: nothing done, bad input; 3: rejected, or too few cases to tell; 130: interrupted.
    """
    from medorchestra.evaluation_terminal import EvaluationDisplay, requalification_lines
    from medorchestra.local.engine_opening import EngineOptions
    from medorchestra.local.evaluation.evaluating import run_orchestrated
    from medorchestra.local.evaluation.labelled_set import LabelColumns
    from medorchestra.local.evaluation.requalifying import requalify as judge
    from medorchestra.local.evaluation.requalifying import require_margin
    from medorchestra.plan_files import read_plan
    from medorchestra.topics import cases_folder

    require_margin(margin)
    plan = read_plan(source)
    columns = _columns(
        name, finding, outcome=outcome_column, id_column=id_column, text_column=text_column, encoding=encoding
    )
    if labelled is None and (labels is not None or columns != LabelColumns()):
        raise SettingsError("options on labels, columns and encoding are about --labelled; name that file too")
    sets = [_labelled(plan, cases or cases_folder(plan.topic) / "held_out.jsonl", LabelColumns(), None)]
    if labelled is not None:
        sets.append(_labelled(plan, labelled, columns, labels))
    options = EngineOptions(servers=tuple(allow_server or ()))
    verdicts = []
    try:
        with (
            _opened_models(plan, source, [(against, against_adapter), (model, adapter)], options) as pairs,
            EvaluationDisplay(sum(len(one.cases) for one in sets), quiet=quiet) as display,
        ):
            runs = [
                run_orchestrated(plan, sets, one, path, folder=out, progress=display.advance) for one, path in pairs
            ]
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    for place, one in enumerate(sets):
        verdicts.append(judge(one.cases, runs[0][place], runs[1][place], margin=margin))
        for line in requalification_lines(one.name, verdicts[-1]):
            typer.echo(line)
    raise typer.Exit(0 if all(verdict.verdict == "accept" for verdict in verdicts) else MISSED)


@contextmanager
def _opened_models(
    plan: Plan, source: str, named: list[tuple[str, str]], options: EngineOptions
) -> Iterator[list[tuple[str | Engine, Path | None]]]:
    """The old and the new model, each with its adapter: servers opened, before hours of reading; files by their name.

    Args:
        plan, source: the plan and where it stands; adapters are looked for beside it.
        named: model and adapter as they were named, the old ones first.
        options: how servers are opened.
    """
    from medorchestra.local.adapters import chosen_adapter
    from medorchestra.local.engine_opening import opened_if_server
    from medorchestra.local.evaluation.requalifying import require_two_models
    from medorchestra.local.terminal import print_note
    from medorchestra.plan_files import plan_path

    adapters = [chosen_adapter(plan, model, adapter, plan_path(source)) for model, adapter in named]
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(opened_if_server(model, adapter, options, notes=print_note)) for model, adapter in named
        )
        if not isinstance(old, str) and not isinstance(new, str):
            require_two_models(old.identity, new.identity)
        yield list(zip((old, new), adapters, strict=True))


def _columns(
    names: list[str] | None,
    findings: list[str] | None,
    *,
    outcome: str,
    id_column: str | None,
    text_column: str | None,
    encoding: str,
) -> LabelColumns:
    """Where labels stand and how they are written, by the options that `evaluate` and `requalify` share."""
    from medorchestra.local.evaluation.labelled_set import LabelColumns

    return LabelColumns(
        outcome=outcome,
        id=id_column,
        text=text_column,
        outcome_names=_pairs(names, "--map LABEL=OUTCOME"),
        finding_columns=_pairs(findings, "--finding FINDING=COLUMN"),
        encoding=encoding,
    )


def _labelled(plan: Plan, source: Path, columns: LabelColumns, labels: Path | None) -> LabelledSet:
    from medorchestra.local.evaluation.labelled_set import read_labelled_set
    from medorchestra.local.terminal import print_note

    found = read_labelled_set(plan, source, columns, labels=labels)
    for note in found.notes:
        print_note(note)
    return found


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, one in enumerate(given or (), start=1):
        left, sign, right = one.rpartition("=")
        if not sign or not left.strip() or not right.strip() or left.strip() in found:
            raise SettingsError(f"{option}: number {number} is not of this form, or names the same again")
        found[left.strip()] = right.strip()
    return found
