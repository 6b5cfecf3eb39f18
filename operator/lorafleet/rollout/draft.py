"""An adapter's next status while it is being made, and the few things that can happen to it: promoted, aborted, noted.

Every rule that moves the stable version or bars a version from coming back is in this file. Frozen data only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from lorafleet.api.adapter import AdapterVersion, LoRAAdapterSpec, LoRAAdapterStatus, ServedTraffic, VersionStatus
from lorafleet.api.model import timestamp
from lorafleet.api.reasons import Reason
from lorafleet.api.rolloutstatus import AbortedVersion, HistoryEntry, RolloutStatus
from lorafleet.rollout.observed import Query
from lorafleet.rollout.versions import change

HISTORY = 20
"""How many things that happened are kept."""
ABORTED = 64
_MESSAGE = 512


@dataclass(frozen=True)
class Draft:
    """A status on its way. ``go_on``: a person just asked for the next step; ``ask_anew``: old probes do not count."""

    versions: Mapping[str, VersionStatus]
    stable: str | None
    rollout: RolloutStatus | None = None
    aborted: tuple[AbortedVersion, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    traffic: tuple[ServedTraffic, ...] = ()
    handled: str | None = None
    answer: str | None = None
    go_on: bool = False
    ask_anew: bool = False

    def put(self, version: VersionStatus) -> "Draft":
        """With another state of one version."""
        return replace(self, versions={**self.versions, version.name: version})

    def rolls(self, **fields: object) -> "Draft":
        """With some fields of the rollout changed."""
        assert self.rollout is not None
        return replace(self, rollout=self.rollout.model_copy(update=fields))

    def begins(self, rollout: RolloutStatus | None) -> "Draft":
        """With another rollout, or none."""
        return replace(self, rollout=rollout)


@dataclass
class Todo:
    """What a decision asks of others, gathered on the way."""

    look: list[datetime] = field(default_factory=list)
    publish: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    refused: int = 0
    """How many of this adapter's versions got no place."""
    probe: list[str] = field(default_factory=list)
    queries: tuple[Query, ...] = ()
    statistics: float | None = None
    begins: bool = False


def draft_of(status: LoRAAdapterStatus, versions: Mapping[str, VersionStatus]) -> Draft:
    """The draft that starts from what was written last."""
    return Draft(
        versions=versions,
        stable=status.stable_version,
        rollout=status.rollout,
        aborted=status.aborted,
        history=status.history,
        traffic=status.traffic,
        handled=status.last_handled_action,
        answer=status.action_message,
    )


def aborted(entry: AdapterVersion | None, taken_back: tuple[AbortedVersion, ...]) -> AbortedVersion | None:
    """Whether this very entry was taken back, and why."""
    if entry is None:
        return None
    same = [one for one in taken_back if one.version == entry.name]
    fingerprint = entry.fingerprint if same else ""
    return next((one for one in same if one.entry_hash == fingerprint), None)


def target(spec: LoRAAdapterSpec, taken_back: tuple[AbortedVersion, ...], stable: str | None) -> str | None:
    """The version that shall serve all: the active one, or the stable one while the active one is taken back."""
    return stable if aborted(entry_of(spec, spec.active), taken_back) else spec.active


def entry_of(spec: LoRAAdapterSpec, name: str) -> AdapterVersion | None:
    """The entry of a version."""
    return next((entry for entry in spec.versions if entry.name == name), None)


def proven(draft: Draft, name: str | None) -> bool:
    """Whether a version has served all requests before, and was not taken back since."""
    version = draft.versions.get(name or "")
    return version is not None and version.proven_at is not None


def note(draft: Draft, what: str, version: str, now: datetime, message: str = "") -> Draft:
    """With one more entry of history."""
    entry = HistoryEntry(at=timestamp(now), version=version, what=what, message=message[:_MESSAGE])
    return replace(draft, history=(*draft.history, entry)[-HISTORY:])


def promote(draft: Draft, name: str, now: datetime, what: str, message: str = "") -> Draft:
    """A version serves all from now on: it is the stable one, proven, and its rollout has ended."""
    draft = note(draft, what, name, now, message)
    draft = draft.put(change(draft.versions[name], proven_at=timestamp(now)))
    return replace(draft, stable=name, rollout=None)


def take_back(draft: Draft, name: str, now: datetime, reason: Reason, message: str) -> Draft:
    """A version is barred until someone retries it, and has to prove itself anew then; its rollout has ended."""
    version = draft.versions[name]
    barred = AbortedVersion(
        version=name,
        entry_hash=version.entry_hash or "",
        at=timestamp(now),
        reason=reason.value,
        message=message[:2048],
    )
    others = tuple(one for one in draft.aborted if one.version != name)
    draft = draft.put(change(version, proven_at=None))
    rollout = None if draft.rollout and draft.rollout.version == name else draft.rollout
    what = "RolledBack" if reason is Reason.ROLLED_BACK else "Aborted"
    return note(replace(draft, aborted=(*others, barred)[-ABORTED:], rollout=rollout), what, name, now, message)


def prune(draft: Draft, spec: LoRAAdapterSpec) -> Draft:
    """Forgets what was taken back under a name that stands for another entry now."""
    entries = {entry.name: entry for entry in spec.versions}
    left = tuple(
        one for one in draft.aborted if one.version not in entries or one.entry_hash == entries[one.version].fingerprint
    )
    return draft if left == draft.aborted else replace(draft, aborted=left)
