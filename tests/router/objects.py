"""Objects as the Kubernetes API shows them to a router."""

from typing import Any

Object = dict[str, Any]

ARGS = ("--model", "/models/tiny", "--served-model-name", "tiny")


def traffic(name: str, **weights: int) -> list[Object]:
    """``status.traffic`` of an adapter; the versions are keywords, such as ``v1=90``."""
    return [{"version": v, "servedName": served(name, v), "weight": weight} for v, weight in weights.items()]


def served(name: str, version: str) -> str:
    """What engines call a version."""
    return f"{name}/{version}-0123456789ab"


def version(name: str, v: str, phase: str = "Loaded", loaded: int | None = 1) -> Object:
    """One of ``status.versions``."""
    one: Object = {"name": v, "phase": phase, "servedName": served(name, v)}
    return one | ({} if loaded is None else {"loadedEngines": loaded})


def adapter(
    name: str, *versions: Object, fleet: str = "fleet", traffic: list[Object] | None = None, at: int = 1
) -> Object:
    """A LoRAAdapter."""
    return {
        "metadata": {"name": name, "namespace": "here", "uid": f"uid-{name}", "resourceVersion": str(at)},
        "spec": {"fleet": fleet, "versions": []},
        "status": {"traffic": traffic or [], "versions": list(versions)},
    }


def engine(name: str, *, ready: bool = True, instance: str | None = None, **more: Any) -> Object:
    """One of a fleet's ``status.engines``; about the pod of that name as ``pod`` makes it."""
    start = instance if instance is not None else f"uid-{name}/containerd://{name}-0/0"
    return {"name": name, "ready": ready, "loaded": 0, "wanted": 0, "instance": start, **more}


def fleet(*engines: Object, name: str = "fleet", port: int = 8000, labels: Object | None = None) -> Object:
    """A SpecialistFleet."""
    return {
        "metadata": {"name": name, "namespace": "here", "resourceVersion": "1"},
        "spec": {
            "baseModel": {"name": "acme/base"},
            "engines": {"selector": {"matchLabels": labels or {"app": "vllm"}}, "port": port},
        },
        "status": {"engines": list(engines)},
    }


def pod(
    name: str,
    ip: str = "10.0.0.1",
    *,
    ready: bool = True,
    restarts: int = 0,
    leaving: bool = False,
    phase: str = "Running",
    args: tuple[str, ...] = ARGS,
) -> Object:
    """An engine's pod."""
    container = {
        "name": "vllm",
        "ready": ready,
        "restartCount": restarts,
        "containerID": f"containerd://{name}-{restarts}",
    }
    metadata: Object = {"name": name, "namespace": "here", "uid": f"uid-{name}", "resourceVersion": "1"}
    return {
        "metadata": metadata | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}),
        "spec": {"containers": [{"name": "vllm", "image": "vllm", "args": list(args)}]},
        "status": {
            "phase": phase,
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [container],
        },
    }
