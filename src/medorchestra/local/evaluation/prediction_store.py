"""Predictions of the strategies whose work the ledger cannot hold, on disk, append-only: a run can go on later.

Knows digests, outcomes and probabilities. Holds no report text, no report id, and nothing of a prediction that failed:
the next run tries that again. What `orchestrated` reads stands in the ledger.

One transaction for each prediction; the first one under a key stands. How the file itself is kept is in
`private_store`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from medorchestra.local.evaluation.predictions import Prediction
from medorchestra.local.private_store import PrivateStore, StoreKind, append_only
from medorchestra.plan import content_digest

STORE_VERSION = 1
"""Of the table below, kept in the file (`user_version`)."""

APPLICATION_ID = 0x6D6F7072
"""Marks a SQLite file as a prediction store (`application_id`; the letters "mopr")."""

_TABLE = "CREATE TABLE prediction (key TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class PredictionKey:
    """Everything on which a prediction depends.

    Attributes:
        text: digest of what the model reads: the report, or the list of its findings.
        strategy: name of the strategy.
        settings: digest of the strategy's own settings and of all that it says to the model.
        plan: digest of the plan.
        model: digest of the model file.
        adapter: digest of the adapter file; empty where there is none.
        engine: digest of the engine's settings.
    """

    text: str
    strategy: str
    settings: str
    plan: str
    model: str
    adapter: str
    engine: str

    @property
    def digest(self) -> str:
        """`sha256:…` of all of them."""
        return content_digest(asdict(self))


class PredictionStore(PrivateStore):
    """An open file of predictions. For one thread of one process; others open their own."""

    KIND: ClassVar[StoreKind] = StoreKind(
        name="prediction store",
        application_id=APPLICATION_ID,
        version=STORE_VERSION,
        tables=(_TABLE, *append_only("prediction store", "prediction")),
        kept="finished predictions are kept",
        instead="another folder",
    )

    def find(self, key: PredictionKey, case_id: str) -> Prediction | None:
        """The prediction under this key, for the case that asks; None where there is none. It cost nothing in this run.

        Raises:
            StorageError: the store cannot be read, or what it holds is damaged.
        """
        with self._explained():
            row = self._connection.execute("SELECT content FROM prediction WHERE key = ?", (key.digest,)).fetchone()
        if row is None:
            return None
        try:
            content = json.loads(row[0])
            outcome, probabilities = content["outcome"], dict(content["probabilities"])
            if outcome not in probabilities:
                raise ValueError("an outcome without its probability")
        except (ValueError, TypeError, KeyError):
            raise self._damaged() from None
        return Prediction(case_id, outcome, probabilities=probabilities)

    def add(self, key: PredictionKey, prediction: Prediction) -> None:
        """Keep outcome and probabilities of a prediction. What is there already stays as it is.

        Raises:
            StorageError: it cannot be written; the store stays as it was before.
            ValueError: it has no scored outcome, or more to it than a store holds.
        """
        if prediction.probability is None or prediction.is_open or prediction.staged is not None:
            raise ValueError(f"{prediction!r}: only an outcome with its probabilities can be kept")
        content = {"outcome": prediction.outcome, "probabilities": dict(prediction.probabilities)}
        row = (key.digest, json.dumps(content, separators=(",", ":")))
        with self._explained(), self._transaction():
            self._connection.execute("INSERT INTO prediction VALUES (?, ?) ON CONFLICT DO NOTHING", row)
