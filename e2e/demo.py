"""`make demo`: the main job from nothing, on a real cluster with a real vLLM, each step in a line with its time.

A first version serves, a second one takes over step by step, a third one is bad and is taken back by its analysis, a
rollback, a killed engine and a deletion, all under steady traffic that counts its failures. Runs over itself twice.
`--clean` removes what it made; `make cluster-down` takes the cluster down.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from e2e.cluster import paths
from e2e.cluster.network import NODE
from e2e.cluster.shell import ClusterError
from e2e.load import KINDS
from e2e.show import Show
from e2e.users import Users, users
from e2e.values import BASE, FLEET
from e2e.world import NAMESPACE, SYSTEM, Failed, World, until
from tests.servers.process import Where
from tests.servers.prometheus import prometheus

ADAPTER = "python-lora"
OTHER = "sql-lora"
FIRST, SECOND, BAD = "1.0.0", "2.0.0", "3.0.0"
ROLLOUT: dict[str, Any] = {
    "steps": [{"weight": 10, "pause": "5s"}, {"weight": 50, "pause": "5s"}],
    "analysis": {"interval": "2s", "minRequests": 10, "maxErrorRate": 0.02, "maxLatencyRatio": 5},
    "keepLoaded": 1,
}
LIKES = 9400
"""Where the users' process says how they like the answers."""
DISLIKED = {
    "name": "disliked",
    "query": 'sum(rate(people_answers_total{liked="no"}[5s])) / sum(rate(people_answers_total[5s]))',
    "max": 0.01,
}
WHOLE = tuple(kind for kind in KINDS if not kind.endswith("-stream"))

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


