"""Taking back what a node leaves outside its own folders: mounts, traces of plugins, kernel settings."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from pathlib import Path

from e2e.cluster.shell import ClusterError, run, succeeds

# kubelet sets these on the host when it starts; the values before belong to the machine's owner.
SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


def mounts_below(folder: Path) -> list[Path]:
    """Mount points at or below a folder, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(_unescaped(line.split()[4])) for line in lines]
    return [point for point in reversed(points) if point.is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    for attempt in range(5):
        for point in mounts_below(folder):
            succeeds(["umount", point])
        if not mounts_below(folder):
            return
        time.sleep(0.1 * attempt)
    # Somebody's shell may stand in it; detached it disappears with the shell.
    for point in mounts_below(folder):
        run(["umount", "--lazy", point])


def remove(folder: Path) -> None:
    """Delete a tree. Refused while anything is mounted below: that could be another's data."""
    if left := mounts_below(folder):
        raise ClusterError(f"{left[0]} is still mounted; unmount it and run `make cluster-down` again")
    if folder.exists():
        shutil.rmtree(folder)


def forget_network(network: str) -> None:
    """The CNI library keeps every result in a folder that nobody can choose."""
    ours = re.compile(re.escape(network) + r"-[0-9a-f]{64}-\w+")
    if CNI_RESULTS.is_dir():
        for file in CNI_RESULTS.iterdir():
            if ours.fullmatch(file.name):
                file.unlink()
    for folder in (CNI_RESULTS, CNI_RESULTS.parent):
        _remove_if_empty(folder)


def forget_kubelet(pod_logs: Path) -> None:
    """kubelet's links to the logs of containers, and two folders that nobody can choose either."""
    if CONTAINER_LOGS.is_dir():
        for link in CONTAINER_LOGS.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(pod_logs):
                link.unlink()
    if DEVICE_PLUGINS.is_dir():
        for file in DEVICE_PLUGINS.iterdir():
            if file.is_socket() and not _answers(file):
                file.unlink()
    for folder in (CONTAINER_LOGS, DEVICE_PLUGINS, DEVICE_PLUGINS.parent):
        _remove_if_empty(folder)


def remember_sysctls(file: Path) -> None:
    """Write the values down, unless an instance that still runs has already done so."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        values = {name: path.read_text().strip() for name in SYSCTLS if (path := Path("/proc/sys") / name).exists()}
        file.write_text(json.dumps(values))


def restore_sysctls(file: Path) -> None:
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            with contextlib.suppress(OSError):
                path.write_text(value)
    file.unlink()


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
