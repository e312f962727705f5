"""Results of a batch: one entry for every report, whatever happened to it; filters and conversions.

Computes no decision and writes no file. Prints without report text; only traces and the HTML views show quotes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from medorchestra.errors import SettingsError
from medorchestra.local.result_table import results_arrow
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.trace import to_trace
from medorchestra.plan import Plan

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True, repr=False)
class Results(Sequence[StagedReport]):
    """All reports of a batch, in the order of the input.

    Attributes:
        plan: the plan that was run.
        staged: one entry for each report.
        digests: of plan, model, adapter and settings.
    """

    plan: Plan
    staged: tuple[StagedReport, ...]
    digests: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def validated(self) -> bool:
        """Whether the plan was rehearsed with the model that read all of these reports."""
        return all(staged.validated for staged in self.staged)

    @overload
    def __getitem__(self, index: int) -> StagedReport: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> StagedReport | Results:
        if isinstance(index, slice):
            return Results(self.plan, self.staged[index], self.digests)
        return self.staged[index]

    def __len__(self) -> int:
        return len(self.staged)

    def __iter__(self) -> Iterator[StagedReport]:
        return iter(self.staged)

    def by_id(self, report_id: str) -> StagedReport:
        """The report of this id (KeyError if it is not in the batch)."""
        return {staged.report_id: staged for staged in self.staged}[report_id]

    def filter(self, keep: Callable[[StagedReport], bool]) -> Results:
        """The reports for which `keep` is true."""
        return Results(self.plan, tuple(staged for staged in self.staged if keep(staged)), self.digests)

    def for_review(self) -> Results:
        """The reports a person has to look at."""
        return self.filter(lambda staged: staged.review)

    def counts(self) -> dict[str, int]:
        """Reports per outcome, then open and failed ones: outcome or status -> count."""
        counts = {outcome.name: 0 for outcome in self.plan.outcomes} | {"open": 0, "empty": 0, "failed": 0}
        for staged in self.staged:
            outcome = staged.decision.outcome if staged.decision else None
            counts[outcome or staged.status.value] += 1
        return counts

    def to_arrow(self) -> pa.Table:
        """The rows as a table: `report_id`, carried columns, then the columns of `result_columns`."""
        return results_arrow(self.plan, self.staged)

    def to_pandas(self) -> pd.DataFrame:
        """As `to_arrow`, as a data frame.

        Raises:
            SettingsError: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401 - pyarrow needs it
        except ImportError:
            raise SettingsError("pandas is not installed; run `pip install medorchestra[pandas]`") from None
        return self.to_arrow().to_pandas()

    def to_traces(self) -> list[dict[str, Any]]:
        """Full trace of every report, JSON-ready."""
        return [to_trace(staged, self.digests) for staged in self.staged]

    def __repr__(self) -> str:
        counted = ", ".join(f"{name}={count}" for name, count in self.counts().items() if count)
        mark = "" if self.validated else "; plan not validated for this model"
        return f"Results({len(self)} reports: {counted}; {len(self.for_review())} for review{mark})"

    def _repr_html_(self) -> str:
        from medorchestra.local.html_view import results_html

        return results_html(self)
