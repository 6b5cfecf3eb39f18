"""Building the programs of a cluster from source, once per version, into the user's cache folder.

Each folder below `tools/` is a Go module that pins one program and everything it is made of; its go.sum is the version.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.debian import require
from e2e.cluster.shell import ClusterError, run, say, step

TOOLS = Path(__file__).parent / "tools"

KUBERNETES_VERSION = "v1.36.3"
_STAMP = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Module:
    """One Go module below `tools/`: which packages become which programs, and how they are linked."""

    folder: str
    packages: Mapping[str, str]
    cgo: bool = False
    tags: str = ""
    stamps: Mapping[str, str] = field(default_factory=dict)

    def flags(self) -> list[str]:
        link = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.stamps.items())])
        return ["-trimpath", "-ldflags", link, *(["-tags", self.tags] if self.tags else [])]

    def key(self) -> str:
        digest = hashlib.sha256(repr((self.flags(), self.cgo, sorted(self.packages.items()))).encode())
        for file in ("go.mod", "go.sum"):
            digest.update((TOOLS / self.folder / file).read_bytes())
        return digest.hexdigest()[:12]

    def home(self) -> Path:
        return paths.tool_dir() / f"{self.folder}-{self.key()}"


_KUBERNETES = ("kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
MODULES = (
    Module(
        "kubernetes",
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES} | {"etcd": "go.etcd.io/etcd/server/v3"},
        cgo=True,
        # Without these a server calls itself v0.0.0 and charts refuse it.
        stamps={
            f"{_STAMP}.gitVersion": KUBERNETES_VERSION,
            f"{_STAMP}.gitMajor": KUBERNETES_VERSION.removeprefix("v").split(".")[0],
            f"{_STAMP}.gitMinor": KUBERNETES_VERSION.split(".")[1],
        },
    ),
    Module(
        "containerd",
        {
            name: f"github.com/containerd/containerd/v2/cmd/{name}"
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
        tags="no_btrfs no_zfs no_devmapper",
    ),
    # runc's own start in a new namespace is C.
    Module("runc", {"runc": "github.com/opencontainers/runc"}, cgo=True, tags="seccomp"),
    Module("coredns", {"coredns": "github.com/coredns/coredns"}),
    Module("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, cgo=True),
)
# What tests fetch adapters from and ask for figures; no part of a cluster.
SERVER_MODULES = (
    Module("versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Module("registry", {"registry": "github.com/distribution/distribution/v3/cmd/registry"}),
    Module("oras", {"oras": "oras.land/oras/cmd/oras"}),
    Module("fake-gcs-server", {"fake-gcs-server": "github.com/fsouza/fake-gcs-server"}),
    # Without discovery by clouds, which is most of its build; its web pages are left out unless asked for.
    Module("prometheus", {"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"}, tags="netgo remove_all_sd"),
)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
CLIENTS = ("kubectl", "helm")
ALL = tuple(name for module in MODULES for name in module.packages)
SERVERS = tuple(name for module in SERVER_MODULES for name in module.packages)


def ensure(names: Iterable[str] = ALL) -> dict[str, Path]:
    """Build what is missing and return the path of each program. Milliseconds when nothing is."""
    found: dict[str, Path] = {}
    wanted = set(names)
    for module in (*MODULES, *SERVER_MODULES):
        mine = [name for name in module.packages if name in wanted]
        if not mine:
            continue
        home = module.home()
        if not all((home / name).exists() for name in mine):
            _build(module, mine)
        found |= {name: home / name for name in mine}
    if unknown := wanted - set(found):
        raise ClusterError(f"no tool module builds {', '.join(sorted(unknown))}")
    _link(found)
    return found


def kubectl() -> Path:
    """A kubectl of the cluster's own version."""
    return ensure(["kubectl"])["kubectl"]


def helm() -> Path:
    return ensure(["helm"])["helm"]


def _build(module: Module, names: list[str]) -> None:
    if shutil.which("go") is None:
        raise ClusterError(f"Go 1.26 or newer is needed to build {module.folder} once; install it and try again")
    if module.cgo:
        require("gcc", "libc")
    if module.folder == "runc":
        require("seccomp", "pkg-config")
    with _lock(module):
        missing = [name for name in names if not (module.home() / name).exists()]
        if missing and module.folder == "kubernetes":
            say("building Kubernetes from source; about ten minutes on two cores, once per version")
        for name in missing:
            part = module.home() / f".{name}.part"
            with step(f"building {name}"):
                run(
                    ["go", "build", *module.flags(), "-o", part, module.packages[name]],
                    cwd=TOOLS / module.folder,
                    env={"CGO_ENABLED": "1" if module.cgo else "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
                )
            part.rename(module.home() / name)


@contextmanager
def _lock(module: Module) -> Iterator[None]:
    """Two `cluster-up` side by side build once: the second waits."""
    module.home().mkdir(parents=True, exist_ok=True)
    with (module.home() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _link(found: Mapping[str, Path]) -> None:
    folder = paths.bin_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in found.items():
        link = folder / name
        if link.is_symlink() and link.readlink() == target:
            continue
        part = folder / f".{name}.{os.getpid()}"
        part.symlink_to(target)
        part.rename(link)
