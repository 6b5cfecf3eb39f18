"""What the machine itself must have: Debian packages, installed when something they bring is missing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.shell import ClusterError, run, step


@dataclass(frozen=True)
class Need:
    """A program on PATH or an absolute file, and the package that brings it."""

    thing: str
    package: str

    def met(self) -> bool:
        if self.thing.startswith("/"):
            return Path(self.thing).exists()
        # Someone's PATH may lack the administrators' folders although they are root.
        return shutil.which(self.thing, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


NEEDS = {
    "cni": Need("/usr/lib/cni/bridge", "containernetworking-plugins"),
    "nft": Need("nft", "nftables"),
    "iptables": Need("iptables", "iptables"),
    "conntrack": Need("conntrack", "conntrack"),
    "ip": Need("ip", "iproute2"),
    "mount": Need("mount", "mount"),
    "mkfs": Need("mkfs.ext4", "e2fsprogs"),
    "buildah": Need("buildah", "buildah"),
    "mmdebstrap": Need("mmdebstrap", "mmdebstrap"),
    "gcc": Need("gcc", "gcc"),
    "libc": Need("/usr/include/stdio.h", "libc6-dev"),
    "seccomp": Need("/usr/include/seccomp.h", "libseccomp-dev"),
    "pkg-config": Need("pkg-config", "pkg-config"),
    "wrk": Need("wrk", "wrk"),
}
NODE = ("cni", "nft", "iptables", "conntrack", "ip", "mount")


def require(*names: str) -> None:
    """Install the packages of what is missing, or say which they are where that is not ours to do."""
    packages = sorted({NEEDS[name].package for name in names if not NEEDS[name].met()})
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"install these packages and try again: {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
    with step(f"installing {' '.join(packages)}"):
        try:
            run(install, env=quiet)
        except ClusterError:
            run(["apt-get", "update", "-qq"], env=quiet)
            run(install, env=quiet)
