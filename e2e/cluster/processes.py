"""Starting, finding and ending the processes of one instance, and no others.

A process is ours if its id *and* its start time are those written down when it was started (an id alone may have been
given away since), or if it lives in the instance's control group, where everything it started is kept by the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.shell import ClusterError

CGROUPS = Path("/sys/fs/cgroup")
BOOT = Path("/proc/sys/kernel/random/boot_id")

Argv = list[str | Path]


@dataclass(frozen=True)
class Program:
    """One long-running part of the cluster."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)


class Processes:
    """The processes of one instance: `folder` keeps their ids and logs, `prefix` puts them into its network."""

    def __init__(self, folder: Path, prefix: Sequence[str], group: ControlGroup | None) -> None:
        self._pids = folder / "pids"
        self.logs = folder / "logs"
        self._prefix = prefix
        self._group = group

    def start(self, program: Program) -> None:
        if self.alive(program.name):
            raise ClusterError(f"{program.name} is already running")
        self._pids.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(program.name).open("ab") as log:
            child = subprocess.Popen(
                [*self._prefix, *map(str, program.argv)],
                env={**os.environ, **program.env},
                cwd=self._pids.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if self._group:
            self._group.adopt(child.pid)
        record = {"pid": child.pid, "started": _started(child.pid), "boot": BOOT.read_text().strip()}
        (self._pids / f"{program.name}.json").write_text(json.dumps(record))

    def restart(self, name: str) -> None:
        """Ends a program by force and starts it again with the same words, as a static pod's kubelet would."""
        pid = self.pid(name)
        if pid is None:
            raise ClusterError(f"{name} does not run; `up` mends that")
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        pairs = (pair.partition("=") for pair in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0"))
        env = {key: value for key, _, value in pairs if key}
        os.kill(pid, signal.SIGKILL)
        if not self._gone(name, 10):
            raise ClusterError(f"{name} (process {pid}) does not end")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            # The kernel may still hold the old one's port for a moment: then the new one ends at once.
            self.start(Program(name, words, env))
            if not self._gone(name, 3):
                return
        raise ClusterError(f"{name} does not start again; its log ends: {self.tail(name, 3)}")

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def names(self) -> list[str]:
        """Every program that was started and not yet stopped, dead or alive."""
        return sorted(path.stem for path in self._pids.glob("*.json"))

    def pid(self, name: str) -> int | None:
        """The id of a living process that is really the one we started."""
        try:
            record = json.loads((self._pids / f"{name}.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        pid = int(record["pid"])
        same = record["boot"] == BOOT.read_text().strip() and record["started"] == _started(pid)
        return pid if same else None

    def alive(self, name: str) -> bool:
        return self.pid(name) is not None

    def stop(self, name: str, seconds: float) -> None:
        """Ask it to end, wait, and end it by force when it has not after `seconds`."""
        if (pid := self.pid(name)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not self._gone(name, seconds):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                if not self._gone(name, 10):
                    raise ClusterError(f"{name} (process {pid}) does not end; look at /proc/{pid}/stack")
        (self._pids / f"{name}.json").unlink(missing_ok=True)

    def tail(self, name: str, lines: int = 20) -> str:
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def _gone(self, name: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.alive(name):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


class ControlGroup:
    """One group of processes per instance. Containers live below it, so it holds what no list of ours could name."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Version 1 has a tree per controller, version 2 a single one.
        self._unified = (CGROUPS / "cgroup.controllers").exists()

    def create(self) -> None:
        for tree in self._trees():
            (tree / self.name).mkdir(exist_ok=True)
        # Under version 2 a group with controllers may not hold processes itself.
        (self._tracking() / "system").mkdir(exist_ok=True)

    def adopt(self, pid: int) -> None:
        (self._tracking() / "system" / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """Every process in the group and below, the shims and the pods' own among them."""
        found: list[int] = []
        for folder in _below(self._tracking()):
            with contextlib.suppress(OSError):
                found += map(int, (folder / "cgroup.procs").read_text().split())
        return found

    def kill(self, seconds: float = 20, *, below: str = "") -> None:
        """End everything in the group (or in a part of it) and wait until it is gone."""
        end = time.monotonic() + seconds
        part = ControlGroup(f"{self.name}/{below}") if below else self
        while pids := part.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise ClusterError(f"processes {pids} do not end; look at /proc/<id>/stack")
            time.sleep(0.05)

    def remove(self) -> None:
        for tree in self._trees():
            for folder in sorted(_below(tree / self.name), key=lambda path: len(path.parts), reverse=True):
                for _ in range(50):
                    try:
                        folder.rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.05)  # The kernel empties a group a moment after its last process ended.

    def left(self) -> list[Path]:
        return [tree / self.name for tree in self._trees() if (tree / self.name).exists()]

    def _tracking(self) -> Path:
        return (CGROUPS if self._unified else CGROUPS / "pids") / self.name

    def _trees(self) -> list[Path]:
        if self._unified:
            return [CGROUPS]
        return sorted({path.resolve() for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists()})


def _below(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield folder
        with contextlib.suppress(OSError):
            for child in folder.iterdir():
                if child.is_dir():
                    yield from _below(child)


def _started(pid: int) -> int | None:
    """The start time in ticks since boot; None for a process that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; the fields are counted from behind it.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
