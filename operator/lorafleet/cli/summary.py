"""An adapter or a fleet in a line: the words of ``get`` and of ``status -w`` into a pipe, and the same as a document.

Documents are for programs: fields are added, never renamed or removed within a ``schemaVersion``. Pure.
"""

from typing import Any

from lorafleet.api.conditions import ConditionType
from lorafleet.api.rolloutstatus import RolloutPhase, RolloutStatus
from lorafleet.cli.durations import percent
from lorafleet.cli.seen import Adapter, Fleet, HasConditions, condition, holds

NONE = "–"


def traffic(found: Adapter) -> str:
    """Who gets which share: ``1.1.0 95% · 1.2.0 5%``."""
    shares = [f"{target.version} {target.weight}%" for target in found.status.traffic if target.weight]
    return " · ".join(shares) or NONE


def rollout(found: Adapter) -> str:
    """Where the rollout is: ``2/3 Progressing``, ``1/3 Paused``; or what there is in its place."""
    now = found.status.rollout
    if now is not None:
        return f"{now.step}/{now.steps} {standing(now)}"
    if found.spec and found.spec.traffic:
        return "A/B"
    active = found.active
    reason = found.aborted(active) if active is not None else None
    return f"{active}: {reason}" if reason else NONE


def standing(now: RolloutStatus) -> str:
    """The phase of a rollout, and why it is held where the phase alone does not say it."""
    if now.phase is RolloutPhase.PROGRESSING and now.held is None:
        return now.phase.value
    return f"{now.phase}: {now.held}" if now.held else now.phase.value


def engines(found: Adapter) -> str:
    """How many usable engines have the version that counts: ``2/2``."""
    version = found.watched
    if version is None or version.ready_engines is None:
        return found.status.loaded or NONE
    return f"{version.loaded_engines or 0}/{version.ready_engines}"


def error_rate(found: Adapter) -> float | None:
    """The share of errors of the version that counts, 0 to 1; None when nothing is known."""
    version = found.watched
    rate = version.statistics.success_rate if version and version.statistics else None
    return None if rate is None else 1 - rate


def ready(found: HasConditions) -> str:
    """``True``, or the reason why not; ``Unknown`` when nobody has said since the spec changed."""
    one = condition(found, ConditionType.READY)
    if one is None or one.observed_generation < found.identity.generation:
        return "Unknown"
    return "True" if one.status == "True" else one.reason


def line(found: Adapter) -> str:
    """All of it on one line, for a log."""
    one = condition(found, ConditionType.READY)
    parts = [f"{found.identity.namespace}/{found.name}", f"stable={found.status.stable_version or NONE}"]
    parts += [f"target={found.target or NONE}", f"traffic={traffic(found)}", f"rollout={rollout(found)}"]
    parts += [f"engines={engines(found)}", f"errors={percent(error_rate(found)) or NONE}", f"ready={ready(found)}"]
    return "  ".join(parts) + (f"  {one.message}" if one and one.message else "")


def fleet_line(found: Fleet) -> str:
    """A fleet on one line, for a log."""
    one = condition(found, ConditionType.READY)
    status = found.status
    parts = [f"{found.identity.namespace}/{found.name}", f"engines={status.ready_engines}/{status.total_engines}"]
    parts += [f"adapters={status.adapters}", f"rolling-out={status.rolling_out}", f"routers={status.routers}"]
    parts += [f"ready={ready(found)}"]
    return "  ".join(parts) + (f"  {one.message}" if one and one.message else "")


def document(found: Adapter) -> dict[str, Any]:
    """An adapter for programs."""
    status = found.status
    body = status.to_json()
    version = found.watched
    rate = error_rate(found)
    made: dict[str, Any] = {
        "kind": "adapter",
        **_identity(found),
        "fleet": found.fleet,
        "stable": status.stable_version,
        "active": found.active,
        "target": found.target,
        "traffic": body.get("traffic", []),
        "rollout": body.get("rollout"),
        "engines": {
            "loaded": version.loaded_engines if version else None,
            "ready": version.ready_engines if version else None,
        },
        "errorRate": None if rate is None else round(rate, 6),
        **_readiness(found),
    }
    return made | ({"trouble": found.trouble} if found.trouble else {})


def full_document(found: Adapter) -> dict[str, Any]:
    """An adapter for programs, with all that ``status`` shows."""
    body = found.status.to_json()
    steps = [step.to_json() for step in found.steps]
    parts = ("versions", "aborted", "history", "conditions")
    action = {"lastHandledAction": body.get("lastHandledAction"), "actionMessage": body.get("actionMessage")}
    return document(found) | {"steps": steps} | {part: body.get(part, []) for part in parts} | action


def fleet_document(found: Fleet, full: bool = False) -> dict[str, Any]:
    """A fleet for programs."""
    body = found.status.to_json()
    made: dict[str, Any] = {
        "kind": "fleet",
        **_identity(found),
        "readyEngines": found.status.ready_engines,
        "totalEngines": found.status.total_engines,
        "adapters": found.status.adapters,
        "rollingOut": found.status.rolling_out,
        "routers": found.status.routers,
        "usedBytes": found.status.storage.used_bytes if found.status.storage else None,
        **_readiness(found),
    }
    if full:
        made |= {part: body.get(part, []) for part in ("engines", "conditions")}
        made |= {part: body.get(part) for part in ("memory", "storage")}
    return made | ({"trouble": found.trouble} if found.trouble else {})


def _identity(found: HasConditions) -> dict[str, Any]:
    identity = found.identity
    return {"name": identity.name, "namespace": identity.namespace, "created": identity.created}


def _readiness(found: HasConditions) -> dict[str, Any]:
    one = condition(found, ConditionType.READY)
    return {
        "ready": holds(found, ConditionType.READY),
        "stalled": holds(found, ConditionType.STALLED),
        "reason": one.reason if one else None,
        "message": one.message if one else None,
    }
