"""A guideline as numbered, citable sections. Reads text; knows nothing of plans, models or networks.

Format: a front matter between `---` lines (title, edition, source, licence), then Markdown whose section headings are
numbered: `## 3. Title`, `### 3.1 Title`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medorchestra.errors import GuidelineError

_HEADING = re.compile(r"^#{2,6}\s+(?P<number>\d+(?:\.\d+)*)\.?\s+(?P<title>\S.*)$")
_FRONT_MATTER = ("title", "edition", "source", "licence")


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its number, its heading, and the text up to the next numbered heading."""

    number: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Guideline:
    """A guideline text.

    Attributes:
        title, edition, source, licence: from the front matter.
        sections: number -> section, in the order of the text.
        digest: `sha256:…` of the whole file's text.
    """

    title: str
    edition: str
    source: str
    licence: str
    sections: Mapping[str, Section]
    digest: str

    def cites(self, number: str, quote: str) -> bool:
        """Whether the quote stands word for word in this section; line breaks count as spaces."""
        section = self.sections.get(number)
        return section is not None and " ".join(quote.split()) in " ".join(section.text.split())


def read_guideline(path: str | Path) -> Guideline:
    """Read a guideline file.

    Raises:
        GuidelineError: not readable, front matter incomplete, no numbered sections, or a number used twice.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise GuidelineError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GuidelineError(f"{path}: not a text file in UTF-8") from None
    lines = text.splitlines()
    facts, start = _front_matter(lines, path)
    sections = _sections(lines[start:], start, path)
    if not sections:
        raise GuidelineError(f"{path}: no numbered section headings such as '## 1. Title'")
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return Guideline(**facts, sections=sections, digest=digest)


def _front_matter(lines: list[str], path: str | Path) -> tuple[dict[str, str], int]:
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        raise GuidelineError(f"{path}: must begin with a front matter between '---' lines")
    end = next(i for i, line in enumerate(lines[1:], start=1) if line.strip() == "---")
    pairs = (line.split(":", 1) for line in lines[1:end] if ":" in line)
    facts = {key.strip(): value.strip() for key, value in pairs}
    missing = [key for key in _FRONT_MATTER if not facts.get(key)]
    if missing:
        raise GuidelineError(f"{path}: the front matter lacks: {', '.join(missing)}")
    return {key: facts[key] for key in _FRONT_MATTER}, end + 1


def _sections(lines: list[str], offset: int, path: str | Path) -> dict[str, Section]:
    sections: dict[str, Section] = {}
    number = title = ""
    body: list[str] = []
    for i, line in enumerate([*lines, "## 0 end"], start=offset + 1):
        heading = _HEADING.match(line)
        if heading is None:
            body.append(line)
            continue
        if number:
            sections[number] = Section(number, title, "\n".join(body).strip())
        number, title, body = heading["number"], heading["title"].strip(), []
        if number in sections:
            raise GuidelineError(f"{path}: line {i}: section {number} is there twice")
    return sections
