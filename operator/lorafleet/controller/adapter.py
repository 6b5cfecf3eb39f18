"""One adapter: gather what is known, decide, write the status, then hand the work to sync Jobs and engines.

All deciding is in ``rollout``; this module only reads memory and writes what was decided. The status is written before
anything acts on it, so that whoever takes over after a crash goes on from there.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lorafleet.api.fleetstatus import PendingRemoval
from lorafleet.api.model import timestamp
from lorafleet.api.names import ADAPTER_KIND
from lorafleet.api.reasons import Reason
from lorafleet.controller.fleetview import expectations, fleet_view, room
from lorafleet.controller.lost import listed
from lorafleet.controller.objects import Adapter
from lorafleet.controller.prometheus import Prometheus
from lorafleet.controller.queue import Key
from lorafleet.controller.state import FleetState, Result, SyncItem, Task
from lorafleet.controller.statistics import Statistics, told
from lorafleet.controller.status import Writer
from lorafleet.controller.turns import turn, waiting
from lorafleet.controller.world import World
from lorafleet.rollout.decide import decide
from lorafleet.rollout.observed import Failed, Observed, Plan, Published, Syncing

log = logging.getLogger(__name__)

UNSETTLED = 1.0
"""Seconds until the next look while engines have not been asked yet: nothing is decided on half the picture."""
ELSEWHERE = Failed(Reason.SYNC_FAILED, "the sync Job worked on a claim that is not the fleet's any more", retry=True)


def observe(state: FleetState, adapter: Adapter, now: datetime) -> tuple[Observed, set[SyncItem]]:
    """What a decision about an adapter is made from, and which results of sync Jobs are in it."""
    published: dict[str, Published | Failed] = {}
    removed: dict[str, Failed | None] = {}
    syncing: dict[str, Syncing] = {}
    used: set[SyncItem] = set()
    hashes = {entry.name: entry.fingerprint for entry in adapter.spec.versions} if adapter.spec else {}
    for item, result in _results(state, adapter):
        if item.version and hashes.get(item.version) != item.entry:
            continue  # Published for an entry that is gone: the fleet sees to its bytes.
        used.add(item)
        if isinstance(result, Failed):
            result = replace(result, expectations=item.expectations)
        if item.task is Task.PUBLISH and isinstance(result, Published | Failed):
            published[item.version] = result
        elif item.task is Task.REMOVE and (result is None or isinstance(result, Failed)):
            removed[item.served] = result
    if adapter.deleting_since is None and (adapter.spec is None or adapter.spec.suspend or state.suspended):
        # Nothing is decided, so the results must wait.
        used.clear()
    for job in state.sync.running():
        for item in job.items:
            if item.task is Task.PUBLISH and item.uid == adapter.uid:
                syncing[item.version] = Syncing(job.note, *job.progress.get(item, (None, None)))
    served = {version.served_name for version in adapter.status.versions if version.served_name}
    fleet = fleet_view(state)
    observed = Observed(
        name=adapter.name,
        namespace=adapter.namespace,
        generation=adapter.generation,
        now=now,
        spec=adapter.spec,
        spec_error=adapter.spec_error,
        status=adapter.status,
        action=adapter.action,
        deleting_since=adapter.deleting_since,
        namespace_terminating=state.sync.terminating,
        fleet=fleet,
        loads={name: state.loads(name) for name in served},
        published=published,
        syncing=syncing,
        removed=removed,
        room=room(state, adapter),
        probes=state.probed(served, adapter.spec.probe) if adapter.spec else {},
        statistics=state.tally.records(served) if state.tally.seen else {},
        routers=state.routers,
        queries=state.queries.get(adapter.name, {}),
        turn=turn(state, adapter) if _begins(adapter) else "",
        listed=listed(state, adapter),
        noted=adapter.noted,
        damage=damage(state, served),
    )
    return observed, used


def _begins(adapter: Adapter) -> bool:
    """Whether a rollout may be about to begin: nothing else takes a turn."""
    rollout, spec = adapter.status.rollout, adapter.spec
    if spec is None or (rollout is not None and rollout.steps_hash and rollout.version == spec.active):
        return False
    return spec.active != adapter.status.stable_version


def damage(state: FleetState, served: set[str]) -> dict[str, str]:
    """What is known of those served names whose files on the volume are not what was published."""
    storage = state.fleet.status.storage if state.fleet else None
    found = {}
    for one in storage.damaged if storage else ():
        if one.served_name in served:
            failure = state.broken.get(one.served_name)
            then = f"fetching them again failed: {failure.message}" if failure else "they are being fetched again"
            found[one.served_name] = (
                f"files of {one.served_name} on the volume are not what was published (found {one.since}); {then}."
                " Engines that have it loaded are not touched by it; look at the volume"
            )
    return found


def _results(state: FleetState, adapter: Adapter) -> list[tuple[SyncItem, Result]]:
    """The results for an adapter that no status contains yet."""
    claim = state.fleet.spec.storage.claim_name if state.fleet and state.fleet.spec else ""
    found: list[tuple[SyncItem, Result]] = [
        (item, job.results[item] if job.claim == claim else ELSEWHERE)
        for job in state.sync.jobs.values()
        if job.results is not None
        for item in job.open
        if item.uid == adapter.uid
    ]
    found += [(item, failure) for item, failure in state.sync.refused.items() if item.uid == adapter.uid]
    return found


class AdapterReconciler:
    """Reconciles one adapter a call."""

    def __init__(self, world: World, writer: Writer, statistics: Statistics, prometheus: Prometheus) -> None:
        self._world = world
        self._writer = writer
        self._statistics = statistics
        self._prometheus = prometheus

    async def __call__(self, key: Key) -> float | None:
        """One reconcile; the answer is when something is due."""
        found = self._world.adapter((key.namespace, key.name))
        if found is None:
            return None
        state, adapter = found
        if adapter.deleting_since is not None and not adapter.has_finalizer:
            return None
        if adapter.deleting_since is None and not adapter.has_finalizer:
            await self._writer.hold(adapter)
        now = datetime.now(UTC)
        if state.fleet and adapter.deleting_since is None:
            if state.fleet.spec is None:
                # Nothing is decided by a spec that cannot be read: what serves goes on, and the fleet says why.
                return None
            if not state.suspended and not state.settled:
                return UNSETTLED
        observed, used = observe(state, adapter, now)
        plan = decide(observed)
        # Before anyone else decides: a place, or a turn, is given once.
        state.places.update(plan.places)
        if plan.begins:
            state.turns.add(adapter.name)
        rolled = adapter.status.rollout is not None
        try:
            if not await self._writer.adapter(adapter, told(state, adapter, plan.status, now)):
                return None
        finally:
            state.places.difference_update(plan.places)
            state.turns.discard(adapter.name)
        if rolled != (plan.status.rollout is not None):
            self._world.ask_fleet(state)
            for name in waiting(state) if rolled else ():
                self._world.ask_named(state, name)
        self._acknowledge(state, used)
        self._request(state, adapter, plan)
        if plan.probe or state.probes:
            self._probe(state, adapter, plan)
        if plan.statistics is not None or plan.queries or adapter.name in state.asks:
            self._measure(state, adapter, plan)
        stable = next((one.served_name for one in plan.status.versions if one.name == plan.status.stable_version), None)
        if stable and stable != adapter.noted and not plan.release:
            await self._writer.note(adapter, stable)
        if plan.release:
            await self._release(state, adapter, plan)
            return None
        if plan.look_again is None:
            return None
        return max((plan.look_again - now).total_seconds(), 0.05)

    def _probe(self, state: FleetState, adapter: Adapter, plan: Plan) -> None:
        """Has engines asked by what is to be probed, and forgets what they said of the rest."""
        for served in plan.probe if adapter.spec else ():
            assert adapter.spec
            self._world.want_probe(state, served, adapter.spec.probe)
        for version in plan.status.versions:
            if version.served_name and version.served_name not in plan.probe:
                state.probes.pop(version.served_name, None)

    def _measure(self, state: FleetState, adapter: Adapter, plan: Plan) -> None:
        """Has routers and Prometheus asked for what the next judgement needs."""
        before = state.asks.get(adapter.name)
        if plan.statistics is None:
            state.asks.pop(adapter.name, None)
        elif before != plan.statistics:
            state.asks[adapter.name] = plan.statistics
            self._statistics.look()
        if plan.queries:
            self._prometheus.ask(state, adapter, plan.queries)
        elif plan.status.rollout is None:
            state.queries.pop(adapter.name, None)

    def _acknowledge(self, state: FleetState, used: set[SyncItem]) -> None:
        """Results that are in a written status need not be kept."""
        for job in state.sync.jobs.values():
            job.open -= used
        for item in used:
            state.sync.refused.pop(item, None)
        if used:
            self._world.ask_sync(state)

    def _request(self, state: FleetState, adapter: Adapter, plan: Plan) -> None:
        hashes = {entry.name: entry.fingerprint for entry in adapter.spec.versions} if adapter.spec else {}
        expected = expectations(state) if plan.publish else ""
        items = [
            SyncItem(adapter.name, adapter.uid, version=name, entry=hashes[name], expectations=expected)
            for name in plan.publish
        ]
        items += [SyncItem(adapter.name, adapter.uid, served=served) for served in plan.remove]
        before = state.sync.requests.get(adapter.name, ())
        if tuple(items) == before:
            return
        if items:
            state.sync.requests[adapter.name] = tuple(items)
            self._world.ask_sync(state, 0.02)
        else:
            state.sync.requests.pop(adapter.name, None)

    async def _release(self, state: FleetState, adapter: Adapter, plan: Plan) -> None:
        """The object may go; what an engine may still read is left to the fleet."""
        if plan.orphans and state.fleet is not None:
            since = timestamp(datetime.now(UTC))
            async with state.writing:
                pending = state.fleet.status.pending_removals
                known = {removal.served_name for removal in pending}
                left = [served for served in plan.orphans if served not in known]
                pending += tuple(PendingRemoval(served_name=served, since=since) for served in left)
                status = state.fleet.status.model_copy(update={"pending_removals": pending})
                await self._writer.fleet(state.fleet, status)
            self._world.ask_fleet(state, 0.0)
            names = ", ".join(plan.orphans)
            text = f"{names} could not be unloaded in time; the fleet removes the bytes when no engine lists them"
            self._writer.event(ADAPTER_KIND, adapter, Reason.DELETION_DEADLINE, text, warning=True)
        state.sync.requests.pop(adapter.name, None)
        await self._writer.release(adapter)
        about: dict[str, Any] = {"namespace": adapter.namespace, "adapter": adapter.name}
        log.info("adapter released", extra=about | {"orphans": list(plan.orphans)})
