"""One fleet: its engines' summary and diagnoses, what adapters are checked against, ids, and removals left behind.

The watch of a fleet's pods lives as long as the fleet; everything else is a summary of memory, written when it changed.
"""

import logging
from datetime import UTC, datetime, timedelta
from time import monotonic

from lorafleet.api.conditions import ConditionType, Verdict, merge
from lorafleet.api.fleet import EngineStatus, PendingRemoval, SpecialistFleetStatus
from lorafleet.api.model import seconds, timestamp
from lorafleet.api.names import served_name
from lorafleet.api.reasons import Reason
from lorafleet.controller.fleetview import fleet_view, rank_limit
from lorafleet.controller.metrics import ADAPTERS, ENGINES
from lorafleet.controller.objects import Fleet
from lorafleet.controller.pods import PodWatches
from lorafleet.controller.queue import Key
from lorafleet.controller.state import Engine, FleetState, SyncItem
from lorafleet.controller.status import Writer
from lorafleet.controller.world import World
from lorafleet.rollout.observed import Failed, FleetView, Published
from lorafleet.rollout.versions import entry_hash, retry_delay
from lorafleet.rollout.wanted import ours

log = logging.getLogger(__name__)

UNSETTLED = 1.0
"""Seconds until the next look while engines have not been asked yet."""
PATIENCE = 5.0
"""Seconds between looks while a fleet waits for something that sends no event."""


class FleetReconciler:
    """Reconciles one fleet a call."""

    def __init__(self, world: World, writer: Writer, pods: PodWatches) -> None:
        self._world = world
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
            for gauge in (ENGINES, ADAPTERS):
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
        async with state.writing:
            fleet = state.fleet or fleet
            status, taken = self._summary(state, fleet, datetime.now(UTC))
            if not await self._writer.fleet(fleet, status):
                return None
        self._acknowledge(state, fleet, taken)
        removals = self._removals(state, fleet)
        view = fleet_view(state)
        if view != self._views.get(ref, ...):
            self._views[ref] = view
            self._world.ask_adapters(state)
        return PATIENCE if removals else None

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

    def _removals(self, state: FleetState, fleet: Fleet) -> bool:
        """Asks for the removal of versions that outlived their adapter, when no engine may read them."""
        now = monotonic()
        due = tuple(
            SyncItem("", fleet.uid, served=removal.served_name)
            for removal in fleet.status.pending_removals
            if not state.loads(removal.served_name).readers
            and not _may_come_back(state, removal.served_name)
            and self._tries.get(removal.served_name, (0, 0.0))[1] <= now
        )
        if due:
            state.sync.requests[""] = due
            self._world.ask_sync(state)
        else:
            state.sync.requests.pop("", None)
        return bool(fleet.status.pending_removals)

    def _take_results(self, state: FleetState, fleet: Fleet) -> tuple[set[str], set[str], int, set[SyncItem]]:
        """Removed names of the fleet's own requests, names published for nobody, the highest id, and what was taken."""
        taken: set[SyncItem] = set()
        removed: set[str] = set()
        strays: set[str] = set()
        highest = fleet.status.highest_id
        for job in state.sync.jobs.values():
            for item, result in (job.results or {}).items():
                if isinstance(result, Published):
                    highest = max(highest, result.id)
                    if item in job.open and self._stray(state, item):
                        strays.add(served_name(item.adapter, item.version, result.digest))
                if item not in job.open:
                    continue
                if item.uid == fleet.uid or self._stray(state, item):
                    taken.add(item)
                if item.uid == fleet.uid and isinstance(result, Failed):
                    tries = self._tries.get(item.served, (0, 0.0))[0] + 1
                    self._tries[item.served] = tries, monotonic() + retry_delay(tries)
                elif item.uid == fleet.uid:
                    self._tries.pop(item.served, None)
                    removed.add(item.served)
        return removed, strays, highest, taken

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
        known = any(entry.name == item.version and entry_hash(entry) == item.entry for entry in entries)
        return bool(item.version) and not known

    def _summary(self, state: FleetState, fleet: Fleet, now: datetime) -> tuple[SpecialistFleetStatus, set[SyncItem]]:
        removed, strays, highest, taken = self._take_results(state, fleet)
        alive = {
            version.served_name
            for adapter in state.adapters.values()
            for version in adapter.status.versions
            if version.served_name and adapter.deleting_since is None
        }
        left = fleet.status.pending_removals
        kept = [removal for removal in left if removal.served_name not in removed | alive]
        strays -= {removal.served_name for removal in kept} | removed | alive
        kept += [PendingRemoval(served_name=served, since=timestamp(now)) for served in sorted(strays)]
        pending = tuple(kept)
        engines = sorted(state.engines.values(), key=lambda engine: engine.name)
        usable = state.usable_engines()
        ENGINES.labels(*state.ref, "usable").set(usable)
        ENGINES.labels(*state.ref, "unusable").set(len(engines) - usable)
        serving = sum(bool(adapter.status.traffic) for adapter in state.adapters.values())
        ADAPTERS.labels(*state.ref, "serving").set(serving)
        ADAPTERS.labels(*state.ref, "not serving").set(len(state.adapters) - serving)
        ids = [version.id or 0 for adapter in state.adapters.values() for version in adapter.status.versions]
        status = SpecialistFleetStatus(
            observed_generation=fleet.generation,
            ready_engines=usable,
            total_engines=len(engines),
            adapters=len(state.adapters),
            engine_model=fleet.status.engine_model or _model(engines),
            max_lora_rank=rank_limit(state) if fleet.spec else None,
            highest_id=max([highest, *ids]),
            engines=tuple(_engine_status(state, engine) for engine in engines),
            pending_removals=pending,
            conditions=merge(
                fleet.status.conditions, _verdicts(state, fleet, engines), fleet.generation, timestamp(now)
            ),
        )
        return status, taken


