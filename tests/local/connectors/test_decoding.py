"""Files that are not text, or not in the encoding that was named."""

from __future__ import annotations

import io
import zipfile

import pytest

from medorchestra.errors import SettingsError, SourceError
from medorchestra.local.connectors import read_reports


def written(tmp_path, content, name="reports.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def office_file() -> bytes:
    """A zip archive, as an .xlsx is one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (office_file(), "a zip archive or an Office file (.xlsx, .docx)"),
        (b"PAR1\x15\x04\x15", "a Parquet file; give it the suffix .parquet"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"%PDF-1.7\n", "a PDF file"),
        (b"report_id,text\nA1,ZEBRA\x00\n", "a NUL character in line 2"),
        ("report_id,text\nA1,ZEBRA\n".encode("utf-16"), "begins as a file in UTF-16 does; try --encoding utf-16"),
        ("report_id,text\nA1,ZEBRA\n".encode("utf-16-le"), "a NUL character in line 1"),
        ("report_id,text\nA1,ZEBRA\nA2,cœliaque\n".encode("cp1252"), "not utf-8: byte 28 (line 3) does not fit"),
    ],
)
@pytest.mark.parametrize("name", ["reports.csv", "reports.jsonl", "texts/A1.txt"])
def test_what_is_not_text_is_refused_with_its_kind_or_place(tmp_path, content, says, name):
    (tmp_path / "texts").mkdir()
    path = written(tmp_path, content, name)
    with pytest.raises(SourceError) as caught:
        read_reports(path.parent if name.endswith(".txt") else path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "ZEBRA" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "latin-1"])
def test_text_in_the_encoding_that_was_named_is_read(tmp_path, encoding):
    path = written(tmp_path, "report_id,text\nA1,c\xe9liaque 180\xb0\n".encode(encoding))
    assert read_reports(path, encoding=encoding).reports[0].text == "céliaque 180°"


def test_a_byte_order_mark_of_two_bytes_is_left_out_too(tmp_path):
    path = written(tmp_path, b"\xff\xfe" + "report_id,text\nA1,x\n".encode("utf-16-le"))
    assert read_reports(path, encoding="utf-16-le").reports[0].report_id == "A1"


@pytest.mark.parametrize("encoding", ["utf9", "hex", ""])
def test_an_encoding_that_does_not_exist_is_a_mistake_of_the_call(tmp_path, encoding):
    with pytest.raises(SettingsError, match="usual ones are utf-8, cp1252"):
        read_reports(written(tmp_path, b"report_id,text\nA1,x\n"), encoding=encoding)
