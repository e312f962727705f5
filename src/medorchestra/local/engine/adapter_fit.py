"""Judges GGUF headers: can this file be the model, and does this adapter belong to it?

llama.cpp takes a missing or foreign adapter without a word and crashes the process at the first token, so the shapes
are compared here, before anything is loaded. Whether an adapter was trained on this very model, and not on one of
the same shape, cannot be seen from shapes: its validation record says that.
"""

from __future__ import annotations

from typing import Final

from medorchestra.errors import ModelError
from medorchestra.local.engine.gguf_file import GgufHeader

BASE_DIGEST: Final = "medorchestra.base_digest"
"""Where an adapter made by `medorchestra finetune` says which file it was trained on."""

_SUFFIXES: Final = (".lora_a", ".lora_b")
_SIZES: Final = {".embedding_length": "width", ".block_count": "number of layers"}
EMBEDDING: Final = "token_embd.weight"


def check_model(header: GgufHeader) -> None:
    """Accept the header of a whole language model.

    Raises:
        ModelError: an adapter, a part of a split model, a file without weights, or one of another purpose.
    """
    path, kind = header.path, header.text("general.type")
    if header.is_adapter:
        raise ModelError(f"{path}: an adapter, not a model; give it as the adapter, and its base model as the model")
    if kind not in ("", "model") or header.architecture == "clip":
        said = f"type {kind!r}, architecture {header.architecture!r}"
        raise ModelError(f"{path}: a GGUF of {said}, not a language model; name the model's own file")
    parts = header.count("split.count") or 1
    if parts > 1:
        raise ModelError(f"{path}: one of {parts} parts; join them with `llama-gguf-split --merge` and name the result")
    if not header.architecture or not header.tensors:
        raise ModelError(f"{path}: a GGUF without weights; name a file that holds a whole model")


def check_adapter(adapter: GgufHeader, model: GgufHeader) -> None:
    """Accept a LoRA adapter whose every tensor fits the tensor of the model that it changes.

    Raises:
        ModelError: not an adapter, not a LoRA, or made for another architecture, width or number of layers.
    """
    path = adapter.path
    if not adapter.is_adapter:
        raise ModelError(f"{path}: a model, not an adapter; give it as the model, or name an adapter's .gguf file")
    kind = adapter.text("adapter.type")
    if kind != "lora":
        raise ModelError(f"{path}: an adapter of type {kind!r}; only LoRA adapters are supported")
    if adapter.architecture != model.architecture:
        said = f"architecture {adapter.architecture!r}, the model {model.path.name} has {model.architecture!r}"
        raise _foreign(adapter, said)
    for key, meaning in _SIZES.items():
        own, base = adapter.count(key), model.count(key)
        if own is not None and base is not None and own != base:
            raise _foreign(adapter, f"{meaning} {own}, the model {model.path.name} has {base}")
    _check_tensors(adapter, model)


def _check_tensors(adapter: GgufHeader, model: GgufHeader) -> None:
    changed = set()
    for name in adapter.tensors:
        stem, dot, suffix = name.rpartition(".")
        if f".{suffix}" not in _SUFFIXES:
            raise ModelError(f"{adapter.path}: tensor {name!r} is not part of a LoRA; convert the adapter again")
        changed.add(stem if dot else name)
    if not changed:
        raise ModelError(f"{adapter.path}: an adapter without tensors; convert the adapter again")
    for stem in sorted(changed):
        _check_pair(stem, adapter, model)


def _check_pair(stem: str, adapter: GgufHeader, model: GgufHeader) -> None:
    """The two factors of one change: a row of A is as long as the base's row, a column of B as its column."""
    base = model.tensors.get(stem)
    if base is None:
        raise _foreign(adapter, f"a change to tensor {stem!r}, which the model {model.path.name} does not have")
    first, second = (adapter.tensors.get(stem + suffix) for suffix in _SUFFIXES)
    if first is None or second is None:
        raise ModelError(f"{adapter.path}: half of the change to {stem!r} is missing; convert the adapter again")
    if min(len(first.shape), len(second.shape), len(base.shape)) < 2:
        raise ModelError(f"{adapter.path}: the change to {stem!r} is not one of matrices; convert the adapter again")
    if stem == EMBEDDING:  # llama.cpp looks rows up in A here, so that the two factors change places
        fits = (second.shape[1], first.shape[1]) == base.shape[:2]
    else:
        fits = (first.shape[0], second.shape[1]) == base.shape[:2] and first.shape[1] == second.shape[0]
    if not fits or not first.shape[2:] == second.shape[2:] == base.shape[2:]:
        shapes = f"{first.shape} and {second.shape} for {stem!r}, where the model {model.path.name} has {base.shape}"
        raise _foreign(adapter, f"factors of shape {shapes}")


def _foreign(adapter: GgufHeader, difference: str) -> ModelError:
    return ModelError(
        f"{adapter.path}: made for another model: it has {difference}; use the adapter trained on this model"
    )
