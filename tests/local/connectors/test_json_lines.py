"""JSON lines: one object a line, values with their types."""

from __future__ import annotations

import json

import pytest

from medorchestra.errors import SourceError
from medorchestra.local.connectors import read_reports


def read_jsonl(tmp_path, content, **options):
    path = tmp_path / "reports.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_reports(path, **options).reports


def test_values_keep_their_types_and_texts_their_characters(tmp_path):
    text = "Mass.\r\nSMA \u2028 free \x85 \t"
    line = json.dumps({"report_id": "007", "text": text, "age": 61, "priors": ["CT"], "sent": True}, ensure_ascii=False)
    (report,) = read_jsonl(tmp_path, line + "\r\n\r\n")
    assert (report.report_id, report.text) == ("007", text)
    assert dict(report.carried) == {"age": 61, "priors": ["CT"], "sent": True}


def test_whole_numbers_may_be_ids_and_a_missing_or_null_text_is_an_empty_report(tmp_path):
    content = '{"report_id": 1, "text": "Mass."}\n{"report_id": 2, "text": null}\n{"report_id": 3, "site": "B"}\n'
    reports = read_jsonl(tmp_path, content)
    assert [(report.report_id, report.text) for report in reports] == [("1", "Mass."), ("2", ""), ("3", "")]
    assert [report.carried["site"] for report in reports] == [None, None, "B"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("\n\n", "the file is empty"),
        ('{"report_id": 1, "text": "x"}\n\n{"report_id": 2, "text": "ZEBRA', "line 3: not JSON: Unterminated string"),
        ('["ZEBRA"]\n', "line 1: a JSON list, no object"),
        ('{"text": "ZEBRA", "text": "y", "report_id": 1}\n', "line 1: the same key twice"),
        ("[" * 100_000 + "\n", "line 1: not JSON that can be read"),
        ('{"report_id": ' + "1" * 5000 + ', "text": "x"}\n', "line 1: not JSON that can be read"),
        ('{"report_id": 1.5, "text": "ZEBRA"}\n', "line 1: an id of type float in column 'report_id'"),
        ('{"report_id": true, "text": "ZEBRA"}\n', "line 1: an id of type bool"),
        ('{"report_id": 1, "text": {"body": "ZEBRA"}}\n', "line 1: a value of type dict in column 'text'"),
        ('{"report_id": null, "text": "ZEBRA"}\n{"text": "y"}\n', "2 rows without an id in column 'report_id': line 1"),
        ('{"report_id": 1}\n', "no column with the report text"),
        ('{"report_id": "1", "text": "x"}\n{"report_id": 1, "text": "y"}\n', "1 id stands for more than one report"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_without_its_text(tmp_path, content, says):
    with pytest.raises(SourceError) as caught:
        read_jsonl(tmp_path, content)
    assert says in str(caught.value)
    assert "ZEBRA" not in str(caught.value)
    assert caught.value.__context__ is None
