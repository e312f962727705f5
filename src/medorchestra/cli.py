"""The command line: parses, calls, prints. What it calls works, returns and never prints.

Exit codes: 0 all reports staged; 1 some reports were empty, or have an answer that could not be read; 2 nothing done,
bad input or bad machine; 130 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medorchestra.cli_egress import egress_app
from medorchestra.cli_evaluate import evaluate, requalify
from medorchestra.cli_fit import calibrate, finetune
from medorchestra.cli_plan import plan_app
from medorchestra.cli_publish import publish
from medorchestra.errors import MedorchestraError, SettingsError

if TYPE_CHECKING:
    from medorchestra.local.batch import RunSummary
    from medorchestra.local.ray_staging import RayRun

app = typer.Typer(
    name="medorchestra",
    help="Stage reports inside the hospital, by a plan compiled from a guideline outside it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # rich tracebacks show local variables, and those hold report text
    context_settings={"help_option_names": ["-h", "--help"]},
)
plan_app.command()(publish)
app.add_typer(plan_app)
app.add_typer(egress_app)
app.command()(finetune)
app.command()(calibrate)
app.command()(evaluate)
app.command()(requalify)


def _show_version(asked: bool) -> None:
    if asked:
        from medorchestra import __version__

        typer.echo(f"medorchestra {__version__}")
        raise typer.Exit


@app.callback()
def _commands(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing of its own: `--version` is answered by its callback, before a missing command is complained of."""


@app.command()
def stage(  # noqa: PLR0913 - one parameter for each option of the command
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="CSV, TSV, Parquet, JSONL, or a folder of .txt files.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results and the ledger.")],
    plan: Annotated[str, typer.Option("--plan", help="Topic or path of a plan file.")] = "pancreatic_cancer",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="'default', path of a GGUF file, hf:owner/repo/file.gguf, or a model server: http://HOST:PORT#MODEL.",
        ),
    ] = "default",
    allow_server: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-server",
            metavar="HOST:PORT",
            help="Server on the hospital's network that may read reports (repeatable); this machine always may.",
        ),
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help="LoRA adapter (GGUF) for the model; `auto`: beside the plan; `none`.")
    ] = "auto",
    id_column: Annotated[str | None, typer.Option("--id-column", help="Column with the report ids.")] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Column with the report text.")] = None,
    encoding: Annotated[str, typer.Option("--encoding", help="Encoding of text input.")] = "utf-8",
    gpu_layers: Annotated[int, typer.Option("--gpu-layers", help="Layers to run on the GPU; -1 for all.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads.")] = None,
    context: Annotated[int | None, typer.Option("--context", min=256, help="Context size in tokens.")] = None,
    unvalidated: Annotated[
        bool,
        typer.Option("--unvalidated", help="Run a plan that was not rehearsed with this model; marks every result."),
    ] = False,
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Skip questions that cannot change a report's decision any more.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Stage on Ray: `local` starts it on this machine; `auto`, HOST:PORT or ray://HOST:PORT: a cluster, "
            "which must see the folder and INPUT (Parquet is streamed).",
        ),
    ] = None,
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, help="With --ray: workers, each with --threads threads (1).")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print every decision with its quotes: report text on the terminal!")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Write where the time went, as a flame graph without report text: profile.speedscope.json.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors only.")] = False,
) -> None:
    """Stage a batch of reports with a local model.

    Writes results.parquet, results.csv, results.jsonl (full trace), run.json and ledger.sqlite into the folder.
    Started again, it goes on where it stopped.

    A plan runs only with a model and adapter that it has a validation record for (`medorchestra plan rehearse`).

    Exit code 0: all staged; 1: some reports empty or not fully read; 2: nothing done, bad input; 130: interrupted.
    """
    from medorchestra.local.adapters import chosen_adapter
    from medorchestra.local.batch import stage_to_files
    from medorchestra.local.connectors import read_reports
    from medorchestra.local.engine_opening import EngineOptions, opened_engine
    from medorchestra.local.profiling import profiled
    from medorchestra.local.ray_cluster import ActorPool
    from medorchestra.local.ray_staging import RayRun
    from medorchestra.local.scale_out import EngineChoice, RowOptions, StagingJob
    from medorchestra.local.terminal import ProgressDisplay, print_note, print_summary
    from medorchestra.plan_files import plan_path, read_plan

    the_plan, servers = read_plan(plan), tuple(allow_server or ())
    if ray is not None:
        if show:
            raise SettingsError("--show with --ray: no report text comes back to this terminal; leave one of them out")
        if profile:
            raise SettingsError("--profile with --ray: it cannot see workers, which are other processes")
        workers = (model, adapter, plan_path(plan), context, gpu_layers, threads or 1, servers)
        job = StagingJob(
            the_plan,
            EngineChoice(*workers),
            options=RowOptions(id_column=id_column, text_column=text_column, unvalidated=unvalidated, lazy=lazy),
        )
        pool = ActorPool(actors=actors, threads=threads or 1, gpus=1.0 if gpu_layers else 0.0)
        summary = _stage_on_ray(ray, RayRun(job, out, pool), source, encoding=encoding, quiet=quiet)
        raise typer.Exit(_exit_code(summary))
    if actors is not None:
        raise SettingsError("--actors goes with --ray; without it, give --threads")
    batch = read_reports(source, id_column=id_column, text_column=text_column, encoding=encoding)
    for note in batch.notes:
        print_note(note)
    chosen = chosen_adapter(the_plan, model, adapter, plan_path(plan))
    options = EngineOptions(context_tokens=context, gpu_layers=gpu_layers, threads=threads, servers=servers)
    try:
        with (
            profiled(out, notes=None if quiet else print_note) if profile else nullcontext(),
            opened_engine(model, chosen, options, notes=print_note) as engine,
            ProgressDisplay(len(batch.reports), show_decisions=show, quiet=quiet) as display,
        ):
            summary = stage_to_files(
                batch, the_plan, out, model=engine, unvalidated=unvalidated, lazy=lazy, progress=display.advance
            )
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if not quiet:
        print_summary(summary, out)
    raise typer.Exit(_exit_code(summary))


