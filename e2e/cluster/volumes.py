"""A claim that many pods may mount, on a folder of the one node: what a shared file system is on a real cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from e2e.cluster import binaries
from e2e.cluster.cleanup import mounts_below
from e2e.cluster.seam import Volume
from e2e.cluster.shell import ClusterError, run

OWNER = 65532
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def make_folder(path: Path, size: str | None) -> None:
    """Owned by the project's user and readable by every other; with a size a memory file system that ends there."""
    path.mkdir(parents=True, exist_ok=True)
    if size and path not in mounts_below(path):
        options = f"size={in_bytes(size)},mode=0755,uid={OWNER},gid={OWNER}"
        run(["mount", "-t", "tmpfs", "-o", options, "lorafleet-volume", path])
    os.chown(path, OWNER, OWNER)
    path.chmod(0o755)


def on_host(namespace: str, claim: str, path: Path, size: str | None) -> Volume:
    """A volume on a folder of the node, bound to its claim by name, so that no provisioner is needed."""
    name = f"{namespace}-{claim}"
    volume: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size or "100Gi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }
    return Volume(namespace, claim, path, [volume, claimed(namespace, claim, size, storage_class="", volume=name)])


def claimed(
    namespace: str, claim: str, size: str | None, *, storage_class: str | None, volume: str | None = None
) -> dict[str, Any]:
    """A ReadWriteMany claim; without a class it asks for the cluster's default."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": size or "10Gi"}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    if volume is not None:
        spec["volumeName"] = volume
    metadata = {"namespace": namespace, "name": claim}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def apply(volume: Volume, kubeconfig: Path) -> None:
    """Create the namespace if need be, and the volume and its claim."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": volume.namespace}}
    items = {"apiVersion": "v1", "kind": "List", "items": [namespace, *volume.manifests]}
    kubectl: list[str | Path] = [binaries.kubectl(), f"--kubeconfig={kubeconfig}"]
    run([*kubectl, "apply", "--server-side", "-f", "-"], stdin=json.dumps(items))


def in_bytes(size: str) -> int:
    number, unit = size[:-2], size[-2:]
    if unit not in _UNITS or not number.isdigit():
        raise ClusterError(f"{size!r} is no size; write it like 64Mi")
    return int(number) * _UNITS[unit]
