"""Holds the egress log against the hospital's own reports: did words of a report leave? Sends nothing, keeps no text.

Inside, where the reports are. The log's word sequences go into one set of numbers; the reports stream past it, each
looked at once, so that time grows with the reports and memory does not.

A shared sequence is no proof: 'no evidence of metastatic disease in the chest' stands in reports everywhere, and in
synthetic ones. What a pasted report leaves is long: the longest shared run of words tells the two apart, and phrases
that are known to be common can be left out.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from medorchestra.egress_format import digest_of, read_requests
from medorchestra.errors import SettingsError
from medorchestra.local.records import Report

FEWEST_WORDS = 4
"""Shorter sequences are shared by all reports of a kind."""
RUN_LENGTHS = (8, 12, 20, 40)
"""Runs are counted from each of these numbers of words up."""

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")
"""A number with its decimals is one word; case, punctuation and line breaks make no difference."""


@dataclass(frozen=True, slots=True)
class SharedReport:
    """One report that shares word sequences with the log.

    Attributes:
        report_id: of the report.
        longest_run: words of the longest run that also stands in the log.
        sequences: word sequences of the chosen length that are shared.
        kinds: kinds of the outgoing pieces, such as `case` or `guideline`.
        requests: numbers of requests that hold them: for each piece the first that sent it, at most ten.
    """

    report_id: str
    longest_run: int
    sequences: int
    kinds: tuple[str, ...]
    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EgressOverlap:
    """What egress log and reports share. Ids and counts only.

    Attributes:
        words: length of the sequences that were looked for.
        requests, pieces, sequences: of the log: requests, distinct pieces, distinct word sequences.
        reports: how many were looked at.
        too_short: reports of fewer words than a sequence, which can share none.
        sharing: how many share at least one sequence.
        sharing_by_kind: kind of piece -> reports that share a sequence with a piece of it.
        sharing_by_run: number of words -> reports whose longest run has at least so many.
        longest: the reports with the longest runs, longest first; not all, where many share.
    """

    words: int
    requests: int
    pieces: int
    sequences: int
    reports: int
    too_short: int
    sharing: int
    sharing_by_kind: dict[str, int]
    sharing_by_run: dict[int, int]
    longest: tuple[SharedReport, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    kind: str
    request: int


@dataclass(frozen=True, slots=True)
class _Sequences:
    """The log as a set of sequences: number of a sequence -> index of the first piece that holds it."""

    requests: int
    pieces: tuple[_Piece, ...]
    piece_of: dict[int, int]


def check_egress(
    log_path: str | Path,
    reports: Iterable[Report],
    *,
    words: int = 8,
    known: Sequence[str] = (),
    keep: int = 100,
) -> EgressOverlap:
    """Compare the egress log with reports.

    Args:
        log_path: the egress log.
        reports: streamed once.
        words: length of the sequences that are looked for.
        known: phrases known to be common; sequences within them do not count.
        keep: how many reports are named, those with the longest runs first.

    Raises:
        EgressError: the log does not hold together, so that it proves nothing.
        StorageError: the log cannot be read.
        SettingsError: `words` is too small to mean anything, or `keep` is negative.
    """
    if words < FEWEST_WORDS or keep < 0:
        raise SettingsError(f"words must be at least {FEWEST_WORDS} and keep at least 0")
    log = _sequences_of(log_path, words, known)
    looked, too_short, sharing = 0, 0, 0
    by_kind: Counter[str] = Counter()
    by_run: Counter[int] = Counter()
    # Smallest first, and the number of the report before its id, so that equal runs keep the order of the source.
    kept: list[tuple[int, int, SharedReport]] = []
    for report in reports:
        looked += 1
        tokens = _words(report.text)
        too_short += len(tokens) < words
        shared = _shared(report.report_id, tokens, log, words)
        if shared is None:
            continue
        sharing += 1
        by_kind.update(shared.kinds)
        by_run.update(length for length in RUN_LENGTHS if shared.longest_run >= length)
        heapq.heappush(kept, (shared.longest_run, -looked, shared))
        if len(kept) > keep:
            heapq.heappop(kept)
    return EgressOverlap(
        words=words,
        requests=log.requests,
        pieces=len(log.pieces),
        sequences=len(log.piece_of),
        reports=looked,
        too_short=too_short,
        sharing=sharing,
        sharing_by_kind=dict(sorted(by_kind.items())),
        sharing_by_run={length: by_run[length] for length in RUN_LENGTHS},
        longest=tuple(shared for _, _, shared in sorted(kept, reverse=True)),
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _numbers(tokens: Sequence[str], words: int) -> Iterator[int]:
    """One number for each sequence. Python's own hash of 64 bits: equal within a process, never written down."""
    return map(hash, zip(*(tokens[start:] for start in range(words)), strict=False))


def _sequences_of(log_path: str | Path, words: int, known: Sequence[str]) -> _Sequences:
    common = {number for phrase in known for number in _numbers(_words(phrase), words)}
    pieces: list[_Piece] = []
    piece_of: dict[int, int] = {}
    seen: set[str] = set()
    requests = 0
    for request in read_requests(log_path):
        requests += 1
        for piece in request["pieces"]:
            # A guideline goes out with many requests; its first request stands for all.
            digest = digest_of(piece["text"].encode("utf-8", "surrogatepass"))
            if digest in seen:
                continue
            seen.add(digest)
            for number in _numbers(_words(piece["text"]), words):
                if number not in common:
                    piece_of.setdefault(number, len(pieces))
            pieces.append(_Piece(piece["kind"], request["number"]))
    return _Sequences(requests, tuple(pieces), piece_of)


def _shared(report_id: str, tokens: Sequence[str], log: _Sequences, words: int) -> SharedReport | None:
    piece_of = log.piece_of
    places = [place for place, number in enumerate(_numbers(tokens, words)) if number in piece_of]
    if not places:
        return None
    # Only now, for the few that share, once more with the pieces.
    numbers = list(_numbers(tokens, words))
    hit = {piece_of[numbers[place]] for place in places}
    longest = run = 1
    for before, place in pairwise(places):
        run = run + 1 if place == before + 1 else 1
        longest = max(longest, run)
    return SharedReport(
        report_id=report_id,
        longest_run=longest + words - 1,
        sequences=len(places),
        kinds=tuple(sorted({log.pieces[index].kind for index in hit})),
        requests=tuple(sorted({log.pieces[index].request for index in hit})[:10]),
    )
