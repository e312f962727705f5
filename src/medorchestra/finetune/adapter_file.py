"""Writes a trained LoRA adapter as GGUF, the way llama.cpp wants it.

llama.cpp keeps the rows of query and key matrices of Llama models in another order than PyTorch does (rotary pairs side
by side), so the rows of the adapter's second factor are reordered, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medorchestra.errors import ModelError, StorageError
from medorchestra.finetune.branched_model import LoraSettings

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.default\.weight")
_PERMUTED = {"llama"}
"""Architectures whose query and key rows llama.cpp reorders."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What must be known of the base model.

    Attributes:
        architecture: as GGUF names it.
        layers, heads, key_heads: their numbers.
    """

    architecture: str
    layers: int
    heads: int
    key_heads: int


def write_adapter(
    path: Path, weights: Mapping[str, Matrix], lora: LoraSettings, base: BaseShape, notes: Mapping[str, str]
) -> None:
    """Write an adapter; the file is there as a whole or not at all.

    Args:
        path: the GGUF to write.
        weights: PEFT's name -> matrix, A of shape (rank, in), B of shape (out, rank).
        lora: rank and alpha.
        base: what it was trained on.
        notes: further metadata, key -> text.

    Raises:
        ModelError: a weight of the adapter belongs to a layer that GGUF has no name for.
        StorageError: the file cannot be written.
    """
    import gguf

    tensors = _tensors(weights, base)
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(gguf.GGUFWriter(beside, base.architecture)) as writer:
                writer.add_type("adapter")
                writer.add_string("adapter.type", "lora")
                writer.add_float32("adapter.lora.alpha", lora.alpha)
                for key, text in notes.items():
                    writer.add_string(key, text)
                for name, matrix in tensors.items():
                    writer.add_tensor(name, np.ascontiguousarray(matrix.astype(np.float16)))
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; check folder and free space") from None


def _tensors(weights: Mapping[str, Matrix], base: BaseShape) -> dict[str, Matrix]:
    import gguf

    architectures = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    names: Any = gguf.get_tensor_name_map(architectures[base.architecture], base.layers)
    tensors: dict[str, Matrix] = {}
    for name, matrix in weights.items():
        found = _NAME.fullmatch(name)
        stem = names.get_name(found["module"], try_suffixes=()) if found else None
        if found is None or stem is None:
            raise ModelError(f"GGUF has no name for the adapter's weight {name}; this base cannot be trained yet")
        if found["factor"] == "B" and base.architecture in _PERMUTED:
            heads = {"q_proj": base.heads, "k_proj": base.key_heads}.get(found["module"].rpartition(".")[2])
            matrix = matrix if heads is None else rows_for_llama_cpp(matrix, heads)
        tensors[f"{stem}.weight.lora_{found['factor'].lower()}"] = matrix
    return tensors


def rows_for_llama_cpp(matrix: Matrix, heads: int) -> Matrix:
    """Rows of a query or key matrix, shape (out, …), from PyTorch's order (halves) to llama.cpp's (pairs)."""
    out = matrix.shape[0]
    return matrix.reshape(heads, 2, out // heads // 2, -1).swapaxes(1, 2).reshape(out, -1)
