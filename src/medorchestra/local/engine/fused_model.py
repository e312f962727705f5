"""Makes one model of a base and its adapter and keeps it on this machine: the same weights, read twice as fast.

An adapter that is applied while reading costs a third of the time, and some types of weights (Q4_1, in which the
default model comes) have no layout that processors read fast. Here the adapter is added to the base once, in 32-bit
numbers, and the sum is stored as Q8_0, which rounds far less than the base's own four bits did. What is made is no
model of its own: base and adapter stay what a decision names.

Knows files and matrices; runs no model. Measured in `benchmarks/speed/quantizations.md`.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from medorchestra.errors import ModelError
from medorchestra.local.engine.adapter_fit import EMBEDDING
from medorchestra.local.engine.gguf_file import GgufHeader, file_digest, read_gguf_header

FUSED_WEIGHTS: Final = "Q8_0"
LARGEST_BASE: Final = 512 * 1024**2
"""Bytes of the largest base that is fused: beyond it the copy takes gigabytes, and no such base was measured."""
MOST_KEPT: Final = 4
"""Fused models in the folder; the one used longest ago goes first."""
STALE: Final = 3600.0
"""Seconds after which what a killed process has left half made is removed."""

_FUSION: Final = "1"
"""Part of a fused model's name: raise it when it would be made otherwise."""
_NUMBERS: Final[Mapping[int, str]] = {0: "<f4", 1: "<f2"}
"""Tensor types that are read here."""


def fused_models_folder() -> Path:
    """Where fused models are kept: `fused` in MEDORCHESTRA_CACHE; without it, in `medorchestra` in the user's cache."""
    own, cache = os.environ.get("MEDORCHESTRA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own) / "fused"
    return (Path(cache) if cache else Path.home() / ".cache") / "medorchestra" / "fused"


def fused_model(library: ModuleType, base: GgufHeader, adapter: GgufHeader, threads: int) -> Path | None:
    """Path of the fused model, which is made where it is not there yet (some seconds for 135 million weights).

    The file's name holds the digests of everything it was made of and of its own content, which is compared on every
    use. Several processes may ask at the same time.

    Args:
        library: llama.cpp.
        base, adapter: headers of files that fit (`check_adapter`).
        threads: of the processor.

    Returns:
        None where base and adapter are to be used as they are: the base is large, the adapter changes more than plain
        matrices, or the folder cannot be written.
    """
    if not is_fusible(base, adapter):
        return None
    try:
        folder = fused_models_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _key(library, base.path, adapter.path)
        found = _kept(folder, key)
        if found is None:
            found = _make(library, base, adapter, folder / key, threads)
            _forget_old(folder, found)
        return found
    except (OSError, RuntimeError):  # a home that is not there, a full disk
        return None


def is_fusible(base: GgufHeader, adapter: GgufHeader) -> bool:
    """Whether the base is small enough, and every change one of matrices in numbers that are read here."""
    changed = {name.rpartition(".")[0] for name in adapter.tensors}
    return (
        base.path.stat().st_size <= LARGEST_BASE
        and EMBEDDING not in changed
        and all(tensor.type_code in _NUMBERS and len(tensor.shape) == 2 for tensor in adapter.tensors.values())
        and all(len(base.tensors[stem].shape) == 2 for stem in changed)
    )


def _key(library: ModuleType, base: Path, adapter: Path) -> str:
    made_of = (_FUSION, FUSED_WEIGHTS, library.__version__, file_digest(base), file_digest(adapter))
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:32]


def _kept(folder: Path, key: str) -> Path | None:
    """The file of this key whose content is still what it was when it was made."""
    for path in folder.glob(f"{key}-*.gguf"):
        if file_digest(path) == f"sha256:{path.stem.rpartition('-')[2]}":
            with contextlib.suppress(OSError):
                path.touch()  # used now; see `_forget_old`
            return path
        path.unlink(missing_ok=True)
    return None


def _make(library: ModuleType, base: GgufHeader, adapter: GgufHeader, name: Path, threads: int) -> Path:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=name.parent) as making:
        wide, fused = Path(making) / "wide.gguf", Path(making) / "fused.gguf"
        _convert(library, base.path, wide, library.LLAMA_FTYPE_ALL_F32, threads)
        _add_changes(read_gguf_header(wide), adapter)
        _convert(library, wide, fused, library.LLAMA_FTYPE_MOSTLY_Q8_0, threads)
        path = name.with_name(f"{name.name}-{file_digest(fused).removeprefix('sha256:')}.gguf")
        fused.replace(path)
        return path


def _convert(library: ModuleType, source: Path, target: Path, kind: int, threads: int) -> None:
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.allow_requantize = kind, threads, True
    if library.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)) != 0:
        raise OSError(f"llama.cpp cannot convert {source.name}")


def _add_changes(wide: GgufHeader, adapter: GgufHeader) -> None:
    """Add B·A·(alpha / rank) to every matrix of the base that the adapter changes, in the file."""
    alpha = float(adapter.metadata.get("adapter.lora.alpha", 0.0))
    for stem in sorted({name.rpartition(".")[0] for name in adapter.tensors}):
        first, second = (_matrix(adapter, f"{stem}.lora_{factor}") for factor in "ab")
        scale = alpha / len(first) if alpha else 1.0  # as llama.cpp has it
        weights = _matrix(wide, stem, mode="r+")
        weights += np.float32(scale) * (second.astype(np.float32) @ first.astype(np.float32))
        weights.flush()


def _matrix(header: GgufHeader, name: str, mode: str = "r") -> np.memmap[Any, np.dtype[np.float32]]:
    """A tensor in its file, shape (out, in); writing to it writes to the file.

    Raises:
        ModelError: it is not in numbers that are read here.
    """
    tensor = header.tensors[name]
    if tensor.type_code not in _NUMBERS:
        raise ModelError(f"{header.path.name}: tensor {name!r} is of type {tensor.type_code}")
    place = header.data_offset + tensor.offset
    return np.memmap(header.path, _NUMBERS[tensor.type_code], mode, place, tensor.shape[::-1])  # type: ignore[call-overload, no-any-return]


def _forget_old(folder: Path, newest: Path) -> None:
    """Best effort: other processes use the folder, too."""
    with contextlib.suppress(OSError):
        for left in folder.glob(".making-*"):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)
        others = [path for path in folder.glob("*.gguf") if path != newest]
        for path in sorted(others, key=lambda path: -path.stat().st_mtime)[MOST_KEPT - 1 :]:
            path.unlink()
