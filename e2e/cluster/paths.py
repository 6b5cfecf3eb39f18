"""Where everything the end-to-end world keeps on disk lives. Nothing here creates or removes anything."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """The folder of what is slow to make and safe to delete: binaries, images, the vLLM environment, models.

    `LORAFLEET_CACHE` names it outright; otherwise it is `lorafleet` below `XDG_CACHE_HOME` (`~/.cache`). Pods mount
    parts of it read-only at the same path; a home folder of mode 0700 does not hinder them, because a
    mount is made by root and the folders above the mount point inside a container are the container's own.
    """
    if named := os.environ.get("LORAFLEET_CACHE"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "lorafleet"


def bin_dir() -> Path:
    """Symlinks to the binaries in use (kubectl, helm, kubelet, …), kept by `binaries`."""
    return cache_dir() / "bin"


def tool_dir() -> Path:
    """The built binaries, one folder per tool module and version."""
    return cache_dir() / "tools"


def image_dir() -> Path:
    """OCI archives of built images, and buildah's own storage."""
    return cache_dir() / "images"


def state_root() -> Path:
    """The parent of every instance's state. It must be a real disk: overlayfs refuses another overlay as its upper."""
    if named := os.environ.get("LORAFLEET_STATE"):
        return Path(named).expanduser().absolute()
    return Path("/var/lib/lorafleet") if os.geteuid() == 0 else cache_dir() / "clusters"


def state_dir(name: str) -> Path:
    """One instance's state: certificates, etcd, containerd, kubelet, logs, volumes."""
    return state_root() / name


def run_dir(name: str) -> Path:
    """One instance's sockets: short, because a Unix socket's path ends at 107 bytes."""
    return Path("/run/lorafleet" if os.geteuid() == 0 else f"/tmp/lorafleet-{os.getuid()}") / name
