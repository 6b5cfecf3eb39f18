"""What routers counted of a version's requests, and how many of it fell into a stretch of time. Pure.

Routers count from their start on; whoever asks them keeps the sums over all of them at a few moments. The difference of
two moments is what happened in between.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Counts:
    """Sums since some start. ``errors`` are ours, ``refused`` the client's own fault (4xx); milliseconds are summed."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    latency_count: int = 0
    latency_ms: float = 0.0
    first_token_count: int = 0
    first_token_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __sub__(self, before: "Counts") -> "Counts":
        fields = self.__dataclass_fields__
        return Counts(**{name: max(getattr(self, name) - getattr(before, name), 0) for name in fields})

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Record:
    """Sums of one version at some moments, the oldest first; a restart of a router takes nothing away from them."""

    moments: tuple[tuple[datetime, Counts], ...] = ()

    def since(self, start: datetime) -> Counts:
        """What was counted from the last moment at or before ``start`` to the newest moment.

        Requests before the first moment are unknown and count as none: too few decide nothing.
        """
        if not self.moments:
            return Counts()
        before = next((counts for at, counts in reversed(self.moments) if at <= start), self.moments[0][1])
        return self.moments[-1][1] - before
