"""pytest plug-in: with `--dist loadgroup`, every test marked `model` goes to the same xdist worker.

Loaded by `make test` alone; without xdist, or without `loadgroup`, it changes nothing.
"""

from __future__ import annotations

import pytest


# First, because xdist reads the marks in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that load a model into one group."""
    for item in items:
        if item.get_closest_marker("model") is not None:
            item.add_marker(pytest.mark.xdist_group("model"))
