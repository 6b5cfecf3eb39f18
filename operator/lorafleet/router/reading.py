"""What Kubernetes objects say to a router, read from their raw JSON: pure functions, one object in, frozen data out.

Only the operator writes statuses, but a router must go on whatever it finds there: what cannot be read raises
Unreadable, and the caller keeps what it knew before.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from lorafleet.api.adapter import VersionPhase
from lorafleet.api.fleet import Engines
from lorafleet.engines.facts import EngineFacts, instance_text
from lorafleet.kube import Object
from lorafleet.router.table import EngineAddress, Route, Target

_HOLDABLE = re.compile(r"[^\t\n\r\0|=][^\t\n\r\0|]*")
"""Names that the routing table can hold; one that it cannot would keep all others from being written."""
_LOADED = frozenset({VersionPhase.LOADING.value, VersionPhase.LOADED.value})


class Unreadable(Exception):
    """An object is not what the operator writes; the message says which part."""


@dataclass(frozen=True)
class EngineView:
    """What the fleet's status says of one engine. ``instance`` is the start of the container that it is about."""

    instance: str
    complete: bool
    missing: frozenset[str]


@dataclass(frozen=True)
class FleetView:
    """What a router needs of its fleet: which pods are engines, where they listen, and what they lack."""

    selector: str
    port: int | str
    base_name: str
    engines: Mapping[str, EngineView] = field(default_factory=dict)


def fleet_of(adapter: Object) -> str:
    """The name of the adapter's fleet."""
    return str((adapter.get("spec") or {}).get("fleet") or "")


def read_route(adapter: Object) -> Route:
    """Where an adapter's requests go. A version may be asked for by name while engines have it and it is not leaving.

    A version that drains gets no new request, so that those that run can end before it is unloaded.
    Raises Unreadable.
    """
    name = adapter["metadata"]["name"]
    status = adapter.get("status") or {}
    try:
        shares = [
            (part["version"], Target(part["servedName"], int(part["weight"]))) for part in status.get("traffic", ())
        ]
        pinned = {
            version["name"]: version["servedName"]
            for version in status.get("versions", ())
            if version.get("servedName") and version["phase"] in _LOADED and (version.get("loadedEngines") or 0) > 0
        }
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"LoRAAdapter {name}: its status cannot be read: {type(error).__name__} {error}") from None
    shares = [(version, target) for version, target in shares if target.weight > 0]
    total = sum(target.weight for _, target in shares)
    if shares and total != 100:
        raise Unreadable(f"LoRAAdapter {name}: the weights in status.traffic sum up to {total}, not to 100")
    pinned.update((version, target.served) for version, target in shares)
    for text in (*pinned, *pinned.values()):
        if not _HOLDABLE.fullmatch(text):
            raise Unreadable(f"LoRAAdapter {name}: {text!r} in its status is no name of a version")
    return Route(name, tuple(target for _, target in shares), pinned)


def read_fleet(fleet: Object) -> FleetView:
    """What the fleet says. Raises Unreadable."""
    name = fleet["metadata"]["name"]
    status = fleet.get("status") or {}
    try:
        engines = Engines.model_validate(fleet["spec"]["engines"])
        base_name = str(fleet["spec"]["baseModel"]["name"])
        views = {
            one["name"]: EngineView(
                instance=one.get("instance") or "",
                complete=bool(one.get("ready")) and not one.get("catchingUp"),
                missing=frozenset(one.get("missing") or ()),
            )
            for one in status.get("engines", ())
        }
    except (KeyError, TypeError, ValidationError) as error:
        raise Unreadable(f"SpecialistFleet {name} cannot be read: {type(error).__name__}") from None
    return FleetView(engines.selector.query, engines.port, base_name, views)


def engine_address(facts: EngineFacts, fleet: FleetView) -> EngineAddress | None:
    """A Ready engine's address, or None. It gets adapters' requests only if the status is about this start of it."""
    if not facts.ready or facts.terminating or facts.pod_ip is None or facts.port is None:
        return None
    view = fleet.engines.get(facts.name)
    known = view is not None and view.complete and view.instance == instance_text(facts)
    return EngineAddress(
        facts.name, facts.pod_ip, facts.port, known, view.missing if view is not None and known else frozenset()
    )


def base_names(engines: Iterable[EngineFacts], fleet: FleetView) -> tuple[str, ...]:
    """What engines call the base model, from their own command lines, else the fleet's name for it."""
    found: dict[str, None] = {}
    for facts in sorted(engines, key=lambda one: one.name):
        names = facts.served_model_names or ((facts.model,) if facts.model else ())
        found.update(dict.fromkeys(names))
    return tuple(one for one in found if _HOLDABLE.fullmatch(one)) or (fleet.base_name,)
