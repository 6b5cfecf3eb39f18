"""Puts a router together and runs it: watches, files, HTTP, and the end in order.

A watch or the keeper of files that dies ends the process; a new one reads everything anew while Envoy goes on by the
files that are there.
"""

import asyncio
import logging
import signal

from kubernetes.aio import config

from lorafleet.kube import Kube
from lorafleet.router import envoy, metrics
from lorafleet.router.admin import Admin, AdminError
from lorafleet.router.drain import drain
from lorafleet.router.environment import Environment
from lorafleet.router.files import write
from lorafleet.router.http import Answers, Json, serve
from lorafleet.router.keeper import Keeper
from lorafleet.router.picture import Picture
from lorafleet.router.scrape import Scraper
from lorafleet.router.secrets import SecretsError, read_secrets
from lorafleet.router.settings import Settings
from lorafleet.router.table import RoutingTable
from lorafleet.router.watch import Watches

log = logging.getLogger(__name__)

SECRETS_AGAIN = 5.0
"""Seconds between looks at mounted Secrets; the kubelet itself takes a minute to bring a change."""
STUCK = 60.0
"""Seconds after which a write that has not ended makes the process sick."""


def write_bootstrap(environment: Environment, settings: Settings) -> None:
    """Writes what Envoy starts with. Files that it watches stay if they are there: Envoy goes on by the last table."""
    directory = environment.directory
    first = envoy.render(RoutingTable(), settings, directory, read_secrets(environment))
    missing = {name: content for name, content in first.items() if not (directory / name).exists()}
    write(directory, {**missing, envoy.BOOTSTRAP: envoy.bootstrap(settings, directory)})


class Router:
    """One router."""

    def __init__(self, environment: Environment, settings: Settings, kube: Kube) -> None:
        self._environment = environment
        self._settings = settings
        self._kube = kube
        self._admin = Admin(settings.admin_port)
        self._secrets = read_secrets(environment)
        self._picture = Picture(environment.fleet, self._change)
        self._watches = Watches(kube, environment.namespace, environment.fleet, self._picture)
        self._keeper = Keeper(self._picture, self._render, environment.directory, self._admin)
        self._scraper = Scraper(self._admin, environment.name)
        self._stop = asyncio.Event()
        self._sick = ""

    def _change(self) -> None:
        self._keeper.change()

    def _render(self, table: RoutingTable) -> dict[str, bytes]:
        return envoy.render(table, self._settings, self._environment.directory, self._secrets)

    async def run(self) -> int:
        """Runs until told to stop, then drains; the process' exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        metrics.STALE_SECONDS.set_function(lambda: self._watches.stale)
        environment = self._environment
        answers = Answers(self._health, self._ready, self._statistics, self._metrics)
        server = await serve(environment.http_host, environment.http_port, answers)
        work = {"watches": self._watches.run(), "keeper": self._keeper.run(), "secrets": self._reread_secrets()}
        tasks = {asyncio.create_task(one, name=name) for name, one in work.items()}
        stopping = asyncio.create_task(self._stop.wait())
        log.info("routes", extra={"namespace": environment.namespace, "fleet": environment.fleet})
        try:
            done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                self._sick = task.get_name()
                error = None if task.cancelled() else task.exception()
                log.error("ends the process", extra={"task": task.get_name()}, exc_info=error)
            if not self._sick:
                # The table is kept up to date meanwhile: engines may come and go while requests still come in.
                await drain(self._admin, environment.leave, environment.grace)
            return 1 if self._sick else 0
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.wait({stopping, *tasks})
            await server.cleanup()
            await self._admin.close()
            await self._kube.close()

    async def _reread_secrets(self) -> None:
        while True:
            await asyncio.sleep(SECRETS_AGAIN)
            try:
                found = await asyncio.to_thread(read_secrets, self._environment)
            except SecretsError as error:
                log.error("the keys stay as they were", extra={"error": str(error)})
                continue
            if found != self._secrets:
                log.info("keys have changed", extra={"client_keys": len(found.client_keys)})
                self._secrets = found
                self._keeper.change()

    def _health(self) -> str:
        return self._sick or ("stuck: writing the configuration" if self._keeper.writes_for > STUCK else "")

    async def _ready(self) -> tuple[bool, Json]:
        problem = await self._obstacle()
        table = self._picture.table()
        waits = ", ".join(self._picture.waits_for)
        details: Json = {
            "ready": not problem,
            "problem": problem or self._keeper.problem or self._watches.problem,
            "reading": waits,
            "fleet": f"{self._environment.namespace}/{self._environment.fleet}",
            "routes": len(table.routes),
            "engines": len(table.engines),
            "staleSeconds": round(self._watches.stale, 1),
            "applied": {"resourceVersion": str(self._keeper.applied)},
        }
        return not problem, details

    async def _obstacle(self) -> str:
        """Why no request may come here. A lost API server is none: routing goes on by what was known.

        Nor is it one that this process has not read everything yet, if one before it had.
        """
        if self._stop.is_set():
            return "it drains: it was told to stop"
        if not self._keeper.taken and self._picture.waits_for:
            return self._watches.problem or f"reading for the first time: {', '.join(self._picture.waits_for)}"
        if not self._keeper.taken:
            return self._keeper.problem or "Envoy does not run by the first configuration yet"
        try:
            await self._admin.live()
        except AdminError as error:
            return str(error)
        return ""

    async def _statistics(self) -> Json:
        return await self._scraper.snapshot(self._keeper.applied)

    async def _metrics(self) -> str:
        return await self._scraper.metrics()


async def main(environment: Environment, settings: Settings) -> int:
    """Connects and runs; the process' exit code."""
    try:
        return await Router(environment, settings, await Kube.connect()).run()
    except SecretsError as error:
        log.error("a key is missing", extra={"error": str(error)})
    except config.ConfigException as error:
        log.error("there is neither a pod's service account nor a kubeconfig", extra={"error": str(error)})
    return 1
