"""The kubelet's part for sync pods: runs the very code of ``lorafleet sync`` in this process, on a local folder.

It takes the plan from the pod as the Job has it, gives it claims, Secrets and ConfigMaps as folders, runs it, and
writes the termination message into the pod's status.
"""

import asyncio
import contextlib
import json
import os
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from lorafleet.cli.sync import TAKE_SECONDS, run_sync
from lorafleet.controller import jobs
from lorafleet.kube import KubeError, path
from lorafleet.store.packing import unpacked
from lorafleet.store.plan import PLAN_ENV, PROGRESS_PORT, REPORT_PATH, SyncPlan, SyncReport
from lorafleet.store.termination import messages
from lorafleet.watch import informer
from tests.harness.plane import Plane


class FakeKubelet:
    """Runs sync pods of all namespaces; ``volumes`` holds a folder per namespace and claim.

    ``run`` is what a pod does with its plan: the real code, unless a test is about what the operator makes of answers.
    """

    def __init__(self, plane: Plane, volumes: Path, run: Callable[[SyncPlan], SyncReport] = run_sync) -> None:
        self.run = run
        self._plane = plane
        self._volumes = volumes
        self._tasks: set[asyncio.Task[None]] = set()
        self.paused = asyncio.Event()
        self.paused.set()
        self.ended: dict[str, float] = {}
        self.missing: set[str] = set()
        """Claims that do not exist: their pods are never scheduled."""
        self.handed_over = 0
        """How many reports were too long for a termination message."""
        self.messages: list[str] = []
        """The termination messages of all pods."""

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
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                continue
            task = asyncio.create_task(self._run(pod))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, pod: dict[str, Any]) -> None:
        await self.paused.wait()
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        container = pod["spec"]["containers"][0]
        claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["spec"]["volumes"]]
        gone = next((claim for claim in claims if claim in self.missing), None)
        if gone is not None:
            await self._unschedulable(namespace, name, gone)
            return
        text = next(one["value"] for one in container["env"] if one["name"] == PLAN_ENV).replace("$$", "$")
        folders = {}
        for volume in pod["spec"]["volumes"]:
            mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == volume["name"])
            folder = await self._folder(namespace, name, volume)
            if folder is not None:
                folders[mount] = str(folder)
        plan = SyncPlan.model_validate(_moved(unpacked(json.loads(text)), folders))
        message, whole = messages(await asyncio.to_thread(self.run, plan))
        if whole is not None:
            await self._hand_over(namespace, name, whole)
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
                    "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": message.decode()}},
                }
            ],
        }
        await self._plane.merge(path("v1", "pods", namespace, name, "status"), {"status": status})
        self.messages.append(message.decode())
        self.ended[name] = asyncio.get_running_loop().time()

    async def _hand_over(self, namespace: str, name: str, report: bytes) -> None:
        """What the pod does with a report that is too long: it waits at its address for the operator to ask for it."""
        self.handed_over += 1
        ip = f"127.{32 + os.getpid() % 64}.{self.handed_over // 250}.{self.handed_over % 250 + 1}"
        taken = asyncio.Event()

        async def answer(_: web.Request) -> web.Response:
            taken.set()
            return web.Response(body=report)

        app = web.Application()
        app.router.add_get(REPORT_PATH, answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, ip, PROGRESS_PORT).start()
            status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
            await self._plane.merge(path("v1", "pods", namespace, name, "status"), {"status": status})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(taken.wait(), TAKE_SECONDS)
        finally:
            # It ends when the answer is sent.
            await runner.cleanup()

    async def _folder(self, namespace: str, pod: str, volume: dict[str, Any]) -> Path | None:
        """The folder that a volume of a pod is; one that is optional and not there is empty."""
        if "persistentVolumeClaim" in volume:
            return self.claim(namespace, volume["persistentVolumeClaim"]["claimName"])
        for kind, plural, name in (("secret", "secrets", "secretName"), ("configMap", "configmaps", "name")):
            if kind not in volume:
                continue
            folder = self._volumes / namespace / "mounts" / pod / volume["name"]
            folder.mkdir(parents=True)
            try:
                found = await self._plane.kube.get(path("v1", plural, namespace, volume[kind][name]))
            except KubeError as error:
                if not (error.not_found and volume[kind].get("optional")):
                    raise
                return folder
            for key, value in (found.get("data") or {}).items():
                (folder / key).write_bytes(b64decode(value) if kind == "secret" else value.encode())
            return folder
        return None

    async def _unschedulable(self, namespace: str, name: str, claim: str) -> None:
        message = f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found.'
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        status = {"phase": "Pending", "conditions": [condition]}
        await self._plane.merge(path("v1", "pods", namespace, name, "status"), {"status": status})


def _moved(found: Any, folders: dict[str, str]) -> Any:
    """The plan with the folders of this machine in the place of the pod's."""
    if isinstance(found, dict):
        return {key: _moved(value, folders) for key, value in found.items()}
    if isinstance(found, list):
        return [_moved(value, folders) for value in found]
    for mount, folder in folders.items():
        if isinstance(found, str) and (found == mount or found.startswith(f"{mount}/")):
            return folder + found[len(mount) :]
    return found
