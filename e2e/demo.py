"""`make demo`: the main job from nothing, on a real cluster with a real vLLM, each step in a line with its time.

Runs over itself a second time. `--clean` removes what it made; `make cluster-down` takes the cluster down.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from e2e.cluster import paths
from e2e.cluster.shell import ClusterError
from e2e.values import BASE, FLEET
from e2e.world import NAMESPACE, PROMPT, SYSTEM, Failed, World, until

ADAPTER = "python-lora"
OTHER = "sql-lora"
T = TypeVar("T")

MANIFEST = """\
apiVersion: lorafleet.dev/v1alpha1
kind: LoRAAdapter
metadata: {name: python-lora, namespace: specialists}
spec:
  fleet: tiny
  versions:
  - name: 1.0.0
    source: {volume: {path: incoming/python-lora-1.0.0}}
"""


@dataclass
class Demo:
    """The steps so far, and where they are shown."""

    console: Console
    steps: list[tuple[str, float, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """A line that says what happens, then how long it took and what the block put into the list."""
        found: list[str] = []
        begun = time.monotonic()
        number = len(self.steps) + 1
        with self.console.status(f"[bold]{number}[/] {what} …"):
            if not self.console.is_terminal:
                self.console.print(f"{number:2d}. {what} …")
            yield found
        taken = time.monotonic() - begun
        result = "; ".join(found)
        self.steps.append((what, taken, result))
        self.console.print(
            Text.assemble(
                (f"{number:2d}. ✓ ", "green"), what, (f"  {taken:.1f} s", "dim"), f"  {result}" if result else ""
            )
        )

    def waiting(self, what: str, probe: Callable[[], T], show: Callable[[], str], deadline: float) -> T:
        """Waits with a line about the progress every few seconds."""
        last = [time.monotonic()]

        def shown() -> T:
            found = probe()
            if not found and time.monotonic() - last[0] > 10:
                last[0] = time.monotonic()
                self.console.print(f"      {show()}", style="dim")
            return found

        return until(what, shown, deadline, pause=0.5)

    def answers(self, title: str, rows: list[tuple[str, str, str]]) -> None:
        """What was asked and answered, side by side."""
        table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
        for column in ("engine", "model", f"answer to {PROMPT!r}"):
            table.add_column(column)
        for engine, model, answer in rows:
            table.add_row(engine, model, Text(repr(answer)))
        self.console.print(table)


def run(demo: Demo) -> World:
    """The whole demo; the world it was shown in."""
    console = demo.console
    with demo.step("a Kubernetes cluster: etcd, API server, controllers, kubelet, containerd, CoreDNS") as said:
        world = World.up()
        said.append(f"node {world.json('get', 'nodes')['items'][0]['metadata']['name']} is Ready")
    with demo.step("the operator, by helm install of charts/lorafleet: two replicas behind a Lease") as said:
        world.install_operator()
        said.append(f"{until('a leader', world.leader, 60)} leads")
    with demo.step("a fleet, by helm install of charts/lorafleet-fleet: two vLLM engines start on this CPU"):
        world.install_fleet()
        world.kubectl("delete", "loraadapter", "--all", "--timeout=90s")
    with demo.step("three adapters trained on the spot by peft, put on the fleet's claim") as said:
        names = (f"{ADAPTER}-1.0.0", f"{ADAPTER}-2.0.0", f"{OTHER}-1.0.0")
        world.train([{"name": name, "seed": 11 * (number + 1)} for number, name in enumerate(names)])
        said.append(", ".join(names))
    with demo.step("both engines load the base model and answer") as said:
        demo.waiting("two engines usable", lambda: usable(world) == 2, lambda: pods(world), 600)
        said.append(str(world.json("get", "specialistfleet", FLEET)["status"]["conditions"][0]["message"]))
    engines = world.engines()
    console.print(Syntax("$ kubectl apply -f - <<EOF\n" + MANIFEST + "EOF", "yaml", background_color="default"))
    with demo.step("kubectl apply of the adapter: fetched, checked, published, loaded into both engines") as said:
        world.adapter(OTHER, "1.0.0")
        world.kubectl("apply", "-f", "-", stdin=MANIFEST)
        first = world.wait_serving(ADAPTER, "1.0.0")
        other = world.wait_serving(OTHER, "1.0.0")
        said.append(f"serves as {first}")
    base = world.ask(engines[0], BASE)
    rows = [(engine, model, world.ask(engine, model)) for model in (BASE, first, other) for engine in engines]
    demo.answers("base model and adapters, side by side", rows)
    expect(len({answer for _, _, answer in rows}) == 3, "base model and the two adapters answer differently")
    with demo.step("a new version, by one more entry in spec.versions: loaded everywhere, then switched") as said:
        world.adapter(ADAPTER, "1.0.0", "2.0.0")
        second = world.wait_serving(ADAPTER, "2.0.0")
        said.append(f"serves as {second}")
    with demo.step("the old version drains for 2 s and is unloaded; its bytes stay for going back"):
        until("1.0.0 is unloaded", lambda: all(first not in world.listed(engine) for engine in engines), 60)
    answer = world.ask(engines[0], second)
    demo.answers("the new version", [(engine, second, world.ask(engine, second)) for engine in engines])
    expect(answer not in (base, rows[2][2]), "the new version answers differently again")
    killed(demo, world, engines[0], second, answer)
    with demo.step("kubectl delete of the adapter: no traffic, drained, unloaded everywhere, bytes removed") as said:
        world.kubectl("delete", "loraadapter", ADAPTER, "--timeout=90s")
        expect(all(second not in world.listed(engine) for engine in engines), "no engine lists it any more")
        expect(not (world.volume_path() / "serving" / ADAPTER).exists(), "its bytes are gone")
        said.append(f"{OTHER} still serves")
    expect(world.ask(engines[0], other) == rows[4][2], f"{OTHER} answers as before")
    return world


def killed(demo: Demo, world: World, engine: str, served: str, answer: str) -> None:
    """An engine's container dies and comes back without a registry; the operator loads again what belongs there."""
    with demo.step(f"kill -9 in the container of {engine}: vLLM starts again and has forgotten everything") as said:
        count = world.restarts(engine)
        world.kill_engine(engine)
        until("the container was started again", lambda: world.restarts(engine) > count, 60)
        demo.waiting("vLLM answers", lambda: answers(world, engine), lambda: pods(world), 600)
        said.append("it answers again")
    with demo.step("the operator sees the new container and loads the adapters again") as said:
        until("the adapter is back", lambda: served in world.listed(engine), 120, pause=0.1)
        world.wait_serving(ADAPTER, "2.0.0")
        expect(world.ask(engine, served) == answer, "it answers as before the kill")
        said.append("the same answer as before the kill")


