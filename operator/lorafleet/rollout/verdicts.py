"""An adapter's conditions, summarised in one place from its next status. Pure; every message says the next move."""

from lorafleet.api.adapter import LoRAAdapterStatus, VersionStatus
from lorafleet.api.conditions import ConditionType, Verdict
from lorafleet.api.reasons import Reason, reason_of
from lorafleet.api.rolloutstatus import AbortedVersion, RolloutStatus
from lorafleet.rollout.draft import aborted, entry_of
from lorafleet.rollout.observed import Observed
from lorafleet.rollout.probes import Gate, probing
from lorafleet.rollout.split import Shares, fixed, shares_of
from lorafleet.rollout.way import way

READY = "ready"
RECONCILING = "reconciling"
STALLED = "stalled"


def verdicts(observed: Observed, status: LoRAAdapterStatus) -> tuple[Verdict, ...]:
    """The adapter's conditions: Ready, Reconciling, Stalled, Available; Checked and FieldsIgnored where they apply."""
    available = _available(observed, status)
    state, reason, message = _state(observed, status)
    ready = Verdict(type=ConditionType.READY, status=state == READY, reason=reason, message=message)
    result = [
        ready,
        _flag(ConditionType.RECONCILING, state == RECONCILING, reason, message),
        _flag(ConditionType.STALLED, state == STALLED, reason, message),
        available,
        *_checked(observed, status),
    ]
    ignored = observed.spec.not_acted_on() if observed.spec else ()
    if ignored:
        text = f"this release accepts {', '.join(ignored)} and does not act on it yet"
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
        return RECONCILING, Reason.DELETING, _deleting(status)
    spec = observed.spec
    if spec is None:
        return STALLED, Reason.INVALID_SPEC, f"{observed.spec_error}; correct the spec of {observed.name}"
    fleet = observed.fleet
    if spec.suspend or (fleet and fleet.suspended):
        who = "adapter" if spec.suspend else f"fleet {spec.fleet}"
        text = f"the {who} is suspended; what serves goes on serving; set spec.suspend to false to resume"
        settled = status.traffic and status.rollout is None
        return (READY if settled else RECONCILING), Reason.SUSPENDED, text
    if fixed(spec):
        return _split(observed, status, fixed(spec))
    barred = aborted(entry_of(spec, spec.active), status.aborted)
    if barred is not None:
        return _taken_back(status, barred)
    if status.rollout is not None:
        return _rolling(observed, status, status.rollout)
    return _whole(observed, status, spec.active)


def _whole(observed: Observed, status: LoRAAdapterStatus, name: str) -> tuple[str, Reason, str]:
    """One version is to serve all, and nothing else is on its way."""
    version = _version(status, name)
    if version is None:
        return RECONCILING, Reason.PUBLISHING, f"version {name} waits to be published"
    why = way(observed, version)
    if why is not None:
        return (STALLED if why.stuck else RECONCILING), why.reason, why.message
    if shares_of(status.traffic) == {name: 100}:
        count = f"{version.loaded_engines} of {version.ready_engines}"
        return READY, Reason.SERVING, f"version {name} serves as {version.served_name} on {count} engines"
    return _asked(observed, version)


def _asked(observed: Observed, version: VersionStatus) -> tuple[str, Reason, str]:
    found = probing(version, observed)
    if found.gate is Gate.SHUT:
        text = f"{found.message}; it gets no traffic: append a new version, or correct spec.probe"
        return STALLED, Reason.PROBE_FAILED, text
    return RECONCILING, Reason.PROBING, found.message or f"version {version.name} gets its traffic next"


def _rolling(observed: Observed, status: LoRAAdapterStatus, rollout: RolloutStatus) -> tuple[str, Reason, str]:
    version = _version(status, rollout.version)
    why = way(observed, version) if version else None
    if why is not None and why.stuck:
        return STALLED, why.reason, why.message
    where = f"step {rollout.step} of {rollout.steps}: " if rollout.step else ""
    return RECONCILING, reason_of(rollout.held, Reason.ROLLOUT_PROGRESSING), f"{where}{rollout.message or ''}"


def _split(observed: Observed, status: LoRAAdapterStatus, shares: Shares) -> tuple[str, Reason, str]:
    """``spec.traffic``: all of it is in force, or the first version that it waits for."""
    assert observed.spec is not None
    for name in shares:
        barred = aborted(entry_of(observed.spec, name), status.aborted)
        if barred is not None:
            text = f"spec.traffic names version {name}, which was taken back ({barred.reason}: {barred.message})"
            return STALLED, _kind(barred), f"{text}: kubectl lorafleet retry, or name another version"
    waits = []
    for name in shares:
        version = _version(status, name)
        why = way(observed, version) if version else None
        if why is not None:
            waits.append(((STALLED if why.stuck else RECONCILING), why.reason, why.message))
        elif version is not None and name not in shares_of(status.traffic):
            waits.append(_asked(observed, version))
    if shares_of(status.traffic) == shares and not waits:
        text = ", ".join(f"version {name} has {share} %" for name, share in shares.items())
        return READY, Reason.SPLIT_SERVING, f"{text}, as spec.traffic asks"
    if not waits:
        return RECONCILING, Reason.ROLLOUT_PROGRESSING, "the shares of spec.traffic come into force next"
    return next((one for one in waits if one[0] == STALLED), waits[0])


def _taken_back(status: LoRAAdapterStatus, barred: AbortedVersion) -> tuple[str, Reason, str]:
    shares = shares_of(status.traffic)
    served = " and ".join(f"version {name}" for name in shares) or "no version"
    text = f"version {barred.version} was taken back ({barred.reason}: {barred.message}); {served} serves"
    if status.stable_version and shares != {status.stable_version: 100}:
        text += f" until version {status.stable_version} is loaded"
    where = f"set activeVersion to {status.stable_version} in Git, " if status.stable_version else ""
    return STALLED, _kind(barred), f"{text}: {where}append a new version, or kubectl lorafleet retry"


def _kind(barred: AbortedVersion) -> Reason:
    return Reason.ROLLED_BACK if barred.reason == Reason.ROLLED_BACK else Reason.ROLLOUT_ABORTED


def _version(status: LoRAAdapterStatus, name: str) -> VersionStatus | None:
    return next((version for version in status.versions if version.name == name), None)


def _deleting(status: LoRAAdapterStatus) -> str:
    phases = ", ".join(f"{version.name} is {version.phase.value.lower()}" for version in status.versions)
    notes = "; ".join(version.message for version in status.versions if version.message)
    return f"being deleted: {phases or 'nothing is left'}" + (f" ({notes})" if notes else "")
