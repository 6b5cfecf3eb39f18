"""What an adapter needs next: the pure heart of the operator.

``decide`` takes what was observed and says the next status and the work for it. The rules, each a test: the first
version serves once it is loaded on every usable engine; a change of ``activeVersion`` moves all traffic at once, and
only when the new version is loaded everywhere; the old one is unloaded after the drain time; bytes go only when no
engine may read them; a version that is not published, or not loaded, never has weight; one that engines have no place
for waits before anything is unloaded.
"""

from datetime import datetime, timedelta

from lorafleet.api.adapter import AdapterVersion, LoRAAdapterStatus, ServedTraffic, VersionPhase, VersionStatus
from lorafleet.api.conditions import merge
from lorafleet.api.model import moment, timestamp
from lorafleet.rollout import versions as steps
from lorafleet.rollout.observed import Failed, Observed, Plan
from lorafleet.rollout.verdicts import verdicts

ROOM_AGAIN = 30.0
"""Seconds until the next look for a place; whoever frees one says so, so this is for what nobody saw."""


def decide(observed: Observed) -> Plan:
    """The next status of an adapter and what to do for it."""
    if observed.deleting_since is not None:
        return _deletion(observed)
    fleet = observed.fleet
    if observed.spec is None or observed.spec.suspend or (fleet and fleet.suspended and not fleet.deleting):
        return _finish(observed, observed.status, ())
    return _rollout(observed)


def _rollout(observed: Observed) -> Plan:
    assert observed.spec is not None
    entries = {entry.name: entry for entry in observed.spec.versions}
    known = {version.name: version for version in observed.status.versions}
    names = [*entries, *(name for name in known if name not in entries)]
    active = observed.spec.active
    versions: dict[str, VersionStatus] = {}
    publish: list[str] = []
    for name in names:
        versions[name], asks = _progress(entries.get(name), known.get(name), observed)
        publish += [name] if asks else []
        if steps.waits_for_room(versions[name]):
            versions[name] = steps.off_engines(versions[name])

    served = observed.fleet is not None and not observed.fleet.deleting
    stable = observed.status.stable_version
    places: list[str] = []
    look: list[datetime] = []
    if served:
        # What serves comes first, should there be one place for two.
        for name in dict.fromkeys(name for name in (stable, active) if name in versions):
            entry = entries.get(name)
            if _may_be_on_engines(versions[name], entry, name == active or entry is not None):
                versions[name] = _toward_engines(versions[name], observed, places, look)
        if versions[active].phase is VersionPhase.LOADED:
            stable = active
    stable_version = versions.get(stable) if stable else None
    proven = any(target.version == stable for target in observed.status.traffic)
    carries = (
        served
        and stable_version is not None
        and (stable_version.phase is VersionPhase.LOADED or (proven and stable_version.phase in steps.ON_ENGINES))
    )
    traffic = (_all_to(stable_version),) if carries and stable_version is not None else ()

    keep = {active, stable}
    plan_remove: list[str] = []
    result: list[VersionStatus] = []
    for name in names:
        version = versions[name]
        if not served:
            if version.phase in (*steps.ON_ENGINES, VersionPhase.DRAINING):
                version = steps.off_engines(version)
        elif name not in keep or _replaced(version, entries.get(name)):
            version = steps.draining(version, observed)
        after = _way_out(version, entries.get(name), observed, look, plan_remove)
        result += [after] if after is not None else []
        look += [observed.now] if after is None and name in entries else []
    publish.sort(key=lambda name: name != active)
    look += _retries(result, observed)
    status = observed.status.model_copy(
        update={
            "stable_version": stable if stable in versions else None,
            "active_version": active,
            "traffic": traffic,
            "versions": tuple(result),
        }
    )
    return _finish(observed, status, tuple(publish), tuple(plan_remove), look, tuple(places))


def _toward_engines(
    version: VersionStatus, observed: Observed, places: list[str], look: list[datetime]
) -> VersionStatus:
    """On engines, or waiting for a place: only a version that has none is asked for one."""
    served = version.served_name
    assert served
    placed = version.phase in (*steps.ON_ENGINES, VersionPhase.DRAINING)
    if not placed:
        refusal = observed.room.refusal(served, frozenset(places)) if observed.room else None
        if refusal is not None:
            look.append(observed.now + timedelta(seconds=ROOM_AGAIN))
            return steps.no_room(version, refusal)
        places.append(served)
    return steps.loaded_count(version, observed)


def _retries(versions: list[VersionStatus], observed: Observed) -> list[datetime]:
    """When failed steps are due; what is due already waits for something else."""
    times = [moment(version.retry_at) for version in versions if version.retry_at]
    return [time for time in times if time > observed.now]


def _progress(
    entry: AdapterVersion | None, version: VersionStatus | None, observed: Observed
) -> tuple[VersionStatus, bool]:
    """Toward bytes on the volume: the version's state, and whether to ask for a sync."""
    if entry is None:
        assert version is not None
        return version, False
    fingerprint = steps.entry_hash(entry)
    fresh = VersionStatus(name=entry.name, phase=VersionPhase.PENDING, entry_hash=fingerprint)
    if version is None or (version.digest is None and version.entry_hash != fingerprint):
        version = fresh
    if version.digest is not None and observed.fleet and version.claim_name != observed.fleet.claim_name:
        version = steps.change(fresh, pin=version.pin if version.entry_hash == fingerprint else None)
    if version.digest is not None:
        return version, False
    return steps.toward_publishing(version, observed)


