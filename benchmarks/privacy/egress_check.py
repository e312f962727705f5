"""Measures how fast reports stream past an egress log, and how much memory that takes.

    python benchmarks/privacy/egress_check.py [--reports 100000] [--log-cases 300]

The log holds a guideline, that many made-up cases and a plan; the reports are made up from sentences by seed, about
150 words each, one in a thousand with a case pasted into it. Rate and memory are those of the check alone: the
reports are made while they stream, and the time of making them is measured on its own and taken off.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from medorchestra.cloud.egress.log import EgressLog
from medorchestra.cloud.guideline import read_guideline
from medorchestra.cloud.outgoing import Piece, PieceKind, guideline_piece
from medorchestra.local.egress_check import check_egress
from medorchestra.local.records import Report

GUIDELINE = Path(__file__).parents[2] / "guidelines" / "pancreatic_cancer" / "guideline.md"
ORGANS = ["liver", "spleen", "left kidney", "right kidney", "adrenal glands", "stomach", "duodenum", "bladder", "aorta"]
STATES = ["is unremarkable", "shows no focal lesion", "measures {n} mm", "is unchanged from {n} months ago", "enhances"]
EXTRAS = ["on the portal venous phase", "within the limits of the study", "without calcification", "in its upper part"]


def made_up(random_source: random.Random, sentences: int) -> str:
    def sentence() -> str:
        state = random_source.choice(STATES).format(n=random_source.randint(2, 99))
        extra = random_source.choice(EXTRAS)
        return f"The {random_source.choice(ORGANS)} {state} {extra} {random_source.randint(1, 500)}."

    return " ".join(sentence() for _ in range(sentences))


def made_up_reports(count: int, pasted: str) -> Iterator[Report]:
    source = random.Random(7)
    for number in range(count):
        text = made_up(source, 12)
        yield Report(f"R{number}", f"{text} {pasted}" if number % 1000 == 0 else text)


def write_log(path: Path, cases: int) -> str:
    """A log as one planner run leaves it; the text of its first case comes back."""
    source = random.Random(11)
    texts = [made_up(source, 14) for _ in range(cases)]
    sections = [guideline_piece(section) for section in read_guideline(GUIDELINE).sections.values()]
    with EgressLog.open(path) as log:
        for number, text in enumerate(texts):
            pieces = [*sections, Piece(PieceKind.CASE, f"c{number}", text)]
            log.record_request(
                step="read_back", endpoint="https://x", model="m", request_digest="sha256:0", pieces=pieces
            )
    return texts[0]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=100_000)
    parser.add_argument("--log-cases", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "egress.jsonl"
        pasted = write_log(path, options.log_cases)
        start = time.perf_counter()
        deque(made_up_reports(options.reports, pasted), maxlen=0)
        making = time.perf_counter() - start
        before = peak_mib()
        start = time.perf_counter()
        overlap = check_egress(path, made_up_reports(options.reports, pasted))
        checking = time.perf_counter() - start - making
    pastes = sum(shared.longest_run >= 40 for shared in overlap.longest)
    print(f"log: {overlap.requests} requests, {overlap.sequences} sequences")
    print(f"reports: {overlap.reports}, sharing {overlap.sharing}, by run {overlap.sharing_by_run}")
    print(f"pastes: {pastes} of the {len(overlap.longest)} listed")
    print(f"check: {checking:.1f} s, {overlap.reports / checking:.0f} reports/s (making them: {making:.1f} s)")
    print(f"peak memory: {before:.0f} MiB before, {peak_mib():.0f} MiB after")


if __name__ == "__main__":
    main()
