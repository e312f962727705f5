"""Opens the model that is named: a GGUF file on this machine, with or without adapter, or a model server.

The one place for it: whatever runs a plan takes the same names. Chooses no adapter (see `adapters`) and prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medorchestra.errors import SettingsError
from medorchestra.local.adapters import no_adapter
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.engine.server_address import is_server_url


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a model is opened.

    Attributes:
        context_tokens: most tokens of report, question and answer together; None: as the engine has it.
        gpu_layers, threads: as `LlamaCppEngine` takes them; a model server has its own.
        servers: model servers that may be spoken to, as `ServerEngine` takes them.
    """

    context_tokens: int | None = None
    gpu_layers: int = 0
    threads: int | None = None
    servers: tuple[str, ...] = ()


@contextmanager
def opened_engine(
    model: str | Path | Engine,
    adapter: Path | None = None,
    options: EngineOptions | None = None,
    *,
    notes: Callable[[str], None] | None = None,
) -> Iterator[Engine]:
    """The engine for a model name, path or server, closed at the end; an engine that is given stays open.

    Args:
        model: `default`, path of a GGUF file, `hf:owner/repo/file.gguf`, `http://HOST:PORT#MODEL`, or an engine.
        adapter: for a file; an engine that is given has its own.
        options: how it is opened.
        notes: called with each thing that a model server will do without.

    Raises:
        SettingsError: an adapter, or what else is settled where a server is started, for a model server; or a server
            that is neither on this machine nor allowed.
        ModelError: the model cannot be loaded, or its server cannot be relied on.
    """
    options = options or EngineOptions()
    if not isinstance(model, str | Path):
        yield model
    elif isinstance(model, str) and is_server_url(model):
        from medorchestra.local.engine.server import ServerEngine

        no_adapter(adapter)
        _refuse_settled_elsewhere(options)
        with ServerEngine(model, allow=options.servers, context_tokens=options.context_tokens) as server:
            if notes is not None:
                for warning in server.warnings:
                    notes(warning)
            yield server
    else:
        from medorchestra.local.engine.llama_cpp import LlamaCppEngine

        engine = LlamaCppEngine(
            model,
            adapter=adapter,
            context_tokens=options.context_tokens,
            gpu_layers=options.gpu_layers,
            threads=options.threads,
        )
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def opened_if_server(
    model: str,
    adapter: str | Path | None,
    options: EngineOptions | None = None,
    *,
    notes: Callable[[str], None] | None = None,
) -> Iterator[str | Engine]:
    """The engine of a model server in place of its URL; the name of a file stays, to be opened when its turn comes.

    For what opens several models one after another: files would fill the memory together, servers can be looked at
    before hours of reading.

    Args:
        model: as in `opened_engine`.
        adapter: the adapter that is meant, as `chosen_adapter` takes it.
        options, notes: as in `opened_engine`.

    Raises:
        SettingsError, ModelError: as `opened_engine` raises them for a server.
    """
    if not is_server_url(model):
        yield model
        return
    no_adapter(adapter)
    with opened_engine(model, None, options, notes=notes) as engine:
        yield engine


def _refuse_settled_elsewhere(options: EngineOptions) -> None:
    given = {"--gpu-layers": options.gpu_layers, "--threads": options.threads}
    misplaced = [name for name, value in given.items() if value]
    if misplaced:
        raise SettingsError(
            f"{', '.join(misplaced)}: a matter of the model server; start it with them, leave them out here"
        )