def _stage_on_ray(address: str, run: RayRun, source: Path, *, encoding: str, quiet: bool) -> RunSummary:
    """`stage` on a cluster; its summary is printed here."""
    from dataclasses import replace

    from medorchestra.local.ray_cluster import connected
    from medorchestra.local.ray_source import read_dataset
    from medorchestra.local.terminal import ProgressDisplay, print_note, print_summary

    try:
        with connected(address, run.pool):
            dataset, facts = read_dataset(source, run.job.options, encoding=encoding)
            for note in facts["notes"]:
                print_note(note)
            with ProgressDisplay(facts["reports"], quiet=quiet) as display:
                summary = replace(run, source=facts).stage(dataset, progress=display.count)
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if not quiet:
        print_summary(summary, run.folder)
    return summary


def _exit_code(summary: RunSummary) -> int:
    return 1 if summary.failed_reports or summary.failed_answers else 0


@app.command()
def topics() -> None:
    """List the topics that come with the library."""
    from medorchestra.plan_files import read_plan
    from medorchestra.topics import topics as names

    for name in names():
        the_plan = read_plan(name)
        counted = f"{len(the_plan.findings)} findings, {len(the_plan.rules)} rules, origin {the_plan.provenance.origin}"
        typer.echo(f"{name}: {the_plan.title} ({counted})")


def main() -> None:
    """Entry point: turns errors into one clear message and an exit code, and never shows report text."""
    try:
        app()
    except MedorchestraError as error:
        typer.echo(f"medorchestra: {error}", err=True)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - the last resort: a traceback's message could hold report text
        from medorchestra.local.executor import describe_error

        place = describe_error(error)
        typer.echo(f"medorchestra: internal error: {place} (message withheld: it could hold report text)", err=True)
        sys.exit(2)
