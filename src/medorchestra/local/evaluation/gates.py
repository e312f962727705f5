"""Gates of a pipeline: measures that a run has to reach, else its model is refused. Judges; stops nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medorchestra.errors import SettingsError

if TYPE_CHECKING:
    from medorchestra.local.evaluation.evaluation import RunScores
    from medorchestra.local.evaluation.measures import Share

Measure = Literal["accuracy", "unreviewed", "review"]
"""Share of right outcomes; of right ones among the decisions that nobody looks at; of decisions sent to a person."""
On = Literal["point", "lower-bound"]
"""What is held against the gate: the share itself, or the worse end of its 95 % interval."""

BOUNDS: tuple[On, ...] = ("point", "lower-bound")


@dataclass(frozen=True, slots=True)
class Gate:
    """What a run has to reach.

    Attributes:
        measure: what is measured.
        at_least, at_most: the bound, 0 to 1; exactly one is given, and reaching it is enough.
        on: `lower-bound` takes the end of the interval that is worse for the run: the lower one for `at_least`, the
            upper one for `at_most`.

    Raises:
        SettingsError: none or both bounds, or one that is no share.
    """

    measure: Measure
    at_least: float | None = None
    at_most: float | None = None
    on: On = "point"

    def __post_init__(self) -> None:
        given = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if len(given) != 1:
            raise SettingsError(f"gate on {self.measure}: give either at_least or at_most")
        if not 0 <= given[0] <= 1:
            raise SettingsError(f"gate on {self.measure}: {given[0]:g} is no share; write 80 % as 0.8")
        if self.on not in BOUNDS:
            raise SettingsError(f"gate on {self.measure}: on must be one of {', '.join(BOUNDS)}")


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a run made of a gate.

    Attributes:
        gate: the gate.
        run: name of the run.
        measured: what was held against the gate; None where it is not defined, which does not pass.
        n: cases behind it.
        passed: whether the run may pass.
    """

    gate: Gate
    run: str
    measured: float | None
    n: int
    passed: bool

    @property
    def line(self) -> str:
        """One line for terminal and log."""
        gate = self.gate
        limit = f"at least {gate.at_least:g}" if gate.at_least is not None else f"at most {gate.at_most:g}"
        which = {"point": "", "lower-bound": ", lower bound" if gate.at_least is not None else ", upper bound"}[gate.on]
        measured = "not defined" if self.measured is None else f"{self.measured:.4f}"
        verdict = "passed" if self.passed else "missed"
        return f"{verdict}: {gate.measure} of {self.run}{which}: {measured} over {self.n} cases, asked for {limit}"


def gates_from(
    *,
    min_accuracy: float | None = None,
    min_unreviewed: float | None = None,
    max_review: float | None = None,
    on: str = "point",
) -> tuple[Gate, ...]:
    """The gates that the options of the command line ask for; none where no option is given.

    Raises:
        SettingsError: a bound that is no share, or an unknown `on`.
    """
    if on not in BOUNDS:
        raise SettingsError(f"--on {on!r}: choose from {', '.join(BOUNDS)}")
    held: On = "lower-bound" if on == "lower-bound" else "point"
    gates = []
    if min_accuracy is not None:
        gates.append(Gate("accuracy", at_least=min_accuracy, on=held))
    if min_unreviewed is not None:
        gates.append(Gate("unreviewed", at_least=min_unreviewed, on=held))
    if max_review is not None:
        gates.append(Gate("review", at_most=max_review, on=held))
    return tuple(gates)


def check_gates(gates: Sequence[Gate], run_scores: RunScores) -> tuple[GateResult, ...]:
    """Hold a run against gates, in their order. What is not defined does not pass."""
    return tuple(_check(gate, run_scores) for gate in gates)


def _check(gate: Gate, scores: RunScores) -> GateResult:
    share = _share_of(gate.measure, scores)
    if share is None:
        return GateResult(gate, scores.name, None, 0, False)
    worse = share.low if gate.at_least is not None else share.high
    measured = share.value if gate.on == "point" else worse
    if measured is None:
        passed = False
    elif gate.at_least is not None:
        passed = measured >= gate.at_least
    else:
        passed = gate.at_most is not None and measured <= gate.at_most
    return GateResult(gate, scores.name, measured, share.n, passed)


def _share_of(measure: Measure, scores: RunScores) -> Share | None:
    return {"accuracy": scores.outcome.accuracy, "unreviewed": scores.unreviewed, "review": scores.reviewed}[measure]
