"""Adapters as llama.cpp wants them: its names, its order of rows, its metadata; the whole file or none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from local.engine.gguf_writing import TINY_MODEL, model_tensors, write_gguf

from medorchestra.errors import ModelError, StorageError
from medorchestra.finetune.adapter_file import BaseShape, rows_for_llama_cpp, write_adapter
from medorchestra.finetune.branched_model import LoraSettings
from medorchestra.local.engine.adapter_fit import BASE_DIGEST, check_adapter
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header
from medorchestra.local.engine.llama_cpp import LlamaCppEngine

gguf = pytest.importorskip("gguf", reason="needs the extra `finetune`")

WIDTH, RANK, HEADS = 8, 2, 2
LORA = LoraSettings(rank=RANK, alpha=6)
TINY = BaseShape("llama", layers=2, heads=HEADS, key_heads=1)
NAMES = {"self_attn.q_proj": "attn_q", "mlp.down_proj": "ffn_down"}


def peft_name(module, factor, layer=0):
    return f"base_model.model.model.layers.{layer}.{module}.lora_{factor}.default.weight"


def weights(layers=2, columns=WIDTH):
    """An adapter of the tiny model as PEFT names it, every number another."""
    found, count = {}, 0
    for layer in range(layers):
        for module in NAMES:
            into = columns * (2 if "down" in module else 1)
            for factor, shape in (("A", (RANK, into)), ("B", (columns, RANK))):
                size = shape[0] * shape[1]
                numbers = np.arange(count, count + size, dtype=np.float32).reshape(shape)
                found[peft_name(module, factor, layer)] = numbers
                count += size
    return found


@pytest.fixture
def base(tmp_path):
    return write_gguf(tmp_path / "base.gguf", TINY_MODEL, model_tensors(WIDTH))


def tensors_in(path):
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def naive_rows(matrix, heads):
    """Row 2·i of a head is its row i, row 2·i + 1 its row i + half: the two that a rotation turns stand together."""
    size = len(matrix) // heads
    rows = [
        matrix[head * size + half * (size // 2) + i]
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return np.stack(rows)


# ------------------------------------------------------------------------------------ the rows

matrices = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


@given(matrices)
def test_rows_are_reordered_as_by_definition(shape):
    heads, pairs, columns = shape
    matrix = np.arange(heads * 2 * pairs * columns, dtype=np.float32).reshape(heads * 2 * pairs, columns)
    assert np.array_equal(rows_for_llama_cpp(matrix, heads), naive_rows(matrix, heads))


@given(matrices)
def test_reordering_loses_no_row_and_can_be_undone(shape):
    heads, pairs, columns = shape
    matrix = np.arange(heads * 2 * pairs * columns, dtype=np.float32).reshape(heads * 2 * pairs, columns)
    moved = rows_for_llama_cpp(matrix, heads)
    back = moved.reshape(heads, pairs, 2, -1).swapaxes(1, 2).reshape(matrix.shape)
    assert moved.shape == matrix.shape
    assert np.array_equal(back, matrix)


def test_rows_of_one_head_of_eight_side_by_side():
    column = np.arange(8, dtype=np.float32)[:, None]
    assert rows_for_llama_cpp(column, 1).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert rows_for_llama_cpp(column, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


# ------------------------------------------------------------------------------------ the file


def test_a_written_adapter_is_whole_and_fits_its_base(tmp_path, base):
    path = tmp_path / "adapters" / "tiny.gguf"
    notes = {"medorchestra.topic": "pancreatic_cancer", "medorchestra.trained_on": "synthetic"}
    write_adapter(path, weights(), LORA, TINY, notes)
    header = read_gguf_header(path)
    check_adapter(header, read_gguf_header(base))
    assert header.architecture == "llama"
    assert header.is_adapter
    assert header.text("adapter.type") == "lora"
    assert header.metadata["adapter.lora.alpha"] == 6.0
    assert {key: header.text(key) for key in notes} == notes
    stems = [f"blk.{layer}.{name}.weight" for layer in (0, 1) for name in NAMES.values()]
    assert set(header.tensors) == {f"{stem}.lora_{factor}" for stem in stems for factor in "ab"}
    assert [file.name for file in path.parent.iterdir()] == ["tiny.gguf"]


def test_only_the_second_factor_of_query_and_key_is_reordered(tmp_path):
    found = weights(layers=1)
    key = peft_name("self_attn.k_proj", "B")
    found[key] = found[peft_name("self_attn.q_proj", "B")]
    write_adapter(tmp_path / "tiny.gguf", found, LORA, TINY, {})
    there = tensors_in(tmp_path / "tiny.gguf")
    second = found[key]
    assert np.array_equal(there["blk.0.attn_q.weight.lora_b"], naive_rows(second, HEADS).astype(np.float16))
    assert np.array_equal(there["blk.0.attn_k.weight.lora_b"], naive_rows(second, 1).astype(np.float16))
    for name, module in (("attn_q", "self_attn.q_proj"), ("ffn_down", "mlp.down_proj")):
        assert np.array_equal(there[f"blk.0.{name}.weight.lora_a"], found[peft_name(module, "A")].astype(np.float16))
    down = found[peft_name("mlp.down_proj", "B")].astype(np.float16)
    assert np.array_equal(there["blk.0.ffn_down.weight.lora_b"], down)


def test_an_architecture_whose_rows_llama_cpp_leaves_alone_keeps_them(tmp_path):
    found = weights(layers=1)
    write_adapter(tmp_path / "tiny.gguf", found, LORA, BaseShape("qwen2", 2, HEADS, 1), {})
    there = tensors_in(tmp_path / "tiny.gguf")["blk.0.attn_q.weight.lora_b"]
    assert np.array_equal(there, found[peft_name("self_attn.q_proj", "B")].astype(np.float16))


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        write_adapter(tmp_path / f"{name}.gguf", weights(), LORA, TINY, {"medorchestra.topic": "toy"})
    assert file_digest(tmp_path / "first.gguf") == file_digest(tmp_path / "second.gguf")


def test_an_adapter_of_another_base_of_the_same_shape_is_refused_before_anything_is_loaded(tmp_path, base):
    other = "sha256:" + "0" * 64
    write_adapter(tmp_path / "foreign.gguf", weights(), LORA, TINY, {BASE_DIGEST: other})
    with pytest.raises(ModelError, match="trained on another base") as caught:
        LlamaCppEngine(base, adapter=tmp_path / "foreign.gguf")
    assert other[:19] in str(caught.value)
    assert file_digest(base)[:19] in str(caught.value)
    write_adapter(tmp_path / "own.gguf", weights(), LORA, TINY, {BASE_DIGEST: file_digest(base)})
    with pytest.raises(ModelError, match="loading models is switched off"):  # the check before that has passed it
        LlamaCppEngine(base, adapter=tmp_path / "own.gguf")


# ------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.rotary.lora_A.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.other.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.default.weight",
    ],
    ids=["no such layer", "another adapter's name", "no adapter's weight", "behind the last layer"],
)
def test_a_weight_that_gguf_has_no_name_for_is_refused_and_nothing_is_left_behind(tmp_path, name):
    with pytest.raises(ModelError, match="no name for the adapter's weight") as caught:
        write_adapter(tmp_path / "tiny.gguf", {**weights(), name: np.zeros((2, 8), np.float32)}, LORA, TINY, {})
    assert name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_cannot_be_put_in_its_place_leaves_what_was_there_and_nothing_else(tmp_path):
    there = tmp_path / "tiny.gguf"
    (there / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written") as caught:
        write_adapter(there, weights(), LORA, TINY, {})
    assert str(there) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "adapters").write_text("a file", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        write_adapter(tmp_path / "adapters" / "tiny.gguf", weights(), LORA, TINY, {})


def test_a_failure_keeps_the_adapter_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write_adapter(path, weights(), LORA, TINY, {})
    before = file_digest(path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(StorageError, match="No space left on device; check folder and free space"):
        write_adapter(path, weights(layers=1), LORA, TINY, {})
    assert file_digest(path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf"]
