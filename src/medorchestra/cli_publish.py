"""The command `medorchestra plan publish`. Parses, calls, prints. Exit codes: 0 published; 2 nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medorchestra.publishing import Published


def publish(
    source: Annotated[str, typer.Argument(metavar="PLAN", help="Path of a plan file, or name of a topic.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a new or an empty one.")],
    cases: Annotated[
        Path | None,
        typer.Option("--cases", help="Folder with synthetic cases to publish too: invented text only; default none."),
    ] = None,
    guideline: Annotated[
        Path | None,
        typer.Option("--guideline", help="Its guideline; default guideline.md beside the plan, or its topic's."),
    ] = None,
) -> None:
    """Write the folder of a plan that may leave: plan, guideline, adapters with their records, digests.

    Refuses adapters that were trained on clinical text, or that do not say on what. Calibrations on a hospital's own
    reports are left out.

    Exit code 0: published; 2: nothing written, the message says why.
    """
    from medorchestra.publishing import publish as publish_plan

    for line in _published_lines(publish_plan(source, out, guideline=guideline, cases=cases)):
        typer.echo(line)


def _published_lines(published: Published) -> list[str]:
    lines = [f"{digest}  {name}" for name, digest in published.files.items()]
    left_out = published.local_calibrations
    if left_out:
        plural = "s" if left_out > 1 else ""
        lines.append(f"left out: {left_out} calibration{plural} fitted to a hospital's own reports")
    if "guideline.md" not in published.files:
        lines.append(
            "without a guideline: the text that the plan was made from was not found; name it with --guideline"
        )
    return [*lines, f"published: {published.folder}"]