class Story:
    """The demo's steps, the world in which they happen, and the requests so far."""

    def __init__(self, show: Show, world: World) -> None:
        self.show = show
        self.world = world
        self.counts: Counter[str] = Counter()

    def fleet(self) -> None:
        """Operator, engines, routers and trained adapters."""
        show, world = self.show, self.world
        with show.step("the operator, by helm install of charts/lorafleet: two replicas behind a Lease") as said:
            world.install_operator()
            said.append(f"{until('a leader', world.leader, 60)} leads")
        with show.step("a fleet, by helm install of charts/lorafleet-fleet: two vLLM engines on this CPU, two routers"):
            world.install_fleet()
            world.kubectl("delete", "loraadapter", "--all", "--timeout=90s")
        with show.step("four adapters trained on the spot by peft, put on the fleet's claim") as said:
            trained = (*(f"{ADAPTER}-{version}" for version in (FIRST, SECOND, BAD)), f"{OTHER}-{FIRST}")
            world.train([{"name": name, "seed": 11 * (number + 1)} for number, name in enumerate(trained)])
            said.append(", ".join(trained))
        with show.step("both engines load the base model and answer") as said:
            show.waiting("two engines usable", lambda: usable(world) == 2, lambda: pods(world), 600)
            said.append(str(world.json("get", "specialistfleet", FLEET)["status"]["conditions"][0]["message"]))
        with show.step("both routers are ready"):
            world.kubectl("rollout", "status", f"deployment/{FLEET}-router", "--timeout=120s", deadline=130)

    def first(self) -> tuple[str, str]:
        """The first version and another adapter serve; their served names."""
        show, world = self.show, self.world
        yaml = "$ kubectl apply -f - <<EOF\n" + MANIFEST + "EOF"
        show.console.print(Syntax(yaml, "yaml", background_color="default"))
        with show.step("kubectl apply of the adapter: fetched, checked, published, loaded into both engines") as said:
            world.adapter(OTHER, FIRST)
            world.kubectl("apply", "-f", "-", stdin=MANIFEST)
            served = world.wait_serving(ADAPTER, FIRST)
            other = world.wait_serving(OTHER, FIRST)
            said.append(f"serves as {served}")
        rows = [(e, model, world.ask(e, model)) for model in (BASE, served, other) for e in world.engines()]
        show.answers("base model and adapters, side by side", rows)
        expect(len({answer for _, _, answer in rows}) == 3, "base model and the two adapters answer differently")
        return served, other

    def canary(self, asking: Users) -> None:
        """The second version takes over."""
        show, world = self.show, self.world
        learnt: list[str] = []

        def promoted(status: dict[str, Any]) -> bool:
            if not learnt and any(one["version"] == SECOND for one in status.get("traffic", ())):
                learnt.append(world.served_name(ADAPTER, SECOND))
                asking.learn(SECOND, learnt[0])
            return status.get("stableVersion") == SECOND

        what = f"{SECOND}, one more entry in spec.versions: probed, then 10 %, 50 %, 100 % of the requests, and judged"
        with show.step(what, still=False) as said:
            world.adapter(ADAPTER, FIRST, SECOND, rollout=ROLLOUT)
            show.moving(f"{SECOND} is promoted", self.adapter, lambda: told(asking), promoted, 180)
            asking.go_on()
            said.append(f"promoted; {told(asking)}")

    def bad(self, asking: Users, prometheus: str) -> None:
        """The third version's answers are disliked, and the analysis takes it back."""
        show, world = self.show, self.world
        learnt: list[str] = []

        def taken_back(status: dict[str, Any]) -> bool:
            if not learnt and any(one["version"] == BAD for one in status.get("traffic", ())):
                learnt.append(world.served_name(ADAPTER, BAD))
                asking.learn(BAD, learnt[0])
            return any(one["version"] == BAD for one in status.get("aborted", ()))

        what = f"{BAD} answers what people do not like: a Prometheus query of its analysis takes it back"
        with show.step(what, False) as said:
            address = json.dumps({"spec": {"prometheus": {"url": prometheus}}})
            world.kubectl("patch", "specialistfleet", FLEET, "--type=merge", "-p", address)
            judged = ROLLOUT | {"analysis": {"interval": "2s", "queries": [DISLIKED]}}
            world.adapter(ADAPTER, FIRST, SECOND, BAD, rollout=judged)
            show.moving(f"{BAD} is taken back", self.adapter, lambda: told(asking), taken_back, 120)
            asking.go_on()
            before = asking.versions().get(BAD, 0)
            asking.go_on()
            expect(asking.versions().get(BAD, 0) == before, f"nobody is answered by {BAD} any more")
            found = world.status(ADAPTER)["aborted"][-1]
            expect(found["reason"] == "AnalysisFailed", f"the analysis did it: {found}")
            said.append(f"{found['reason']} after {before} answers")

    def rollback(self, asking: Users) -> None:
        """One command, and the first version serves again."""
        show, world = self.show, self.world
        argv = ["rollback", ADAPTER, "-n", NAMESPACE, "--to", FIRST]
        with show.step(f"$ kubectl lorafleet {' '.join(argv)}: {FIRST} was kept loaded") as said:
            world.run("env", f"KUBECONFIG={world.kubeconfig}", sys.executable, "-m", "lorafleet", *argv)
            world.wait_weights(ADAPTER, {FIRST: 100}, deadline=10)
            asking.go_on()
            before = asking.versions()[SECOND]
            asking.go_on()
            expect(asking.versions()[SECOND] == before, f"nobody is answered by {SECOND} any more")
            said.append(told(asking))

    def killed(self, asking: Users, served: str) -> None:
        """An engine's container dies and comes back without a registry; users are answered by the other."""
        show, world = self.show, self.world
        engine = world.engines()[0]
        with show.step(f"kill -9 of the vLLM in {engine}: it starts again and has forgotten everything") as said:
            count = world.restarts(engine)
            world.kill_program(engine, "vllm.entrypoints")
            until("the container was started again", lambda: world.restarts(engine) > count, 60)
            show.waiting("vLLM answers", lambda: answers(world, engine), lambda: pods(world), 600)
            asking.go_on()
            said.append(told(asking))
        with show.step("the operator sees the new container and loads the adapters again"):
            until("the adapter is back", lambda: served in world.listed(engine), 120, pause=0.1)
            world.wait_weights(ADAPTER, {FIRST: 100})
            asking.go_on()

    def deleted(self, served: str) -> None:
        """One adapter goes, the other stays."""
        show, world = self.show, self.world
        with show.step(
            "kubectl delete of the adapter: no traffic, drained, unloaded everywhere, bytes removed"
        ) as said:
            world.kubectl("delete", "loraadapter", ADAPTER, "--timeout=90s")
            expect(all(served not in world.listed(e) for e in world.engines()), "no engine lists it any more")
            expect(not (world.volume_path() / "serving" / ADAPTER).exists(), "its bytes are gone")
            said.append(f"{OTHER} still serves")

    def adapter(self) -> Any:
        """The adapter as it is."""
        return self.world.json("get", "loraadapter", ADAPTER)

    def count(self, asking: Users) -> None:
        """Adds the requests of some users to the table at the end."""
        self.counts.update(asking.versions())


