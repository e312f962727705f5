"""GGUF headers: what is read, and that what cannot be used is named before llama.cpp sees it."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf_writing import TINY_MODEL, model_tensors, packed_text, write_gguf

from medorchestra.errors import ModelError
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", TINY_MODEL, model_tensors())


def test_the_header_gives_settings_and_shapes(model_path: Path) -> None:
    header = read_gguf_header(model_path)
    assert header.architecture == "llama"
    assert header.count(".context_length") == 512
    assert header.count("llama.block_count") == 2
    assert header.chat_template is None
    assert not header.is_adapter
    assert header.tensors["blk.0.ffn_down.weight"].shape == (16, 8)
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_settings_behind_an_array_are_still_read(tmp_path: Path) -> None:
    metadata = {**TINY_MODEL, "tokenizer.chat_template": "{{ messages }}", "general.quantized": True}
    header = read_gguf_header(write_gguf(tmp_path / "tiny.gguf", metadata, model_tensors()))
    assert header.chat_template == "{{ messages }}"
    assert header.metadata["general.quantized"] is True
    assert header.count("general.quantized") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 98362432\n", "Git-LFS"),
        (b"PK\x03\x04\x14\0\x08\0", "zip"),
        (b"<!doctype html><html><body>Sign in</body></html>", "web page"),
        (b"This is a readme about the model, which lies somewhere else; have a look there, please.", "text file"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{"format":"pt"}}', "safetensors"),
        (b"tjgg\x03\0\0\0", "before GGUF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\xff", "no format known"),
    ],
)
def test_a_file_of_another_format_is_named_for_what_it_looks_like(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        read_gguf_header(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_gguf_header(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match="a folder"):
        read_gguf_header(tmp_path)


def test_every_cut_through_a_file_is_noticed(model_path: Path) -> None:
    whole = model_path.read_bytes()
    for length in (5, 12, 24, 40, 100, 200, len(whole) // 2, len(whole) - 33, len(whole) - 1):
        model_path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="cut off"):
            read_gguf_header(model_path)


def test_a_whole_file_is_not_called_cut_off_for_missing_padding(tmp_path: Path) -> None:
    """Some writers do not pad behind the last tensor."""
    path = write_gguf(tmp_path / "tiny.gguf", TINY_MODEL, {"odd.weight": np.zeros((3, 7))})
    path.write_bytes(path.read_bytes()[:-12])  # 84 bytes of data, padded to 96
    assert read_gguf_header(path).tensors["odd.weight"].size == 84
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="cut off"):
        read_gguf_header(path)


@pytest.mark.parametrize("version", [1, 4, 0x03000000])
def test_another_version_or_byte_order_is_refused(model_path: Path, version: int) -> None:
    content = bytearray(model_path.read_bytes())
    content[4:8] = struct.pack("<I", version)
    model_path.write_bytes(content)
    with pytest.raises(ModelError, match="convert it again"):
        read_gguf_header(model_path)


def hostile_headers() -> dict[str, bytes]:
    def start(tensors: int, settings: int) -> bytes:
        return b"GGUF" + struct.pack("<IQQ", 3, tensors, settings)

    key = packed_text("general.architecture")
    return {
        "tensors": start(2**60, 0),
        "settings": start(0, 2**60),
        "text": start(0, 1) + key + struct.pack("<IQ", 8, 2**62),
        "key": start(0, 1) + struct.pack("<Q", 2**63),
        "array": start(0, 1) + key + struct.pack("<IIQ", 9, 4, 2**61),
        "array of texts": start(0, 1) + key + struct.pack("<IIQ", 9, 8, 2**31),
        "text in array": start(0, 1) + key + struct.pack("<IIQQ", 9, 8, 3, 2**62),
        "nested array": start(0, 1) + key + struct.pack("<IIQ", 9, 9, 3),
        "type": start(0, 1) + key + struct.pack("<I", 77),
        "dimensions": start(1, 0) + packed_text("x") + struct.pack("<I", 2**31),
        "size": start(1, 0) + packed_text("x") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0),
        "offset": start(1, 0) + packed_text("x") + struct.pack("<IQIQ", 1, 1, 0, 2**62),
        "doubled": start(2, 0) + 2 * (packed_text("x") + struct.pack("<IQIQ", 1, 1, 0, 0)),
    }


@pytest.mark.parametrize("name", hostile_headers())
def test_a_hostile_header_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(hostile_headers()[name] + b"\0" * 4096)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"damaged|cut off"):
            read_gguf_header(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_digest_is_that_of_the_bytes(model_path: Path) -> None:
    assert file_digest(model_path) == "sha256:" + hashlib.sha256(model_path.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="cannot be read"):
        file_digest(model_path.with_name("absent.gguf"))
