"""A real fleet on a real cluster: the shipped charts, real vLLM engines, and the few things that people do to them.

The demo and the scenarios act through this: kubectl and helm as a user would run them, files on the claim as a trainer
would leave them, questions to engines as a client would ask them. It decides nothing and asserts nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from e2e import values
from e2e.cluster import binaries, images, paths
from e2e.cluster.seam import Cluster, Volume, open_cluster
from e2e.engine.tiny_model import make_adapters
from e2e.values import BASE, CLAIM, FLEET

ROOT = Path(__file__).parents[1]
SYSTEM = "lorafleet-system"
NAMESPACE = "specialists"
PROMPT = "A small model"
T = TypeVar("T")


class Failed(AssertionError):
    """Something did not happen in time, or a command failed; the text says what was seen."""


def until(what: str, probe: Callable[[], T], deadline: float = 120.0, pause: float = 0.2) -> T:
    """Asks until the answer is true and returns it; raises Failed with what was seen last."""
    end = time.monotonic() + deadline
    last: Any = None
    while time.monotonic() < end:
        try:
            last = probe()
        except Failed as error:
            last = error
        else:
            if last:
                found: T = last
                return found
        time.sleep(pause)
    raise Failed(f"not within {deadline:g} s: {what}; last seen: {last}")


class World:
    """The cluster, the operator's release and what is asked of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kubeconfig = cluster.kubeconfig()
        self._trained: set[str] = set()

    @classmethod
    def up(cls, name: str = "lorafleet") -> World:
        """A running cluster with our images in it."""
        archives = [images.build(which) for which in ("engine", "lorafleet", "envoy")]
        cluster = open_cluster(name)
        cluster.up()
        for archive in archives:
            cluster.load_image(archive)
        return cls(cluster)

    # Commands.

    def run(self, *argv: str | Path, stdin: str | None = None, deadline: float = 120.0) -> str:
        """Runs a command and returns what it prints; raises Failed with its words."""
        words = [str(word) for word in argv]
        done = subprocess.run(words, input=stdin, text=True, capture_output=True, timeout=deadline, check=False)
        if done.returncode:
            raise Failed(
                f"{' '.join(words[:6])} …: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def kubectl(self, *argv: str, stdin: str | None = None, deadline: float = 120.0) -> str:
        """kubectl, in the fleet's namespace unless told otherwise."""
        where = () if "-n" in argv or "-A" in argv else ("-n", NAMESPACE)
        return self.run(
            binaries.kubectl(), f"--kubeconfig={self.kubeconfig}", *where, *argv, stdin=stdin, deadline=deadline
        )

    def helm(self, *argv: str, deadline: float = 300.0) -> str:
        """helm."""
        return self.run(binaries.helm(), f"--kubeconfig={self.kubeconfig}", *argv, deadline=deadline)

    def json(self, *argv: str) -> Any:
        """What kubectl prints as JSON."""
        return json.loads(self.kubectl(*argv, "-o", "json"))

    def apply(self, *manifests: dict[str, Any]) -> None:
        """kubectl apply."""
        namespace = manifests[0]["metadata"].get("namespace", NAMESPACE)
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    # The charts.

    def install_operator(self) -> None:
        """Installs or upgrades the operator's chart and waits until both replicas are ready."""
        image = images.build("lorafleet")
        values = {
            "image": {"repository": "localhost/lorafleet", "tag": "e2e", "pullPolicy": "Never"},
            # The tag stays the same when the image changes: without this the pods would, too.
            "podAnnotations": {"lorafleet.dev/image": image.stem},
        }
        self._release("lorafleet", ROOT / "charts/lorafleet", SYSTEM, values)
        self.kubectl("-n", SYSTEM, "rollout", "status", "deployment/lorafleet", "--timeout=120s", deadline=130)

    def install_fleet(
        self, namespace: str = NAMESPACE, name: str = FLEET, size: str | None = None, **changes: Any
    ) -> Volume:
        """Installs the fleet's chart with real vLLM engines; ``changes`` go into the values of ``engines``."""
        return self.install_values(values.fleet(images.build("lorafleet").stem, **changes), namespace, name, size)

    def install_values(
        self, found: dict[str, Any], namespace: str, name: str = FLEET, size: str | None = None
    ) -> Volume:
        """Installs the fleet's chart with these values, on a claim of the namespace."""
        volume = self.cluster.make_volume(namespace, CLAIM, size)
        self._release(name, ROOT / "charts/lorafleet-fleet", namespace, found)
        return volume

    def _release(self, name: str, chart: Path, namespace: str, values: dict[str, Any]) -> None:
        folder = paths.state_dir(self.cluster.name) / "values"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{namespace}-{name}.yaml"
        file.write_text(yaml.safe_dump(values))
        self.helm("upgrade", "--install", name, str(chart), "-n", namespace, "--create-namespace", "-f", str(file))

    def wait_engines(self, count: int = 2, namespace: str = NAMESPACE, deadline: float = 420.0) -> None:
        """Waits until so many engines of the fleet are usable."""

        def usable() -> bool:
            fleet = self.json("-n", namespace, "get", "specialistfleet", FLEET)
            return int((fleet.get("status") or {}).get("readyEngines", 0)) == count

        until(f"{count} engines usable in {namespace}", usable, deadline, pause=1.0)

    # Adapters.

    def volume_path(self, namespace: str = NAMESPACE, claim: str = CLAIM) -> Path:
        """Where the claim's files are on this machine."""
        volume = self.json("get", "pv", f"{namespace}-{claim}")
        return Path(volume["spec"]["hostPath"]["path"])

    def train(self, wanted: Sequence[dict[str, Any]], namespace: str = NAMESPACE) -> None:
        """Adapters by peft at ``incoming/<name>`` of the claim; see ``make_adapters`` for the options.

        Each folder appears whole, by a rename, as a careful trainer leaves it. The same options give the same files, so
        what was trained for one scenario is copied for others.
        """
        incoming = self.volume_path(namespace) / "incoming"
        incoming.mkdir(mode=0o755, exist_ok=True)
        jobs = [{"base_name": BASE, **one} for one in wanted]
        names = [str(job.pop("name")) for job in jobs]
        keys = [hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12] for job in jobs]
        made = paths.state_dir(self.cluster.name) / "trained"
        new = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self._trained}
        if new:
            make_adapters([{"folder": str(made / key), **job} for key, job in new.items()])
            self._trained.update(new)
        for name, key in zip(names, keys, strict=True):
            part = incoming / f".{name}"
            shutil.rmtree(incoming / name, ignore_errors=True)
            shutil.copytree(made / key, part)
            part.rename(incoming / name)

    def forget_training(self, namespace: str = NAMESPACE) -> None:
        """Removes what ``train`` made."""
        shutil.rmtree(self.volume_path(namespace) / "incoming", ignore_errors=True)

    def adapter(self, name: str, *versions: str, namespace: str = NAMESPACE, fleet: str = FLEET, **spec: Any) -> None:
        """Applies an adapter whose versions come from ``incoming/<name>-<version>`` of the claim."""
        entries = [{"name": v, "source": {"volume": {"path": f"incoming/{name}-{v}"}}} for v in versions]
        self.apply(
            {
                "apiVersion": "lorafleet.dev/v1alpha1",
                "kind": "LoRAAdapter",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"fleet": fleet, "versions": entries, **spec},
            }
        )

    def status(self, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """An adapter's status."""
        found: dict[str, Any] = self.json("-n", namespace, "get", "loraadapter", name).get("status") or {}
        return found

    def condition(self, name: str, kind: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """One of an adapter's conditions."""
        conditions = self.status(name, namespace).get("conditions", ())
        return next((one for one in conditions if one["type"] == kind), {})

    def wait(
        self, name: str, kind: str, reason: str, namespace: str = NAMESPACE, deadline: float = 120.0
    ) -> dict[str, Any]:
        """Waits until a condition of an adapter is true for a reason; the condition."""

        def holds() -> dict[str, Any]:
            found = self.condition(name, kind, namespace)
            if found.get("status") == "True" and found.get("reason") == reason:
                return found
            raise Failed(json.dumps(self.status(name, namespace).get("conditions")))

        return until(f"{name} {kind} because {reason}", holds, deadline)

    def wait_serving(self, name: str, version: str, namespace: str = NAMESPACE, deadline: float = 120.0) -> str:
        """Waits until a version carries all traffic on every engine; its served name."""

        def serves() -> str:
            status = self.status(name, namespace)
            traffic = status.get("traffic") or [{}]
            conditions: list[dict[str, Any]] = status.get("conditions", [])
            ready: dict[str, Any] = next((one for one in conditions if one["type"] == "Ready"), {})
            current = ready.get("observedGeneration") == self.generation(name, namespace)
            if traffic[0].get("version") == version and ready.get("status") == "True" and current:
                return str(traffic[0]["servedName"])
            raise Failed(json.dumps(status.get("conditions")))

        return until(f"{name} {version} serves", serves, deadline)

    def generation(self, name: str, namespace: str = NAMESPACE) -> int:
        """An adapter's generation."""
        return int(self.json("-n", namespace, "get", "loraadapter", name)["metadata"]["generation"])

    # Engines.

    def engines(self, namespace: str = NAMESPACE) -> list[str]:
        """The pods of the fleet's engines."""
        pods = self.json("-n", namespace, "get", "pods", "-l", "lorafleet.dev/component=engine")["items"]
        return sorted(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp"))

    def pod(self, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """A pod."""
        found: dict[str, Any] = self.json("-n", namespace, "get", "pod", name)
        return found

    def request(self, engine: str, where: str, body: dict[str, Any] | None = None, namespace: str = NAMESPACE) -> Any:
        """A request to an engine's API as a client in the cluster sends it; Failed unless it answers 2xx."""
        address = self.pod(engine, namespace)["status"].get("podIP")
        if not address:
            raise Failed(f"{engine} has no address")
        argv = [*self.cluster.enter(), "curl", "-sS", "--fail-with-body", "-m", "30", f"http://{address}:8000{where}"]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        text = self.run(*argv)
        return json.loads(text) if text else {}

    def ask(self, engine: str, model: str, prompt: str = PROMPT, namespace: str = NAMESPACE, tokens: int = 12) -> str:
        """What a model answers, greedily."""
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        return str(self.request(engine, "/v1/completions", body, namespace)["choices"][0]["text"])

    def listed(self, engine: str, namespace: str = NAMESPACE) -> dict[str, str]:
        """The adapters that an engine lists, by name with their path."""
        models = self.request(engine, "/v1/models", namespace=namespace)["data"]
        return {one["id"]: one["root"] for one in models if one.get("parent")}

    def kill_engine(self, engine: str, namespace: str = NAMESPACE) -> None:
        """Ends all processes of an engine's container but the main one, which then gives up by itself."""
        self.kubectl("-n", namespace, "exec", engine, "-c", "vllm", "--", "sh", "-c", "kill -9 -1 || true")

    def kill_program(self, pod: str, words: str, namespace: str = NAMESPACE) -> None:
        """Ends a container at once, by SIGKILL for its main process: the one whose command line has these words."""
        found = []
        for pid in self.processes(pod, namespace):
            with contextlib.suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                    found.append(pid)
        if not found:
            raise Failed(f"no process of {pod} has {words!r} in its command line")
        os.kill(min(found), signal.SIGKILL)

    def restarts(self, pod: str, namespace: str = NAMESPACE) -> int:
        """How often the container of an engine or a router was started again."""
        statuses = self.pod(pod, namespace)["status"].get("containerStatuses") or [{}]
        return int(statuses[0].get("restartCount", 0))

    def processes(self, pod: str, namespace: str = NAMESPACE) -> list[int]:
        """The process ids, on this machine, of a pod's containers."""
        uid = self.pod(pod, namespace)["metadata"]["uid"]
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"pod{uid}" in (folder / "cgroup").read_text():
                        found.append(int(folder.name))
        return sorted(found)

    def signal(self, pod: str, number: signal.Signals, namespace: str = NAMESPACE) -> None:
        """Sends a signal to everything in a pod, from outside, so that its first process gets it too."""
        for pid in self.processes(pod, namespace):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # Routers.

    def router(self, namespace: str = NAMESPACE, fleet: str = FLEET) -> str:
        """Where clients of a fleet send requests, inside the cluster's network."""
        spec = self.json("-n", namespace, "get", "service", f"{fleet}-router")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def routers(self, namespace: str = NAMESPACE) -> list[str]:
        """The pods of the fleet's routers."""
        pods = self.json("-n", namespace, "get", "pods", "-l", "lorafleet.dev/component=router")["items"]
        return sorted(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp"))

    def act(self, adapter: str, verb: str, namespace: str = NAMESPACE) -> None:
        """A verb, as an annotation of its own token."""
        value = f"lorafleet.dev/action={verb}@{time.time_ns()}"
        self.kubectl("-n", namespace, "annotate", "--overwrite", "loraadapter", adapter, value)

    def weights(self, name: str, namespace: str = NAMESPACE) -> dict[str, int]:
        """Which versions of an adapter have which share now, without those that have none."""
        traffic = self.status(name, namespace).get("traffic", ())
        return {one["version"]: one["weight"] for one in traffic if one["weight"]}

    def served_name(self, name: str, version: str, namespace: str = NAMESPACE) -> str:
        """What engines call a version."""
        versions = self.status(name, namespace)["versions"]
        return next(str(one["servedName"]) for one in versions if one["name"] == version)

    def wait_weights(
        self, name: str, wanted: dict[str, int], namespace: str = NAMESPACE, deadline: float = 120.0
    ) -> None:
        """Waits until an adapter's traffic is split so."""

        def split() -> bool:
            status = self.status(name, namespace)
            if {one["version"]: one["weight"] for one in status.get("traffic", ()) if one["weight"]} == wanted:
                return True
            raise Failed(json.dumps({key: status.get(key) for key in ("traffic", "rollout", "conditions")}))

        until(f"{name} has the weights {wanted}", split, deadline, pause=0.1)

    def wait_stable(self, name: str, version: str, namespace: str = NAMESPACE, deadline: float = 120.0) -> list[int]:
        """Waits until a version has been promoted; the weights that it was seen with on the way, each once."""
        seen: list[int] = []

        def promoted() -> bool:
            status = self.status(name, namespace)
            traffic = {one["version"]: one["weight"] for one in status.get("traffic", ())}
            weight = traffic.get(version, 0)
            if weight and weight not in seen[-1:]:
                seen.append(weight)
            if status.get("stableVersion") == version and weight == 100:
                return True
            raise Failed(json.dumps({key: status.get(key) for key in ("traffic", "rollout", "conditions", "aborted")}))

        until(f"{name} {version} is promoted", promoted, deadline, pause=0.1)
        return seen

    def load_calls(self, engine: str, namespace: str = NAMESPACE) -> list[int]:
        """The statuses of all load calls that an engine's present container has answered, from its access log."""
        log = self.kubectl("-n", namespace, "logs", engine, "-c", "vllm")
        return [int(line) for line in re.findall(r'"POST /v1/load_lora_adapter HTTP/1\.\d" (\d+)', log)]

    # The operator.

    def leader(self) -> str:
        """The pod that holds the Lease."""
        lease = self.json("-n", SYSTEM, "get", "lease", "lorafleet")
        return str(lease["spec"].get("holderIdentity", "")).rsplit("_", 1)[0]

    def operators(self) -> list[str]:
        """The operator's pods."""
        pods = self.json("-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/name=lorafleet")["items"]
        return sorted(pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp"))

    def operator_log(self) -> str:
        """What both replicas wrote."""
        return self.kubectl("-n", SYSTEM, "logs", "-l", "app.kubernetes.io/name=lorafleet", "--tail=400", "--prefix")
