"""Whether a plan was rehearsed with the model that is to run it. Reads the plan's records; measures nothing."""

from __future__ import annotations

from medorchestra.errors import UnvalidatedPlanError
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.plan import Plan, ValidationRecord


def validation_of(plan: Plan, identity: ModelIdentity) -> ValidationRecord | None:
    """The record of this very plan with this very model and adapter, or None."""
    return plan.validation_for(identity.digest, identity.adapter_digest)


def require_validation(plan: Plan, identity: ModelIdentity, *, unvalidated: bool) -> None:
    """Refuse to run a plan with a model that it was not rehearsed with.

    Args:
        unvalidated: run it all the same; the results are marked.

    Raises:
        UnvalidatedPlanError: there is no record; says for which models there is one, and what to do.
    """
    if unvalidated or validation_of(plan, identity) is not None:
        return
    adapter = f"adapter {identity.adapter}" if identity.adapter_digest else "no adapter"
    raise UnvalidatedPlanError(
        f"plan {plan.topic} ({plan.digest[:19]}) has no validation record for model {identity.name} "
        f"({identity.digest[:19]}, {adapter}); {_records(plan)}. Rehearse it on held-out cases: `medorchestra plan "
        f"rehearse PLAN --model MODEL --write`; or run it all the same with --unvalidated (in Python: "
        f"unvalidated=True), and every result is marked"
    )


def doubt_of(plan: Plan, identity: ModelIdentity) -> str | None:
    """Why a person should look at every decision of this pair: its rehearsal did not show that it reads well enough.

    The lower bound of the measured accuracy (see `Plan.is_well_read`) is held against the plan's own threshold for
    review. None where it passes, and where there is no record (then the results are marked as unvalidated).
    """
    record = validation_of(plan, identity)
    if record is None or plan.is_well_read(record):
        return None
    measured = plan.deciding_accuracy(record)
    if measured is None:
        return "on this hospital's own labels no threshold kept the risk that was asked for"
    local = measured is not record.deciding
    where = "on this hospital's own labels" if local else "in rehearsal"
    which = "outcomes that nobody would have looked at" if local or record.unreviewed else "outcomes"
    share, low, high = (f"{100 * part:.0f}" for part in (measured.correct / measured.n, measured.low, measured.high))
    return (
        f"{where} this model got {share} % of the {which} right ({low} to {high} %), "
        f"{100 * plan.profile.review_below:.0f} % are asked for"
    )


def _records(plan: Plan) -> str:
    """What records the plan has instead."""
    if not plan.validation:
        return "it has none at all"
    older = sum(record.plan_digest != plan.digest for record in plan.validation)
    fitting = [record for record in plan.validation if record.plan_digest == plan.digest]
    told = [
        f"{record.model} ({record.model_digest[:19]}, {'an' if record.adapter_digest else 'no'} adapter)"
        for record in fitting
    ]
    if older:
        told.append(f"{older} made before the plan was changed")
    return f"its records: {'; '.join(told)}"
