"""Reads the header of a GGUF file: what the file is, and whether it is whole.

Reads names, sizes and settings, never a weight, and never more of a hostile header than a real one could hold. Does
not judge what a file is good for (`adapter_fit` does) and loads nothing into llama.cpp.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from medorchestra.errors import ModelError

MOST_METADATA: Final = 4096
MOST_TENSORS: Final = 65_536
MOST_ELEMENTS: Final = 4_194_304
"""Elements of a metadata array; the largest real ones are vocabularies and their merges (about 500,000)."""
LONGEST_NAME: Final = 65_535
MOST_TEXT_KEPT: Final = 16 * 1024 * 1024
"""Bytes of metadata text held in memory; a long chat template has 20,000."""

_MAGIC: Final = b"GGUF"
_BIG_ENDIAN_VERSIONS: Final = (0x02000000, 0x03000000)
_MOST_DIMENSIONS: Final = 4
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip

_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
"""Tensor type -> (elements in a block, bytes of a block), as ggml_blck_size and ggml_type_size give them. Of a type
that is not listed only the beginning is checked."""

_LOOKS: Final = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the file itself: run `git lfs pull` where it came from"),
    (b"PK\x03\x04", "a zip archive or a PyTorch checkpoint: convert it with llama.cpp's convert_hf_to_gguf.py"),
    (b"\x80\x02", "a Python pickle: convert the model with llama.cpp's convert_hf_to_gguf.py"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"tjgg", "a GGML file from before GGUF: download the model again as GGUF"),
    (b"lmgg", "a GGML file from before GGUF: download the model again as GGUF"),
    (b"<!DOCTYPE", "a web page, probably of a failed download: download the file again"),
    (b"<html", "a web page, probably of a failed download: download the file again"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor, as the header describes it.

    Attributes:
        shape: lengths of its dimensions, in GGUF order: the length of a row first.
        type_code: ggml's number for the storage type.
        offset: bytes from the start of the tensor data.
    """

    name: str
    shape: tuple[int, ...]
    type_code: int
    offset: int

    @property
    def size(self) -> int | None:
        """Bytes of its data; None for a storage type not known here."""
        block = _BLOCKS.get(self.type_code)
        return None if block is None else math.ceil(math.prod(self.shape) / block[0]) * block[1]


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        path: the file.
        metadata: scalars and texts by key. Arrays (the vocabulary) are left out.
        tensors: by name.
        data_offset: bytes from the start of the file to the tensor data.
    """

    path: Path
    metadata: Mapping[str, str | int | float | bool]
    tensors: Mapping[str, TensorInfo]
    data_offset: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example `llama`; empty where the file does not say."""
        return self.text("general.architecture")

    @property
    def is_adapter(self) -> bool:
        """Whether the file holds an adapter rather than a model."""
        return self.text("general.type") == "adapter" or "adapter.type" in self.metadata

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of the model's conversations, or None."""
        return self.text("tokenizer.chat_template") or None

    def text(self, key: str) -> str:
        """A text from the metadata; empty where there is none."""
        found = self.metadata.get(key, "")
        return found if isinstance(found, str) else ""

    def count(self, key: str) -> int | None:
        """A whole number from the metadata, or None. A key that starts with a dot belongs to the architecture."""
        found = self.metadata.get(self.architecture + key if key.startswith(".") else key)
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header and check that the file holds all the tensors it names.

    Raises:
        ModelError: no such file, not a GGUF (the message says what it looks like), damaged, or cut off.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError(f"{path}: a folder; name the .gguf file in it")
        with path.open("rb") as stream:
            return _HeaderReader(path, stream, size).read()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error


