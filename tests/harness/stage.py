"""A whole small world for a test: control plane, kubelet's part, fake engines, one or two replicas of the operator."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lorafleet.api.names import ACTION_ANNOTATION, ADAPTER_PLURAL, API_VERSION, ROUTER_LABEL
from lorafleet.kube import KubeError, path
from tests.adapters import adapter as write_adapter
from tests.fake_vllm import FakeEngine, FakeFleet, Settings
from tests.harness.kubelet import FakeKubelet
from tests.harness.plane import Plane, until
from tests.harness.replica import Replica, replica
from tests.harness.router import FakeRouter

PORT = 8000
_addresses = itertools.count(1)


def next_address() -> str:
    """A loopback address that no other engine of this run has."""
    number = next(_addresses)
    return f"127.1.{number // 250}.{number % 250 + 1}"


class Stage:
    """What a test acts on."""

    def __init__(self, plane: Plane, namespace: str, kubelet: FakeKubelet, fakes: FakeFleet, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.kubelet = kubelet
        self.fakes = fakes
        self.folder = folder
        self.engines: dict[str, FakeEngine] = {}
        self.replica: Replica | None = None
        self.exits = contextlib.AsyncExitStack()

    @property
    def serving(self) -> Path:
        """The published folders of the fleet's claim."""
        return self.kubelet.claim(self.namespace) / "serving"

    async def engine(self, name: str, *, args: tuple[str, ...] = (), ready: bool = True, **settings: Any) -> FakeEngine:
        """A fake engine and its pod."""
        host = next_address()
        engine = await self.fakes.add(host, PORT, mounts={"/adapters": str(self.serving)}, **settings)
        self.engines[name] = engine
        await self.plane.engine_pod(self.namespace, name, host, args=args, ready=ready)
        return engine

    async def router(self, name: str) -> FakeRouter:
        """A router's pod and what it counts; it ends with the stage."""
        one = await self.exits.enter_async_context(FakeRouter(name, next_address()))
        labels = {ROUTER_LABEL: "fleet"}
        await self.plane.engine_pod(self.namespace, name, one.host, labels=labels)
        return one

    async def act(self, name: str, action: str) -> None:
        """A verb, as the CLI gives it."""
        where = path(API_VERSION, ADAPTER_PLURAL, self.namespace, name)
        await self.plane.merge(where, {"metadata": {"annotations": {ACTION_ANNOTATION: action}}})

    async def restart(self, name: str, number: int = 1) -> None:
        """A container restart: the engine forgets, the pod says so."""
        engine = self.engines[name]
        await self.plane.pod_status(self.namespace, name, engine.host, ready=False, restarts=number)
        await engine.restart()
        await self.plane.pod_status(self.namespace, name, engine.host, restarts=number)

    def source(self, version: str, **changes: Any) -> Path:
        """An adapter's files at ``incoming/<version>`` of the fleet's claim, for the base model ``tiny``."""
        folder = self.kubelet.claim(self.namespace) / "incoming" / version
        seed = sum(map(ord, version))
        return write_adapter(folder, **{"seed": seed, "base_model_name_or_path": "tiny", **changes})

    async def loaded(self, *versions: str, adapter: str = "python", on: tuple[str, ...] | None = None) -> None:
        """Waits until exactly these versions of an adapter are loaded on the engines."""

        def exactly() -> bool:
            for name in on or tuple(self.engines):
                served = {key for key in self.engines[name].adapters if key.startswith(f"{adapter}/")}
                if {key.split("/")[1].rsplit("-", 1)[0] for key in served} != set(versions):
                    return False
            return True

        try:
            await until(f"{adapter} {versions} loaded", exactly, 20)
        except AssertionError as error:
            found = {name: sorted(engine.adapters) for name, engine in self.engines.items()}
            log = self.replica.log.read_text()[-3000:] if self.replica else ""
            raise AssertionError(f"{error}; engines {json.dumps(found)}\n{log}") from None

    async def gone(self, plural: str, name: str) -> None:
        """Waits until an object is gone."""

        async def missing() -> bool:
            try:
                await self.plane.kube.get(path(API_VERSION, plural, self.namespace, name))
            except KubeError as error:
                return error.not_found
            return False

        await until(f"{name} gone", missing, 20)

    async def delete(self, plural: str, name: str) -> None:
        """Deletes one of our objects."""
        await self.plane.kube.delete(path(API_VERSION, plural, self.namespace, name))


@contextlib.asynccontextmanager
async def stage(plane: Plane, namespace: str, folder: Path, **settings: object) -> AsyncIterator[Stage]:
    """A stage with one leading replica that acts in this namespace only."""
    kubelet = FakeKubelet(plane, folder / "volumes")
    base = Settings(model="/models/tiny", served_names=["tiny"])
    settings = {"watch_namespaces": namespace, "lease_name": f"lease-{namespace}", **settings}
    async with FakeFleet(base) as fakes, kubelet.running():
        one = Stage(plane, namespace, kubelet, fakes, folder)
        async with replica(plane.kubeconfig, folder / "operator.log", **settings) as leader:
            one.replica = leader
            async with one.exits:
                yield one
