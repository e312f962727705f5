"""Whether a model server draws what it writes, before votes are counted that would be one vote counted several times.

A server that ignores temperature and seed says nothing about it. Asked with an invented text only; what it writes is
compared and forgotten.
"""

from __future__ import annotations

from typing import Final

from medorchestra.errors import ModelError
from medorchestra.local.engine.protocol import Conversation, Engine

_SEEDS: Final = (1, 2, 3)
_TEMPERATURE: Final = 1.5
"""Higher than any thought is drawn at: whoever heeds it does not write the same forty digits three times."""
_TOKENS: Final = 40
_INVENTED: Final = Conversation("You read invented notes.", "Invented note: the dice were thrown forty times.")
_QUESTION: Final = "Write forty digits, as the dice might have shown them."


def require_sampling(engine: Engine) -> None:
    """Refuse a model server that writes the same whatever it is told to draw by. Engines on this machine draw.

    Raises:
        ModelError: it does so, or cannot be asked.
    """
    if not engine.identity.is_of_server:
        return
    with engine.open(_INVENTED) as session:
        written = {
            session.generate(_QUESTION, max_tokens=_TOKENS, temperature=_TEMPERATURE, seed=seed).text for seed in _SEEDS
        }
    if len(written) == 1:
        raise ModelError(
            f"model server of {engine.identity.name}: it wrote the same for {len(_SEEDS)} seeds at temperature "
            f"{_TEMPERATURE:g}, so the votes of self-consistency would be one vote; let it sample, or leave this "
            "strategy out"
        )
