"""What a fleet's routers counted, added up: by served name the sums at a few moments, and what a status says of them.

Pure memory, bounded: the older a moment is, the fewer of its kind are kept. A router counts from the start of its Envoy
on and says which start that is; what is counted here only grows, also over restarts of routers and of the operator.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.api.model import timestamp
from lorafleet.api.rolloutstatus import VersionStatistics
from lorafleet.rollout.evidence import Counts, Record

WINDOW = timedelta(minutes=10)
"""What a success rate is about."""
KEPT = 900.0
FINE_KEPT = 86400.0
EVERY_MOMENT = 60.0
COARSE = 150.0
SHARE = 0.05
"""Between the moments of a rollout there is this share of their age at least: a few hundred reach back a day."""
AVERAGE_SECONDS = 120.0

Moments = tuple[tuple[datetime, Counts], ...]


def counts(raw: Mapping[str, Any]) -> Counts:
    """One version of a router's answer; ValueError or TypeError when it is none."""
    ok, client, server = (int(raw.get(name, 0)) for name in ("ok", "client", "server"))
    return Counts(
        requests=ok + client + server,
        errors=server,
        refused=client,
        latency_count=int(raw.get("latencyCount", 0)),
        latency_ms=float(raw.get("latencyMsSum", 0.0)),
        first_token_count=int(raw.get("firstTokenCount", 0)),
        first_token_ms=float(raw.get("firstTokenMsSum", 0.0)),
        prompt_tokens=int(raw.get("promptTokens", 0)),
        completion_tokens=int(raw.get("completionTokens", 0)),
    )


def thinned(moments: Moments, now: datetime, fine: bool) -> Moments:
    """Fewer moments: the newest stays, and before it one every so often; ``fine`` while a rollout is judged by them."""
    ages = [(now - at).total_seconds() for at, _ in moments]
    # The newest of the old ones says what was counted before all others.
    first = max((number for number, age in enumerate(ages) if age >= (FINE_KEPT if fine else KEPT)), default=0)
    kept = [first]
    for number in range(first + 1, len(moments) - 1):
        # As far apart as the moments around it would be without it.
        age, apart = ages[number], ages[kept[-1]] - ages[number + 1]
        if (apart >= age * SHARE or age <= EVERY_MOMENT) if fine else apart >= COARSE:
            kept.append(number)
    kept += [len(moments) - 1] if kept[-1] != len(moments) - 1 else []
    return tuple(moments[number] for number in kept)


@dataclass
class Seen:
    """One served name."""

    total: Counts = field(default_factory=Counts)
    record: Record = field(default_factory=Record)
    latency: float | None = None
    first_token: float | None = None
    last_used: str | None = None
    changed: datetime | None = None
    """When requests were last seen by this process, as long as the status may say something of a window."""

    @classmethod
    def of(cls, before: VersionStatistics | None) -> "Seen":
        """Goes on from what a status says: the operator may have been restarted."""
        if before is None:
            return cls()
        total = Counts(
            requests=before.request_count,
            prompt_tokens=before.prompt_tokens or 0,
            completion_tokens=before.completion_tokens or 0,
        )
        return cls(
            total,
            latency=before.average_latency_ms,
            first_token=before.average_first_token_ms,
            last_used=before.last_used,
        )

    def add(self, more: Counts, since: datetime, now: datetime, fine: bool) -> None:
        """What was counted between two looks at the routers."""
        moments = self.record.moments or ((since, self.total),)
        self.total = self.total + more
        self.record = Record(thinned((*moments, (now, self.total)), now, fine))
        self.last_used, self.changed = timestamp(now), now
        share = 1.0 - math.exp(-max((now - since).total_seconds(), 1.0) / AVERAGE_SECONDS)
        self.latency = _average(self.latency, more.latency_ms, more.latency_count, share)
        self.first_token = _average(self.first_token, more.first_token_ms, more.first_token_count, share)

    def same(self, now: datetime) -> None:
        """Nothing more was counted until now."""
        moments = self.record.moments
        if moments and moments[-1][0] < now:
            kept = moments[:-1] if len(moments) > 1 and moments[-2][1] == self.total else moments
            self.record = Record((*kept, (now, self.total)))

    def statistics(self, now: datetime) -> VersionStatistics:
        """What a status says."""
        recent = self.record.since(now - WINDOW)
        judged = recent.requests - recent.refused
        return VersionStatistics(
            request_count=self.total.requests,
            success_rate=round(1.0 - recent.errors / judged, 4) if judged > 0 else None,
            average_latency_ms=_rounded(self.latency),
            average_first_token_ms=_rounded(self.first_token),
            prompt_tokens=self.total.prompt_tokens or None,
            completion_tokens=self.total.completion_tokens or None,
            last_used=self.last_used,
        )


