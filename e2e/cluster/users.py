"""A cluster that the user already has. Nothing is created but what tests apply, and nothing is taken down."""

from __future__ import annotations

import os
from pathlib import Path

from e2e.cluster import binaries, volumes
from e2e.cluster.seam import Volume
from e2e.cluster.shell import ClusterError, run


class UsersCluster:
    """Its storage class (`LORAFLEET_STORAGE_CLASS`, else the default) must offer ReadWriteMany."""

    def __init__(self, kubeconfig: Path) -> None:
        if not kubeconfig.is_file():
            raise ClusterError(f"LORAFLEET_KUBECONFIG names {kubeconfig}, which is no file")
        self._kubeconfig = kubeconfig.absolute()

    @property
    def name(self) -> str:
        return "yours"

    def up(self) -> None:
        run([binaries.kubectl(), f"--kubeconfig={self._kubeconfig}", "get", "nodes"], timeout=30)

    def down(self) -> None:
        """Not ours to take down."""

    def status(self) -> dict[str, str]:
        return {"mode": f"the cluster of {self._kubeconfig}"}

    def kubeconfig(self) -> Path:
        return self._kubeconfig

    def enter(self) -> list[str]:
        return []

    def load_image(self, archive: Path) -> None:
        raise ClusterError(f"push {archive} to a registry that your cluster reads; its nodes are out of reach")

    def make_volume(self, namespace: str, claim: str, size: str | None = None) -> Volume:
        wanted = volumes.claimed(namespace, claim, size, storage_class=os.environ.get("LORAFLEET_STORAGE_CLASS"))
        volume = Volume(namespace, claim, None, [wanted])
        volumes.apply(volume, self._kubeconfig)
        return volume
