"""Writes small GGUF files for tests: whole, damaged or foreign ones, as wanted."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Setting = str | bool | int | float | list[str]

TINY_MODEL: Mapping[str, Setting] = {
    "general.architecture": "llama",
    "general.type": "model",
    "llama.context_length": 512,
    "llama.embedding_length": 8,
    "llama.block_count": 2,
    "tokenizer.ggml.tokens": ["<s>", "a", "b"],
}
TINY_ADAPTER: Mapping[str, Setting] = {
    "general.architecture": "llama",
    "general.type": "adapter",
    "adapter.type": "lora",
    "adapter.lora.alpha": 4.0,
}


def write_gguf(path: Path, metadata: Mapping[str, Setting], tensors: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write a version 3 file; tensors as 32-bit floats, shapes in numpy's order (rows first)."""
    tensors = tensors or {}
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += packed_text(key) + _packed_setting(value)
    offset = 0
    for name, values in tensors.items():
        shape = values.shape[::-1]
        header += packed_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += _padded(values.size * 4)
    body = b"".join(
        values.astype("<f4").tobytes().ljust(_padded(values.size * 4), b"\0") for values in tensors.values()
    )
    path.write_bytes(header.ljust(_padded(len(header)), b"\0") + body)
    return path


def model_tensors(width: int = 8, layers: int = 2) -> dict[str, np.ndarray]:
    """Weights of a model that nobody could run, but whose header is whole."""
    weights = {"token_embd.weight": np.zeros((3, width))}
    for layer in range(layers):
        weights[f"blk.{layer}.attn_q.weight"] = np.zeros((width, width))
        weights[f"blk.{layer}.ffn_down.weight"] = np.zeros((width, 2 * width))
    return weights


def adapter_tensors(weights: Mapping[str, np.ndarray], rank: int = 2) -> dict[str, np.ndarray]:
    """LoRA factors, all zero, for weights of the given shapes."""
    factors = {}
    for name, weight in weights.items():
        rows, columns = weight.shape
        factors[f"{name}.lora_a"] = np.zeros((rank, columns))
        factors[f"{name}.lora_b"] = np.zeros((rows, rank))
    return factors


def packed_text(text: str) -> bytes:
    """A text as GGUF writes it."""
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _packed_setting(value: Setting) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + packed_text(value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(packed_text, value))


def _padded(length: int) -> int:
    return -(-length // 32) * 32