@dataclass
class Tally:
    """All served names of a fleet."""

    seen: dict[str, Seen] = field(default_factory=dict)
    last: dict[str, dict[str, Counts]] = field(default_factory=dict)
    """By start of a router and served name, its own sums when it was last asked."""
    looked: datetime | None = None
    """When routers were last asked."""
    changed: set[str] = field(default_factory=set)
    """Adapters whose statuses do not say yet what is known."""

    def take(
        self,
        instance: str,
        versions: Mapping[str, Counts],
        known: Mapping[str, VersionStatistics | None],
        now: datetime,
        *,
        new: bool,
        fine: frozenset[str] = frozenset(),
    ) -> None:
        """A part of what one start of a router has counted so far.

        ``known`` are the served names that count, with what their statuses say; ``new``: what is heard of for the first
        time was counted after the last look, because this start is known or younger. ``fine`` are adapters with a
        rollout.
        """
        last = self.last.setdefault(instance, {})
        since = self.looked or now
        for served, sums in versions.items():
            if served not in known:
                continue
            before = last.get(served)
            if before == sums:
                continue
            last[served] = sums
            seen = self.seen.get(served)
            if seen is None:
                seen = self.seen[served] = Seen.of(known[served])
            if before is None and not new:
                # Nobody knows how much of it is in the status already.
                seen.record = seen.record if seen.record.moments else Record(((now, seen.total),))
                continue
            more = sums - (before or Counts())
            if more.requests:
                adapter = served.partition("/")[0]
                seen.add(more, since, now, adapter in fine)
                self.changed.add(adapter)

    def ended(
        self, instances: frozenset[str], alive: frozenset[str], now: datetime, fine: frozenset[str] = frozenset()
    ) -> None:
        """After a look at all routers: forgets starts and names that are gone, and windows that passed.

        Of adapters in ``fine`` it is known until now that nothing more was counted.
        """
        self.looked = now
        for instance in self.last.keys() - instances:
            del self.last[instance]
        for served in [served for served in self.seen if served not in alive]:
            del self.seen[served]
        for served, seen in self.seen.items():
            if served.partition("/")[0] in fine:
                seen.same(now)
            if seen.changed is not None and now - seen.changed > WINDOW:
                seen.changed = None
                self.changed.add(served.partition("/")[0])

    def records(self, served: set[str]) -> dict[str, Record]:
        """What is known of some names."""
        return {name: self.seen[name].record for name in served & self.seen.keys()}

    def shown(self, status: LoRAAdapterStatus, now: datetime) -> LoRAAdapterStatus:
        """A status that says what is known."""
        versions = [
            version.model_copy(update={"statistics": self.seen[version.served_name].statistics(now)})
            if version.served_name and version.served_name in self.seen
            else version
            for version in status.versions
        ]
        return status.model_copy(update={"versions": tuple(versions)})


def _average(before: float | None, total: float, count: int, share: float) -> float | None:
    if not count:
        return before
    mean = total / count
    return mean if before is None else before + share * (mean - before)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
