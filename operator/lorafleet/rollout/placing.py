"""Toward the volume and toward the engines: what is to be published, and what gets a place where it is loaded."""

from collections.abc import Iterable
from datetime import timedelta

from lorafleet.api.adapter import AdapterVersion, VersionPhase, VersionStatus
from lorafleet.rollout import versions as steps
from lorafleet.rollout.draft import Draft, Todo
from lorafleet.rollout.observed import Observed

ROOM_AGAIN = 30.0
"""Seconds until the next look for a place; whoever frees one says so, so this is for what nobody saw."""


def toward_bytes(
    entry: AdapterVersion | None, version: VersionStatus | None, observed: Observed
) -> tuple[VersionStatus, bool]:
    """A version's state on the volume, and whether to ask for a sync."""
    if entry is None:
        assert version is not None
        return version, False
    fingerprint = entry.fingerprint
    fresh = VersionStatus(name=entry.name, phase=VersionPhase.PENDING, entry_hash=fingerprint)
    if version is None or (version.digest is None and version.entry_hash != fingerprint):
        version = fresh
    if version.digest is not None and observed.fleet and version.claim_name != observed.fleet.claim_name:
        # With its served name it remembers which bytes proved themselves, until those of this claim are known.
        kept = ("pin", "proven_at", "statistics", "served_name")
        same = version.entry_hash == fingerprint
        version = steps.change(fresh, **{name: getattr(version, name) for name in kept}) if same else fresh
    if version.digest is not None:
        return version, False
    return steps.toward_publishing(version, observed)


def place(draft: Draft, names: Iterable[str], observed: Observed, todo: Todo) -> Draft:
    """Versions that engines are to have, the first ones first: on the engines, or waiting for a place there."""
    assert observed.spec is not None
    entries = {entry.name: entry for entry in observed.spec.versions}
    for name in dict.fromkeys(names):
        if name in draft.versions and _may_be_on_engines(draft.versions[name], entries.get(name)):
            draft = draft.put(_toward_engines(draft.versions[name], observed, todo))
    return draft


def _may_be_on_engines(version: VersionStatus, entry: AdapterVersion | None) -> bool:
    """Published, and not on its way out as another entry's bytes; without an entry only if it is there already."""
    if version.digest is None or version.phase is VersionPhase.REMOVING or steps.replaced(version, entry):
        return False
    return entry is not None or version.phase in steps.ON_ENGINES


def _toward_engines(version: VersionStatus, observed: Observed, todo: Todo) -> VersionStatus:
    """On engines, or waiting for a place: only a version that has none is asked for one."""
    served = version.served_name
    assert served
    placed = version.phase in (*steps.ON_ENGINES, VersionPhase.DRAINING)
    if not placed:
        refusal = observed.room.refusal(served, frozenset(todo.places)) if observed.room else None
        if refusal is not None:
            todo.look.append(observed.now + timedelta(seconds=ROOM_AGAIN))
            todo.refused += 1
            return steps.no_room(version, refusal)
        todo.places.append(served)
    return steps.loaded_count(version, observed)
