"""Adapters that llama.cpp would take, and crash on, are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf_writing import TINY_ADAPTER, TINY_MODEL, adapter_tensors, model_tensors, write_gguf

from medorchestra.errors import ModelError
from medorchestra.local.engine.adapter_fit import check_adapter, check_model
from medorchestra.local.engine.gguf_file import GgufHeader, read_gguf_header
from medorchestra.local.engine.llama_cpp import LlamaCppEngine


@pytest.fixture
def model(tmp_path: Path) -> GgufHeader:
    return read_gguf_header(write_gguf(tmp_path / "model.gguf", TINY_MODEL, model_tensors()))


def adapter_header(tmp_path: Path, tensors: dict[str, np.ndarray], **changes: str | int) -> GgufHeader:
    metadata = {**TINY_ADAPTER, **{key.replace("__", "."): value for key, value in changes.items()}}
    return read_gguf_header(write_gguf(tmp_path / "adapter.gguf", metadata, tensors))


def attention_only() -> dict[str, np.ndarray]:
    return {name: weight for name, weight in model_tensors().items() if "attn_q" in name}


def test_an_adapter_for_this_model_fits(tmp_path: Path, model: GgufHeader) -> None:
    check_adapter(adapter_header(tmp_path, adapter_tensors(attention_only())), model)


def test_an_adapter_of_the_embedding_has_its_factors_the_other_way_round(tmp_path: Path, model: GgufHeader) -> None:
    name = "token_embd.weight"
    flipped = {f"{name}.lora_a": np.zeros((3, 2)), f"{name}.lora_b": np.zeros((8, 2))}
    check_adapter(adapter_header(tmp_path, flipped), model)
    with pytest.raises(ModelError, match="another model"):
        check_adapter(adapter_header(tmp_path, adapter_tensors({name: np.zeros((3, 8))})), model)


@pytest.mark.parametrize(
    ("tensors", "changes", "said"),
    [
        (adapter_tensors(attention_only()), {"general__architecture": "qwen2"}, "qwen2"),
        (adapter_tensors(model_tensors(width=16)), {}, r"\(16, 2\)"),
        (adapter_tensors(model_tensors(layers=3)), {}, r"blk\.2\.attn_q\.weight"),
        (adapter_tensors(attention_only()), {"llama__block_count": 1}, "number of layers 1"),
        (adapter_tensors(attention_only()), {"llama__embedding_length": 16}, "width 16"),
        (adapter_tensors(attention_only()), {"adapter__type": "control_vector"}, "control_vector"),
        ({}, {}, "without tensors"),
        ({"blk.0.attn_q.weight.lora_a": np.zeros((2, 8))}, {}, "half of the change"),
        ({"blk.0.attn_q.weight": np.zeros((8, 8))}, {}, "not part of a LoRA"),
        (
            {"blk.0.attn_q.weight.lora_a": np.zeros((2, 8)), "blk.0.attn_q.weight.lora_b": np.zeros((8, 3))},
            {},
            "another model",
        ),
        (
            {"blk.0.attn_q.weight.lora_a": np.zeros(8), "blk.0.attn_q.weight.lora_b": np.zeros(8)},
            {},
            "not one of matrices",
        ),
    ],
)
def test_a_foreign_or_broken_adapter_is_refused(
    tmp_path: Path, model: GgufHeader, tensors: dict[str, np.ndarray], changes: dict[str, str | int], said: str
) -> None:
    adapter = adapter_header(tmp_path, tensors, **changes)
    with pytest.raises(ModelError, match=said) as caught:
        check_adapter(adapter, model)
    assert str(adapter.path) in str(caught.value)


def test_model_and_adapter_are_not_mistaken_for_each_other(tmp_path: Path, model: GgufHeader) -> None:
    adapter = adapter_header(tmp_path, adapter_tensors(attention_only()))
    with pytest.raises(ModelError, match="an adapter, not a model"):
        check_model(adapter)
    with pytest.raises(ModelError, match="a model, not an adapter"):
        check_adapter(model, model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split.count": 3}, "one of 3 parts"),
        ({"general.type": "mmproj"}, "mmproj"),
        ({"general.architecture": "clip"}, "clip"),
        ({"general.architecture": ""}, "without weights"),
    ],
)
def test_a_file_that_is_not_a_whole_language_model_is_refused(
    tmp_path: Path, changes: dict[str, str | int], said: str
) -> None:
    path = write_gguf(tmp_path / "model.gguf", {**TINY_MODEL, **changes}, model_tensors())
    with pytest.raises(ModelError, match=said):
        check_model(read_gguf_header(path))


def test_a_vocabulary_alone_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="without weights"):
        check_model(read_gguf_header(write_gguf(tmp_path / "vocabulary.gguf", TINY_MODEL)))


def test_the_engine_checks_both_files_before_it_loads_either(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", TINY_MODEL, model_tensors())
    foreign = write_gguf(tmp_path / "foreign.gguf", TINY_ADAPTER, adapter_tensors(model_tensors(width=16)))
    with pytest.raises(ModelError, match="another model"):
        LlamaCppEngine(model, adapter=foreign)
    with pytest.raises(ModelError, match="no such file"):
        LlamaCppEngine(model, adapter=tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match="an adapter, not a model"):
        LlamaCppEngine(foreign)
