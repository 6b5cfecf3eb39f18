"""One fleet: its engines' summary and diagnoses, what adapters are checked against, ids, removals and repairs.

The watch of a fleet's pods lives as long as the fleet; everything else is a summary of memory, written when it changed.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic

from lorafleet.api.conditions import merge
from lorafleet.api.fleetstatus import FleetStorage, PendingRemoval, SpecialistFleetStatus
from lorafleet.api.model import seconds, timestamp
from lorafleet.api.names import served_name
from lorafleet.api.rolloutstatus import RolloutPhase
from lorafleet.controller import fleetstatus
from lorafleet.controller.fleetview import fleet_view, rank_limit
from lorafleet.controller.metrics import ADAPTERS, DAMAGED, ENGINES, ROLLOUTS, ROUTERS, STORAGE, WAITING, WEIGHT
from lorafleet.controller.objects import Fleet
from lorafleet.controller.pods import PodWatches
from lorafleet.controller.queue import Key
from lorafleet.controller.scrubs import Scrubs
from lorafleet.controller.sharing import may_come_back, on_claim
from lorafleet.controller.state import FleetState, Result, Scrubbed, SyncItem, Task
from lorafleet.controller.status import Writer
from lorafleet.controller.world import World
from lorafleet.rollout.observed import Failed, FleetView, Published
from lorafleet.rollout.versions import retry_delay
from lorafleet.rollout.wanted import ours

log = logging.getLogger(__name__)

UNSETTLED = 1.0
"""Seconds until the next look while engines have not been asked yet."""
PATIENCE = 5.0
"""Seconds between looks while a fleet waits for something that sends no event."""


GAUGES = (ENGINES, ADAPTERS, DAMAGED, WAITING, STORAGE, ROUTERS, ROLLOUTS, WEIGHT)


@dataclass
class _Taken:
    """What Jobs did that no status of an adapter takes: for the fleet itself, or for nobody any more.

    ``strays`` were published for nobody, ``highest`` is the highest id, ``items`` are what all of this is about.
    """

    highest: int
    removed: set[str] = field(default_factory=set)
    strays: set[str] = field(default_factory=set)
    repaired: set[str] = field(default_factory=set)
    scrubbed: Scrubbed | None = None
    items: set[SyncItem] = field(default_factory=set)


class FleetReconciler:
    """Reconciles one fleet a call."""

    def __init__(self, world: World, writer: Writer, pods: PodWatches, scrubs: Scrubs) -> None:
        self._world = world
        self._scrubs = scrubs
        self._writer = writer
        self._pods = pods
        self._tries: dict[str, tuple[int, float]] = {}
        self._views: dict[tuple[str, str], FleetView | None] = {}

    async def __call__(self, key: Key) -> float | None:
        """One reconcile; the answer is when something is due."""
        ref = (key.namespace, key.name)
        state = self._world.fleets.get(ref)
        fleet = state.fleet if state else None
        if state is None or fleet is None:
            self._pods.stop(ref)
            self._views.pop(ref, None)
            self._scrubs.forget(ref)
            for gauge in GAUGES:
                gauge.remove_by_labels({"namespace": ref[0], "fleet": ref[1]})
            return None
        if fleet.deleting_since is not None:
            return await self._delete(state, fleet)
        if not fleet.has_finalizer:
            await self._writer.hold(fleet)
        if fleet.spec is not None:
            self._pods.watch(state, fleet.spec.engines.selector.query, str(fleet.spec.engines.port))
        if fleet.spec is not None and not state.settled:
            return UNSETTLED if state.discovered else None
        await self._scrubs.keep(state)
        async with state.writing:
            fleet = state.fleet or fleet
            volume, before = state.sync.volume, fleet.status.storage
            status, taken = self._summary(state, fleet, datetime.now(UTC))
            if not await self._writer.fleet(fleet, status):
                return None
        if state.sync.volume is volume:
            state.sync.volume = None
        self._acknowledge(state, fleet, taken)
        waits = self._requests(state, fleet)
        for served in _damaged(before) ^ _damaged(fleet.status.storage):
            self._world.ask_served(state, served, 0.0)
            self._world.ask_engines(state, frozenset({served}))
        view = fleet_view(state)
        if view != self._views.get(ref, ...):
            self._views[ref] = view
            self._world.ask_adapters(state)
        return PATIENCE if waits else None

    async def _delete(self, state: FleetState, fleet: Fleet) -> float | None:
        """Waits until the fleet's deleted adapters are gone and no usable engine lists what is ours."""
        if not fleet.has_finalizer:
            return None
        if fleet.spec is not None:
            # A restarted operator has yet to find the engines that must unload.
            self._pods.watch(state, fleet.spec.engines.selector.query, str(fleet.spec.engines.port))
        limit = seconds(fleet.spec.deletion_deadline) if fleet.spec else 0.0
        assert fleet.deleting_since
        due = fleet.deleting_since + timedelta(seconds=limit)
        leaving = [adapter for adapter in state.adapters.values() if adapter.deleting_since]
        holding = [
            engine.name
            for engine in state.engines.values()
            if engine.usable and any(ours(*entry) for entry in (engine.listing or {}).items())
        ]
        if (leaving or holding or not state.settled) and datetime.now(UTC) < due and not state.sync.terminating:
            for name in holding:
                self._world.ask_engines(state, frozenset(state.engines[name].listing or ()))
            return 1.0
        await self._writer.release(fleet)
        self._pods.stop(state.ref)
        return None

    def _requests(self, state: FleetState, fleet: Fleet) -> bool:
        """Asks for what the fleet itself wants of sync Jobs; whether something is left to wait for.

        Versions that outlived their adapter are removed when no engine may read them; damaged ones are fetched again.
        """
        now = monotonic()
        sharing = on_claim(self._world.fleets.values(), state.ref)
        storage = fleet.status.storage
        damaged = [one.served_name for one in storage.damaged] if storage else []
        state.broken = {served: failure for served, failure in state.broken.items() if served in damaged}
        wanted = [
            SyncItem("", fleet.uid, served=removal.served_name)
            for removal in fleet.status.pending_removals
            if not any(one.loads(removal.served_name).readers for one in sharing)
            and not may_come_back(sharing, removal.served_name)
        ]
        wanted += [item for served in damaged if (item := _repair(state, fleet, served)) is not None]
        due = tuple(item for item in wanted if self._tries.get(item.served, (0, 0.0))[1] <= now)
        if due:
            state.sync.requests[""] = due
            self._world.ask_sync(state)
        else:
            state.sync.requests.pop("", None)
        return bool(fleet.status.pending_removals or damaged)

    def _take_results(self, state: FleetState, fleet: Fleet) -> _Taken:
        """What Jobs did for the fleet itself, or for nobody any more."""
        taken = _Taken(highest=fleet.status.highest_id)
        for job in state.sync.jobs.values():
            for item, result in (job.results or {}).items():
                mine = item.uid == fleet.uid
                if isinstance(result, Published) and not mine:
                    taken.highest = max(taken.highest, result.id)
                    if item in job.open and self._stray(state, item):
                        taken.strays.add(served_name(item.adapter, item.version, result.digest))
                if item not in job.open or not (mine or self._stray(state, item)):
                    continue
                taken.items.add(item)
                if mine:
                    self._take(state, item, result, taken)
        return taken

    def _take(self, state: FleetState, item: SyncItem, result: Result, taken: _Taken) -> None:
        """One result of what the fleet itself asked for."""
        if isinstance(result, Scrubbed):
            taken.scrubbed = result
        elif item.task is Task.SCRUB:
            pass
        elif isinstance(result, Failed):
            tries = self._tries.get(item.served, (0, 0.0))[0] + 1
            self._tries[item.served] = tries, monotonic() + retry_delay(tries)
            if item.task is Task.REPAIR:
                state.broken[item.served] = result
                self._world.ask_served(state, item.served, 0.0)
        else:
            self._tries.pop(item.served, None)
            (taken.repaired if item.task is Task.REPAIR else taken.removed).add(item.served)

    def _unknown(self, state: FleetState) -> set[str]:
        """Folders that the last Job found on the volume, that no status names and no adapter may come back with."""
        volume = state.sync.volume
        known = self._world.known_names() if volume and volume.strays else None
        if volume is None or known is None:
            return set()
        names = {served for served in volume.strays or () if served not in known and ours(served, f"/{served}")}
        others = [one for one in self._world.fleets.values() if one.ref[0] == state.ref[0]]
        return {served for served in names if not may_come_back(others, served)}

    def _acknowledge(self, state: FleetState, fleet: Fleet, taken: set[SyncItem]) -> None:
        """Results that are in a written status need not be kept."""
        for job in state.sync.jobs.values():
            job.open -= taken
        for item in [item for item in state.sync.refused if item.uid == fleet.uid]:
            tries = self._tries.get(item.served, (0, 0.0))[0] + 1
            self._tries[item.served] = tries, monotonic() + retry_delay(tries)
            del state.sync.refused[item]
        self._world.ask_sync(state)

    @staticmethod
    def _stray(state: FleetState, item: SyncItem) -> bool:
        """Whether an item is for an adapter or an entry that is gone meanwhile."""
        adapter = state.adapters.get(item.adapter)
        if adapter is None or adapter.uid != item.uid:
            return True
        entries = adapter.spec.versions if adapter.spec else ()
        known = any(entry.name == item.version and entry.fingerprint == item.entry for entry in entries)
        return bool(item.version) and not known

    def _summary(self, state: FleetState, fleet: Fleet, now: datetime) -> tuple[SpecialistFleetStatus, set[SyncItem]]:
        taken = self._take_results(state, fleet)
        strays = taken.strays | self._unknown(state)
        alive = {
            version.served_name
            for adapter in state.adapters.values()
            for version in adapter.status.versions
            if version.served_name and adapter.deleting_since is None
        }
        left = fleet.status.pending_removals
        kept = [removal for removal in left if removal.served_name not in taken.removed | alive]
        strays -= {removal.served_name for removal in kept} | taken.removed | alive
        kept += [PendingRemoval(served_name=served, since=timestamp(now)) for served in sorted(strays)]
        pending = tuple(kept)
        engines = sorted(state.engines.values(), key=lambda engine: engine.name)
        usable = state.usable_engines()
        ENGINES.labels(*state.ref, "usable").set(usable)
        ENGINES.labels(*state.ref, "unusable").set(len(engines) - usable)
        serving = sum(bool(adapter.status.traffic) for adapter in state.adapters.values())
        ADAPTERS.labels(*state.ref, "serving").set(serving)
        ADAPTERS.labels(*state.ref, "not serving").set(len(state.adapters) - serving)
        rolling = Counter(
            adapter.status.rollout.phase for adapter in state.adapters.values() if adapter.status.rollout is not None
        )
        for phase in RolloutPhase:
            ROLLOUTS.labels(*state.ref, phase.value.lower()).set(rolling[phase])
        now_text = timestamp(now)
        storage = fleetstatus.storage(
            fleet.status.storage, state.sync.volume, taken.scrubbed, taken.repaired, alive, now_text
        )
        self._measure(state, storage)
        ids = [version.id or 0 for adapter in state.adapters.values() for version in adapter.status.versions]
        status = SpecialistFleetStatus(
            observed_generation=fleet.generation,
            ready_engines=usable,
            total_engines=len(engines),
            adapters=len(state.adapters),
            engine_model=fleet.status.engine_model or fleetstatus.model_of(engines),
            max_lora_rank=rank_limit(state) if fleet.spec else None,
            highest_id=max([taken.highest, *ids]),
            routers=state.routers,
            rolling_out=rolling.total(),
            memory=fleetstatus.memory(state, state.sync.volume) if fleet.spec else fleet.status.memory,
            storage=storage,
            engines=tuple(fleetstatus.engine_status(state, engine) for engine in engines),
            pending_removals=pending,
            conditions=merge(
                fleet.status.conditions,
                fleetstatus.verdicts(state, fleet, engines, storage, self._scrubs.trouble(state.ref)),
                fleet.generation,
                now_text,
            ),
        )
        return status, taken.items

    @staticmethod
    def _measure(state: FleetState, storage: FleetStorage | None) -> None:
        DAMAGED.labels(*state.ref).set(len(_damaged(storage)))
        WAITING.labels(*state.ref).set(len(state.waiting))
        if storage is not None and storage.used_bytes is not None:
            STORAGE.labels(*state.ref, "used").set(storage.used_bytes)
        if storage is not None and storage.free_bytes is not None:
            STORAGE.labels(*state.ref, "free").set(storage.free_bytes)


def _damaged(storage: FleetStorage | None) -> frozenset[str]:
    return frozenset(one.served_name for one in storage.damaged) if storage else frozenset()


def _repair(state: FleetState, fleet: Fleet, served: str) -> SyncItem | None:
    """What to ask for to have a damaged version's files again; None when its entry is gone, or nothing may be done."""
    adapter = state.adapters.get(served.partition("/")[0])
    if adapter is None or adapter.spec is None or adapter.spec.suspend or adapter.deleting_since is not None:
        return None
    hashes = {entry.name: entry.fingerprint for entry in adapter.spec.versions}
    for version in adapter.status.versions:
        if version.served_name == served and version.entry_hash and hashes.get(version.name) == version.entry_hash:
            return SyncItem(
                adapter.name, fleet.uid, version=version.name, served=served, entry=version.entry_hash, repair=True
            )
    return None
