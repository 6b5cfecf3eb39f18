"""Our own one-node Kubernetes from the real programs, for machines without Docker; or its control plane alone.

A node needs root: namespaces, mounts, control groups. The control plane alone runs as anybody, on loopback ports of the
host, so that thousands of fake engines in a test's process can be its pods.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from e2e.cluster import binaries, cleanup, controlplane, debian, node, paths, volumes
from e2e.cluster.api import Api, answers
from e2e.cluster.network import Link, Network, free_link
from e2e.cluster.processes import ControlGroup, Processes
from e2e.cluster.seam import DEFAULT_NAME, Volume
from e2e.cluster.shell import ClusterError, run, say, step

NODE, CONTROL_PLANE = "node", "control plane only"
# In the order of starting; they end the other way round. containerd outlives the kubelet, whose pods it holds.
ORDER = ("etcd", "containerd", "kube-apiserver", "kube-controller-manager")


class OwnCluster:
    """One instance, known by its name alone: every method finds the rest in the instance's folder."""

    def __init__(self, name: str = DEFAULT_NAME, *, control_plane_only: bool = False) -> None:
        if not name or len(name) > 40 or not name.replace("-", "").isalnum() or name != name.lower():
            raise ClusterError(f"{name!r} is no name for a cluster: up to 40 small letters, digits and dashes")
        self._name = name
        self._state = paths.state_dir(name)
        self._note = self._state / "instance.json"
        self._wanted = CONTROL_PLANE if control_plane_only else NODE
        found = self._read()
        # What is there counts, so that `down` and `kubeconfig` need no word about it.
        self._mode = str(found["mode"]) if found else self._wanted
        self._network = Network(name)
        self._group = ControlGroup(f"lorafleet-{name}")
        self._node = node.Node(name, self._state, paths.run_dir(name), self._group.name)
        whole = self._mode == NODE
        self._processes = Processes(self._state, self._network.enter() if whole else [], self._group if whole else None)

    @property
    def name(self) -> str:
        return self._name

    def kubeconfig(self) -> Path:
        return self._state / "kubeconfig"

    def enter(self) -> list[str]:
        return self._network.enter() if self._mode == NODE else []

    def status(self) -> dict[str, str]:
        found = self._read()
        if not found:
            return {}
        parts = {name: "running" if self._processes.alive(name) else "dead" for name in self._processes.names()}
        api = Api(str(found["server"]), self._state / "pki")
        answer = "answers" if api.ready() else "does not answer"
        if self._mode == NODE:
            parts["node"] = "Ready" if api.node_ready(self._name) else "not Ready"
        return {"mode": self._mode, "server": f"{found['server']} {answer}", **parts}

    def running(self) -> bool:
        found = self._read()
        names = self._processes.names()
        if not found or not found.get("ready") or not all(map(self._processes.alive, names)):
            return False
        api = Api(str(found["server"]), self._state / "pki")
        return api.ready() and (self._mode == CONTROL_PLANE or api.node_ready(self._name))

    def up(self) -> None:
        if self._mode != self._wanted:
            raise ClusterError(f"{self._name} is there as a {self._mode}; take it down first or use another --name")
        with _locked(f"cluster-{self._name}"):
            if self.running():
                return
            if self._mode == NODE and os.geteuid() != 0:
                raise ClusterError("a node needs root; use sudo, or set LORAFLEET_KUBECONFIG to a cluster of yours")
            if self._mode == NODE:
                debian.require(*debian.NODE)
            tools = binaries.ensure(binaries.ALL if self._mode == NODE else binaries.CONTROL_PLANE)
            self._down()
            shutil.rmtree(self._processes.logs, ignore_errors=True)
            try:
                self._start(tools)
            except BaseException:
                say(f"{self._name} did not come up; its logs are in {self._processes.logs}")
                self._down()
                raise

    def down(self) -> None:
        with _locked(f"cluster-{self._name}"):
            self._down()

    def restart(self, part: str) -> None:
        """Kills one part and starts it again, everything else running on. For fault tests."""
        self._processes.restart(part)

    def load_image(self, archive: Path) -> None:
        if self._mode != NODE:
            raise ClusterError(f"{self._name} has no node that could hold an image")
        ctr = binaries.ensure(["ctr"])["ctr"]
        run([ctr, "--address", self._node.socket, "--namespace", "k8s.io", "images", "import", archive])

    def make_volume(self, namespace: str, claim: str, size: str | None = None) -> Volume:
        if self._mode != NODE:
            raise ClusterError(f"{self._name} has no node that could mount a volume")
        path = self._state / "volumes" / namespace / claim
        volumes.make_folder(path, size)
        volume = volumes.on_host(namespace, claim, path, size)
        volumes.apply(volume, self.kubeconfig())
        return volume

    def _start(self, tools: dict[str, Path]) -> None:
        whole = self._mode == NODE
        self._state.mkdir(parents=True, exist_ok=True)
        found: dict[str, object] = {"mode": self._mode, "server": "", "ready": False}
        self._note.write_text(json.dumps(found))
        link = self._make_network() if whole else None
        place = controlplane.inside(link) if link else controlplane.on_loopback()
        found["server"] = place.server
        self._note.write_text(json.dumps(found))
        authority = controlplane.write_certificates(self._state / "pki", place, self._name)
        api = Api(place.server, self._state / "pki")
        if link:
            self._node.write(authority, tools)
            self._processes.start(self._node.containerd(tools, os.environ.get("PATH", "")))
        with step("control plane"):
            for program in controlplane.programs(tools, self._state, place, with_node=whole):
                self._processes.start(program)
            if whole:
                self._load_pause()
            self._await("kube-apiserver", api.ready, 60)
        shutil.copy(self._state / "pki/admin.kubeconfig", self.kubeconfig())
        if link:
            with step("node Ready"):
                self._start_node(tools, api, link)
        self._await("kube-controller-manager", api.service_account, 60)
        self._note.write_text(json.dumps({**found, "ready": True}))

    def _make_network(self) -> Link:
        cleanup.remember_sysctls(paths.state_root() / "sysctls.json")
        self._group.create()
        # One instance at a time: an address is taken only once it is on an interface.
        with _locked("network"):
            link = free_link()
            self._network.create(link)
        return link

    def _load_pause(self) -> None:
        from e2e.cluster import images

        archive = images.build("pause")
        self._await("containerd", self._node.socket.exists, 30)
        end = time.monotonic() + 10
        while True:
            try:
                return self.load_image(archive)
            except ClusterError:
                # The socket is there a moment before anything listens.
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _start_node(self, tools: dict[str, Path], api: Api, link: Link) -> None:
        kubectl: list[str | Path] = [tools["kubectl"], f"--kubeconfig={self.kubeconfig()}"]
        for program in self._node.programs(tools):
            self._processes.start(program)
        run([*kubectl, "apply", "-f", "-"], stdin=node.DNS_ROLE)
        self._await("kubelet", lambda: api.node_ready(self._name), 90)
        self._await("kube-proxy", lambda: answers(f"http://{link.inside}:10256/healthz"), 30)
        self._await("coredns", lambda: answers(f"http://{link.inside}:8181/ready"), 30)

    def _await(self, part: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for one part, and say which part broke and how: this one by time, or any by having ended."""
        end = time.monotonic() + seconds
        while not ready():
            dead = [name for name in self._processes.names() if not self._processes.alive(name)]
            late = time.monotonic() > end
            if dead or late:
                guilty = dead[0] if dead else part
                what = "ended while starting" if dead else f"was not ready within {seconds:.0f} s"
                raise ClusterError(f"{guilty} {what}; the end of its log:\n{self._processes.tail(guilty)}")
            time.sleep(0.1)

    def _down(self) -> None:
        """Works on any state, also one that a crash or a reboot left."""
        names = self._processes.names()
        last = [name for name in ORDER if name in names]
        for name in [*(name for name in names if name not in last), *reversed(last)]:
            if name == "containerd":
                self._group.kill(below="kubepods")
                if self._processes.alive(name):
                    self._node.forget_containers(binaries.ensure(["ctr"])["ctr"])
            self._processes.stop(name, seconds=3)
        if self._mode == NODE and os.geteuid() == 0:
            self._group.kill()
            cleanup.unmount_below(self._state)
            cleanup.unmount_below(self._node.run)
            self._group.remove()
            self._network.remove()
            cleanup.forget_network(self._node.network)
            cleanup.forget_kubelet(self._node.pod_logs)
            cleanup.remove(self._node.run)
            with contextlib.suppress(OSError):
                self._node.run.parent.rmdir()
        if self._state.exists():
            # The logs stay, as they are what one looks for after a failure, and unpacked images where they are sound.
            kept = {self._processes.logs, *([self._node.images] if self._node.images_are_clean() else [])}
            for path in set(self._state.iterdir()) - kept:
                cleanup.remove(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if not any(_mode(note) == NODE for note in paths.state_root().glob("*/instance.json")):
            cleanup.restore_sysctls(paths.state_root() / "sysctls.json")

    def _read(self) -> dict[str, object] | None:
        return _read(self._note)


def _read(note: Path) -> dict[str, object] | None:
    try:
        found = json.loads(note.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _mode(note: Path) -> object:
    return (_read(note) or {}).get("mode")


@contextlib.contextmanager
def _locked(what: str) -> Iterator[None]:
    """Across processes, and released by the kernel however this one ends."""
    paths.state_root().mkdir(parents=True, exist_ok=True)
    with (paths.state_root() / f".{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
