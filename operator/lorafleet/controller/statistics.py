"""Asks a fleet's routers what they counted: often while rollouts are judged by it, else now and then.

A router that does not answer costs a short timeout and nothing else. Statuses say what was counted once a minute at
most and a few a second in all, however many adapters there are.
"""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

import httpx

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.api.model import moment
from lorafleet.api.names import ROUTER_LABEL, ROUTER_STATS_PORT
from lorafleet.api.rolloutstatus import VersionStatistics
from lorafleet.controller.answers import bounded
from lorafleet.controller.metrics import ROUTERS
from lorafleet.controller.objects import Adapter, Ref
from lorafleet.controller.progress import address
from lorafleet.controller.state import FleetState
from lorafleet.controller.tally import counts
from lorafleet.controller.world import World
from lorafleet.kube import Kube, Object, path
from lorafleet.rollout.evidence import Counts
from lorafleet.watch import informer

log = logging.getLogger(__name__)

RARELY = 30.0
OFTEN = 5.0
LEAST = 1.0
TIMEOUT = 2.0
MAX_ANSWER_BYTES = 32 * 2**20
AT_ONCE = 32
AT_A_TIME = 500
"""Versions that are added up before others may go on."""
WRITTEN_EVERY = 60.0
WRITES = 20.0
"""Status writes a second for statistics alone."""


@dataclass(frozen=True)
class _Router:
    fleet: str
    ip: str
    created: datetime


@dataclass(frozen=True)
class _Answer:
    pod: str
    instance: str
    versions: dict[str, Any]


