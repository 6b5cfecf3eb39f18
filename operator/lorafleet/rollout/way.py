"""In words, how far a version is on its way to the engines, and what to do where it does not go on. Pure."""

from dataclasses import dataclass

from lorafleet.api.adapter import VersionPhase, VersionStatus
from lorafleet.api.reasons import Reason, reason_of
from lorafleet.rollout.observed import Observed
from lorafleet.rollout.versions import waits_for_room


@dataclass(frozen=True)
class Way:
    """``stuck``: only a person's doing helps."""

    stuck: bool
    reason: Reason
    message: str


def way(observed: Observed, version: VersionStatus) -> Way | None:
    """Why a version is not loaded on every usable engine; None when it is."""
    fleet = observed.fleet
    if version.phase is VersionPhase.FAILED and not version.retry_at:
        return Way(True, reason_of(version.reason, Reason.SYNC_FAILED), about(version))
    if fleet is None or fleet.deleting:
        found = "is being deleted" if fleet else "does not exist in this namespace"
        name = observed.spec.fleet if observed.spec else ""
        return Way(False, Reason.WAITING_FOR_FLEET, f"fleet {name} {found}; create it")
    if version.phase is VersionPhase.FAILED:
        text = f"{about(version)}; tried {version.attempts} time(s), again at {version.retry_at}"
        return Way(False, reason_of(version.reason, Reason.SYNC_FAILED), text)
    if version.phase is VersionPhase.PENDING:
        trouble = fleet.trouble or f"no engine of fleet {fleet.name} is usable yet"
        return Way(False, Reason.WAITING_FOR_ENGINES, f"version {version.name} is not published yet: {trouble}")
    if version.phase is VersionPhase.PUBLISHING:
        note = f": {version.message}" if version.message else _fetched(version)
        return Way(False, Reason.PUBLISHING, f"version {version.name} is being checked and published{note}")
    if version.phase is VersionPhase.LOADED:
        return None
    if version.phase is VersionPhase.LOADING:
        return _loading(observed, version)
    if waits_for_room(version):
        return Way(False, Reason.NO_ROOM, about(version))
    if version.phase is VersionPhase.PUBLISHED:
        return Way(False, Reason.LOADING, f"version {version.name} is published and will be loaded")
    text = version.message or "an older version of this name is on its way out"
    return Way(False, Reason.RETIRING, f"version {version.name}: {text}")


def _loading(observed: Observed, version: VersionStatus) -> Way:
    fleet = observed.fleet
    assert fleet is not None
    loads = observed.loads.get(version.served_name or "")
    if loads and any(refusal.final for refusal in loads.refusals):
        return Way(True, reason_of(version.reason, Reason.LOAD_REJECTED), about(version))
    if not fleet.usable_engines:
        trouble = fleet.trouble or f"no engine of fleet {fleet.name} is usable"
        return Way(False, Reason.WAITING_FOR_ENGINES, f"version {version.name} is published: {trouble}")
    count = f"{version.loaded_engines or 0} of {fleet.usable_engines}"
    text = f"version {version.name} is loaded on {count} usable engines"
    if version.reason:
        return Way(False, reason_of(version.reason, Reason.LOADING), f"{text}: {version.message}")
    return Way(False, Reason.LOADING, text)


def _fetched(version: VersionStatus) -> str:
    if version.bytes_done is None:
        return ""
    of = f" of {version.bytes_total}" if version.bytes_total is not None else ""
    return f": {version.bytes_done}{of} bytes are fetched"


def about(version: VersionStatus) -> str:
    """A version and what is said of it."""
    return f"version {version.name}: {version.message or version.reason}"
