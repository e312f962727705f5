"""One quantization of a model in `quantizations.py`: makes its file, and reads with it in a process of its own.

A process holds one model, opened once (`open_row`); the functions below it work on that one and are sent to the process
by name. Compares nothing.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the measuring process holds no library
    import medorchestra as mo

DEFAULT = "default"
"""The row of the model as it comes, which all others are compared with."""

FUSED = "fused"
"""The row of the model as the library reads with it: one file of model and adapter."""

BARE = "-bare"
"""Ends the name of a row without the adapter."""


@dataclass(frozen=True)
class RowSettings:
    """How a row's model is opened.

    Attributes:
        name: a type of weights as llama.cpp calls it (`Q4_0`), or `default`; `-bare` behind it: without the adapter.
        model: its file.
        adapter: an adapter that names this very file as its base; None: without one.
        threads, context_tokens: the same for all rows.
        topic: of the plan.
        fuse: read with a fused copy of model and adapter.
    """

    name: str
    model: str
    adapter: str | None
    threads: int
    context_tokens: int
    topic: str
    fuse: bool = False


def kind_of(name: str) -> str:
    """The type of weights of a row."""
    return name.removesuffix(BARE)


def quantize(model: Path, kind: str, folder: Path, threads: int) -> Path:
    """A copy of a model with weights of another type, whatever type they have now.

    Raises:
        SystemExit: llama.cpp knows no such type, or cannot make it of this model.
    """
    from medorchestra.local.engine.llama_library import load_library

    library = load_library()
    number = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind}", None)
    if number is None:
        raise SystemExit(f"llama.cpp has no type of weights {kind!r}")
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.allow_requantize = number, threads, True
    path = folder / f"{model.name.split('.')[0]}.{kind}.gguf"
    part = path.with_suffix(".part")
    if library.llama_model_quantize(os.fsencode(model), os.fsencode(part), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"llama.cpp cannot make {kind} of {model.name}")
    part.replace(path)
    return path


def adapter_naming(adapter: Path, base: Path, folder: Path) -> Path:
    """A copy of an adapter that names another file as the base it belongs to.

    The library refuses an adapter for any file but the one it was trained on, and rightly so. Here the other file holds
    the same weights, rounded otherwise, and what that does is measured.

    Raises:
        ValueError: the adapter does not name its base exactly once.
    """
    from medorchestra.local.engine.adapter_fit import BASE_DIGEST
    from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header

    named, content = read_gguf_header(adapter).text(BASE_DIGEST).encode(), adapter.read_bytes()
    wanted = file_digest(base).encode()
    if not named or content.count(named) != 1 or len(named) != len(wanted):
        raise ValueError(f"{adapter.name}: names no base, or more than once")
    path = folder / f"adapter for {base.name}"
    path.write_bytes(content.replace(named, wanted))  # as long as before, so every place in the file stays right
    return path


def weight_types(path: Path) -> dict[str, float]:
    """Type -> share of the model's weights that have it, the largest first. What llama.cpp made, not what it was told:
    rows whose length is no multiple of 256 cannot have a type with K."""
    from gguf import GGUFReader

    counted: Counter[str] = Counter()
    for tensor in GGUFReader(str(path)).tensors:
        counted[tensor.tensor_type.name] += int(tensor.n_elements)
    total = sum(counted.values())
    return {name: count / total for name, count in counted.most_common()}


class Row:
    """An open model, and the plan without calibration: that belongs to one file, and all rows are treated alike."""

    def __init__(self, settings: RowSettings) -> None:
        import medorchestra as mo

        plan = mo.read_plan(settings.topic)
        self.plan = plan.model_copy(update={"calibrations": (), "validation": ()})
        self.engine: mo.LlamaCppEngine = mo.LlamaCppEngine(
            Path(settings.model),
            adapter=settings.adapter,
            context_tokens=settings.context_tokens,
            threads=settings.threads,
            fuse=settings.fuse,
        )

    def prefill(self, text: str) -> tuple[int, float]:
        """Tokens of a report and seconds until they are read. The head is in memory before."""
        from medorchestra.local.engine.protocol import Conversation

        conversation = Conversation(self.plan.head(), text)
        started = time.perf_counter()
        with self.engine.open(conversation) as session:
            seconds = time.perf_counter() - started
            return session.prefix_tokens, seconds

    def whole(self, text: str) -> float:
        """Seconds for a report with all questions of the plan."""
        import medorchestra as mo
        from medorchestra.local.executor import Executor

        executor = Executor(self.plan, self.engine)
        return executor.read(mo.Report("R", text)).seconds


_opened: list[Row] = []
"""The row of this process."""


def open_row(settings: RowSettings) -> None:
    """Open the model of this process."""
    _opened.append(Row(settings))


def read_round(warm_up: str, texts: Sequence[str], *, whole: bool) -> dict[str, float]:
    """Read reports: tokens, seconds to read them, and (with `whole`) seconds for them with all questions.

    The warm-up report is read before, so that what was read last is not what is measured.
    """
    (row,) = _opened
    row.prefill(warm_up)
    tokens, seconds = map(sum, zip(*(row.prefill(text) for text in texts), strict=True))
    return {"tokens": tokens, "seconds": seconds, "whole": sum(row.whole(text) for text in texts) if whole else 0.0}


def read_cases(topic: str, split: str, ids: Sequence[str]) -> dict[str, Any]:
    """Read synthetic cases: case -> finding -> answer, which of them are right, and the outcomes."""
    import medorchestra as mo

    if split == "held_out":
        raise ValueError("a choice between settings is never made on held-out cases")
    (row,) = _opened
    known = {case.id: case for case in mo.read_cases(topic, split)}  # type: ignore[arg-type]
    readings = mo.rehearse(row.plan, [known[case_id] for case_id in ids], row.engine).readings
    asked = [subtask.finding for subtask in row.plan.subtasks if subtask.finding]
    return {
        "answers": {one.case.id: {finding: one.answers.get(finding) for finding in asked} for one in readings},
        "right": {one.case.id: [finding for finding in asked if one.is_right(finding)] for one in readings},
        "outcomes": {one.case.id: one.best_outcome for one in readings if one.case.outcome is not None},
        "outcomes_right": [one.case.id for one in readings if one.case.outcome is not None and one.is_outcome_right],
    }


def peak() -> float:
    """Largest memory of this process so far, in MB."""
    from peer_row import peak_mb

    return peak_mb("self")
