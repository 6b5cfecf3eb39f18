"""Puts the operator together and runs it: probes first, then the Lease, then the watches and the queue.

kopf runs the process and watches our two kinds; its handlers only put objects into memory, which puts keys on the queue
(design: why not more of kopf). Losing the Lease, or any watch that dies, ends the process: a new one starts from the
cluster's state.
"""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import Coroutine
from typing import Any

import aiohttp
import httpx
import kopf
from kopf._core.engines.peering import Identity

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL, GROUP, VERSION
from lorafleet.controller import longreports
from lorafleet.controller import prometheus as prometheus_
from lorafleet.controller import statistics as statistics_
from lorafleet.controller.adapter import AdapterReconciler
from lorafleet.controller.engine import EngineReconciler
from lorafleet.controller.engineclients import EngineClients
from lorafleet.controller.fleet import FleetReconciler
from lorafleet.controller.health import serve
from lorafleet.controller.lease import Lease, LeaseTimes
from lorafleet.controller.metrics import LEADER
from lorafleet.controller.pods import PodWatches
from lorafleet.controller.probes import ProbeReconciler
from lorafleet.controller.progress import AT_ONCE, TIMEOUT, ProgressPoller
from lorafleet.controller.prometheus import Prometheus
from lorafleet.controller.queue import Key, Lane, WorkQueue
from lorafleet.controller.scrubs import Scrubs
from lorafleet.controller.secrets import Secrets
from lorafleet.controller.settings import Settings
from lorafleet.controller.statistics import Statistics
from lorafleet.controller.status import Writer
from lorafleet.controller.sync import SyncReconciler
from lorafleet.controller.world import World
from lorafleet.engines.client import session
from lorafleet.kube import Kube, KubeError, path

log = logging.getLogger(__name__)

EXIT_GRACE = 2.0


