"""The only conftest: no test loads a model unless it is marked `model`; property tests are the same on every run in CI.

Hermetic otherwise by habit: fixtures make what a test reads in `tmp_path`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from medorchestra.cloud.desk import client
from medorchestra.local.engine import model_files

if TYPE_CHECKING:
    from medorchestra.local.engine.llama_cpp import LlamaCppEngine

# No deadline: the machines that run the tests are shared, and a slow moment is not a failure.
hypothesis.settings.register_profile("medorchestra", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("medorchestra")


CACHE = "MEDORCHESTRA_CACHE"

TERMINAL = {"TERM": "xterm-256color", "NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": None}
"""What a progress bar looks like depends on these; tests must not depend on who runs them. None: not set."""


def pytest_configure(config: pytest.Config) -> None:
    model_files.ALLOW_MODEL_LOADING = False
    client.ALLOW_HOSTED_MODELS = False
    for name, value in TERMINAL.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    if not hasattr(config, "workerinput"):  # workers and the processes that tests start share what is made once
        os.environ[CACHE] = tempfile.mkdtemp(prefix="medorchestra-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # A hook, not a fixture: it has to come before the session's engine is made.
    model_files.ALLOW_MODEL_LOADING = item.get_closest_marker("model") is not None


@pytest.fixture(scope="session")
def default_engine() -> Iterator[LlamaCppEngine]:
    """The default model, loaded once. Only for tests marked `model`, which must not close it."""
    from medorchestra.local.engine.llama_cpp import LlamaCppEngine

    with LlamaCppEngine() as engine:
        yield engine
