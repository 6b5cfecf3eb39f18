"""The one seam between what tests and demos need of a cluster and the three ways to have one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from e2e.cluster.shell import ClusterError, succeeds

DEFAULT_NAME = "lorafleet"


@dataclass(frozen=True)
class Volume:
    """A claim that many pods may mount, and where its bytes lie on this machine if they do."""

    namespace: str
    claim: str
    path: Path | None
    manifests: Sequence[dict[str, Any]]


class Cluster(Protocol):
    """Every method raises ClusterError with the next move in its message."""

    @property
    def name(self) -> str: ...

    def up(self) -> None:
        """Until a node is Ready. Quick when it already is; what a crash left is cleaned away first."""

    def down(self) -> None:
        """Leave no process, mount, network namespace or address behind. Nothing to do is fine."""

    def status(self) -> dict[str, str]:
        """Each part and its state, for people. Empty when there is no cluster."""

    def kubeconfig(self) -> Path:
        """A file for an administrator, valid both in a normal shell and inside `enter`."""

    def enter(self) -> list[str]:
        """Words to put before a command so that it reaches pods and services by address. May be empty."""

    def load_image(self, archive: Path) -> None:
        """Make the images of an OCI archive available to pods under their names."""

    def make_volume(self, namespace: str, claim: str, size: str | None = None) -> Volume:
        """Apply a bound ReadWriteMany claim, writable by uid 65532 and readable by every other.

        With a size such as "64Mi" the volume really ends there, so that a full disk can be tested.
        """


def open_cluster(name: str = DEFAULT_NAME, *, control_plane_only: bool = False) -> Cluster:
    """The user's own cluster if `LORAFLEET_KUBECONFIG` names one, else kind if it works here, else our own.

    Creates nothing. `LORAFLEET_CLUSTER=own|kind` overrides the choice.
    """
    from e2e.cluster.kind import KindCluster
    from e2e.cluster.own import OwnCluster
    from e2e.cluster.users import UsersCluster

    forced = os.environ.get("LORAFLEET_CLUSTER", "")
    if forced not in ("", "own", "kind"):
        raise ClusterError(f"LORAFLEET_CLUSTER is {forced!r}; it may be 'own' or 'kind'")
    if control_plane_only:
        return OwnCluster(name, control_plane_only=True)
    if not forced and (theirs := os.environ.get("LORAFLEET_KUBECONFIG")):
        return UsersCluster(Path(theirs))
    if forced == "kind" or (not forced and kind_works()):
        return KindCluster(name)
    return OwnCluster(name)


def kind_works() -> bool:
    return shutil.which("kind") is not None and succeeds(["docker", "info"])
