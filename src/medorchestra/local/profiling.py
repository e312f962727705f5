"""Samples where a run's time goes, and writes it as a flame graph: `profile.speedscope.json` in the run's folder.

Only the thread that is profiled is seen: threads of a model server's client and of llama.cpp are time in the function
that waits for them, and workers in other processes are not seen at all. Samples are added up as they come, so that
memory does not grow with the run; the order in time is lost with that.

**What is in the file:** names of functions and classes, files by their place among the modules, line numbers, and
seconds. No value of any variable, so no report text; no arguments of the command and no folder of this machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from medorchestra.errors import SettingsError, StorageError

PROFILE_FILE: Final = "profile.speedscope.json"

INTERVAL_S: Final = 0.005
"""Between two samples at least. One took 26 microseconds at 30 functions deep; beside that a call of a Python function
took 0.16 microseconds instead of 0.03, so that Python's own share looks larger than it is without a profile."""

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"  # the format's name for itself
_PARTS: Final = "\x00"  # between name, file and line of a frame, as the sampler tells them
_ATTRIBUTES: Final = "\x01"  # before each of what it tells beside
_CLASS: Final = "c"


@contextmanager
def profiled(folder: str | Path, *, notes: Callable[[str], None] | None = None) -> Iterator[None]:
    """Profile what runs inside the `with` block, in this thread.

    The file is written when the block ends, also by an error or an interruption, if the folder is there by then.

        with profiled("out"):
            stage_to_files(batch, plan, "out")

    Args:
        folder: of the run; whoever runs makes it.
        notes: called with where the file lies and what opens it.

    Raises:
        SettingsError: pyinstrument is not installed; before the block begins.
        StorageError: the file cannot be written; not where the block itself has failed.
    """
    sampler = _sampler()
    samples = _Samples()
    sampler.subscribe(samples.add, desired_interval=INTERVAL_S, use_async_context=False)
    failed = True
    try:
        yield
        failed = False
    finally:
        sampler.unsubscribe(samples.add)
        path = Path(folder) / PROFILE_FILE
        try:
            if path.parent.is_dir():
                _write(path, samples.to_speedscope())
                if notes is not None:
                    notes(
                        f"profile: {path} (names of functions and seconds, nothing of any report); `npx speedscope` "
                        "with this file shows it in the browser of this machine"
                    )
        except StorageError:
            if not failed:  # else the error that ended the run is the one to show
                raise


def _sampler() -> Any:
    try:
        from pyinstrument.stack_sampler import get_stack_sampler
    except ImportError:
        raise SettingsError("a profile needs pyinstrument; run `pip install 'medorchestra[profile]'`") from None
    return get_stack_sampler()


class _Samples:
    """Seconds by stack of functions."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, int], int] = {}
        self._known: dict[str, int] = {}
        self._seconds: dict[tuple[int, ...], float] = {}

    def add(self, stack: Sequence[str], seconds: float, _: object) -> None:
        """One sample: the stack from the outside in, and the seconds since the last one."""
        numbers: list[int] = []
        for told in stack:
            number = self._known.get(told)
            if number is None:
                number = self._known[told] = self._numbers.setdefault(_frame(told), len(self._numbers))
            numbers.append(number)
        key = tuple(numbers)
        self._seconds[key] = self._seconds.get(key, 0.0) + seconds

    def to_speedscope(self) -> dict[str, Any]:
        """The content of the file: stacks side by side that begin alike, which draws a flame graph."""
        stacks = sorted(self._seconds)
        profile = {
            "type": "sampled",
            "name": "medorchestra, wall time",
            "unit": "seconds",
            "startValue": 0,
            "endValue": sum(self._seconds.values()),
            "samples": stacks,
            "weights": [self._seconds[stack] for stack in stacks],
        }
        frames = [{"name": name, "file": file, "line": line} for name, file, line in self._numbers]
        shown = {"name": "medorchestra", "activeProfileIndex": 0, "exporter": "medorchestra"}
        return {"$schema": _SCHEMA, **shown, "shared": {"frames": frames}, "profiles": [profile]}


def _frame(told: str) -> tuple[str, str, int]:
    """Name with its class, file and first line of a function, from what the sampler tells of it."""
    identifier, *attributes = told.split(_ATTRIBUTES)
    name, file, line = (*identifier.split(_PARTS), "", "0")[:3]
    if file == "<thread>":
        return name, file, 0  # beside it stands the number of the thread
    owner = next((one[1:] for one in attributes if one.startswith(_CLASS)), "")
    return f"{owner}.{name}" if owner else name, _place(file), int(line)


def _place(file: str) -> str:
    """A file as its modules are found: without the folders of this machine."""
    path = Path(file)
    if not path.is_absolute():
        return path.name if path.parts[1:] else file
    roots = (root for root in map(Path, sys.path) if root.is_absolute() and path.is_relative_to(root))
    root = max(roots, key=lambda one: len(one.parts), default=path.parent)
    return path.relative_to(root).as_posix()


def _write(path: Path, content: dict[str, Any]) -> None:
    """The file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            part.write_text(json.dumps(content) + "\n", encoding="ascii")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        kind = error.strerror or type(error).__name__
    else:
        return
    raise StorageError(f"{path}: the profile cannot be written: {kind}. The results are not touched by that.")