class Operator:
    """One replica."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        times = LeaseTimes(settings.lease_duration, settings.lease_renew, settings.lease_retry)
        self._lease = Lease(kube, settings.namespace, settings.lease_name, settings.identity, times)
        self._sick = ""
        self._stop = asyncio.Event()
        self._queue: WorkQueue | None = None
        self._engines: aiohttp.ClientSession | None = None

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    def _died(self, what: str) -> None:
        self._sick = self._sick or what
        self._stop.set()

    def _health(self) -> str:
        stuck = self._queue.stuck() if self._queue else []
        return self._sick or ("stuck: " + ", ".join(map(str, stuck)) if stuck else "")

    async def run(self) -> int:
        """Runs until told to stop; the process' exit code."""
        self._take_signals()
        settings = self._settings
        probes = await serve(settings.http_host, settings.http_port, self._health, lambda: not self._sick)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            acquiring = asyncio.create_task(self._lease.acquire())
            await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not acquiring.done():
                acquiring.cancel()
                return 0
            LEADER.set(1)
            return await self._lead(stopping)
        finally:
            LEADER.set(0)
            await probes.cleanup()
            if self._engines is not None:
                await self._engines.close()
            await self._kube.close()

    async def _lead(self, stopping: asyncio.Task[bool]) -> int:
        # Renewed from the first moment on: reading a large cluster may take longer than a lease lasts.
        renewing = asyncio.create_task(self._lease.keep(), name="lease")
        starting = asyncio.create_task(self._start(), name="start")
        await asyncio.wait({renewing, starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if renewing.done():
            os._exit(1)
        if not starting.done() or starting.exception() is not None:
            log.error("did not start", exc_info=starting.exception() if starting.done() else None)
            starting.cancel()
            renewing.cancel()
            await self._lease.release()
            return 1 if starting.done() else 0
        queue, tasks, operator = starting.result()
        self._queue = queue
        everything = {stopping, renewing, *tasks}
        done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            error = None if task.cancelled() else task.exception()
            log.error("ends the process", extra={"task": task.get_name()}, exc_info=error)
        if renewing in done:
            # Whoever holds the Lease now may act at any moment: nothing of ours may follow.
            os._exit(1)
        # In this order: nothing of ours acts any more, then the other replica may, then we tidy up.
        await queue.close()
        renewing.cancel()
        await self._lease.release()
        operator.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait({renewing, *tasks}, timeout=EXIT_GRACE)
        return 0 if done == {stopping} and not self._sick else 1

    async def _start(self) -> tuple[WorkQueue, set[asyncio.Task[Any]], asyncio.Event]:
        """Fills memory with what there is, then starts every watch."""
        settings, kube = self._settings, self._kube
        waiting: list[tuple[Key, float]] = []
        queue: WorkQueue | None = None

        def ask(key: Key, after: float = 0.0, *, first: bool = False) -> None:
            if queue is None:
                waiting.append((key, after))
            else:
                queue.add(key, after, first=first)

        def forget(key: Key) -> None:
            if queue is not None:
                queue.forget(key)

        world = World(ask, forget)
        writer = Writer(kube, world, settings.identity)
        pods = PodWatches(kube, world, self._died)
        sync = SyncReconciler(world, kube, settings)
        scrubs = Scrubs(kube, settings)
        # Made once: to read the trusted certificates takes a while, just when the Lease has to be renewed.
        trust = ssl.create_default_context()
        secrets = Secrets(kube)
        self._engines = session()
        clients = EngineClients(secrets, self._engines)
        statistics = Statistics(world, kube, _pod_http(statistics_.AT_ONCE, trust))
        asking = httpx.AsyncClient(timeout=prometheus_.DEADLINE, verify=trust, trust_env=False)
        prometheus = Prometheus(world, secrets, asking)
        await self._fill(world)
        queue = WorkQueue(
            {
                "adapter": Lane(AdapterReconciler(world, writer, statistics, prometheus), workers=24, deadline=60.0),
                "fleet": Lane(FleetReconciler(world, writer, pods, scrubs), workers=8, deadline=60.0),
                "sync": Lane(sync, workers=8, deadline=120.0),
                "engine": Lane(EngineReconciler(world, clients, settings), workers=10_000, deadline=1200.0),
                "probe": Lane(ProbeReconciler(world, clients), workers=10_000, deadline=1200.0),
            }
        )
        for key, after in waiting:
            queue.add(key, after)
        stop = asyncio.Event()
        progress = ProgressPoller(world, _pod_http(AT_ONCE, trust))
        reports = longreports.LongReports(world, _pod_http(longreports.AT_ONCE, trust))
        work: list[tuple[str, Coroutine[Any, Any, Any]]] = [
            ("events", writer.post_events()),
            ("progress", progress.run()),
            ("reports", reports.run()),
            ("statistics", statistics.run()),
        ]
        for namespace in settings.namespaces or (None,):
            work += [(what, sync.follow(what, namespace)) for what in ("jobs", "pods")]
            work.append(("routers", statistics.follow(namespace)))
        work.append(("kopf", self._watch_kinds(world, stop)))
        return queue, {asyncio.create_task(coroutine, name=name) for name, coroutine in work}, stop

    async def _fill(self, world: World) -> None:
        """Reads all our objects once: nothing may be unloaded before every adapter is known."""
        for namespace in self._settings.namespaces or (None,):
            for plural, put in ((FLEET_PLURAL, world.put_fleet), (ADAPTER_PLURAL, world.put_adapter)):
                for raw in (await self._kube.list(path(API_VERSION, plural, namespace)))["items"]:
                    put(raw)

    async def _watch_kinds(self, world: World, stop: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()

        @kopf.on.event(GROUP, VERSION, ADAPTER_PLURAL, registry=registry)
        async def adapter_event(event: kopf.RawEvent, **_: Any) -> None:
            raw: dict[str, Any] = dict(event["object"])
            if event["type"] == "DELETED":
                world.drop_adapter((raw["metadata"]["namespace"], raw["metadata"]["name"]), raw["metadata"]["uid"])
            else:
                world.put_adapter(raw)

        @kopf.on.event(GROUP, VERSION, FLEET_PLURAL, registry=registry)
        async def fleet_event(event: kopf.RawEvent, **_: Any) -> None:
            raw: dict[str, Any] = dict(event["object"])
            if event["type"] == "DELETED":
                world.drop_fleet((raw["metadata"]["namespace"], raw["metadata"]["name"]), raw["metadata"]["uid"])
            else:
                world.put_fleet(raw)

        @kopf.on.login(registry=registry)
        async def login(**kwargs: Any) -> Any:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        # Our kinds are there from the start; looking for new ones would need rights on all CRDs.
        settings.scanning.disabled = True
        settings.watching.reconnect_backoff = 0.2
        settings.networking.error_backoffs = [0.2, 0.5, 1, 2, 2, 2, 2, 2, 5, 5, 5, 5, 10, 10, 10]
        ready = asyncio.Event()

        async def take_signals_back() -> None:
            await ready.wait()
            self._take_signals()

        # kopf installs signal handlers of its own, which would end it before our order of stopping.
        taking = asyncio.create_task(take_signals_back())
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            # Else kopf asks for the name of the user, which a pod's user need not have.
            identity=Identity(self._settings.identity),
            clusterwide=not self._settings.namespaces,
            namespaces=self._settings.namespaces,
            stop_flag=stop,
            ready_flag=ready,
        )
        taking.cancel()
        # It ends without an error when it is told to, or by a signal that came before it was taken back: ours, too.
        self._stop.set()
        await asyncio.Event().wait()


def _pod_http(at_once: int, trust: ssl.SSLContext) -> httpx.AsyncClient:
    """An HTTP client for pods that are asked rarely, so no connection is kept."""
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=0)
    return httpx.AsyncClient(limits=limits, timeout=TIMEOUT, verify=trust, trust_env=False)


async def main(settings: Settings) -> int:
    """Connects and runs; the process' exit code."""
    try:
        kube = await Kube.connect()
        return await Operator(settings, kube).run()
    except KubeError as error:
        log.error("the API server does not answer as expected", extra={"error": str(error)})
        return 1
