"""The operator's memory, fed by watches, and who must look again when a part of it changes.

Every change of an object, a pod or an engine ends in keys on the queue; nothing is decided here. Writes of our own come
back through the same methods, so that memory and cluster agree without waiting for the watch.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.api.fleetstatus import SpecialistFleetStatus
from lorafleet.api.names import served_name
from lorafleet.api.rollout import Probe
from lorafleet.controller.fleetview import cpu_places
from lorafleet.controller.objects import Adapter, Fleet, Ref, parse_adapter, parse_fleet
from lorafleet.controller.probing import Probing
from lorafleet.controller.queue import Key
from lorafleet.controller.state import Engine, FleetState
from lorafleet.engines.facts import EngineFacts, engine_facts
from lorafleet.rollout.observed import Published

SOON = 0.5
"""Seconds within which changes of numbers, which nobody waits for, collapse into one status write."""
PROMPTLY = 0.05
PROMPT_WRITES = 5.0
"""How many prompt writes of a fleet's status may follow each other; one more every second."""


class Asks(Protocol):
    """Where keys go."""

    def __call__(self, key: Key, after: float = 0.0, *, first: bool = False) -> None: ...


class World:
    """All fleets by namespace and name."""

    def __init__(self, ask: Asks, forget: Callable[[Key], None]) -> None:
        self.fleets: dict[Ref, FleetState] = {}
        self._ask = ask
        self._forget = forget
        self._fleet_of: dict[Ref, str] = {}

    # Keys.

    @staticmethod
    def adapter_key(ref: Ref) -> Key:
        """The key of an adapter."""
        return Key("adapter", *ref)

    @staticmethod
    def fleet_key(ref: Ref) -> Key:
        """The key of a fleet."""
        return Key("fleet", *ref)

    @staticmethod
    def sync_key(ref: Ref) -> Key:
        """The key of a fleet's sync Jobs."""
        return Key("sync", *ref)

    @staticmethod
    def engine_key(ref: Ref, pod: str) -> Key:
        """The key of one engine of a fleet."""
        return Key("engine", ref[0], f"{ref[1]}/{pod}")

    # Finding.

    def state(self, ref: Ref) -> FleetState:
        """What is known of a fleet; made when it is first named."""
        return self.fleets.setdefault(ref, FleetState(ref))

    def adapter(self, ref: Ref) -> tuple[FleetState, Adapter] | None:
        """An adapter and its fleet."""
        fleet = self._fleet_of.get(ref)
        if fleet is None:
            return None
        state = self.state((ref[0], fleet))
        return state, state.adapters[ref[1]]

    def engine(self, key: Key) -> tuple[FleetState, Engine] | None:
        """An engine and its fleet, by the engine's key."""
        fleet, _, pod = key.name.partition("/")
        state = self.fleets.get((key.namespace, fleet))
        engine = state.engines.get(pod) if state else None
        return (state, engine) if state and engine else None

    def known_names(self, namespace: str | None = None) -> frozenset[str] | None:
        """All served names that a status, or a Job's result, in a namespace or anywhere names.

        None when a status may name some that we cannot read: then nobody can say what is unknown.
        """
        states = [state for state in self.fleets.values() if namespace in (None, state.ref[0])]
        found: set[str] = set()
        for state in states:
            if any(adapter.spec is None for adapter in state.adapters.values()):
                return None
            for adapter in state.adapters.values():
                found.update(version.served_name for version in adapter.status.versions if version.served_name)
            if state.fleet is not None:
                found.update(removal.served_name for removal in state.fleet.status.pending_removals)
            for job in state.sync.jobs.values():
                for item, result in (job.results or {}).items():
                    if isinstance(result, Published):
                        found.add(served_name(item.adapter, item.version, result.digest))
        return frozenset(found)

    # Asking.

    def ask_adapters(self, state: FleetState, after: float = 0.0) -> None:
        """All adapters of a fleet look again."""
        for name in state.adapters:
            self._ask(self.adapter_key((state.ref[0], name)), after)

    def ask_waiting(self, state: FleetState) -> None:
        """The oldest adapters that wait for a place on the engines look again, as many as may get one."""
        if not state.waiting or state.fleet is None or state.fleet.spec is None:
            return
        limit = cpu_places(state)
        free = len(state.waiting) if limit is None else limit - len(state.load) - len(state.keep)
        names = set(state.waiting.values()) & state.adapters.keys()
        for name in sorted(names, key=lambda name: (state.adapters[name].created, name))[: max(free, 0)]:
            self._ask(self.adapter_key((state.ref[0], name)), SOON)

    def ask_engines(self, state: FleetState, names: frozenset[str]) -> None:
        """All engines of a fleet look at these served names again."""
        if not names:
            return
        for engine in state.engines.values():
            engine.dirty.update(dict.fromkeys(names))
            self._ask(self.engine_key(state.ref, engine.name))

    def ask_engine(self, state: FleetState, pod: str) -> None:
        """One engine looks again."""
        self._ask(self.engine_key(state.ref, pod))

    def ask_fleet(self, state: FleetState, after: float = SOON) -> None:
        """The fleet's summary is due."""
        self._ask(self.fleet_key(state.ref), after)

    def ask_routing(self, state: FleetState) -> None:
        """What routers route by has changed in the fleet's summary: promptly, unless it changes again and again."""
        left, at = state.prompt
        now = monotonic()
        left = min(left + now - at, PROMPT_WRITES)
        if left >= 1.0:
            left -= 1.0
            self.ask_fleet(state, PROMPTLY)
        else:
            self.ask_fleet(state)
        state.prompt = (left, now)

    def want_probe(self, state: FleetState, served: str, probe: Probe) -> None:
        """Engines are to be asked by a served name, if they have not been by this very probe."""
        known = state.probes.get(served)
        if known is not None and known.probe == probe:
            return
        state.probes[served] = Probing(probe)
        for pod in state.engines:
            self.ask_probe(state, pod)

    def ask_probe(self, state: FleetState, pod: str) -> None:
        """One engine may have a question to answer."""
        self._ask(Key("probe", state.ref[0], f"{state.ref[1]}/{pod}"))

    def ask_sync(self, state: FleetState, after: float = 0.0) -> None:
        """The fleet's sync Jobs look again."""
        self._ask(self.sync_key(state.ref), after)

    def ask_named(self, state: FleetState, name: str, after: float = 0.0) -> None:
        """One adapter looks again."""
        if name in state.adapters:
            self._ask(self.adapter_key((state.ref[0], name)), after)

    def ask_served(self, state: FleetState, served: str, after: float) -> None:
        """The adapter of a served name looks again."""
        self.ask_named(state, served.partition("/")[0], after)

    # What watches report.

    def put_adapter(self, raw: dict[str, Any]) -> None:
        """An adapter as the API server shows it."""
        adapter = parse_adapter(raw)
        known = self.adapter(adapter.ref)
        if not adapter.after(known[1] if known else None):
            return
        if known is not None and known[1].uid != adapter.uid:
            self.drop_adapter(adapter.ref, known[1].uid)
        fleet = adapter.spec.fleet if adapter.spec else str((raw.get("spec") or {}).get("fleet", ""))
        state = self.state((adapter.namespace, fleet))
        state.adapters[adapter.name] = adapter
        self._fleet_of[adapter.ref] = fleet
        self._contribute(state, adapter.name, adapter)
        # Whoever changes a spec, or gives a verb, does not wait for thousands that only look again.
        meant = known is not None and (known[1].generation, known[1].action) != (adapter.generation, adapter.action)
        self._ask(self.adapter_key(adapter.ref), first=meant)
        if known is None:
            self.ask_fleet(state)

    def drop_adapter(self, ref: Ref, uid: str) -> None:
        """An adapter is gone."""
        found = self.adapter(ref)
        if found is None or found[1].uid != uid:
            return
        state = found[0]
        del state.adapters[ref[1]]
        del self._fleet_of[ref]
        self._contribute(state, ref[1], None)
        for known in (state.sync.requests, state.asks, state.told, state.queries):
            known.pop(ref[1], None)
        self._forget(self.adapter_key(ref))
        self.ask_fleet(state)
        self.ask_sync(state)
        self._prune(state)

    def _contribute(self, state: FleetState, name: str, adapter: Adapter | None) -> None:
        waiting = len(state.waiting)
        changed = state.contribute(name, adapter)
        self.ask_engines(state, changed)
        if len(state.waiting) > waiting:
            for other in set(state.kept.values()):
                self.ask_named(state, other)
        if changed:
            self.ask_waiting(state)

    def put_fleet(self, raw: dict[str, Any]) -> None:
        """A fleet as the API server shows it."""
        fleet = parse_fleet(raw)
        state = self.state(fleet.ref)
        before = state.fleet
        if not fleet.after(before):
            return
        state.fleet = fleet
        same = ("uid", "generation", "deleting_since")
        if before is None or any(getattr(before, name) != getattr(fleet, name) for name in same):
            self._fleet_changed(state)
        else:
            self.ask_fleet(state)

    def drop_fleet(self, ref: Ref, uid: str) -> None:
        """A fleet is gone."""
        state = self.fleets.get(ref)
        if state is None or state.fleet is None or state.fleet.uid != uid:
            return
        state.fleet = None
        state.sync.terminating = False
        self._fleet_changed(state)
        self._prune(state)

    def _fleet_changed(self, state: FleetState) -> None:
        changed: frozenset[str] = frozenset()
        for name, adapter in state.adapters.items():
            changed |= state.contribute(name, adapter)
        self.ask_engines(state, changed)
        for pod in state.engines:
            self._ask(self.engine_key(state.ref, pod))
        self.ask_adapters(state)
        self.ask_fleet(state, 0.0)
        self.ask_sync(state)

    def _prune(self, state: FleetState) -> None:
        if state.fleet is None and not state.adapters and not state.sync.jobs:
            self.fleets.pop(state.ref, None)

    def put_pod(self, state: FleetState, pod: dict[str, Any]) -> None:
        """A pod that the fleet's selector matches."""
        if state.fleet is None or state.fleet.spec is None:
            return
        facts = engine_facts(pod, state.fleet.spec.engines.port)
        engine = state.engines.get(facts.name)
        usable = engine.usable if engine else False
        if engine is None:
            engine = state.engines[facts.name] = Engine(facts)
        elif engine.facts == facts:
            return
        elif engine.facts.instance != facts.instance:
            engine.restarted(facts)
        engine.facts = facts
        key = self.engine_key(state.ref, facts.name)
        self._forget(key)
        self._ask(key)
        if usable != engine.usable:
            self.ask_adapters(state, SOON)
        self.ask_routing(state)

    def drop_pod(self, state: FleetState, name: str, uid: str) -> None:
        """A pod is gone, or no longer matches."""
        engine = state.engines.get(name)
        if engine is None or engine.facts.uid != uid:
            return
        del state.engines[name]
        key = self.engine_key(state.ref, name)
        self._forget(key)
        self._ask(key)
        self.ask_adapters(state, SOON)
        self.ask_routing(state)

    def claims(self, facts: EngineFacts) -> list[Fleet]:
        """The fleets whose selector matches a pod, the oldest first."""
        found = [
            state.fleet
            for state in self.fleets.values()
            if state.fleet and state.ref[0] == facts.namespace and facts.name in state.engines
        ]
        return sorted(found, key=lambda fleet: (fleet.created, fleet.name))

    # What we wrote.

    def wrote_adapter(self, adapter: Adapter, status: LoRAAdapterStatus, written: dict[str, Any], version: int) -> None:
        """Our status of an adapter is on the API server."""
        adapter.status, adapter.written, adapter.version = status, written, version
        found = self.adapter(adapter.ref)
        if found is None or found[1].uid != adapter.uid:
            return
        state, current = found
        if current.version <= version:
            # The watch may have brought a newer spec while we wrote.
            current.status, current.written, current.version = status, written, version
            self._contribute(state, current.name, current)

    def wrote_fleet(self, fleet: Fleet, status: SpecialistFleetStatus, written: dict[str, Any], version: int) -> None:
        """Our status of a fleet is on the API server."""
        fleet.status, fleet.written, fleet.version = status, written, version
        current = self.state(fleet.ref).fleet
        if current is not None and current.uid == fleet.uid and current.version <= version:
            current.status, current.written, current.version = status, written, version
