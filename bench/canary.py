"""What the benchmarks of rollouts share: two routers, an adapter with two versions, verbs, and waiting for a status."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bench.stage import Stage
from lorafleet.api import names
from lorafleet.kube import path
from tests.adapters import adapter as write_adapter
from tests.harness.plane import until
from tests.harness.routing import Router, router

ROUTERS = 2


@contextlib.asynccontextmanager
async def routers(one: Stage) -> AsyncIterator[list[Router]]:
    """Routers that are ready while the block runs, as a Deployment with replicas has them."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for number in range(ROUTERS):
            folder = one.ground.folder / f"{one.namespace}-router-{number}"
            opened.append(await stack.enter_async_context(router(one.plane.kubeconfig, one.namespace, folder)))
        yield opened


class Canary:
    """An adapter whose second version is on its way, or has come, to all traffic."""

    def __init__(self, one: Stage, name: str, **rollout: Any) -> None:
        self.one = one
        self.name = name
        self._rollout = rollout
        self._verbs = 0

    async def versions(self, *wanted: str) -> None:
        """Applies the adapter with these."""
        for version in wanted:
            folder = self.one.ground.kubelet.claim(self.one.namespace) / "incoming" / version
            write_adapter(folder, base_model_name_or_path="tiny")
        await self.one.plane.adapter(self.one.namespace, self.name, *wanted, rollout=self._rollout)

    async def status(self) -> dict[str, Any]:
        """Its status."""
        found = await self.one.plane.get_adapter(self.one.namespace, self.name)
        return dict(found.get("status") or {})

    async def serving(self, weights: Mapping[str, int], deadline: float = 60.0) -> dict[str, str]:
        """Waits until traffic is split so; the served names of all versions."""
        found: dict[str, Any] = {}

        async def split() -> bool:
            nonlocal found
            found = await self.status()
            now = {each["version"]: each["weight"] for each in found.get("traffic", ()) if each["weight"]}
            if now == dict(weights):
                return True
            await asyncio.sleep(0.1)
            return False

        await until(f"{self.name} has the weights {weights}", split, deadline)
        return {each["name"]: each["servedName"] for each in found["versions"] if each.get("servedName")}

    async def verb(self, verb: str) -> float:
        """Writes the annotation; the monotonic time just before."""
        self._verbs += 1
        where = path(names.API_VERSION, names.ADAPTER_PLURAL, self.one.namespace, self.name)
        value = f"{verb}@{self._verbs}"
        before = time.monotonic()
        await self.one.plane.merge(where, {"metadata": {"annotations": {names.ACTION_ANNOTATION: value}}})
        return before
