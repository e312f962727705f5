"""Opening the model that is named: files, servers, engines that are given, and what is refused before it is tried."""

from __future__ import annotations

import pytest
from local.served_batch import CHOOSES, SCORES, serving_reader
from small_batch import small_engine

from medorchestra.errors import ModelError, SettingsError
from medorchestra.local.engine import llama_cpp
from medorchestra.local.engine.protocol import Conversation
from medorchestra.local.engine_opening import EngineOptions, opened_engine, opened_if_server

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.delenv("MEDORCHESTRA_SERVERS", raising=False)


@pytest.fixture
def files(monkeypatch):
    """Scripted engines in the place of llama.cpp; what they were asked for, and the engines."""
    made = []

    def make(model, **options):
        made.append(({"model": model, **options}, small_engine()))
        return made[-1][1]

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", make)
    return made


def is_open(engine):
    try:
        with engine.open(Conversation("Read.", "The SMA is free.")):
            return True
    except ModelError:
        return False


def test_a_file_is_opened_with_its_options_and_closed_however_it_ends(files, tmp_path):
    options = EngineOptions(context_tokens=512, gpu_layers=-1, threads=2)
    was_open = []

    def interrupted():
        with opened_engine("m.gguf", tmp_path / "a.gguf", options) as engine:
            was_open.append((engine, is_open(engine)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    ((asked, made),) = files
    assert asked == {
        "model": "m.gguf",
        "adapter": tmp_path / "a.gguf",
        "context_tokens": 512,
        "gpu_layers": -1,
        "threads": 2,
    }
    assert was_open == [(made, True)]
    assert not is_open(made)


def test_an_engine_that_is_given_stays_open():
    given = small_engine()
    with opened_engine(given) as engine:
        assert engine is given
    assert is_open(given)


def test_a_server_is_opened_by_its_url_and_tells_what_it_does_without(files):
    told = []
    with serving_reader(CHOOSES) as server, opened_engine(server.url, notes=told.append) as engine:
        assert engine.identity.is_of_server
        assert not engine.identity.gives_probabilities
    assert any("without probabilities every decision goes to a person" in note for note in told)
    assert not is_open(engine)
    assert files == []
    with serving_reader(SCORES) as server, opened_engine(f"{server.url}#reader-1") as engine:
        assert engine.identity.gives_probabilities


def test_an_engine_on_this_machine_is_no_server_and_gives_probabilities():
    assert not small_engine().identity.is_of_server
    assert small_engine().identity.gives_probabilities


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 2, "gpu_layers": -1}, "--gpu-layers, --threads: a matter of the model server"),
        ({"threads": 1}, "--threads: a matter of the model server"),
    ],
)
def test_what_is_settled_where_a_server_is_started_is_refused_before_it_is_asked(options, says):
    with pytest.raises(SettingsError, match=says), opened_engine(NOBODY, None, EngineOptions(**options)):
        pass


def test_an_adapter_for_a_server_is_refused_before_it_is_asked(tmp_path):
    for open_it in (opened_engine, opened_if_server):
        with pytest.raises(SettingsError, match="adapter that it was started with"), open_it(NOBODY, tmp_path / "a"):
            pass


def test_a_server_elsewhere_is_opened_only_if_it_is_allowed():
    with pytest.raises(SettingsError, match="--allow-server"), opened_engine("http://192.0.2.1:8080"):
        pass
    with serving_reader() as server:
        named = server.url.removeprefix("http://")
        with opened_engine(server.url, None, EngineOptions(servers=(named,))) as engine:
            assert engine.identity.name == "reader-1"


def test_of_several_models_only_servers_are_opened_ahead(files):
    with opened_if_server("m.gguf", "a.gguf") as opened:
        assert opened == "m.gguf"
    assert files == []
    with serving_reader() as server, opened_if_server(server.url, "auto") as engine:
        assert is_open(engine)
    assert not is_open(engine)
