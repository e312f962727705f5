"""Guidelines as numbered, citable sections."""

from __future__ import annotations

import pytest

from medorchestra.cloud.guideline import read_guideline
from medorchestra.errors import GuidelineError

FRONT = "---\ntitle: T\nedition: E\nsource: S\nlicence: L\n---\n"


def written(tmp_path, text):
    path = tmp_path / "guideline.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_sections_hold_the_text_up_to_the_next_number(tmp_path):
    guideline = read_guideline(
        written(tmp_path, FRONT + "# Title\n\n## 1. One\n\nfirst\nline\n\n### 1.1 Two\nsecond\n")
    )
    assert list(guideline.sections) == ["1", "1.1"]
    assert guideline.sections["1"].text == "first\nline"
    assert guideline.sections["1.1"].title == "Two"
    assert (guideline.title, guideline.licence) == ("T", "L")


def test_a_quote_must_stand_word_for_word_in_its_section(tmp_path):
    guideline = read_guideline(written(tmp_path, FRONT + "## 1 One\nno contact\nwith the artery\n## 2 Two\nother\n"))
    assert guideline.cites("1", "contact with the artery")
    assert not guideline.cites("1", "contact with an artery")
    assert not guideline.cites("2", "contact with the artery")
    assert not guideline.cites("3", "other")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("## 1 One\n", "front matter"),
        ("---\ntitle: T\n---\n## 1 One\n", "lacks: edition, source, licence"),
        (FRONT + "# Heading without number\n", "no numbered section"),
        (FRONT + "## 1 One\n## 1 Again\n", "section 1 is there twice"),
    ],
)
def test_a_text_without_citable_sections_is_refused(tmp_path, text, says):
    with pytest.raises(GuidelineError, match=says):
        read_guideline(written(tmp_path, text))


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(GuidelineError, match="cannot be read"):
        read_guideline(tmp_path / "none.md")
    path = tmp_path / "binary.md"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(GuidelineError, match="UTF-8"):
        read_guideline(path)
