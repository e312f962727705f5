"""The real document: what a hospital stages. Lives on the local side only.

A `Report` shares no base class with `SyntheticCase`, on purpose: nothing that takes the one takes the other.
Its repr and its pickled form differ: the repr never shows text, so that no log or traceback can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """One real report.

    Attributes:
        report_id: the id under which the hospital knows it; unique within a batch.
        text: the report as it stands in the source, unchanged (spans count its characters).
        carried: the other columns of its row, handed through to the results.
    """

    report_id: str
    text: str
    carried: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def digest(self) -> str:
        """`sha256:…` of the text alone: the same text under two ids is read once."""
        return "sha256:" + hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def __repr__(self) -> str:
        return f"Report(report_id={self.report_id!r}, {len(self.text)} characters)"
