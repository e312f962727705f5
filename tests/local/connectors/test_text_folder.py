"""A folder of .txt files: one file, one report."""

from __future__ import annotations

from pathlib import Path

import pytest

from medorchestra.errors import SourceError
from medorchestra.local.connectors import read_reports


def folder_of(tmp_path, files):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_ids_are_paths_without_the_suffix_and_texts_are_verbatim(tmp_path):
    folder = folder_of(
        tmp_path, {"b.txt": b"\xef\xbb\xbfMass.\r\n", "a.v2.TXT": b"x", "ward_1/deep/b.txt": b"", "c.txt": b"\n"}
    )
    reports = read_reports(folder).reports
    assert [(report.report_id, report.text) for report in reports] == [
        ("a.v2", "x"),
        ("b", "Mass.\r\n"),
        ("c", "\n"),
        ("ward_1/deep/b", ""),
    ]


def test_other_files_are_left_out_and_counted_and_hidden_ones_are_nothing(tmp_path):
    folder = folder_of(tmp_path, {"a.txt": b"x", "b.pdf": b"%PDF", "c.PDF": b"%PDF", "README": b"", ".git/d.txt": b""})
    batch = read_reports(folder)
    assert [report.report_id for report in batch.reports] == ["a"]
    assert batch.notes == ("left out, because they are no .txt files: 2 '.pdf', 1 'no suffix'",)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no .txt file in this folder; it is empty"),
        ({"a.csv": b"x", "b.csv": b"x", "c.rtf": b"x"}, "it holds 2 '.csv', 1 '.rtf'"),
        ({"a.txt": b"x", "a.TXT": b"y"}, "1 id stands for more than one report (1 reports too many): 'a'"),
        ({"w/a.txt": b"c\xe9liaque"}, "a.txt: not utf-8: byte 1 (line 1) does not fit; try --encoding cp1252"),
    ],
)
def test_a_folder_that_is_no_batch_is_refused(tmp_path, files, says):
    folder = folder_of(tmp_path, files)
    with pytest.raises(SourceError) as caught:
        read_reports(folder)
    assert says in str(caught.value)


def test_a_file_name_with_a_line_break_does_not_break_a_message(tmp_path):
    folder = folder_of(tmp_path, {"a\nb.txt": b"x", "a\nb.TXT": b"y"})
    with pytest.raises(SourceError) as caught:
        read_reports(folder)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    folder = folder_of(tmp_path, {"a.txt": b"x"})
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SourceError, match=r"a\.txt: cannot be read: Permission denied"):
        read_reports(folder)


def test_the_digest_covers_names_and_contents(tmp_path):
    def digest(name, files):
        return read_reports(folder_of(tmp_path / name, files)).digest

    first = digest("1", {"a.txt": b"x", "b.txt": b"y"})
    assert digest("2", {"a.txt": b"x", "b.txt": b"y"}) == first
    assert digest("3", {"a.txt": b"x", "c.txt": b"y"}) != first
    assert digest("4", {"a.txt": b"xy", "b.txt": b""}) != first