def file_digest(path: Path) -> str:
    """`sha256:…` of a file's bytes.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error


class _HeaderReader:
    """Walks a header once, never past the end of the file and never past the limits above."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self._path = path
        self._stream = stream
        self._size = size
        self._position = 0
        self._text_kept = 0

    def read(self) -> GgufHeader:
        beginning = self._stream.read(64)
        if beginning[:4] != _MAGIC:
            raise ModelError(f"{self._path}: not a GGUF file; it looks like {_look_of(beginning)}")
        self._move_to(4)
        self._check_version()
        tensor_count, metadata_count = self._number("<Q"), self._number("<Q")
        if tensor_count > MOST_TENSORS or metadata_count > MOST_METADATA:
            raise self._damaged(f"it claims {tensor_count} tensors and {metadata_count} settings")
        metadata = self._metadata(metadata_count)
        tensors = self._tensors(tensor_count)
        header = GgufHeader(self._path, metadata, tensors, self._data_offset(metadata))
        self._check_extent(header)
        return header

    def _check_version(self) -> None:
        version = self._number("<I")
        if version in (2, 3):
            return
        said = "big-endian" if version in _BIG_ENDIAN_VERSIONS else f"of version {version}"
        raise ModelError(f"{self._path}: a GGUF {said}; versions 2 and 3, little-endian, are read: convert it again")

    def _metadata(self, count: int) -> dict[str, str | int | float | bool]:
        metadata: dict[str, str | int | float | bool] = {}
        for _ in range(count):
            key = self._text(LONGEST_NAME)
            kind = self._number("<I")
            if kind == _ARRAY:
                self._skip_array(key)
            elif kind == _STRING:
                metadata[key] = self._text(MOST_TEXT_KEPT)
            else:
                metadata[key] = self._scalar(kind, key)
        return metadata

    def _tensors(self, count: int) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        for _ in range(count):
            name = self._text(LONGEST_NAME)
            dimensions = self._number("<I")
            if dimensions > _MOST_DIMENSIONS:
                raise self._damaged(f"a tensor has {dimensions} dimensions")
            shape = tuple(self._number("<Q") for _ in range(dimensions))
            tensors[name] = TensorInfo(name, shape, self._number("<I"), self._number("<Q"))
        if len(tensors) != count:
            raise self._damaged(f"{count - len(tensors)} tensor names are doubled")
        return tensors

    def _data_offset(self, metadata: Mapping[str, str | int | float | bool]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged(f"its alignment is {str(alignment)[:20]}")
        return math.ceil(self._position / alignment) * alignment

    def _check_extent(self, header: GgufHeader) -> None:
        """Every tensor must end inside the file."""
        start = header.data_offset
        end = max((start + tensor.offset + (tensor.size or 0) for tensor in header.tensors.values()), default=0)
        if end > self._size:
            raise self._truncated(f"it needs {end} bytes and has {self._size}")

    # ------------------------------------------------------------ pieces

    def _skip_array(self, key: str) -> None:
        kind, length = self._number("<I"), self._number("<Q")
        if length > MOST_ELEMENTS:
            raise self._damaged(f"setting {key[:80]!r} claims {length} elements")
        if kind == _STRING:
            for _ in range(length):
                self._move_to(self._number("<Q") + self._position)
        elif kind in _SCALARS:
            self._move_to(self._position + length * struct.calcsize(_SCALARS[kind]))
        else:
            raise self._damaged(f"setting {key[:80]!r} holds elements of the unknown type {kind}")

    def _scalar(self, kind: int, key: str) -> int | float | bool:
        layout = _SCALARS.get(kind)
        if layout is None:
            raise self._damaged(f"setting {key[:80]!r} has the unknown type {kind}")
        found: int | float | bool = struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]
        return found

    def _number(self, layout: str) -> int:
        return int(struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0])

    def _text(self, longest: int) -> str:
        length = self._number("<Q")
        if length > self._size - self._position:
            raise self._truncated(f"a text at byte {self._position} claims {length} bytes")
        self._text_kept += length
        if length > longest or self._text_kept > MOST_TEXT_KEPT:
            raise self._damaged(f"a text at byte {self._position} claims {length} bytes")
        return self._bytes(length).decode("utf-8", errors="replace")

    def _bytes(self, count: int) -> bytes:
        found = self._stream.read(count)
        if len(found) < count:
            raise self._truncated(f"its header ends at byte {self._position + len(found)}")
        self._position += count
        return found

    def _move_to(self, position: int) -> None:
        if position > self._size:
            raise self._truncated(f"its header points to byte {position} of {self._size}")
        self._stream.seek(position)
        self._position = position

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: a damaged GGUF file: {what}; download it again")

    def _truncated(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: a GGUF file cut off: {what}; download it again, and compare its checksum")


def _look_of(beginning: bytes) -> str:
    """What a file without GGUF's magic seems to be, and what to do with it."""
    if not beginning.strip(b"\0"):
        return "an empty file: download it again"
    for prefix, look in _LOOKS:
        if beginning[: len(prefix)].lower() == prefix.lower():
            return look
    if beginning[8:9] == b"{":
        return "a safetensors file: convert the model with llama.cpp's convert_hf_to_gguf.py"
    try:
        text = beginning.decode("utf-8", errors="strict" if len(beginning) < 64 else "ignore")
    except UnicodeDecodeError:
        return "no format known here: name a .gguf file"
    if all(character.isprintable() or character.isspace() for character in text):
        return "a text file: name a .gguf file"
    return "no format known here: name a .gguf file"