class Statistics:
    """The routers of all fleets."""

    def __init__(self, world: World, kube: Kube, http: httpx.AsyncClient, *, port: int = ROUTER_STATS_PORT) -> None:
        self._world = world
        self._kube = kube
        self._http = http
        self._port = port
        self._began = datetime.now(UTC)
        self._routers: dict[Ref, _Router] = {}
        self._heard: dict[Ref, str] = {}
        self._asked: dict[Ref, float] = {}
        self._rounds: dict[Ref, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def follow(self, namespace: str | None) -> None:
        """Watches router pods, for ever."""
        async for kind, pod in informer(self._kube, path("v1", "pods", namespace), ROUTER_LABEL):
            if pod is not None:
                self.put(kind, pod)

    def put(self, kind: str, pod: Object) -> None:
        """A router pod as the API server shows it."""
        meta = pod["metadata"]
        status = pod.get("status") or {}
        ref = (str(meta["namespace"]), str(meta["name"]))
        ip = str(status.get("podIP") or "")
        if kind == "DELETED" or not ip or status.get("phase") in ("Succeeded", "Failed"):
            self._routers.pop(ref, None)
            self._heard.pop(ref, None)
            return
        known = self._routers.get(ref)
        fleet = str((meta.get("labels") or {}).get(ROUTER_LABEL, ""))
        created = moment(meta["creationTimestamp"]) if meta.get("creationTimestamp") else self._began
        self._routers[ref] = _Router(fleet, ip, created)
        if known != self._routers[ref]:
            self._wake.set()

    def look(self) -> None:
        """Somebody waits for statistics: rounds that are due by now begin."""
        self._wake.set()

    async def run(self) -> None:
        """Asks for ever."""
        while True:
            waits = [RARELY]
            self._wake.clear()
            found: dict[Ref, list[Ref]] = {}
            for pod, router in self._routers.items():
                found.setdefault((pod[0], router.fleet), []).append(pod)
            for ref, state in list(self._world.fleets.items()):
                pods = found.get(ref, [])
                if not pods and not state.routers:
                    continue
                left = self._asked.get(ref, float("-inf")) + _interval(state) - monotonic()
                if left <= 0 and ref not in self._rounds:
                    self._asked[ref], left = monotonic(), _interval(state)
                    self._rounds[ref] = asyncio.create_task(self.round(state, pods))
                    self._rounds[ref].add_done_callback(partial(self._ended, ref))
                waits.append(left if left > 0 else LEAST)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(waits))

    def _ended(self, ref: Ref, task: asyncio.Task[None]) -> None:
        self._rounds.pop(ref, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("statistics could not be read", extra={"fleet": ref[1]}, exc_info=task.exception())

    async def round(self, state: FleetState, pods: list[Ref]) -> None:
        """Asks these routers once and adds up what they say."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(pod: Ref) -> _Answer | None:
            router = self._routers.get(pod)
            if router is None:
                return None
            async with gate:
                try:
                    return await asyncio.wait_for(self._ask(pod[1], router.ip), TIMEOUT)
                except (httpx.HTTPError, TimeoutError, ValueError, TypeError, KeyError, OSError, RecursionError):
                    return None

        answers = [one for one in await asyncio.gather(*(ask(pod) for pod in pods)) if one is not None]
        now = datetime.now(UTC)
        known = _known(state)
        fine = frozenset(state.asks)
        for answer in answers:
            await self._take(state, answer, known, now, fine)
        # A router that did not answer goes on counting: its start is forgotten with its pod only.
        heard = {self._heard[pod] for pod in pods if pod in self._heard}
        state.tally.ended(frozenset(heard), frozenset(known), now, fine if answers else frozenset())
        ROUTERS.labels(*state.ref).set(len(answers))
        if state.routers != len(answers):
            state.routers = len(answers)
            self._world.ask_fleet(state)
        for name in fine:
            self._world.ask_named(state, name)
        self._write(state, fine)

    async def _take(
        self,
        state: FleetState,
        answer: _Answer,
        known: dict[str, VersionStatistics | None],
        now: datetime,
        fine: frozenset[str],
    ) -> None:
        pod = (state.ref[0], answer.pod)
        router = self._routers.get(pod)
        before = self._heard.get(pod)
        # Another start in a pod that we know, or a pod that is younger than we are: it counted nothing before us.
        begun = (before is not None and before != answer.instance) or (
            before is None and router is not None and router.created >= self._began
        )
        self._heard[pod] = answer.instance
        new = begun or before == answer.instance
        rest = iter(answer.versions.items())
        while part := dict(islice(rest, AT_A_TIME)):
            state.tally.take(answer.instance, _parsed(part), known, now, new=new, fine=fine)
            await asyncio.sleep(0)

    async def _ask(self, pod: str, ip: str) -> _Answer:
        async with self._http.stream("GET", f"http://{address(ip, self._port)}/stats") as answer:
            answer.raise_for_status()
            said = json.loads(await bounded(answer, MAX_ANSWER_BYTES))
        if not isinstance(said["versions"], dict):
            raise ValueError("versions is no object")
        return _Answer(pod, str(said["instance"]), said["versions"])

    def _write(self, state: FleetState, fine: frozenset[str]) -> None:
        """Statuses say it, one after another; those of rollouts are written anyway."""
        now = monotonic()
        for number, name in enumerate(sorted(state.tally.changed - fine)):
            if name not in state.adapters:
                state.tally.changed.discard(name)
                continue
            wait = max(state.told.get(name, float("-inf")) + WRITTEN_EVERY - now, 0.0)
            self._world.ask_named(state, name, max(wait, number / WRITES))


def _interval(state: FleetState) -> float:
    return max(min(min(state.asks.values()), OFTEN), LEAST) if state.asks else RARELY


def _known(state: FleetState) -> dict[str, VersionStatistics | None]:
    return {
        version.served_name: version.statistics
        for adapter in state.adapters.values()
        for version in adapter.status.versions
        if version.served_name
    }


def _parsed(versions: dict[str, Any]) -> dict[str, Counts]:
    found = {}
    for served, raw in versions.items():
        try:
            found[served] = counts(raw)
        except (ValueError, TypeError, AttributeError, OverflowError):
            continue
    return found


def told(state: FleetState, adapter: Adapter, status: LoRAAdapterStatus, now: datetime) -> LoRAAdapterStatus:
    """The status with what was counted, where it is written anyway or was not for a while."""
    if adapter.name not in state.tally.changed:
        return status
    if status == adapter.status and monotonic() - state.told.get(adapter.name, float("-inf")) < WRITTEN_EVERY:
        return status
    state.tally.changed.discard(adapter.name)
    state.told[adapter.name] = monotonic()
    return state.tally.shown(status, now)
