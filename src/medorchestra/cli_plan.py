"""The commands that make, prove, rehearse, show and compare plans: `medorchestra plan …`. Parses, calls, prints.

`medorchestra plan GUIDELINE` makes a plan; a first word that is a command is that command. Exit codes: 0 done, and the
proof holds; 1 two plans differ; 2 nothing done, or not to the end; 3 a proof does not hold; 130 interrupted. Results go
to stdout, everything else to stderr. Only synthetic cases and guideline text are ever shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from medorchestra.errors import CaseError, GuidelineError, SettingsError

if TYPE_CHECKING:
    from medorchestra.cloud.desk.prices import ListPrice
    from medorchestra.cloud.desk.usage import Budget
    from medorchestra.cloud.guideline import Guideline
    from medorchestra.local.engine_opening import EngineOptions
    from medorchestra.plan import Plan
    from medorchestra.synthetic import SyntheticCase

DEFAULT_COMMAND = "make"


class PlanGroup(TyperGroup):
    """A group whose first word may be left out: `plan GUIDELINE …` is `plan make GUIDELINE …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `make` in front where no command is named, unless that looks like a slip of the pen."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            mistyped = difflib.get_close_matches(args[0], list(self.commands), cutoff=0.75)
            if not mistyped or Path(args[0]).exists():
                args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


plan_app = typer.Typer(
    name="plan",
    cls=PlanGroup,
    help="Make a plan from a guideline (`medorchestra plan GUIDELINE …`), prove it, rehearse it, show it, compare it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PlanSource = Annotated[str, typer.Argument(metavar="PLAN", help="Path of a plan file, or name of a topic.")]
GuidelineOption = Annotated[
    Path | None,
    typer.Option("--guideline", help="Its guideline; default guideline.md beside the plan, or its topic's."),
]
CasesOption = Annotated[
    Path | None,
    typer.Option("--cases", help="Folder with synthetic cases; default cases/ beside the plan, or its topic's."),
]
Adapter = Annotated[Path | None, typer.Option("--adapter", help="LoRA adapter (GGUF) for the local model.")]
GpuLayers = Annotated[int, typer.Option("--gpu-layers", help="Layers to run on the GPU; -1 for all.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads.")]
Context = Annotated[int | None, typer.Option("--context", min=256, help="Context size in tokens.")]
AllowServer = Annotated[
    list[str] | None, typer.Option("--allow-server", metavar="HOST:PORT", help="As `stage --allow-server`.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors only.")]


@plan_app.command(DEFAULT_COMMAND)
def make(  # noqa: PLR0913 - one parameter for each option of the command
    guideline: Annotated[Path, typer.Argument(metavar="GUIDELINE", help="Guideline in numbered sections (Markdown).")],
    cloud: Annotated[str, typer.Option("--cloud", help="Name of the hosted model; its key is in OPENAI_API_KEY.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the plan and all that its making leaves behind.")],
    local: Annotated[
        str | None, typer.Option("--local", help="The model that will run the plan, as `stage --model` takes it.")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Folder with synthetic cases that are there already.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Server of the hosted model; default OPENAI_BASE_URL, or OpenAI.")
    ] = None,
    write_cases: Annotated[int, typer.Option("--write-cases", min=0, help="Synthetic reports to have written.")] = 320,
    phrases: Annotated[bool, typer.Option(help="Have a phrase bank written too.")] = True,
    revisions: Annotated[int, typer.Option("--revisions", min=0, help="Rounds of revising what is read worst.")] = 2,
    rehearse_on: Annotated[
        int | None, typer.Option("--rehearse-on", min=1, help="Development cases of a rehearsal; default all.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the reports that are asked for.")] = 1,
    topic: Annotated[str | None, typer.Option("--topic", help="Short name of the plan; default the model's.")] = None,
    max_requests: Annotated[int | None, typer.Option("--max-requests", min=1, help="Requests to send at most.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Tokens to spend at most.")] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", min=0, help="US dollars to spend at most.")] = None,
    price: Annotated[
        str | None,
        typer.Option("--price", metavar="IN,OUT", help="US dollars per million tokens; default a known list price."),
    ] = None,
    allow_server: AllowServer = None,
    adapter: Adapter = None,
    gpu_layers: GpuLayers = 0,
    threads: Threads = None,
    context: Context = None,
    quiet: Quiet = False,
) -> None:
    """Make a plan from a guideline with a hosted model. Nothing but guideline and synthetic cases leaves.

    `medorchestra plan GUIDELINE …` does the same. Writes plan.yaml, cases/, phrase_bank.json, proof.txt and run.json
    into the folder. Started again, it repeats no request that was answered.

    Exit code 0: the plan is made and its proof holds; 2: it is not, the message says why; 130: interrupted.
    """
    from medorchestra.cloud.desk.client import OpenAICloudModel
    from medorchestra.cloud.guideline import read_guideline
    from medorchestra.cloud.planner import PlannerSettings
    from medorchestra.local.engine_opening import opened_engine
    from medorchestra.local.terminal import print_note
    from medorchestra.plan_terminal import MakingDisplay, made_lines
    from medorchestra.rehearsal import PlanMaking, make_plan

    if local is None and adapter is not None:
        raise SettingsError("--adapter: name the local model that it belongs to with --local")
    text, list_price = read_guideline(guideline), _price(cloud, price)
    budget = _budget(max_requests, max_tokens, max_cost, list_price)
    settings = PlannerSettings(
        cases=write_cases,
        phrase_bank=phrases,
        revision_rounds=revisions,
        rehearsal_cases=rehearse_on,
        seed=seed,
        topic=topic,
    )
    options = _engine_options(context, gpu_layers, threads, allow_server)
    with (
        _interruptible(),
        OpenAICloudModel(cloud, base_url=base_url) as model,
        nullcontext() if local is None else opened_engine(local, adapter, options, notes=print_note) as engine,
        MakingDisplay(quiet=quiet) as display,
    ):
        making = PlanMaking(planner=settings, budget=budget, price=list_price, progress=display.advance)
        made = make_plan(text, cloud=model, out=out, cases=cases or (), local=engine, making=making)
    if not quiet:
        for line in made_lines(made, out, list_price):
            typer.echo(line)


@plan_app.command()
def check(source: PlanSource, guideline: GuidelineOption = None, cases: CasesOption = None) -> None:
    """Prove a plan against its guideline and its cases, without any model.

    Exit code 0: the proof holds; 2: it could not be tried; 3: it does not hold, every fault is named.
    """
    from medorchestra.cloud.proof.proof import prove
    from medorchestra.plan_files import plan_path, read_plan

    plan, path = read_plan(source), plan_path(source)
    proof = prove(plan, _guideline_of(plan, path, guideline), _cases_of(plan, path, cases) or None)
    for line in proof.lines():
        typer.echo(line)
    raise typer.Exit(0 if proof.holds else 3)


@plan_app.command()
def rehearse(  # noqa: PLR0913 - one parameter for each option of the command
    source: PlanSource,
    model: Annotated[str, typer.Option("--model", help="The local model, as `stage --model` takes it.")] = "default",
    allow_server: AllowServer = None,
    split: Annotated[
        Literal["development", "calibration", "held_out"], typer.Option("--split", help="Which cases.")
    ] = "held_out",
    cases: CasesOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Read so many cases only, evenly chosen.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the validation record into the plan file (all held-out cases).")
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="File that keeps finished answers, so that it can be resumed.")
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help="LoRA adapter (GGUF) for the model; `auto`: beside the plan; `none`.")
    ] = "auto",
    gpu_layers: GpuLayers = 0,
    threads: Threads = None,
    context: Context = None,
    quiet: Quiet = False,
) -> None:
    """Run a plan with a local model on its synthetic cases, and show how well it reads. Needs no network.

    Exit code 0: done; 2: not, the message says why; 130: interrupted.
    """
    from medorchestra.local.adapters import chosen_adapter
    from medorchestra.local.engine_opening import opened_engine
    from medorchestra.local.terminal import print_note
    from medorchestra.plan_files import format_plan, plan_path, read_plan
    from medorchestra.plan_terminal import CaseCount, score_lines
    from medorchestra.rehearsal import rehearse as run_rehearsal
    from medorchestra.rehearsal import validated
    from medorchestra.whole_files import write_whole

    if write and (split != "held_out" or limit is not None):
        raise SettingsError("--write: a validation record is of all held-out cases; leave out --split and --limit")
    plan, path = read_plan(source), plan_path(source)
    found = [case for case in _cases_of(plan, path, cases) if case.split == split]
    chosen = _evenly(found, limit)
    options = _engine_options(context, gpu_layers, threads, allow_server)
    with (
        _interruptible(),
        opened_engine(model, chosen_adapter(plan, model, adapter, path), options, notes=print_note) as engine,
        CaseCount(len(chosen), quiet=quiet) as count,
    ):
        scores = run_rehearsal(plan, chosen, engine, ledger=ledger, progress=count.advance)
    for line in score_lines(scores, plan):
        typer.echo(line)
    if write:
        write_whole(path, format_plan(validated(plan, scores)))
        typer.echo(f"validation record written into {path}")


@plan_app.command()
def show(
    source: PlanSource,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write one page that stands alone, for the clinician who signs it off."),
    ] = None,
    guideline: GuidelineOption = None,
    cases: CasesOption = None,
) -> None:
    """Show a plan: findings, rules as a decision table, citations beside the guideline, validation.

    Exit code 0: shown; 2: not, the message says why.
    """
    from rich.console import Console

    from medorchestra.plan_files import plan_path, read_plan
    from medorchestra.plan_views.plan_view import plan_html, plan_lines, plan_renderable
    from medorchestra.whole_files import write_whole

    plan, path = read_plan(source), plan_path(source)
    text = _guideline_of(plan, path, guideline)
    sections = {section.number: (section.title, section.text) for section in text.sections.values()}
    fitting = _fitting(_cases_of(plan, path, cases), plan)
    if html is not None:
        write_whole(html, plan_html(plan, sections, fitting, guideline_digest=text.digest))
        typer.echo(f"written: {html}")
        return
    console = Console()
    if console.is_terminal:
        console.print(plan_renderable(plan, sections, fitting, guideline_digest=text.digest))
        return
    for line in plan_lines(plan, sections, fitting, guideline_digest=text.digest):
        typer.echo(line)


@plan_app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Path of a plan file, or name of a topic.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Folder with synthetic cases to decide by both; default those of A.")
    ] = None,
) -> None:
    """Show what differs between two plans: findings, rules, prompts, and which cases come out otherwise.

    Exit code 0: nothing differs; 1: something does; 2: they could not be compared.
    """
    from medorchestra.plan_files import plan_path, read_plan
    from medorchestra.plan_views.plan_diff import diff_plans

    first, second = read_plan(before), read_plan(after)
    difference = diff_plans(first, second, _cases_of(first, plan_path(before), cases))
    for line in difference.lines():
        typer.echo(line)
    raise typer.Exit(0 if difference.same else 1)


# ------------------------------------------------------------------------------------ options


def _guideline_of(plan: Plan, path: Path, given: Path | None) -> Guideline:
    """The guideline of a plan: the one that was given, the one beside it, or that of its topic."""
    from medorchestra.cloud.guideline import read_guideline
    from medorchestra.topics import guideline_folder

    if given is not None:
        return read_guideline(given)
    places = [path.parent / "guideline.md", guideline_folder(plan.topic) / "guideline.md"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise GuidelineError(f"{path}: no guideline.md beside the plan; name it with --guideline")
    return read_guideline(found)


def _cases_of(plan: Plan, path: Path, given: Path | None) -> tuple[SyntheticCase, ...]:
    """The cases of a plan: in the folder that was given, beside it, or those of its topic; none if there are none."""
    from medorchestra.synthetic import SPLITS, read_cases
    from medorchestra.topics import cases_folder

    if given is not None:
        return read_cases(given)
    places = [path.parent / "cases", cases_folder(plan.topic)]
    found = next((place for place in places if any((place / f"{split}.jsonl").is_file() for split in SPLITS)), None)
    if found is None:
        typer.echo("medorchestra: no synthetic cases found; name their folder with --cases", err=True)
        return ()
    return read_cases(found)


def _fitting(cases: Sequence[SyntheticCase], plan: Plan) -> list[SyntheticCase]:
    """The cases that a plan decides as they are labelled."""
    from medorchestra.synthetic import check_case

    fitting: list[SyntheticCase] = []
    for case in cases:
        try:
            check_case(case, plan)
        except CaseError:
            continue
        fitting.append(case)
    if len(fitting) < len(cases):
        typer.echo(f"medorchestra: {len(cases) - len(fitting)} cases do not fit the plan; see `plan check`", err=True)
    return fitting


def _evenly(cases: Sequence[SyntheticCase], most: int | None) -> list[SyntheticCase]:
    """At most so many cases, evenly over deciding rules and forms."""
    if not cases:
        raise CaseError("there are no cases of this split; name another folder with --cases, or another --split")
    if most is None or most >= len(cases):
        return list(cases)
    ordered = sorted(cases, key=lambda case: (case.rule or "", case.form, case.id))
    return [ordered[i * len(ordered) // most] for i in range(most)]


def _price(model: str, given: str | None) -> ListPrice | None:
    """The price that was given as `IN,OUT`, or the list price of the model, or None."""
    from medorchestra.cloud.desk.prices import ListPrice, list_price

    if given is None:
        return list_price(model)
    try:
        per_input, per_output = (float(amount) for amount in given.split(","))
    except ValueError:
        raise SettingsError("--price: two numbers are needed, such as 2.00,10.00") from None
    return ListPrice(model, per_input, per_output, source="given with --price", read_on="")


def _budget(
    max_requests: int | None, max_tokens: int | None, max_cost: float | None, price: ListPrice | None
) -> Budget:
    from medorchestra.cloud.desk.usage import Budget

    if max_cost is not None and price is None:
        raise SettingsError("--max-cost: no list price is known for this model; give it with --price IN,OUT")
    return Budget(max_requests, max_tokens, max_cost, price)


def _engine_options(
    context: int | None, gpu_layers: int, threads: int | None, allow_server: list[str] | None
) -> EngineOptions:
    from medorchestra.local.engine_opening import EngineOptions

    servers = tuple(allow_server or ())
    return EngineOptions(context_tokens=context, gpu_layers=gpu_layers, threads=threads, servers=servers)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("medorchestra: interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