def _may_come_back(state: FleetState, served: str) -> bool:
    """Whether an adapter has, or is about to get, a version of this name: its publishing may find these very bytes."""
    name, _, folder = served.partition("/")
    adapter = state.adapters.get(name)
    if adapter is not None and adapter.deleting_since is not None:
        return False
    entries = adapter.spec.versions if adapter and adapter.spec else ()
    known = {version.name: version for version in adapter.status.versions} if adapter else {}
    if any(version.served_name == served for version in known.values()):
        return True
    version = folder.rpartition("-")[0]
    return any(entry.name == version for entry in entries) and (version not in known or known[version].digest is None)


def _model(engines: list[Engine]) -> str | None:
    """The ``--model`` of the first usable engine: what published configs are rewritten to, once and for all."""
    for engine in engines:
        if engine.usable and engine.bases:
            return engine.bases[0][1]
    return None


def _engine_status(state: FleetState, engine: Engine) -> EngineStatus:
    listing = engine.listing or {}
    first = next(iter(sorted(engine.diagnoses, key=lambda diagnosis: not diagnosis.blocking)), None)
    return EngineStatus(
        name=engine.name,
        ready=engine.usable,
        loaded=sum(served in state.load for served in listing),
        wanted=len(state.load),
        version=engine.version,
        model=engine.bases[0][1] if engine.bases else engine.facts.model,
        reason=first.reason.value if first else None,
        message=first.message if first else None,
    )


def _verdicts(state: FleetState, fleet: Fleet, engines: list[Engine]) -> list[Verdict]:
    usable = [engine for engine in engines if engine.usable]
    ill = [(engine, diagnosis) for engine in engines for diagnosis in engine.diagnoses if diagnosis.blocking]
    warnings = [diagnosis for engine in usable for diagnosis in engine.diagnoses]
    count = f"{len(usable)} of {len(engines)} engines are usable"
    ready, stalled = False, False
    if fleet.spec is None:
        stalled, reason, text = True, Reason.INVALID_SPEC, f"{fleet.spec_error}; correct the spec"
    elif fleet.spec.suspend:
        reason, text = Reason.SUSPENDED, "the fleet is suspended; set spec.suspend to false to resume"
    elif not engines:
        reason, text = Reason.NO_ENGINES, state.trouble()
    elif ill:
        reasons = {diagnosis.reason for _, diagnosis in ill}
        passing = {Reason.UNREACHABLE, Reason.HUNG}
        reason = reasons.pop() if len(reasons) == 1 else Reason.ENGINES_UNHEALTHY
        text = "; ".join([count, *dict.fromkeys(diagnosis.message for _, diagnosis in ill[:5])])
        stalled = not all(diagnosis.reason in passing for _, diagnosis in ill)
    elif len(usable) < len(engines):
        reason, text = Reason.WAITING_FOR_ENGINES, f"{count}; {state.trouble() or 'the others are not ready'}"
        ready = bool(usable)
    else:
        ready = True
        reason = warnings[0].reason if warnings else Reason.ENGINES_HEALTHY
        text = "; ".join([count, *dict.fromkeys(diagnosis.message for diagnosis in warnings[:5])])
    moving = not ready and not stalled
    ignored = fleet.spec.not_acted_on() if fleet.spec else ()
    said = f"this release accepts {', '.join(ignored)} and does not act on it yet: room on engines is not checked"
    return [
        *(
            [Verdict(type=ConditionType.FIELDS_IGNORED, status=True, reason=Reason.FIELD_NOT_ACTED_ON, message=said)]
            if ignored
            else []
        ),
        Verdict(type=ConditionType.READY, status=ready, reason=reason, message=text),
        _flag(ConditionType.RECONCILING, moving, reason, text),
        _flag(ConditionType.STALLED, stalled, reason, text),
        Verdict(
            type=ConditionType.AVAILABLE,
            status=bool(usable),
            reason=Reason.ENGINES_HEALTHY if usable else Reason.NO_ENGINES,
            message=count,
        ),
    ]


def _flag(kind: ConditionType, holds: bool, reason: Reason, message: str) -> Verdict:
    return Verdict(
        type=kind, status=holds, reason=reason if holds else Reason.SETTLED, message=message if holds else ""
    )
