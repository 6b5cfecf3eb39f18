"""An adapter's conditions, summarised in one place from its next status. Pure; every message says the next move."""

from lorafleet.api.adapter import LoRAAdapterStatus, VersionPhase, VersionStatus
from lorafleet.api.conditions import ConditionType, Verdict
from lorafleet.api.names import ACTION_ANNOTATION
from lorafleet.api.reasons import Reason, reason_of
from lorafleet.rollout.observed import Observed
from lorafleet.rollout.versions import waits_for_room


def verdicts(observed: Observed, status: LoRAAdapterStatus) -> tuple[Verdict, ...]:
    """The adapter's conditions: Ready, Reconciling, Stalled, Available; Checked and FieldsIgnored where they apply."""
    available = _available(observed, status)
    state, reason, message = _state(observed, status)
    ready = Verdict(type=ConditionType.READY, status=state == "ready", reason=reason, message=message)
    result = [
        ready,
        _flag(ConditionType.RECONCILING, state == "reconciling", reason, message),
        _flag(ConditionType.STALLED, state == "stalled", reason, message),
        available,
        *_checked(observed, status),
    ]
    ignored = observed.spec.not_acted_on() if observed.spec else ()
    if observed.action and observed.action != status.last_handled_action:
        ignored += (f"the annotation {ACTION_ANNOTATION}: {observed.action[:80]}",)
    if ignored:
        text = f"this release accepts {', '.join(ignored)} and does not act on it yet: versions switch at once"
        result.append(
            Verdict(type=ConditionType.FIELDS_IGNORED, status=True, reason=Reason.FIELD_NOT_ACTED_ON, message=text)
        )
    return tuple(result)


def _flag(kind: ConditionType, holds: bool, reason: Reason, message: str) -> Verdict:
    return Verdict(
        type=kind, status=holds, reason=reason if holds else Reason.SETTLED, message=message if holds else ""
    )


def _available(observed: Observed, status: LoRAAdapterStatus) -> Verdict:
    for target in status.traffic:
        loads = observed.loads.get(target.served_name)
        if loads and loads.loaded:
            text = f"version {target.version} serves as {target.served_name} on {loads.loaded} engine(s)"
            return Verdict(type=ConditionType.AVAILABLE, status=True, reason=Reason.SERVING, message=text)
    text = "no version serves" if not status.traffic else "no engine has the version that carries the traffic"
    return Verdict(type=ConditionType.AVAILABLE, status=False, reason=Reason.NOTHING_SERVES, message=text)


def _checked(observed: Observed, status: LoRAAdapterStatus) -> list[Verdict]:
    """What the checks of the version that shall serve, and of one that serves, found; nothing before there is one."""
    if observed.deleting_since is not None:
        return []
    about = [status.active_version, *(target.version for target in status.traffic)]
    found = [version for version in status.versions if version.digest is not None and version.served_name]
    shown = sorted((version for version in found if version.name in about), key=lambda one: about.index(one.name))
    for version in (*shown, *found):
        if version.served_name in observed.damage:
            what = observed.damage[version.served_name or ""]
            text = f"version {version.name}: {what}"
            return [Verdict(type=ConditionType.CHECKED, status=False, reason=Reason.FILES_DAMAGED, message=text)]
    for version in shown:
        if version.notices:
            reason = reason_of(version.notices[0].partition(":")[0], Reason.CHECKED)
            text = f"version {version.name}: {'; '.join(version.notices)}"
            return [Verdict(type=ConditionType.CHECKED, status=False, reason=reason, message=text)]
    if not shown:
        return []
    signed = f", and is signed by {shown[0].verified_by}" if shown[0].verified_by else ""
    text = f"version {shown[0].name} passed every check{signed}"
    return [Verdict(type=ConditionType.CHECKED, status=True, reason=Reason.CHECKED, message=text)]


