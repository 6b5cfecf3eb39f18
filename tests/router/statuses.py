"""What the operator writes and a router reads, written by a test; and the way to the API server, to be cut."""

from pathlib import Path
from urllib.parse import urlsplit

import yaml

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL
from lorafleet.kube import path
from tests.harness.plane import Plane
from tests.router.objects import Object, traffic
from tests.router.relay import Relay


async def write_status(plane: Plane, namespace: str, name: str, weights: dict[str, int], *versions: Object) -> int:
    """Writes an adapter's status as the operator would; its resource version."""
    where = path(API_VERSION, ADAPTER_PLURAL, namespace, name, "status")
    status = {"traffic": traffic(name, **weights), "versions": list(versions)}
    return int((await plane.merge(where, {"status": status}))["metadata"]["resourceVersion"])


async def write_engines(plane: Plane, namespace: str, *engines: Object) -> None:
    """Writes a fleet's status."""
    where = path(API_VERSION, FLEET_PLURAL, namespace, "fleet", "status")
    await plane.merge(where, {"status": {"engines": list(engines)}})


def about(pod: Object) -> Object:
    """What the operator says of a pod in order."""
    container = pod["status"]["containerStatuses"][0]
    start = f"{pod['metadata']['uid']}/{container['containerID']}/{container['restartCount']}"
    return {"name": pod["metadata"]["name"], "ready": True, "loaded": 0, "wanted": 0, "instance": start}


def address_of(plane: Plane) -> tuple[str, int]:
    """Where the API server is."""
    config = yaml.safe_load(Path(plane.kubeconfig).read_text())
    where = urlsplit(config["clusters"][0]["cluster"]["server"])
    assert where.hostname and where.port
    return where.hostname, where.port


def through(plane: Plane, one: Relay, folder: Path) -> str:
    """A kubeconfig that goes through the relay."""
    config = yaml.safe_load(Path(plane.kubeconfig).read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = f"https://127.0.0.1:{one.port}"
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return str(file)
