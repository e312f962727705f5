"""The commands that make a model fit for a plan: `finetune` and `calibrate`. Parses, calls, prints.

Exit codes: 0 done; 2 nothing done, or not to the end; 130 interrupted. Report text is never shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medorchestra.errors import SettingsError

if TYPE_CHECKING:
    from medorchestra.phrases.phrase_bank import PhraseBank


def finetune(  # noqa: PLR0913 - one parameter for each option of the command
    source: Annotated[str, typer.Argument(metavar="PLAN", help="Path of a plan file, or name of a topic.")],
    out: Annotated[Path, typer.Option("--out", help="The adapter to write (.gguf); its record goes beside it.")],
    model: Annotated[str, typer.Option("--model", help="The base, as `stage --model` takes it.")] = "default",
    cases: Annotated[
        Path | None,
        typer.Option("--cases", help="Folder with synthetic cases and phrase_bank.json; default the topic's."),
    ] = None,
    composed: Annotated[int, typer.Option("--composed", min=0, help="Reports composed from the phrase bank.")] = 500,
    repeats: Annotated[int, typer.Option("--repeats", min=0, help="How often each full report is read.")] = 2,
    rank: Annotated[int, typer.Option("--rank", min=1, max=256, help="Rank of the adapter.")] = 16,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The highest.")] = 1e-3,
    seed: Annotated[int, typer.Option("--seed", help="Of reports, order and weights.")] = 1,
    without_style: Annotated[
        list[str] | None, typer.Option("--without-style", help="Leave this style out of training; may be repeated.")
    ] = None,
    qlora: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            "--qlora",
            help="Hold the base in 4 bits (NF4) while it is trained; needs a CUDA GPU and bitsandbytes. `auto`: where "
            "both are there and the base would fill more than a third of the GPU's memory.",
        ),
    ] = "auto",
    risk: Annotated[float, typer.Option("--risk", help="Share of wrong outcomes accepted without review.")] = 0.05,
    clinical: Annotated[
        bool, typer.Option("--clinical", help="Some text is not synthetic: the adapter must never leave the hospital.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write calibration and validation record into the plan file.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")] = False,
) -> None:
    """Train an adapter for a plan and a small model, calibrate the pair, and measure it on held-out cases.

    Trains on the development split alone. Killed and started again, it goes on where it was. Needs the extra
    `finetune`.
    """
    from medorchestra.finetune.branched_model import LoraSettings
    from medorchestra.finetune.finetuning import FinetuneSettings
    from medorchestra.finetune.training import TrainingSettings
    from medorchestra.finetune.training_set import TrainingSetSettings
    from medorchestra.fit_terminal import FittingDisplay, fitted_lines
    from medorchestra.fitting import FittingSettings, fit
    from medorchestra.plan_files import format_plan, plan_path, read_plan
    from medorchestra.synthetic import read_cases
    from medorchestra.whole_files import write_whole

    plan, path = read_plan(source), plan_path(source)
    folder = cases or _cases_folder(path, plan.topic)
    settings = FittingSettings(
        finetune=FinetuneSettings(
            data=TrainingSetSettings(composed, repeats, frozenset(without_style or ()), seed=seed),
            training=TrainingSettings(learning_rate=learning_rate, seed=seed),
            lora=LoraSettings(rank=rank, alpha=2 * rank),
            trained_on="clinical" if clinical else "synthetic",
            qlora=qlora,
        ),
        risk=risk,
    )
    try:
        with FittingDisplay(quiet=quiet) as display:
            fitted = fit(
                plan,
                read_cases(folder),
                out,
                bank=_bank(folder, composed),
                base=model,
                settings=settings,
                progress=display.progress,
            )
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    for line in fitted_lines(fitted):
        typer.echo(line)
    if write:
        write_whole(path, format_plan(fitted.plan))
        typer.echo(f"calibration and validation record written into {path}")


def _cases_folder(plan_file: Path, topic: str) -> Path:
    from medorchestra.topics import cases_folder

    beside = plan_file.parent / "cases"
    return beside if beside.is_dir() else cases_folder(topic)


def _bank(folder: Path, composed: int) -> PhraseBank | None:
    from medorchestra.phrases.phrase_bank import read_phrase_bank

    file = next(
        (path for path in (folder / "phrase_bank.json", folder.parent / "phrase_bank.json") if path.is_file()), None
    )
    if file is None and composed:
        raise SettingsError(
            f"{folder}: no phrase_bank.json, so that no report can be composed; name another folder with --cases, or "
            "train on the full reports alone with --composed 0"
        )
    return None if file is None else read_phrase_bank(file)


def calibrate(  # noqa: PLR0913 - one parameter for each option of the command
    plan_source: Annotated[str, typer.Argument(metavar="PLAN", help="Path of a plan file, or name of a topic.")],
    reports: Annotated[Path, typer.Argument(metavar="INPUT", help="Labelled reports, in any form that `stage` reads.")],
    labels: Annotated[
        Path,
        typer.Option("--labels", help="CSV: column `id`, and `outcome` and/or one column for each labelled finding."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The plan with the calibration; it stays in the hospital.")],
    model: Annotated[str, typer.Option("--model", help="As `stage --model`.")] = "default",
    allow_server: Annotated[
        list[str] | None, typer.Option("--allow-server", metavar="HOST:PORT", help="As `stage --allow-server`.")
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help="Path of an adapter; `auto`: the one beside the plan; `none`.")
    ] = "auto",
    risk: Annotated[float, typer.Option("--risk", help="Share of wrong outcomes accepted without review.")] = 0.05,
    set_coverage: Annotated[
        float | None,
        typer.Option("--set-coverage", help="Also give sets of outcomes that hold the true one at this share (0.9)."),
    ] = None,
    ledger: Annotated[Path | None, typer.Option("--ledger", help="Keeps finished answers.")] = None,
    id_column: Annotated[str | None, typer.Option("--id-column", help="Column with the report ids.")] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Column with the report text.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")] = False,
) -> None:
    """Fit probabilities and the threshold for review to a few hundred labelled reports of your own. Needs no network.

    A model server is calibrated as it is, if it gives probabilities; no adapter is looked for.

    Nothing leaves: the plan that is written holds temperatures, a threshold and counts, and is marked as local.
    """
    from medorchestra.fit_terminal import ReadCount, calibration_lines
    from medorchestra.local.adapters import chosen_adapter
    from medorchestra.local.calibrating import CalibrationSettings, fit_calibration, with_calibration
    from medorchestra.local.connectors import read_reports
    from medorchestra.local.engine_opening import EngineOptions, opened_engine
    from medorchestra.local.labels import read_labelled
    from medorchestra.local.terminal import print_note
    from medorchestra.plan_files import plan_path, read_plan, write_plan
    from medorchestra.whole_files import require_writable

    plan = read_plan(plan_source)
    require_writable(out)
    batch = read_reports(reports, id_column=id_column, text_column=text_column)
    for note in batch.notes:
        print_note(note)
    labelled = read_labelled(plan, batch.reports, labels)
    settings = CalibrationSettings(risk=risk, set_coverage=set_coverage, labels="local")
    path = chosen_adapter(plan, model, adapter, plan_path(plan_source))
    options = EngineOptions(servers=tuple(allow_server or ()))
    try:
        with (
            opened_engine(model, path, options, notes=print_note) as engine,
            ReadCount(len(labelled), quiet=quiet) as count,
        ):
            fitted = fit_calibration(plan, labelled, engine, settings, ledger=ledger, progress=count.advance)
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; with --ledger, the same command goes on where it was", err=True)
        raise typer.Exit(130) from None
    write_plan(with_calibration(plan, fitted.calibration), out)
    for line in calibration_lines(fitted):
        typer.echo(line)
    typer.echo(f"written: {out}")
