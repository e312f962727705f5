"""Bytes -> text, or the place where they are not text. Knows encodings and the marks of common binary files."""

from __future__ import annotations

import codecs
from contextlib import suppress

from medorchestra.errors import SettingsError, SourceError

_BINARY = {
    b"PK\x03\x04": "a zip archive or an Office file (.xlsx, .docx)",
    b"PK\x05\x06": "an empty zip archive",
    b"PAR1": "a Parquet file; give it the suffix .parquet",
    b"\xd0\xcf\x11\xe0": "an old Office file (.xls, .doc)",
    b"%PDF": "a PDF file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"{\\rtf": "an RTF file",
    b"SQLite format 3": "a SQLite database",
    b"\x7fELF": "a program",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


def text_in(content: bytes, where: str, encoding: str) -> str:
    """The text of a file, line ends unchanged, without a byte order mark.

    Raises:
        SourceError: it is not text in this encoding; names byte and line.
        SettingsError: there is no such encoding.
    """
    for mark, kind in _BINARY.items():
        if content.startswith(mark):
            raise SourceError(f"{where}: not a text file but {kind}; save it as text (UTF-8) and try again")
    name = _encoding_name(encoding)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if wide and not name.startswith(("utf-16", "utf-32")):
        raise SourceError(f"{where}: begins as a file in UTF-16 does; try --encoding utf-16")
    try:
        text = content.decode("utf-8-sig" if name == "utf-8" else encoding)
        wrong_at = None
    except UnicodeError as error:
        # Raised below, outside of this block: the exception that is handled here holds the whole file.
        wrong_at = error.start if isinstance(error, UnicodeDecodeError) else 0
        text = ""
    if wrong_at is not None:
        line = content.count(b"\n", 0, wrong_at) + 1
        step = "cp1252 or latin-1, whichever wrote the file" if name == "utf-8" else "with another name"
        raise SourceError(f"{where}: not {encoding}: byte {wrong_at} (line {line}) does not fit; try --encoding {step}")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(
            f"{where}: a NUL character in line {line}: no text file, damaged, or in UTF-16 (try --encoding utf-16)"
        )
    return text.removeprefix("\ufeff")


def _encoding_name(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        with suppress(UnicodeError):
            b"a".decode(encoding)  # refused by codecs that turn bytes into bytes: `hex`, `zip`
    except (LookupError, ValueError):
        raise SettingsError(f"no encoding {encoding!r}; usual ones are utf-8, cp1252, latin-1, utf-16") from None
    return "utf-8" if name == "utf-8-sig" else name
