"""Versions that served before and stay loaded, so that going back to one takes no time; they never cost anyone a place.

They are the first to go when any version of the fleet waits for a place, and come back only to places nobody wants.
"""

from collections.abc import Set as AbstractSet

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus, VersionPhase
from lorafleet.rollout import versions as steps
from lorafleet.rollout.draft import Draft, Todo
from lorafleet.rollout.observed import Observed


def places_wanted(spec: LoRAAdapterSpec, status: LoRAAdapterStatus) -> frozenset[str]:
    """Names of versions that an adapter may have on engines: for whoever counts the places."""
    names = {spec.active, status.stable_version, *(share.version for share in spec.traffic)}
    if spec.rollout and spec.rollout.keep_loaded:
        names |= {version.name for version in status.versions if version.proven_at}
    return frozenset(name for name in names if name)


def keep(draft: Draft, observed: Observed, busy: AbstractSet[str], todo: Todo) -> tuple[Draft, frozenset[str]]:
    """The versions to keep for a rollback beside the busy ones, with their state on the engines."""
    spec = observed.spec
    assert spec is not None
    limit = spec.rollout.keep_loaded if spec.rollout else 0
    entries = {entry.name: entry for entry in spec.versions}
    found = []
    for name, version in draft.versions.items():
        entry = entries.get(name)
        bytes_there = version.digest is not None and version.phase is not VersionPhase.REMOVING
        if name in busy or entry is None or not bytes_there or not version.proven_at:
            continue
        if not steps.replaced(version, entry):
            found.append((version.proven_at, name))
    chosen = [name for _, name in sorted(found, reverse=True)[:limit]]
    loaded = [name for name in chosen if draft.versions[name].kept or draft.versions[name].phase in steps.ON_ENGINES]
    # What drains already gives its place back soon.
    leaving = sum(version.phase is VersionPhase.DRAINING for version in draft.versions.values())
    wanted_back = max(todo.refused - leaving, observed.room.wanted_back if observed.room else 0, 0)
    stay = loaded[: max(len(loaded) - wanted_back, 0)]
    if not todo.refused and not wanted_back:
        stay += [name for name in chosen if name not in stay and _place(draft, name, observed, todo)]
    for name in stay:
        draft = draft.put(steps.change(steps.loaded_count(draft.versions[name], observed), kept=True))
    return draft, frozenset(stay)


def _place(draft: Draft, name: str, observed: Observed, todo: Todo) -> bool:
    """Whether a version has a place still, or gets one that nobody waits for."""
    room = observed.room
    version = draft.versions[name]
    served = version.served_name
    assert served
    others = max(room.waiting - 1, room.ahead, 0) if room else 0
    if version.phase is VersionPhase.DRAINING:
        return not others
    held = room.held | frozenset(todo.places) if room else frozenset()
    if room is None or served in held or room.limit - len(held) > others:
        todo.places.append(served)
        return True
    return False