def expect(holds: bool, what: str) -> None:
    """The demo shows only what is true."""
    if not holds:
        raise Failed(f"this should hold and does not: {what}")


def usable(world: World) -> int:
    """How many engines the fleet counts."""
    return int((world.json("get", "specialistfleet", FLEET).get("status") or {}).get("readyEngines", 0))


def answers(world: World, engine: str) -> bool:
    """Whether an engine is healthy."""
    try:
        return bool(world.request(engine, "/health") == {})
    except Failed:
        return False


def pods(world: World) -> str:
    """The engines' pods in a line."""
    items: list[dict[str, Any]] = world.json("get", "pods", "-l", "lorafleet.dev/component=engine")["items"]
    states = []
    for pod in items:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        states.append(f"{pod['metadata']['name']} {'is ready' if ready else 'loads its model'}")
    return ", ".join(states)


def summary(demo: Demo, world: World) -> None:
    """What happened, how to look around, how to clean up."""
    table = Table(title="what you saw", title_justify="left")
    table.add_column("step", ratio=3)
    table.add_column("seconds", justify="right")
    table.add_column("result", ratio=2)
    for what, taken, result in demo.steps:
        table.add_row(Text(what), f"{taken:.1f}", Text(result))
    demo.console.print(table)
    demo.console.print(
        f"""
look around:
  export KUBECONFIG={world.kubeconfig} PATH={paths.bin_dir()}:$PATH
  kubectl -n {NAMESPACE} get lora,lfleet,pods
  kubectl -n {NAMESPACE} describe lora {OTHER}
  kubectl -n {NAMESPACE} explain loraadapter.spec
  kubectl -n {SYSTEM} logs -l app.kubernetes.io/name=lorafleet --tail=20
  uv run python -m e2e.cluster enter -- curl -s http://POD-IP:8000/v1/models
clean up:
  make demo-clean      # the charts and the fleet's namespace
  make cluster-down    # everything
""",
        highlight=False,
        soft_wrap=True,
    )


def clean() -> None:
    """Removes the releases and the fleet's namespace."""
    world = World.up()
    for name, namespace in ((FLEET, NAMESPACE), ("lorafleet", SYSTEM)):
        if namespace == NAMESPACE:
            world.kubectl("delete", "loraadapter", "--all", "--timeout=90s")
        world.helm("uninstall", name, "-n", namespace, "--ignore-not-found", "--wait")
        world.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s", deadline=130)
    world.kubectl("delete", "pv", f"{NAMESPACE}-adapters", "--ignore-not-found", "--timeout=60s")


def main() -> int:
    """Runs the demo; 1 when a step did not come out as it should."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--clean", action="store_true", help="remove what the demo made")
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 120)
    try:
        if parser.parse_args().clean:
            clean()
            console.print("the demo's releases and namespaces are gone; the cluster is still up (make cluster-down)")
            return 0
        demo = Demo(console)
        world = run(demo)
        summary(demo, world)
    except (Failed, ClusterError) as error:
        console.print(Text(f"✗ {error}", style="red"))
        console.print("the cluster is still up: look around with the commands of README.md, or make cluster-down")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
