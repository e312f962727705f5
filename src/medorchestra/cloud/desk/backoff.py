"""How long to wait before a request is sent again. Sends nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits with jitter, unless the server says how long.

    Attributes:
        first: seconds before the second attempt.
        longest: seconds that a doubled wait grows to at most.
        patience: longest wait that a server may ask for; beyond it the request fails instead.
        sleep: waits so many seconds.
        jitter: a number from 0 to 1; of each own wait, between half and all is waited.
        now: seconds since the epoch; for servers that name a date.
    """

    first: float = 1.0
    longest: float = 60.0
    patience: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    now: Callable[[], float] = time.time

    def seconds(self, attempts: int, asked: float | None) -> float | None:
        """Seconds to wait after so many failed attempts; None when the server asks for more than the patience.

        A server's wish is kept to the second and somewhat beyond (a tenth at most), so that requests which ran
        at the same time do not come back at the same moment.
        """
        if asked is not None:
            return None if asked > self.patience else asked * (1 + 0.1 * self.jitter())
        doubled = min(self.longest, self.first * 2.0 ** min(attempts - 1, 30))
        return doubled * (0.5 + 0.5 * self.jitter())

    def asked(self, headers: Mapping[str, str]) -> float | None:
        """Seconds that a reply's headers ask to wait, or None: `Retry-After` as seconds or date, or in milliseconds."""
        try:
            if (milliseconds := headers.get("retry-after-ms")) is not None:
                return max(0.0, float(milliseconds) / 1000)
            wish = headers.get("retry-after")
            if wish is None:
                return None
            seconds = (
                float(wish) if not wish.strip()[:1].isalpha() else parsedate_to_datetime(wish).timestamp() - self.now()
            )
        except (TypeError, ValueError, OverflowError):
            return None
        return max(0.0, seconds) if seconds < float("inf") else None