def run(show: Show) -> World:
    """The whole demo; the world it was shown in."""
    with show.step("a Kubernetes cluster: etcd, API server, controllers, kubelet, containerd, CoreDNS") as said:
        world = World.up()
        said.append(f"node {world.json('get', 'nodes')['items'][0]['metadata']['name']} is Ready")
    story = Story(show, world)
    story.fleet()
    served, other = story.first()
    show.console.print("    from here on users ask the routers all the time, whole answers and streams", style="bold")
    with users(world, ADAPTER) as asking:
        asking.learn(FIRST, served)
        asking.go_on()
        story.canary(asking)
        liked = tuple(text for (_, text), version in asking.known.items() if version == SECOND)
        story.count(asking)
    where = Where(NODE, tuple(world.cluster.enter()))
    with (
        prometheus(paths.state_dir(world.cluster.name) / "demo", [f"{NODE}:{LIKES}"], where=where) as server,
        users(world, ADAPTER, liked=liked, metrics=LIKES) as asking,
    ):
        for version in (FIRST, SECOND):
            asking.learn(version, world.served_name(ADAPTER, version))
        asking.go_on()
        story.bad(asking, server.url)
        story.rollback(asking)
        story.count(asking)
    # A stream that an engine has begun ends with it: nobody can go on with it elsewhere.
    with users(world, ADAPTER, kinds=WHOLE) as asking:
        asking.learn(FIRST, served)
        story.killed(asking, served)
        story.count(asking)
    with users(world, OTHER) as asking:
        asking.learn(f"{OTHER} {FIRST}", other)
        story.deleted(served)
        asking.go_on()
        story.count(asking)
    # Leaving the blocks above with a failed request raises.
    show.requests(story.counts, failed=0)
    return world


def told(asking: Users) -> str:
    """The users in a line."""
    found = asking.summary()
    by_version: Counter[str] = Counter()
    for one in found.seen:
        # A new version may answer a moment before its answers are known.
        by_version[asking.known.get(one.said, "a new version")] += one.count
    counts = ", ".join(f"{version}: {count:,}" for version, count in sorted(by_version.items()))
    return f"answered by {counts}; failed: {found.failed}"


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


def around(show: Show, world: World) -> None:
    """How to look around, how to clean up."""
    show.console.print(
        f"""
look around:
  export KUBECONFIG={world.kubeconfig} PATH={paths.bin_dir()}:$PATH
  kubectl -n {NAMESPACE} get lora,lfleet,pods
  kubectl -n {NAMESPACE} describe lora {OTHER}
  kubectl -n {NAMESPACE} explain loraadapter.spec.rollout
  uv run lorafleet status {OTHER} -n {NAMESPACE}
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
        show = Show(console)
        world = run(show)
        show.finish()
        around(show, world)
    except (AssertionError, ClusterError) as error:
        console.print(Text(f"✗ {error}", style="red"))
        console.print("the cluster is still up: look around with the commands of README.md, or make cluster-down")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
