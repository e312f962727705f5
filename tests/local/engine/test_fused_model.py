"""Base and adapter as one file: the sum is right, it is kept and checked, and where it cannot be made there is none."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf_writing import TINY_ADAPTER, TINY_MODEL, adapter_tensors, model_tensors, write_gguf

import medorchestra as mo
from medorchestra.local.engine import fused_model as fusing
from medorchestra.local.engine.adapter_fit import EMBEDDING
from medorchestra.local.engine.fused_model import fused_model, fused_models_folder
from medorchestra.local.engine.gguf_file import GgufHeader, read_gguf_header
from medorchestra.local.engine.protocol import Choice, Conversation
from medorchestra.topics import guideline_folder

RANDOM = np.random.default_rng(7)


class _Parameters(ctypes.Structure):
    _fields_ = (("ftype", ctypes.c_int), ("nthread", ctypes.c_int), ("allow_requantize", ctypes.c_bool))


class CopyingLlama(SimpleNamespace):
    """Converts nothing: what comes out is what went in, so that sums can be compared exactly."""

    __version__ = "copying"
    LLAMA_FTYPE_ALL_F32 = 0
    LLAMA_FTYPE_MOSTLY_Q8_0 = 7
    llama_model_quantize_default_params = _Parameters

    def __init__(self) -> None:
        super().__init__(converted=0, code=0)

    def llama_model_quantize(self, source: bytes, target: bytes, parameters: object) -> int:
        self.converted += 1
        shutil.copy(source, target)
        return int(self.code)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDORCHESTRA_CACHE", str(tmp_path / "cache"))


def a_pair(folder: Path, *, name: str = "adapter", changed: str | None = None) -> tuple[GgufHeader, GgufHeader]:
    weights = {stem: RANDOM.normal(size=matrix.shape) for stem, matrix in model_tensors().items()}
    own = {stem: matrix for stem, matrix in weights.items() if stem == changed or (not changed and "blk" in stem)}
    factors = {stem: RANDOM.normal(size=factor.shape) for stem, factor in adapter_tensors(own).items()}
    base = write_gguf(folder / "base.gguf", TINY_MODEL, weights)
    adapter = write_gguf(folder / f"{name}.gguf", TINY_ADAPTER, factors)
    return read_gguf_header(base), read_gguf_header(adapter)


def matrix_of(header: GgufHeader, name: str) -> np.ndarray:
    tensor = header.tensors[name]
    start = header.data_offset + tensor.offset
    content = header.path.read_bytes()[start : start + (tensor.size or 0)]
    return np.frombuffer(content, "<f4").reshape(tensor.shape[::-1])


def test_every_changed_matrix_is_the_base_and_the_product_of_its_factors(tmp_path):
    base, adapter = a_pair(tmp_path)
    path = fused_model(CopyingLlama(), base, adapter, threads=1)
    assert path is not None
    fused = read_gguf_header(path)
    assert (fused.metadata, set(fused.tensors)) == (base.metadata, set(base.tensors))
    for stem in base.tensors:
        expected = matrix_of(base, stem).astype(float)
        if f"{stem}.lora_a" in adapter.tensors:
            first, second = (matrix_of(adapter, f"{stem}.lora_{factor}").astype(float) for factor in "ab")
            expected = expected + 4.0 / 2 * second @ first  # alpha 4, rank 2
        np.testing.assert_allclose(matrix_of(fused, stem), expected, rtol=1e-5, atol=1e-5)
    assert [file.name for file in fused_models_folder().iterdir()] == [path.name]
    assert base.path.stat().st_size == path.stat().st_size


def test_it_is_made_once_and_again_only_if_damaged(tmp_path):
    base, adapter = a_pair(tmp_path)
    llama = CopyingLlama()
    path = fused_model(llama, base, adapter, threads=1)
    assert path is not None
    whole = path.read_bytes()
    assert fused_model(llama, base, adapter, threads=1) == path
    assert llama.converted == 2  # base to wide numbers, sum to what is read
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert fused_model(llama, base, adapter, threads=1) == path
    assert path.read_bytes() == whole
    assert llama.converted == 4


def test_another_adapter_gets_another_file_and_the_oldest_go(tmp_path):
    llama = CopyingLlama()
    made = []
    for number in range(fusing.MOST_KEPT + 2):
        path = fused_model(llama, *a_pair(tmp_path, name=f"adapter-{number}"), threads=1)
        assert path is not None
        made.append(path)
    assert len(set(made)) == len(made)
    kept = set(fused_models_folder().iterdir())
    assert len(kept) == fusing.MOST_KEPT
    assert made[-1] in kept


def test_what_a_killed_process_left_half_made_is_removed(tmp_path):
    left, fresh = (fused_models_folder() / f".making-{name}" for name in ("old", "new"))
    for folder in (left, fresh):
        folder.mkdir(parents=True)
        (folder / "wide.gguf").write_bytes(b"half")
    os.utime(left, (0, 0))
    assert fused_model(CopyingLlama(), *a_pair(tmp_path), threads=1) is not None
    assert (left.exists(), fresh.exists()) == (False, True)


def test_base_and_adapter_stay_apart_where_they_cannot_be_added(tmp_path, monkeypatch):
    assert fused_model(CopyingLlama(), *a_pair(tmp_path, changed=EMBEDDING), threads=1) is None
    pair = a_pair(tmp_path)
    failing = CopyingLlama()
    failing.code = 1
    assert fused_model(failing, *pair, threads=1) is None
    assert list(fused_models_folder().iterdir()) == []
    monkeypatch.setattr(fusing, "LARGEST_BASE", pair[0].path.stat().st_size - 1)
    assert fused_model(CopyingLlama(), *pair, threads=1) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("MEDORCHESTRA_CACHE", str(tmp_path / "taken"))
    assert fused_model(CopyingLlama(), *a_pair(tmp_path), threads=1) is None


@pytest.mark.model
def test_the_fused_default_model_answers_as_base_and_adapter_do():
    adapter = guideline_folder("pancreatic_cancer") / "adapters" / "SmolLM2-135M-Instruct.gguf"
    report = "CT with contrast. 3 cm mass in the pancreatic head, no contact with the SMA. Two liver metastases."
    plan = mo.read_plan("pancreatic_cancer")
    asked = [Choice(plan.question(one), tuple(one.labels.values())) for one in plan.subtasks if one.answer == "choice"]
    found = []
    for fuse in (True, False):
        with mo.LlamaCppEngine(adapter=adapter, fuse=fuse, context_tokens=1024) as engine:
            weights = engine.identity.settings.get("weights")
            assert (weights == "fused with the adapter, Q8_0") is fuse
            with engine.open(Conversation(plan.head(), report)) as session:
                found.append([answer.probabilities for answer in session.choose_all(asked)])
    fused, apart = found
    differences = [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in zip(fused, apart, strict=True)]
    assert len(differences) > 20
    assert sum(differences) / len(differences) < 0.02
    assert fused != apart
