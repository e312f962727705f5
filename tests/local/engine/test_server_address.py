"""Which server may be spoken to."""

from __future__ import annotations

import pytest

from medorchestra.errors import SettingsError
from medorchestra.local.engine.server_address import ENVIRONMENT, allowed_address, is_server_url


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080),
        ("http://127.3.2.1:8080/v1/", "127.3.2.1", 8080),
        ("http://localhost:11434", "localhost", 11434),
        ("HTTP://LOCALHOST", "localhost", 80),
        ("http://[::1]:8080/v1", "::1", 8080),
        ("https://127.0.0.1", "127.0.0.1", 443),
    ],
)
def test_this_machine_may_always_be_spoken_to(url, host, port):
    address = allowed_address(url)
    assert (address.host, address.port, address.path, address.must_be_local) == (host, port, "", True)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8080",
        "http://10.1.2.3:8080",
        "http://0.0.0.0:8080",
        "http://llm.hospital.example:8000",
        "https://api.openai.com/v1",
        "http://localhost.attacker.example:8080",
        "http://127.0.0.1.attacker.example:8080",
        "http://127.1:8080",
        "http://2130706433:8080",
        "http://0x7f000001:8080",
        "http://[::ffff:192.0.2.1]:8080",
        "http://[2001:db8::1]:8080",
        "https://localhost:8080",  # TLS would greet before it is seen where the name leads
    ],
)
def test_any_other_machine_is_refused_and_the_message_says_how_to_allow_it(url):
    with pytest.raises(SettingsError, match=r"nothing was sent to it.*--allow-server .*MEDORCHESTRA_SERVERS="):
        allowed_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1:8080",
        "http://127.0.0.1:8080@attacker.example",
        "http://127.0.0.1:8080?key=secret",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:8080/a b",
        "http://127.0.0.1:8080/a\r\nHost: attacker.example",
        "http://127.0.0.1\\@attacker.example",
        "http://",
        "ftp://127.0.0.1",
    ],
)
def test_a_url_of_another_form_is_refused_without_repeating_it(url):
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        allowed_address(url)
    assert "secret" not in str(caught.value)
    assert "attacker" not in str(caught.value)


def test_a_server_on_the_list_counts_by_its_written_name_and_port(monkeypatch):
    allow = ["LLM.hospital.example:8000"]
    address = allowed_address("http://llm.hospital.example:8000/proxied/v1#large:7b", allow)
    assert (address.host, address.port, address.path) == ("llm.hospital.example", 8000, "/proxied")
    assert address.model == "large:7b"
    assert not address.must_be_local
    for other in ("http://llm.hospital.example:8001", "http://llm.hospital.example", "http://hospital.example:8000"):
        with pytest.raises(SettingsError, match="nor allowed"):
            allowed_address(other, allow)
    monkeypatch.setenv(ENVIRONMENT, "10.1.2.3:8080, llm.hospital.example:8001")
    assert allowed_address("http://10.1.2.3:8080").port == 8080
    assert allowed_address("http://llm.hospital.example:8001", allow).port == 8001


@pytest.mark.parametrize("entry", ["llm.hospital.example", "*:8000", "http://llm:8000", "llm:0", "llm:99999", ""])
def test_an_entry_that_is_not_host_and_port_is_refused(entry):
    with pytest.raises(SettingsError, match="is not HOST:PORT"):
        allowed_address("http://127.0.0.1:8080", [entry])


def test_an_entry_of_the_environment_is_named_as_such(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "everything")
    with pytest.raises(SettingsError, match="MEDORCHESTRA_SERVERS: `everything`"):
        allowed_address("http://127.0.0.1:8080")


def test_only_a_url_names_a_server():
    assert is_server_url("http://127.0.0.1:8080")
    assert is_server_url("https://llm.hospital.example#large")
    assert not any(map(is_server_url, ["default", "hf:owner/repo/file.gguf", "models/http.gguf"]))
