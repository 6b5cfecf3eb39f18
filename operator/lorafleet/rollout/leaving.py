"""The way out of a version: drained, unloaded, its bytes removed; and of a whole adapter that is being deleted."""

from datetime import datetime, timedelta

from lorafleet.api.adapter import AdapterVersion, LoRAAdapterStatus, VersionPhase, VersionStatus
from lorafleet.api.model import moment, timestamp
from lorafleet.rollout import versions as steps
from lorafleet.rollout.draft import Todo
from lorafleet.rollout.observed import Failed, Observed


def way_out(
    version: VersionStatus, entry: AdapterVersion | None, observed: Observed, todo: Todo
) -> VersionStatus | None:
    """Draining, unloading and removing; None when nothing is left of the version."""
    if version.phase is VersionPhase.DRAINING:
        due = steps.drained_at(version, observed)
        if due > observed.now:
            todo.look.append(due)
            return version
        version = steps.off_engines(version)
    comes_back = entry is not None and not steps.replaced(version, entry)
    if comes_back and version.phase is not VersionPhase.REMOVING:
        return version
    if version.phase in steps.ON_ENGINES:
        return version
    if version.digest is None or version.served_name is None:
        return None
    return _removal(version, observed, todo)


def _removal(version: VersionStatus, observed: Observed, todo: Todo) -> VersionStatus | None:
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
    todo.remove.append(served)
    return steps.change(version, retry_at=None, message=None)


def retries(versions: list[VersionStatus], observed: Observed) -> list[datetime]:
    """When failed steps are due; what is due already waits for something else."""
    times = [moment(version.retry_at) for version in versions if version.retry_at]
    return [time for time in times if time > observed.now]


def leave(observed: Observed, todo: Todo) -> tuple[LoRAAdapterStatus, bool]:
    """An adapter's deletion: weight 0 at once, drain, unload, remove; also whether its time for that is over."""
    assert observed.deleting_since is not None and observed.fleet is not None
    left: list[VersionStatus] = []
    for version in observed.status.versions:
        found = observed.published.get(version.name)
        if version.digest is None and found is not None and not isinstance(found, Failed):
            version = steps.published(version, found, observed)
        if version.digest is None and version.name in observed.syncing:
            left.append(version)
            continue
        after = way_out(steps.draining(version, observed), None, observed, todo)
        left += [after] if after is not None else []
    todo.look += retries(left, observed)
    deadline = observed.deleting_since + timedelta(seconds=observed.fleet.deletion_seconds)
    todo.look.append(deadline)
    late = bool(left) and deadline <= observed.now
    changes = {"traffic": (), "stable_version": None, "rollout": None, "versions": tuple(left)}
    return observed.status.model_copy(update=changes), late
