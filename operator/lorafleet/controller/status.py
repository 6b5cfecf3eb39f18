"""Writes to our objects: the status, the finalizer, and the events that a status' transitions emit.

A status is written once per reconcile and only when it changed, by server-side apply with one field manager. Every
write names the object's uid, so that an object of the same name that came later is never touched.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.api.conditions import Condition, ConditionType, transitions
from lorafleet.api.fleetstatus import SpecialistFleetStatus
from lorafleet.api.model import timestamp
from lorafleet.api.names import (
    ADAPTER_KIND,
    ADAPTER_PLURAL,
    API_VERSION,
    FINALIZER,
    FLEET_KIND,
    FLEET_PLURAL,
    STABLE_ANNOTATION,
)
from lorafleet.controller.happened import aborted, happened, promotions
from lorafleet.controller.metrics import ABORTS, PROMOTIONS, STATUS_WRITES, WEIGHT
from lorafleet.controller.objects import Adapter, Fleet
from lorafleet.controller.queue import Retry
from lorafleet.controller.world import World
from lorafleet.kube import Kube, KubeError, path

log = logging.getLogger(__name__)

EVENTS_AT_ONCE = 4
EVENTS_WAITING = 10_000
_ALARMING = frozenset({ConditionType.STALLED.value, ConditionType.AVAILABLE.value, ConditionType.CHECKED.value})


class Writer:
    """Writes statuses, finalizers and events."""

    def __init__(self, kube: Kube, world: World, identity: str) -> None:
        self._kube = kube
        self._world = world
        self._identity = identity
        self._events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(EVENTS_WAITING)

    async def adapter(self, adapter: Adapter, status: LoRAAdapterStatus) -> bool:
        """Writes an adapter's status if it changed; false when the object is gone."""
        written = status.to_json()
        if written == adapter.written:
            adapter.status = status
            return True
        before, was = adapter.status.conditions, adapter.status
        version = await self._apply_status(ADAPTER_KIND, ADAPTER_PLURAL, adapter, written)
        if version is None:
            self._world.drop_adapter(adapter.ref, adapter.uid)
            return False
        self._world.wrote_adapter(adapter, status, written, version)
        said = self._emit(ADAPTER_KIND, adapter, before, status.conditions)
        if was.rollout is not None or status.rollout is not None or was.history != status.history:
            self._rolled(adapter, was, status, said)
        return True

    def _rolled(
        self, adapter: Adapter, before: LoRAAdapterStatus, after: LoRAAdapterStatus, said: frozenset[str]
    ) -> None:
        """Events and counts of a rollout, after the status that says it is written."""
        for one in happened(before, after):
            if one.reason in said:
                continue
            self.event(ADAPTER_KIND, adapter, one.reason, one.message, warning=one.warning)
        fleet = adapter.spec.fleet if adapter.spec else ""
        for reason in aborted(before, after):
            ABORTS.labels(adapter.namespace, fleet, reason).inc()
        if count := promotions(before, after):
            PROMOTIONS.labels(adapter.namespace, fleet).inc(count)
        WEIGHT.remove_by_labels({"namespace": adapter.namespace, "fleet": fleet, "adapter": adapter.name})
        for target in after.traffic if after.rollout is not None else ():
            WEIGHT.labels(adapter.namespace, fleet, adapter.name, target.version).set(target.weight)

    async def fleet(self, fleet: Fleet, status: SpecialistFleetStatus) -> bool:
        """Writes a fleet's status if it changed; false when the object is gone."""
        written = status.to_json()
        if written == fleet.written:
            return True
        before = fleet.status.conditions
        version = await self._apply_status(FLEET_KIND, FLEET_PLURAL, fleet, written)
        if version is None:
            return False
        self._world.wrote_fleet(fleet, status, written, version)
        self._emit(FLEET_KIND, fleet, before, status.conditions)
        return True

    async def _apply_status(
        self, kind: str, plural: str, tracked: Adapter | Fleet, status: dict[str, Any]
    ) -> int | None:
        body = _body(kind, tracked) | {"status": status}
        where = path(API_VERSION, plural, tracked.namespace, tracked.name, "status")
        try:
            answer = await self._kube.apply(where, body)
        except KubeError as error:
            gone = error.not_found or (error.conflict and "uid" in error.message.lower())
            STATUS_WRITES.labels(kind, "gone" if gone else "error").inc()
            if gone:
                return None
            raise Retry(f"status of {kind} {tracked.name} not written: {error}") from error
        STATUS_WRITES.labels(kind, "ok").inc()
        return int(answer["metadata"]["resourceVersion"])

    async def hold(self, tracked: Adapter | Fleet) -> None:
        """Puts our finalizer on an object."""
        await self._metadata(tracked, [FINALIZER], tracked.noted)

    async def note(self, adapter: Adapter, served: str) -> None:
        """Notes the stable version where it is not lost with the status."""
        await self._metadata(adapter, [FINALIZER], served)

    async def release(self, tracked: Adapter | Fleet) -> None:
        """Takes our finalizer off an object."""
        last = set(tracked.finalizers) <= {FINALIZER}
        await self._metadata(tracked, [], "")
        if last and isinstance(tracked.status, LoRAAdapterStatus):
            # It is gone with our finalizer; its last event may have been missed.
            self._world.drop_adapter(tracked.ref, tracked.uid)

    async def _metadata(self, tracked: Adapter | Fleet, finalizers: list[str], noted: str) -> None:
        """All that is ours of an object's metadata: what an apply leaves out, it takes away."""
        kind, plural = _kind(tracked)
        body = _body(kind, tracked)
        body["metadata"] |= {"finalizers": finalizers, "annotations": {STABLE_ANNOTATION: noted} if noted else {}}
        try:
            await self._kube.apply(path(API_VERSION, plural, tracked.namespace, tracked.name), body)
        except KubeError as error:
            if error.not_found or error.conflict:
                return
            raise Retry(f"metadata of {kind} {tracked.name} not changed: {error}") from error
        tracked.finalizers, tracked.noted = tuple(finalizers), noted

    def _emit(
        self, kind: str, tracked: Adapter | Fleet, old: tuple[Condition, ...], new: tuple[Condition, ...]
    ) -> frozenset[str]:
        """One event per transition that a person would want to know of; the reasons of those."""
        seen: set[str] = set()
        for condition in transitions(old, new):
            bad = condition.status == ("False" if condition.type != ConditionType.STALLED else "True")
            if condition.type != ConditionType.READY and not (condition.type in _ALARMING and bad and old):
                continue
            alarming = bad and condition.type in _ALARMING
            if condition.reason not in seen:
                seen.add(condition.reason)
                self.event(kind, tracked, condition.reason, condition.message, warning=alarming)
        return frozenset(seen)

    def event(self, kind: str, tracked: Adapter | Fleet, reason: str, message: str, warning: bool = False) -> None:
        """Queues an event about an object; dropped when thousands wait, because events are a courtesy."""
        now = timestamp(datetime.now(UTC))
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{tracked.name}-", "namespace": tracked.namespace},
            "eventTime": now,
            "reportingController": "lorafleet.dev/operator",
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": message[:1000],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": kind,
                "namespace": tracked.namespace,
                "name": tracked.name,
                "uid": tracked.uid,
            },
        }
        try:
            self._events.put_nowait((tracked.namespace, body))
        except asyncio.QueueFull:
            log.warning("event dropped", extra={"namespace": tracked.namespace, "object": tracked.name})

    async def post_events(self) -> None:
        """Posts queued events, for ever."""
        await asyncio.gather(*(self._post() for _ in range(EVENTS_AT_ONCE)))

    async def _post(self) -> None:
        while True:
            namespace, body = await self._events.get()
            try:
                await self._kube.create(path("events.k8s.io/v1", "events", namespace), body)
            except KubeError as error:
                if not (error.not_found or error.namespace_terminating):
                    log.warning("event not posted", extra={"namespace": namespace, "error": str(error)})


def _kind(tracked: Adapter | Fleet) -> tuple[str, str]:
    adapter = isinstance(tracked.status, LoRAAdapterStatus)
    return (ADAPTER_KIND, ADAPTER_PLURAL) if adapter else (FLEET_KIND, FLEET_PLURAL)


def _body(kind: str, tracked: Adapter | Fleet) -> dict[str, Any]:
    meta = {"name": tracked.name, "namespace": tracked.namespace, "uid": tracked.uid}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": meta}