def _state(observed: Observed, status: LoRAAdapterStatus) -> tuple[str, Reason, str]:
    """ready, reconciling or stalled, with the reason and the message for it."""
    if observed.deleting_since is not None:
        return "reconciling", Reason.DELETING, _deleting(status)
    if observed.spec is None:
        return "stalled", Reason.INVALID_SPEC, f"{observed.spec_error}; correct the spec of {observed.name}"
    fleet = observed.fleet
    if observed.spec.suspend or (fleet and fleet.suspended):
        who = "adapter" if observed.spec.suspend else f"fleet {observed.spec.fleet}"
        text = f"the {who} is suspended; what serves goes on serving; set spec.suspend to false to resume"
        return ("ready" if status.traffic else "reconciling"), Reason.SUSPENDED, text
    active = next((version for version in status.versions if version.name == status.active_version), None)
    if active and active.phase is VersionPhase.FAILED and not active.retry_at:
        return "stalled", reason_of(active.reason, Reason.SYNC_FAILED), _about(active)
    if fleet is None or fleet.deleting:
        found = "is being deleted" if fleet else "does not exist in this namespace"
        return "reconciling", Reason.WAITING_FOR_FLEET, f"fleet {observed.spec.fleet} {found}; create it"
    if active is None:
        return "reconciling", Reason.PUBLISHING, f"version {status.active_version} waits to be published"
    return _on_the_way(observed, active)


def _on_the_way(observed: Observed, active: VersionStatus) -> tuple[str, Reason, str]:
    fleet = observed.fleet
    assert fleet is not None
    if active.phase is VersionPhase.FAILED:
        text = f"{_about(active)}; tried {active.attempts} time(s), again at {active.retry_at}"
        return "reconciling", reason_of(active.reason, Reason.SYNC_FAILED), text
    if active.phase is VersionPhase.PENDING:
        trouble = fleet.trouble or f"no engine of fleet {fleet.name} is usable yet"
        return "reconciling", Reason.WAITING_FOR_ENGINES, f"version {active.name} is not published yet: {trouble}"
    if active.phase is VersionPhase.PUBLISHING:
        note = f": {active.message}" if active.message else _fetched(active)
        return "reconciling", Reason.PUBLISHING, f"version {active.name} is being checked and published{note}"
    if active.phase is VersionPhase.LOADED:
        count = f"{active.loaded_engines} of {active.ready_engines}"
        text = f"version {active.name} serves as {active.served_name} on {count} engines"
        return "ready", Reason.SERVING, text
    loads = observed.loads.get(active.served_name or "")
    if loads and any(refusal.final for refusal in loads.refusals):
        return "stalled", reason_of(active.reason, Reason.LOAD_REJECTED), _about(active)
    if active.phase is VersionPhase.LOADING:
        if not fleet.usable_engines:
            trouble = fleet.trouble or f"no engine of fleet {fleet.name} is usable"
            return "reconciling", Reason.WAITING_FOR_ENGINES, f"version {active.name} is published: {trouble}"
        count = f"{active.loaded_engines or 0} of {fleet.usable_engines}"
        text = f"version {active.name} is loaded on {count} usable engines"
        if active.reason:
            return "reconciling", reason_of(active.reason, Reason.LOADING), f"{text}: {active.message}"
        return "reconciling", Reason.LOADING, text
    if waits_for_room(active):
        return "reconciling", Reason.NO_ROOM, _about(active)
    text = active.message or "an older version of this name is on its way out"
    return "reconciling", Reason.RETIRING, f"version {active.name}: {text}"


def _fetched(version: VersionStatus) -> str:
    if version.bytes_done is None:
        return ""
    of = f" of {version.bytes_total}" if version.bytes_total is not None else ""
    return f": {version.bytes_done}{of} bytes are fetched"


def _about(version: VersionStatus) -> str:
    return f"version {version.name}: {version.message or version.reason}"


def _deleting(status: LoRAAdapterStatus) -> str:
    phases = ", ".join(f"{version.name} is {version.phase.value.lower()}" for version in status.versions)
    notes = "; ".join(version.message for version in status.versions if version.message)
    return f"being deleted: {phases or 'nothing is left'}" + (f" ({notes})" if notes else "")
