"""A kind cluster, where Docker and kind are there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from e2e.cluster import paths, volumes
from e2e.cluster.seam import Volume
from e2e.cluster.shell import ClusterError, run, step

# The cache is mounted at its own path, as on our own node, so that the same manifests find vLLM and its model.
_CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  extraMounts: [{{hostPath: "{cache}", containerPath: "{cache}"}}]
"""


class KindCluster:
    """One node in one container, `<name>-control-plane`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._container = f"{name}-control-plane"

    @property
    def name(self) -> str:
        return self._name

    def up(self) -> None:
        if self._name not in self._names():
            cache = paths.cache_dir()
            cache.mkdir(parents=True, exist_ok=True)
            config = _CONFIG.format(cache=cache)
            with step("kind cluster"):
                create = ["kind", "create", "cluster", "--name", self._name, "--wait", "120s", "--config", "-"]
                run(create, stdin=config)
        self.kubeconfig().parent.mkdir(parents=True, exist_ok=True)
        run(["kind", "export", "kubeconfig", "--name", self._name, "--kubeconfig", self.kubeconfig()])

    def down(self) -> None:
        if self._name in self._names():
            run(["kind", "delete", "cluster", "--name", self._name, "--kubeconfig", self.kubeconfig()])
        shutil.rmtree(self.kubeconfig().parent, ignore_errors=True)

    def status(self) -> dict[str, str]:
        return {"mode": f"kind, container {self._container}"} if self._name in self._names() else {}

    def kubeconfig(self) -> Path:
        return paths.cache_dir() / "kind" / self._name / "kubeconfig"

    def enter(self) -> list[str]:
        """The container's network as seen by this machine's kernel; Docker Desktop's virtual machine hides it."""
        pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", self._container]).strip()
        if not Path(f"/proc/{pid}/ns/net").exists():
            raise ClusterError("pods of this kind cluster are out of reach: Docker runs in its own virtual machine")
        return [*([] if os.geteuid() == 0 else ["sudo"]), "nsenter", f"--net=/proc/{pid}/ns/net"]

    def load_image(self, archive: Path) -> None:
        run(["kind", "load", "image-archive", archive, "--name", self._name])

    def make_volume(self, namespace: str, claim: str, size: str | None = None) -> Volume:
        path = Path("/var/lib/lorafleet/volumes") / namespace / claim
        inside = ["docker", "exec", self._container]
        run([*inside, "mkdir", "-p", path])
        if size:
            options = f"size={volumes.in_bytes(size)},mode=0755"
            run([*inside, "mount", "-t", "tmpfs", "-o", options, "lorafleet-volume", path])
        run([*inside, "chown", f"{volumes.OWNER}:{volumes.OWNER}", path])
        volume = volumes.on_host(namespace, claim, path, size)
        volumes.apply(volume, self.kubeconfig())
        return volume

    def _names(self) -> list[str]:
        return run(["kind", "get", "clusters", "-q"]).split()
