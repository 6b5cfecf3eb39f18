"""The way of one version: pending, published, loaded, draining, removed. Small pure steps, each one rule.

A version's bytes are named by its digest, so nothing here ever changes what a served name stands for; an entry that
comes back under an old name waits until the old one is gone.
"""

from datetime import datetime, timedelta

from lorafleet.api.adapter import AdapterVersion, VersionPhase, VersionStatus
from lorafleet.api.model import moment, timestamp
from lorafleet.api.names import engine_path, served_name
from lorafleet.api.reasons import Reason
from lorafleet.rollout.observed import Failed, Observed, Published, Syncing

ON_ENGINES = frozenset({VersionPhase.LOADING, VersionPhase.LOADED})
FIRST_RETRY = 5.0
LAST_RETRY = 300.0


def retry_delay(attempts: int) -> float:
    """Seconds until the next try after so many failures in a row: doubling from 5 s to 5 minutes."""
    return float(min(FIRST_RETRY * 2.0 ** min(attempts - 1, 16), LAST_RETRY))


def replaced(version: VersionStatus, entry: AdapterVersion | None) -> bool:
    """Whether the entry was removed and came back as another one under the same name."""
    return entry is not None and version.digest is not None and version.entry_hash != entry.fingerprint


def change(version: VersionStatus, **fields: object) -> VersionStatus:
    """A copy with some fields changed; None clears one."""
    return version.model_copy(update=fields)


def published(version: VersionStatus, result: Published, observed: Observed) -> VersionStatus:
    """The version after its bytes reached the volume."""
    assert observed.fleet is not None
    served = served_name(observed.name, version.name, result.digest)
    # What other bytes proved under this name counts for nothing.
    same = version.served_name in (None, served)
    return VersionStatus(
        name=version.name,
        phase=VersionPhase.PUBLISHED,
        id=result.id,
        digest=result.digest,
        served_name=served,
        path=engine_path(observed.fleet.mount_path, served),
        rank=result.rank,
        target_modules=result.target_modules,
        size_bytes=result.size_bytes,
        min_engine=result.min_engine,
        pin=result.pin or version.pin,
        dtype=result.dtype,
        slot_bytes=result.slot_bytes,
        verified_by=result.verified_by,
        notices=result.notices,
        claim_name=observed.fleet.claim_name,
        entry_hash=version.entry_hash,
        proven_at=version.proven_at if same else None,
        statistics=version.statistics if same else None,
    )


def failed(version: VersionStatus, failure: Failed, observed: Observed) -> VersionStatus:
    """The version after a try to publish it failed: for good, or until the next try."""
    attempts = (version.attempts or 0) + 1
    again = observed.now + timedelta(seconds=retry_delay(attempts)) if failure.retry else None
    return change(
        version,
        phase=VersionPhase.FAILED,
        reason=failure.reason.value,
        message=failure.message,
        attempts=attempts,
        retry_at=timestamp(again) if again else None,
        pin=failure.pin or version.pin,
        bytes_done=None,
        bytes_total=None,
        checked_against=failure.expectations or (observed.fleet.expectations if observed.fleet else None),
    )


def _may_try(version: VersionStatus, observed: Observed) -> bool:
    """Whether a version without bytes is due: never tried, its time has come, or the fleet expects something else."""
    if version.phase is not VersionPhase.FAILED:
        return True
    if observed.fleet and version.checked_against != observed.fleet.expectations:
        return True
    return version.retry_at is not None and moment(version.retry_at) <= observed.now


def toward_publishing(version: VersionStatus, observed: Observed) -> tuple[VersionStatus, bool]:
    """A version that has no bytes yet: its next state, and whether to ask for a sync."""
    outcome = observed.published.get(version.name)
    if isinstance(outcome, Published) and observed.fleet is not None:
        return published(version, outcome, observed), False
    if isinstance(outcome, Failed):
        return failed(version, outcome, observed), False
    if version.name in observed.syncing:
        return _in_a_job(version, observed.syncing[version.name]), True
    if observed.fleet is None or not observed.fleet.ready_to_publish:
        if version.phase is VersionPhase.FAILED:
            return version, False
        return change(version, phase=VersionPhase.PENDING), False
    if _may_try(version, observed):
        return _in_a_job(version, Syncing()), True
    return version, False


def _in_a_job(version: VersionStatus, job: Syncing) -> VersionStatus:
    return change(
        version,
        phase=VersionPhase.PUBLISHING,
        reason=Reason.PUBLISHING.value if job.note else None,
        message=job.note or None,
        retry_at=None,
        bytes_done=job.done,
        bytes_total=job.total,
    )


def no_room(version: VersionStatus, message: str) -> VersionStatus:
    """A published version that waits for a place on the engines."""
    return change(off_engines(version), reason=Reason.NO_ROOM.value, message=message)


def waits_for_room(version: VersionStatus) -> bool:
    """Whether a version waits for a place on the engines."""
    return version.phase is VersionPhase.PUBLISHED and version.reason == Reason.NO_ROOM.value


def loaded_count(version: VersionStatus, observed: Observed) -> VersionStatus:
    """A version that engines should have: how many do, and whether that is all of them."""
    assert version.served_name and observed.fleet
    loads = observed.loads.get(version.served_name)
    count = loads.loaded if loads else 0
    usable = observed.fleet.usable_engines
    refusals = loads.refusals if loads else ()
    everywhere = usable > 0 and count >= usable
    return change(
        version,
        phase=VersionPhase.LOADED if everywhere else VersionPhase.LOADING,
        path=engine_path(observed.fleet.mount_path, version.served_name),
        loaded_engines=count,
        ready_engines=usable,
        draining_since=None,
        kept=None,
        reason=refusals[0].reason.value if refusals else None,
        message="; ".join(refusal.message for refusal in refusals[:3]) or None,
    )


def draining(version: VersionStatus, observed: Observed) -> VersionStatus:
    """A version that lost its last weight or its place: it stays loaded until running requests have ended."""
    if version.phase in ON_ENGINES:
        return change(
            version,
            phase=VersionPhase.DRAINING,
            draining_since=timestamp(observed.now),
            loaded_engines=None,
            ready_engines=None,
            probed_engines=None,
            kept=None,
            reason=None,
            message=None,
        )
    return version


def drained_at(version: VersionStatus, observed: Observed) -> datetime:
    """When a draining version may be unloaded."""
    assert version.draining_since
    seconds = observed.fleet.drain_seconds if observed.fleet else 0.0
    return moment(version.draining_since) + timedelta(seconds=seconds)


def off_engines(version: VersionStatus) -> VersionStatus:
    """A version that engines need not have: published and no more."""
    return change(
        version,
        phase=VersionPhase.PUBLISHED,
        draining_since=None,
        loaded_engines=None,
        ready_engines=None,
        probed_engines=None,
        kept=None,
        reason=None,
        message=None,
    )
