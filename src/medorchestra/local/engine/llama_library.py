"""Brings the llama.cpp library into the process: quietly, and with waiting threads that do not spin.

Knows nothing of models and prompts. llama.cpp writes to the process's standard error in two ways: through a log
callback, which is replaced here, and, for a grammar that it cannot parse, directly, grammar included; a grammar may
hold sentences of a report, so that standard error is turned off for that moment.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Final

from medorchestra.errors import ModelError

_ERROR_LEVEL: Final = 4
_STDERR: Final = 2

_loaded: list[ModuleType] = []
_callbacks: list[Any] = []
"""Keeps the log callback alive: llama.cpp holds only its address."""
_complaints: deque[str] | None = None
"""Where error lines go while a model or an adapter is being loaded; at other times they are dropped."""


def load_library() -> ModuleType:
    """The module `llama_cpp`, its log silenced.

    Raises:
        ModelError: it is not installed, or its shared library does not run here.
    """
    if _loaded:
        return _loaded[0]
    # Read by the OpenMP run time when it loads: beside any busy process, spinning threads make a step of 15 ms take
    # 300 ms and more.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import llama_cpp
    except ImportError:
        raise ModelError("llama-cpp-python is not installed; run `pip install medorchestra[local]`") from None
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"llama-cpp-python is installed but its library does not load ({error}); build it on this machine: "
            "`pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python==0.3.36`"
        ) from error
    callback = llama_cpp.llama_log_callback(_on_log)
    _callbacks.append(callback)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    _loaded.append(llama_cpp)
    return llama_cpp


def _on_log(level: int, text: bytes | None, _user_data: object) -> None:
    if _complaints is not None and level == _ERROR_LEVEL and text:
        _complaints.append(text.decode("utf-8", errors="replace").strip())


@contextmanager
def complaints() -> Iterator[deque[str]]:
    """Collects the last error lines of llama.cpp while a file is being loaded. Never used around report text."""
    global _complaints
    lines: deque[str] = deque(maxlen=3)
    _complaints = lines
    try:
        yield lines
    finally:
        _complaints = None


@contextmanager
def standard_error_off() -> Iterator[None]:
    """Drops what the process writes to standard error meanwhile, other threads included: keep it short."""
    try:
        kept = os.dup(_STDERR)
    except OSError:  # closed already: nothing can be written to it
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, _STDERR)
        finally:
            os.close(nowhere)
        yield
    finally:
        with suppress(OSError):
            os.dup2(kept, _STDERR)
        os.close(kept)