def _replaced(version: VersionStatus, entry: AdapterVersion | None) -> bool:
    """Whether the entry was removed and came back as another one under the same name."""
    return entry is not None and version.digest is not None and version.entry_hash != steps.entry_hash(entry)


def _may_be_on_engines(version: VersionStatus, entry: AdapterVersion | None, wanted: bool) -> bool:
    """Whether engines shall have a version: it is published, and not on its way out as another entry's bytes."""
    if version.digest is None or version.phase is VersionPhase.REMOVING:
        return False
    if _replaced(version, entry):
        return False
    return wanted or version.phase in steps.ON_ENGINES


def _all_to(version: VersionStatus) -> ServedTraffic:
    assert version.served_name
    return ServedTraffic(version=version.name, served_name=version.served_name, weight=100)


def _way_out(
    version: VersionStatus,
    entry: AdapterVersion | None,
    observed: Observed,
    look: list[datetime],
    remove: list[str],
) -> VersionStatus | None:
    """Draining, unloading and removing; None when nothing is left of the version."""
    if version.phase is VersionPhase.DRAINING:
        due = steps.drained_at(version, observed)
        if due > observed.now:
            look.append(due)
            return version
        version = steps.off_engines(version)
    comes_back = entry is not None and not _replaced(version, entry)
    if comes_back and version.phase is not VersionPhase.REMOVING:
        return version
    if version.phase in steps.ON_ENGINES:
        return version
    if version.digest is None or version.served_name is None:
        return None
    return _removal(version, observed, look, remove)


def _removal(
    version: VersionStatus, observed: Observed, look: list[datetime], remove: list[str]
) -> VersionStatus | None:
    """Bytes go only when no engine may read them (vLLM contract, rule 1)."""
    served = version.served_name
    assert served
    outcome = observed.removed.get(served)
    if outcome is None and served in observed.removed:
        return None
    version = steps.change(version, phase=VersionPhase.REMOVING)
    loads = observed.loads.get(served)
    if loads and loads.readers:
        engines = ", ".join(loads.readers[:5])
        return steps.change(version, message=f"waits until it is unloaded from {engines}")
    if isinstance(outcome, Failed):
        attempts = (version.attempts or 0) + 1
        again = observed.now + timedelta(seconds=steps.retry_delay(attempts))
        return steps.change(
            version,
            reason=outcome.reason.value,
            message=outcome.message,
            attempts=attempts,
            retry_at=timestamp(again),
        )
    if version.retry_at and moment(version.retry_at) > observed.now:
        return version
    remove.append(served)
    return steps.change(version, retry_at=None, message=None)


def _deletion(observed: Observed) -> Plan:
    """Weight 0 at once, then drain, unload, remove bytes, release; after the deadline the fleet does the rest."""
    assert observed.deleting_since is not None
    if observed.fleet is None or observed.namespace_terminating:
        return Plan(observed.status.model_copy(update={"traffic": (), "versions": ()}), release=True)
    look: list[datetime] = []
    remove: list[str] = []
    left: list[VersionStatus] = []
    for version in observed.status.versions:
        found = observed.published.get(version.name)
        if version.digest is None and found is not None and not isinstance(found, Failed):
            version = steps.published(version, found, observed)
        if version.digest is None and version.name in observed.syncing:
            left.append(version)
            continue
        after = _way_out(steps.draining(version, observed), None, observed, look, remove)
        left += [after] if after is not None else []
    look += _retries(left, observed)
    deadline = observed.deleting_since + timedelta(seconds=observed.fleet.deletion_seconds)
    look.append(deadline)
    late = bool(left) and deadline <= observed.now
    status = observed.status.model_copy(update={"traffic": (), "stable_version": None, "versions": tuple(left)})
    if not left or late:
        orphans = tuple(version.served_name for version in left if version.served_name)
        return Plan(status, release=True, orphans=orphans)
    return _finish(observed, status, (), tuple(remove), look)


def _finish(
    observed: Observed,
    status: LoRAAdapterStatus,
    publish: tuple[str, ...],
    remove: tuple[str, ...] = (),
    look: list[datetime] | None = None,
    places: tuple[str, ...] = (),
) -> Plan:
    """Adds what every status has: conditions, the generation, the summary for the table."""
    by_name = {version.name: version for version in status.versions}
    active = by_name.get(status.active_version or "")
    fleet = observed.fleet
    shown = f"{active.loaded_engines or 0}/{fleet.usable_engines}" if active and fleet else None
    conditions = merge(
        observed.status.conditions, verdicts(observed, status), observed.generation, timestamp(observed.now)
    )
    status = status.model_copy(
        update={"observed_generation": observed.generation, "loaded": shown, "conditions": conditions}
    )
    return Plan(status, publish=publish, remove=remove, places=places, look_again=min(look) if look else None)
