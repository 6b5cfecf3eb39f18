"""The kubelet's part for sync pods: runs the very code of ``lorafleet sync`` in this process, on a local folder.

It takes the plan from the pod as the Job has it, runs it, and writes the termination message into the pod's status.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from lorafleet.cli.sync import run_sync
from lorafleet.controller import jobs
from lorafleet.controller.kube import informer, path
from lorafleet.store.plan import PLAN_ENV, SyncPlan, encode
from tests.harness.plane import Plane


class FakeKubelet:
    """Runs sync pods of all namespaces; ``volumes`` holds a folder per namespace and claim."""

    def __init__(self, plane: Plane, volumes: Path) -> None:
        self._plane = plane
        self._volumes = volumes
        self._tasks: set[asyncio.Task[None]] = set()
        self.paused = asyncio.Event()
        self.paused.set()
        self.ended: dict[str, float] = {}

    def claim(self, namespace: str, claim: str = "adapters") -> Path:
        """The folder that stands for a claim."""
        folder = self._volumes / namespace / claim
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Runs sync pods while the block runs."""
        task = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            task.cancel()
            for one in (task, *self._tasks):
                one.cancel()
            await asyncio.gather(task, *self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        seen: set[str] = set()
        async for kind, pod in informer(self._plane.kube, path("v1", "pods"), jobs.SELECTOR):
            if pod is None or kind == "DELETED" or pod["metadata"]["uid"] in seen:
                continue
            seen.add(pod["metadata"]["uid"])
            task = asyncio.create_task(self._run(pod))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, pod: dict[str, Any]) -> None:
        await self.paused.wait()
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        container = pod["spec"]["containers"][0]
        text = next(one["value"] for one in container["env"] if one["name"] == PLAN_ENV).replace("$$", "$")
        for volume in pod["spec"]["volumes"]:
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == volume["name"])
            if claim:
                text = text.replace(f'"{mount}"', f'"{self.claim(namespace, claim)}"')
        plan = SyncPlan.model_validate_json(text)
        message = encode(await asyncio.to_thread(run_sync, plan)).decode()
        status = {
            "phase": "Succeeded",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}},
                }
            ],
        }
        await self._plane.merge(path("v1", "pods", namespace, name, "status"), {"status": status})
        self.ended[name] = asyncio.get_running_loop().time()
