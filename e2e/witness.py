"""Everything that a namespace shows while something happens: each state of its objects, and what sync pods write.

Jobs and their pods go as soon as their results are known, so they have to be watched from before.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from e2e.cluster import binaries, paths
from e2e.world import NAMESPACE, World, until

KINDS = ("jobs", "pods", "events", "loraadapters", "specialistfleets", "configmaps")


class Witness:
    """What was seen so far."""

    def __init__(self, folder: Path, pod_logs: Path) -> None:
        self._folder = folder
        self._pod_logs = pod_logs
        self._logs: dict[Path, bytes] = {}
        self._over = threading.Event()
        self._kept: dict[str, str] = {}

    def objects(self, *kinds: str) -> str:
        """Every state of every object of these kinds, all when none is named."""
        return "\n".join(self._text(kind) for kind in kinds or KINDS)

    def _text(self, kind: str) -> str:
        return self._kept[kind] if kind in self._kept else (self._folder / kind).read_text()

    def logs(self) -> str:
        """What sync pods wrote."""
        return "\n".join(data.decode(errors="replace") for data in self._logs.values())

    def look(self) -> None:
        """Reads the logs of pods until it is over; a pod's files go with the pod."""
        while not self._over.wait(0.05):
            for file in self._pod_logs.glob(f"{NAMESPACE}_lorafleet-s*/*/*.log"):
                try:
                    data = file.read_bytes()
                except OSError:
                    continue
                if len(data) >= len(self._logs.get(file, b"")):
                    self._logs[file] = data

    def stop(self) -> None:
        """Ends ``look``; what was seen can still be asked for."""
        self._kept = {kind: (self._folder / kind).read_text() for kind in KINDS}
        self._over.set()


@contextmanager
def witness(world: World) -> Iterator[Witness]:
    """Watches the fleet's namespace."""
    with TemporaryDirectory() as folder:
        seen = Witness(Path(folder), paths.state_dir(world.cluster.name) / "pod-logs")
        argv = [str(binaries.kubectl()), f"--kubeconfig={world.kubeconfig}", "-n", NAMESPACE, "get"]
        processes = []
        thread = threading.Thread(target=seen.look, daemon=True)
        thread.start()
        try:
            for kind in KINDS:
                with (Path(folder) / kind).open("wb") as out:
                    watch = [*argv, kind, "--watch", "--output-watch-events", "-o", "json"]
                    processes.append(subprocess.Popen(watch, stdout=out, stdin=subprocess.DEVNULL))
            until("the watches have begun", lambda: '"kind":"Pod"' in seen.objects("pods"), 30)
            yield seen
        finally:
            for process in processes:
                process.terminate()
                process.wait()
            seen.stop()
            thread.join()
