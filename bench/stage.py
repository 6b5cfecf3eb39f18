"""What a benchmark acts on: a control plane of its own, and on it stages: a fleet with engines, and the operator."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml import safe_load

from bench.engines import Engines, engines
from bench.figure import say
from e2e.cluster.api import Api
from lorafleet.api import names
from lorafleet.kube import path
from tests.adapters import adapter as write_adapter
from tests.harness import plane as planes
from tests.harness.kubelet import FakeKubelet
from tests.harness.plane import Plane
from tests.harness.replica import Replica, replica

MOUNT = "/adapters"
AT_ONCE = 16
USUAL_LEASE = {"lease_duration": 15, "lease_renew": 10, "lease_retry": 2}
"""As the chart sets it; the harness' own times suit tests of a change of leaders."""


@dataclass
class Ground:
    """A control plane with our CRDs, whose sync pods run here."""

    plane: Plane
    kubelet: FakeKubelet
    folder: Path

    def api_metrics(self) -> dict[str, float]:
        """All samples of the API server's own metrics."""
        config = Path(self.plane.kubeconfig)
        server = safe_load(config.read_text())["clusters"][0]["cluster"]["server"]
        text = str(Api(server, config.parent / "pki").get("/metrics"))
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}


@contextlib.asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """A control plane while the block runs. Its logs stay only if the block fails."""
    name = f"lf-bench-{os.getpid() % 10000}"
    try:
        kubeconfig = await asyncio.to_thread(planes.start, name)
        kube = await planes.connect(kubeconfig)
        with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as folder:
            plane = Plane(kube, kubeconfig)
            try:
                await plane.install_crds()
                kubelet = FakeKubelet(plane, Path(folder) / "volumes")
                async with kubelet.running():
                    yield Ground(plane, kubelet, Path(folder))
            finally:
                await kube.close()
    finally:
        await asyncio.to_thread(planes.stop, name)
    shutil.rmtree(Path(kubeconfig).parent, ignore_errors=True)


class Stage:
    """A fleet of a namespace of its own, and its engines."""

    def __init__(self, ground: Ground, namespace: str, engines: Engines) -> None:
        self.ground = ground
        self.plane = ground.plane
        self.namespace = namespace
        self.engines = engines
        self._restarts = [0] * len(engines)
        self._replicas = 0
        self._since = time.time() - time.monotonic()

    @contextlib.asynccontextmanager
    async def operator(self, **settings: object) -> AsyncIterator[Replica]:
        """A leading replica of the operator while the block runs; its log is kept if the block fails."""
        self._replicas += 1
        log = self.ground.folder / f"{self.namespace}-{self._replicas}.log"
        settings = {"watch_namespaces": self.namespace, "lease_name": self.namespace, **USUAL_LEASE, **settings}
        try:
            async with replica(self.plane.kubeconfig, log, **settings) as one:
                yield one
        except Exception:
            say(log.read_text()[-4000:])
            raise

    async def adapters(self, wanted: Iterable[str]) -> None:
        """Creates adapters, all with the same files."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with room:
                await self.plane.adapter(self.namespace, name, "1")

        await asyncio.gather(*map(one, wanted))

    async def serving(self, count: int, deadline: float = 60.0) -> list[dict[str, Any]]:
        """Waits until so many adapters are Ready; all of them."""
        where = path(names.API_VERSION, names.ADAPTER_PLURAL, self.namespace)
        found: list[dict[str, Any]] = []

        async def enough() -> bool:
            nonlocal found
            found = (await self.plane.kube.list(where))["items"]
            if sum(ready(adapter) is not None for adapter in found) >= count:
                return True
            await asyncio.sleep(0.5)
            return False

        await planes.until(f"{count} adapters are Ready", enough, deadline)
        return found

    def monotonic(self, moment: float) -> float:
        """A moment of the wall clock on the monotonic clock."""
        return moment - self._since

    async def container_ends(self, number: int) -> None:
        """An engine's container is gone and comes back empty; its pod is not Ready."""
        self._restarts[number] += 1
        await self._pod_status(number, ready=False)
        await self.engines.restart(number)

    async def container_ready(self, number: int) -> None:
        """The pod says that the container is Ready again."""
        await self._pod_status(number, ready=True)

    async def _pod_status(self, number: int, *, ready: bool) -> None:
        host, restarts = self.engines.hosts[number], self._restarts[number]
        await self.plane.pod_status(self.namespace, f"vllm-{number}", host, ready=ready, restarts=restarts)


def ready(adapter: dict[str, Any]) -> str | None:
    """Since when an adapter serves on every engine, as the operator wrote it; None when it does not."""
    for condition in (adapter.get("status") or {}).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True" and condition["reason"] == "Serving":
            return str(condition["lastTransitionTime"])
    return None


@contextlib.asynccontextmanager
async def stage(ground: Ground, namespace: str, count: int, **settings: Any) -> AsyncIterator[Stage]:
    """A fleet of so many engines, which behave as ``settings`` say; no operator yet."""
    await ground.plane.namespace(namespace)
    write_adapter(ground.kubelet.claim(namespace) / "incoming" / "1", base_model_name_or_path="tiny")
    # The files are proved elsewhere: engines that read none leave the processors to the operator.
    settings = {"model": "/models/tiny", "served_names": ["tiny"], "check_files": False, **settings}
    async with engines(count, **settings) as fakes:
        one = Stage(ground, namespace, fakes)
        await ground.plane.fleet(namespace, port=fakes.port)
        room = ("--max-loras", "64", "--max-cpu-loras", "8192")
        for number, host in enumerate(fakes.hosts):
            await ground.plane.engine_pod(namespace, f"vllm-{number}", host, args=room)
        say(f"{namespace}: {count} engines, {json.dumps(settings)}")
        yield one
