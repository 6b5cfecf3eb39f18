"""A real API server with its controllers and no node, and what tests put into it."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from lorafleet.api import names
from lorafleet.kube import Kube, KubeError, path

ROOT = Path(__file__).parents[2]
LABELS = {"app": "vllm"}
MERGE = "application/merge-patch+json"


def start(name: str) -> str:
    """Starts the control plane of that name, if it does not run; its kubeconfig."""
    from e2e.cluster.seam import open_cluster

    cluster = open_cluster(name, control_plane_only=True)
    cluster.up()
    return str(cluster.kubeconfig())


def stop(name: str) -> None:
    """Takes it down; its logs go, too, as nothing has its name again."""
    from e2e.cluster.paths import state_dir
    from e2e.cluster.seam import open_cluster

    open_cluster(name, control_plane_only=True).down()
    shutil.rmtree(state_dir(name), ignore_errors=True)


async def connect(kubeconfig: str) -> Kube:
    """A connection as administrator."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    return Kube(configuration)


async def until(what: str, probe: Callable[[], Awaitable[Any] | Any], deadline: float = 30.0) -> Any:
    """Asks until the answer is true, and returns it; AssertionError with ``what`` after so many seconds."""
    end = time.monotonic() + deadline
    last: Any = None
    while time.monotonic() < end:
        found = probe()
        last = await found if asyncio.iscoroutine(found) else found
        if last:
            return last
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {deadline} s: {what}; last seen {last!r}")


class Plane:
    """An API server as a test uses it."""

    def __init__(self, kube: Kube, kubeconfig: str) -> None:
        self.kube = kube
        self.kubeconfig = kubeconfig

    async def install_crds(self) -> None:
        """Installs the shipped CRDs and waits until they are served."""
        from yaml import safe_load

        for file in sorted((ROOT / "crds").glob("*.yaml")):
            crd = safe_load(file.read_text())
            where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd["metadata"]["name"])
            await self.kube.apply(where, crd)
            plural = crd["spec"]["names"]["plural"]

            async def served(plural: str = plural) -> bool:
                try:
                    await self.kube.list(path(names.API_VERSION, plural))
                except KubeError:
                    return False
                return True

            await until(f"{plural} served", served)

    async def namespace(self, name: str) -> str:
        """A new namespace that pods can be made in."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.kube.create(path("v1", "namespaces"), body)

        async def account() -> bool:
            try:
                await self.kube.get(path("v1", "serviceaccounts", name, "default"))
            except KubeError:
                return False
            return True

        await until("default service account", account)
        return name

    async def fleet(self, namespace: str, name: str = "fleet", *, port: int = 8000, **spec: Any) -> None:
        """A fleet whose engines have the usual labels."""
        body = {
            "baseModel": {"name": "tiny", "aliases": ["/models/tiny"]},
            "engines": {"selector": {"matchLabels": LABELS}, "port": port},
            "storage": {"claimName": "adapters", "mountPath": "/adapters"},
            "drainTime": "200ms",
            **spec,
        }
        await self.put(namespace, names.FLEET_KIND, names.FLEET_PLURAL, name, body)

    async def adapter(self, namespace: str, name: str, *versions: str, fleet: str = "fleet", **spec: Any) -> None:
        """An adapter whose versions come from ``incoming/<version>`` on the fleet's claim."""
        entries = [{"name": version, "source": {"volume": {"path": f"incoming/{version}"}}} for version in versions]
        body = {"fleet": fleet, "versions": entries, **spec}
        await self.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, name, body)

    async def put(self, namespace: str, kind: str, plural: str, name: str, spec: dict[str, Any]) -> None:
        """Creates an object, or replaces its spec."""
        where = path(names.API_VERSION, plural, namespace)
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        try:
            await self.kube.create(where, body)
        except KubeError as error:
            if not error.conflict:
                raise
            current = await self.kube.get(f"{where}/{name}")
            await self.kube.replace(f"{where}/{name}", current | {"spec": spec})

    async def get_adapter(self, namespace: str, name: str) -> dict[str, Any]:
        """An adapter as it is."""
        return await self.kube.get(path(names.API_VERSION, names.ADAPTER_PLURAL, namespace, name))

    async def get_fleet(self, namespace: str, name: str = "fleet") -> dict[str, Any]:
        """A fleet as it is."""
        return await self.kube.get(path(names.API_VERSION, names.FLEET_PLURAL, namespace, name))

    async def condition(self, namespace: str, name: str, kind: str, reason: str, deadline: float = 30.0) -> str:
        """Waits until an adapter's condition is true for this reason; its message."""

        async def holds() -> dict[str, Any] | None:
            status = (await self.get_adapter(namespace, name)).get("status") or {}
            found = {c["type"]: c for c in status.get("conditions", ())}
            one = found.get(kind)
            if one and one["status"] == "True" and one["reason"] == reason:
                return one
            return None

        try:
            return str((await until(f"{name} {kind} {reason}", holds, deadline))["message"])
        except AssertionError as error:
            status = (await self.get_adapter(namespace, name)).get("status")
            raise AssertionError(f"{error}; status {json.dumps(status, indent=1)}") from None

    async def engine_pod(
        self,
        namespace: str,
        name: str,
        ip: str,
        *,
        labels: dict[str, str] | None = None,
        args: tuple[str, ...] = (),
        ready: bool = True,
    ) -> dict[str, Any]:
        """A pod that looks like a vLLM engine at an address; its status is ours to write."""
        flags = [
            "--model", "/models/tiny", "--served-model-name", "tiny", "--enable-lora",
            "--max-loras", "4", "--max-cpu-loras", "4096", "--max-lora-rank", "16", *args,
        ]  # fmt: skip
        env = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true",
            "VLLM_PLUGINS": "lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": "/adapters",
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels or LABELS},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "vllm",
                        "image": "vllm",
                        "args": flags,
                        "env": [{"name": key, "value": value} for key, value in env.items()],
                        "ports": [{"name": "http", "containerPort": 8000}],
                    }
                ],
            },
        }
        await self.kube.create(path("v1", "pods", namespace), body)
        return await self.pod_status(namespace, name, ip, ready=ready)

    async def pod_status(
        self, namespace: str, name: str, ip: str, *, ready: bool = True, restarts: int = 0
    ) -> dict[str, Any]:
        """Writes a pod's status as a kubelet would."""
        flag = "True" if ready else "False"
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": flag}, {"type": "ContainersReady", "status": flag}],
            "containerStatuses": [
                {
                    "name": "vllm",
                    "image": "vllm",
                    "imageID": "vllm",
                    "ready": ready,
                    "restartCount": restarts,
                    "containerID": f"containerd://{name}-{restarts}",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
            ],
        }
        return await self.merge(path("v1", "pods", namespace, name, "status"), {"status": status})

    async def merge(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        """A merge patch."""
        return await self.kube.request("PATCH", where, body=body, content_type=MERGE)


def control_plane_name() -> str:
    """The name of the tests' control plane; one per test process, so that runs do not meet."""
    return f"lf-test-{os.getpid() % 10000}"
