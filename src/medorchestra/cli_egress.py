"""The commands of the egress log: `medorchestra egress verify`, `medorchestra egress check`. Parses, calls, prints.

Exit codes: 0 the log is whole, or shares nothing with the reports; 1 it is not, or does; 2 nothing done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medorchestra.egress_format import LogCheck
    from medorchestra.local.egress_check import EgressOverlap

egress_app = typer.Typer(
    name="egress",
    help="What left the building: check the log of all requests, and hold it against the hospital's reports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@egress_app.command()
def verify(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The egress log.")],
    head: Annotated[
        str | None, typer.Option("--head", help="Head noted earlier: shows that nothing up to it was cut off.")
    ] = None,
) -> None:
    """Check that no entry of an egress log was changed, removed, added or moved."""
    from medorchestra.egress_format import verify_log

    check = verify_log(log, head=head)
    for line in _check_lines(check):
        typer.echo(line)
    raise typer.Exit(0 if check.intact else 1)


def _check_lines(check: LogCheck) -> list[str]:
    lines = [f"problem: {problem}" for problem in check.problems]
    waiting = check.requests - check.replies
    state = "whole" if check.intact else "NOT WHOLE"
    lines.append(
        f"{state}: {check.entries} entries, {check.requests} requests, {check.replies} replies"
        + (f", {waiting} without a word on their reply" if waiting else "")
        + (f", {check.interruptions} interrupted lines" if check.interruptions else "")
    )
    if check.unfinished_bytes:
        lines.append(
            f"the last line is half written ({check.unfinished_bytes} bytes): the process was killed before it could "
            "send that request; the next one closes the line off"
        )
    lines.append(f"head: {check.head}")
    return lines


@egress_app.command()
def check(  # noqa: PLR0913 - one parameter for each option of the command
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The egress log.")],
    against: Annotated[
        Path, typer.Option("--against", metavar="REPORTS", help="CSV, TSV, Parquet, JSONL, or a folder of .txt files.")
    ],
    words: Annotated[int, typer.Option("--words", min=4, help="Length of a shared word sequence.")] = 8,
    known: Annotated[
        Path | None, typer.Option("--known", help="Text file of phrases known to be common, one a line: left out.")
    ] = None,
    id_column: Annotated[str | None, typer.Option("--id-column", help="Column with the report ids.")] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Column with the report text.")] = None,
    encoding: Annotated[str, typer.Option("--encoding", help="Encoding of text input.")] = "utf-8",
) -> None:
    """Inside the hospital: show whether text that left shares a long word sequence with its own reports.

    Prints ids and counts, never text.
    """
    from medorchestra.local.connectors import read_reports
    from medorchestra.local.egress_check import check_egress

    batch = read_reports(against, id_column=id_column, text_column=text_column, encoding=encoding)
    overlap = check_egress(log, batch.reports, words=words, known=_phrases(known))
    for line in _overlap_lines(overlap):
        typer.echo(line)
    raise typer.Exit(1 if overlap.sharing else 0)


def _phrases(path: Path | None) -> tuple[str, ...]:
    from medorchestra.errors import SourceError

    if path is None:
        return ()
    try:
        return tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not a text file in UTF-8") from None


def _overlap_lines(overlap: EgressOverlap) -> list[str]:
    lines = [
        f"log: {overlap.requests} requests, {overlap.pieces} distinct pieces, "
        f"{overlap.sequences} sequences of {overlap.words} words",
        f"reports: {overlap.reports}, of these {overlap.too_short} shorter than a sequence",
        f"sharing a sequence: {overlap.sharing}",
    ]
    lines += [f"  with a piece of kind {kind}: {count}" for kind, count in overlap.sharing_by_kind.items()]
    lines += [
        f"  a run of {length} words or more: {count}" for length, count in overlap.sharing_by_run.items() if count
    ]
    if overlap.longest:
        lines.append("report\tlongest run\tsequences\tkinds\trequests")
    for shared in overlap.longest:
        numbers = ",".join(map(str, shared.requests))
        lines.append(
            f"{shared.report_id}\t{shared.longest_run}\t{shared.sequences}\t{','.join(shared.kinds)}\t{numbers}"
        )
    if overlap.sharing > len(overlap.longest):
        lines.append(f"and {overlap.sharing - len(overlap.longest)} more with runs no longer than these")
    return lines
