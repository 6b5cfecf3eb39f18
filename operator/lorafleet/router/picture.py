"""The picture that a router has of its fleet, in memory: changed by one object at a time, read as a RoutingTable.

A change parses the changed object alone, and what no router cares about (conditions, statistics) changes nothing.
What cannot be read leaves the picture as it was. No I/O.
"""

import logging
from collections.abc import Callable, Set

from lorafleet.engines.facts import EngineFacts, engine_facts
from lorafleet.kube import Object
from lorafleet.router.reading import (
    FleetView,
    Unreadable,
    base_names,
    engine_address,
    fleet_of,
    read_fleet,
    read_route,
)
from lorafleet.router.table import EngineAddress, Route, RoutingTable

log = logging.getLogger(__name__)

_GONE = ("Succeeded", "Failed")


class Picture:
    """One fleet; ``changed`` is called after each change that matters to routing."""

    def __init__(self, fleet: str, changed: Callable[[], None]) -> None:
        self.fleet: FleetView | None = None
        self.fleet_gone = False
        """Whether the fleet was known and is deleted: routing goes on until its pods are gone."""
        self.version = 0
        """The newest resource version of an adapter that the picture knows of, also of a deletion."""
        self._name = fleet
        self._changed = changed
        self._routes: dict[str, Route] = {}
        self._pods: dict[str, EngineFacts] = {}
        self._engines: dict[str, EngineAddress] = {}
        self._base_names: tuple[str, ...] = ()
        self._listed: set[str] = set()

    @property
    def waits_for(self) -> tuple[str, ...]:
        """What was never read in full; nothing may be routed by a picture with holes."""
        return tuple(what for what in ("fleet", "adapters", "pods") if what not in self._listed)

    def table(self) -> RoutingTable:
        """The picture as it is now; later changes do not reach it."""
        return RoutingTable(dict(self._routes), dict(self._engines), self._base_names)

    def put_adapter(self, adapter: Object) -> None:
        """An adapter as it is now."""
        name = adapter["metadata"]["name"]
        self._note(adapter["metadata"].get("resourceVersion"))
        if fleet_of(adapter) != self._name:
            self._drop_route(name)
            return
        try:
            route = read_route(adapter)
        except Unreadable as error:
            log.error("an adapter is routed as before", extra={"adapter": name, "error": str(error)})
            return
        if adapter["metadata"].get("deletionTimestamp") and not route.targets:
            # Not "try again soon", which is for what has yet to be loaded.
            self._drop_route(name)
            return
        former = self._routes.get(name)
        if route == former:
            return
        self._routes[name] = route
        if "adapters" in self._listed and (former is None or former.targets != route.targets):
            weights = {target.served: target.weight for target in route.targets}
            log.info("traffic changes", extra={"adapter": name, "weights": weights})
        self._changed()

    def drop_adapter(self, adapter: Object) -> None:
        """An adapter that is gone."""
        self._note(adapter["metadata"].get("resourceVersion"))
        self._drop_route(adapter["metadata"]["name"])

    def listed_adapters(self, names: Set[str], version: str) -> None:
        """All adapters were read at a resource version; what is not among them is gone."""
        self._note(version)
        for name in self._routes.keys() - names:
            self._drop_route(name)
        self._complete("adapters")

    def _note(self, version: str | None) -> None:
        # Numbers that grow, in every API server there is.
        if version and version.isdigit():
            self.version = max(self.version, int(version))

    def _drop_route(self, name: str) -> None:
        if self._routes.pop(name, None) is not None:
            self._changed()

    def put_fleet(self, fleet: Object) -> None:
        """The fleet as it is now."""
        try:
            view = read_fleet(fleet)
        except Unreadable as error:
            log.error("the fleet is taken as before", extra={"fleet": self._name, "error": str(error)})
            return
        self.fleet_gone = False
        if view != self.fleet:
            self.fleet = view
            self._look_at_engines()
        self._complete("fleet")

    def drop_fleet(self) -> None:
        """The fleet is gone."""
        if self.fleet is not None and not self.fleet_gone:
            log.warning(
                "the fleet is deleted; its engines get requests while their pods last", extra={"fleet": self._name}
            )
            self.fleet_gone = True

    def put_pod(self, pod: Object) -> None:
        """An engine's pod as it is now."""
        name = pod["metadata"]["name"]
        if (pod.get("status") or {}).get("phase") in _GONE or self.fleet is None:
            self.drop_pod(name)
            return
        facts = engine_facts(pod, self.fleet.port)
        if facts != self._pods.get(name):
            self._pods[name] = facts
            self._look_at_engines()

    def drop_pod(self, name: str) -> None:
        """A pod that is gone."""
        if self._pods.pop(name, None) is not None:
            self._look_at_engines()

    def listed_pods(self, names: Set[str], _: str) -> None:
        """All pods were read; what is not among them is gone."""
        for name in self._pods.keys() - names:
            self.drop_pod(name)
        self._complete("pods")

    def _look_at_engines(self) -> None:
        """Makes the engines anew; there are few of them, and the facts of each pod are read already."""
        fleet = self.fleet
        if fleet is None:
            return
        found = {name: engine_address(facts, fleet) for name, facts in self._pods.items()}
        engines = {name: address for name, address in found.items() if address is not None}
        # While no engine is there, its last names still are the base model's: "no engine" is not "no such model".
        names = base_names(self._pods.values(), fleet) if self._pods or not self._base_names else self._base_names
        if (engines, names) != (self._engines, self._base_names):
            self._engines, self._base_names = engines, names
            self._changed()

    def _complete(self, what: str) -> None:
        if what not in self._listed:
            self._listed.add(what)
            self._changed()
