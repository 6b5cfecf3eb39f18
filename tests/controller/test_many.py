"""Many versions at once, through a real API server: few Jobs, each asked for once, whatever the report's length."""

import asyncio
import hashlib
from pathlib import Path

from lorafleet.api import names
from lorafleet.kube import path
from lorafleet.store.plan import ItemResult, PublishItem
from lorafleet.store.termination import SURE_ITEMS
from tests.controller.canned import CannedSync
from tests.harness.plane import Plane, until
from tests.harness.stage import stage

COUNT = 200


def _pinned(item: PublishItem) -> ItemResult:
    return ItemResult(i=0, pin=hashlib.sha256(item.adapter.encode()).hexdigest())


async def test_many_versions_take_few_jobs_and_none_is_asked_for_twice(
    plane: Plane, namespace: str, tmp_path: Path
) -> None:
    # The lease of the chart: at the short one of other tests a busy API server costs the operator its lead.
    lease = {"lease_duration": 15, "lease_renew": 10, "lease_retry": 2}
    async with stage(plane, namespace, tmp_path, **lease) as world:
        world.kubelet.run = sync = CannedSync()
        sync.answer = _pinned
        world.kubelet.paused.clear()
        await plane.fleet(namespace)
        await world.engine("vllm-0")
        entry = {"name": "1", "source": {"objectStore": {"url": "s3://models/one/"}}}
        body = {"fleet": "fleet", "versions": [entry]}
        wanted = [f"a{number}" for number in range(COUNT)]
        put = (plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, name, body) for name in wanted)
        await asyncio.gather(*put)

        async def all_have(field: str) -> bool:
            found = await plane.kube.list(path(names.API_VERSION, names.ADAPTER_PLURAL, namespace))
            versions = [(one.get("status") or {}).get("versions") or [{}] for one in found["items"]]
            return sum(version.get(field) is not None for version, *_ in versions) == COUNT

        await until("all are asked for", lambda: all_have("phase"), 60)
        world.kubelet.paused.set()
        await until("all are published", lambda: all_have("servedName"), 60)
        assert sorted(item.adapter for item in sync.published()) == sorted(wanted), "each once"
        sizes = [len(plan.items) for plan in sync.plans]
        assert max(sizes) > SURE_ITEMS, sizes
        assert len(sizes) <= 8, sizes
        assert world.kubelet.handed_over
