"""New versions under traffic: nobody notices, whatever happens to engines, routers and the operator meanwhile."""

from pathlib import Path
from typing import Any

from e2e.cluster.network import NODE
from e2e.load import KINDS
from e2e.test_adapters import trained
from e2e.test_operator import killed
from e2e.users import Users, may_fail, users
from e2e.values import FLEET
from e2e.world import NAMESPACE, PROMPT, SYSTEM, Failed, World, until
from tests.servers.process import Where
from tests.servers.prometheus import prometheus

ADAPTER = "python"
STEPS = [{"weight": 30, "pause": "3s"}, {"weight": 60, "pause": "3s"}]
WAITING = [{"weight": 50, "pause": {}}]
WHOLE = tuple(kind for kind in KINDS if not kind.endswith("-stream"))


def first(world: World, *more: str, namespace: str = NAMESPACE, **spec: Any) -> str:
    """The adapter with its first version serving, and files for more of them; the first's served name."""
    versions = (f"{ADAPTER}-{version}" for version in ("1", *more))
    world.train([{"name": name, "seed": sum(map(ord, name))} for name in versions], namespace)
    world.adapter(ADAPTER, "1", namespace=namespace, **spec)
    return world.wait_serving(ADAPTER, "1", namespace)


def canary(world: World, asking: Users, *versions: str, namespace: str = NAMESPACE, **spec: Any) -> str:
    """Applies these versions and waits until the last of them has its first weight; its served name."""
    last = versions[-1]
    world.adapter(ADAPTER, *versions, namespace=namespace, **spec)
    until(f"{last} has traffic", lambda: world.weights(ADAPTER, namespace).get(last), 120, pause=0.1)
    served = world.served_name(ADAPTER, last, namespace)
    asking.learn(last, served)
    return served


def aborted(world: World, version: str, stays: str = "1", namespace: str = NAMESPACE) -> tuple[str, str]:
    """Waits until a version was taken back and another has all traffic; the reason and the message."""

    def found() -> tuple[str, str]:
        status = world.status(ADAPTER, namespace)
        for one in status.get("aborted", ()):
            if one["version"] == version:
                assert {t["version"]: t["weight"] for t in status["traffic"] if t["weight"]} == {stays: 100}
                return one["reason"], one["message"]
        raise Failed(str({key: status.get(key) for key in ("rollout", "traffic")}))

    return until(f"{version} was taken back", found, 120, pause=0.1)


def test_a_canary_takes_all_traffic_step_by_step(world: World) -> None:
    analysis = {"interval": "1s", "minRequests": 10, "maxErrorRate": 0.05, "maxLatencyRatio": 20}
    served = first(world, "2")
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        asking.go_on()
        canary(world, asking, "1", "2", rollout={"steps": STEPS, "analysis": analysis})
        assert world.wait_stable(ADAPTER, "2") == [30, 60, 100]
        before = asking.go_on().versions(asking.known)["1"]
        assert asking.go_on().versions(asking.known)["1"] == before, "nobody gets the old version any more"
    what = [(entry["version"], entry["what"]) for entry in world.status(ADAPTER)["history"]]
    assert what[-1] == ("2", "Promoted")


def test_an_adapter_that_answers_wrongly_never_takes_traffic(world: World) -> None:
    served = first(world, "2")
    expected = world.ask(world.engines()[0], served, tokens=8)
    probe = {"prompts": [{"prompt": PROMPT, "maxTokens": 8, "expect": expected}]}
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        world.adapter(ADAPTER, "1", "2", probe=probe, rollout={"steps": STEPS})
        reason, message = aborted(world, "2")
        assert reason == "ProbeFailed"
        assert world.engines()[0] in message or world.engines()[1] in message
        asking.go_on()
        assert set(asking.versions()) == {"1"}
    assert world.wait(ADAPTER, "Stalled", "RolloutAborted")
    assert world.condition(ADAPTER, "Available")["status"] == "True"


def test_a_rollback_is_at_once_when_the_version_before_was_kept(world: World) -> None:
    served = first(world, "2", rollout={"keepLoaded": 1})
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        canary(world, asking, "1", "2", rollout={"keepLoaded": 1})
        world.wait_stable(ADAPTER, "2")
        assert all(served in world.listed(engine) for engine in world.engines()), "kept for this"
        calls = [len(world.load_calls(engine)) for engine in world.engines()]
        world.act(ADAPTER, "rollback")
        world.wait_weights(ADAPTER, {"1": 100}, deadline=10)
        asking.go_on()
        before = asking.versions()["2"]
        asking.go_on()
        assert asking.versions()["2"] == before
        assert [len(world.load_calls(engine)) for engine in world.engines()] == calls, "nothing was loaded for it"
    world.wait(ADAPTER, "Stalled", "RolledBack")


def test_two_versions_side_by_side_by_fixed_shares_and_by_name(world: World) -> None:
    served = first(world, "2")
    pinned = [f"{ADAPTER}@1", f"{ADAPTER}@2"]
    split = [{"version": "1", "weight": 50}, {"version": "2", "weight": 50}]
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        canary(world, asking, "1", "2", traffic=split)
        world.wait_weights(ADAPTER, {"1": 50, "2": 50})
        with users(world, *pinned) as comparing:
            comparing.known = asking.known
            comparing.go_on()
            assert set(comparing.versions(pinned[0])) == {"1"}
            assert set(comparing.versions(pinned[1])) == {"2"}
        asking.go_on()
        assert min(asking.versions().values()) > 0
        assert world.status(ADAPTER)["stableVersion"] == "1"


def test_a_third_version_supersedes_the_canary(world: World) -> None:
    served = first(world, "2", "3")
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        canary(world, asking, "1", "2", rollout={"steps": WAITING})
        asking.go_on()
        canary(world, asking, "1", "2", "3", rollout={"steps": WAITING})
        world.wait_weights(ADAPTER, {"1": 50, "3": 50})
        assert world.status(ADAPTER)["stableVersion"] == "1"
        world.act(ADAPTER, "promote")
        world.wait_stable(ADAPTER, "3")
        asking.go_on()
    what = {(entry["version"], entry["what"]) for entry in world.status(ADAPTER)["history"]}
    assert ("2", "Superseded") in what


def test_a_killed_engine_fails_nobody_and_gets_both_versions_back(world: World) -> None:
    served = first(world, "2")
    # A stream that an engine has begun dies with it: nobody can go on with it elsewhere.
    with users(world, ADAPTER, kinds=WHOLE) as asking:
        asking.learn("1", served)
        both = {served, canary(world, asking, "1", "2", rollout={"steps": WAITING})}
        engine = world.engines()[0]
        count = world.restarts(engine)
        world.kill_program(engine, "vllm.entrypoints")
        until("the container was started again", lambda: world.restarts(engine) == count + 1, 60)
        until("it has both versions", lambda: both <= set(world.listed(engine)), 300, pause=1)
        assert world.weights(ADAPTER) == {"1": 50, "2": 50}
        world.act(ADAPTER, "promote")
        world.wait_stable(ADAPTER, "2")
        asking.go_on()


def test_routers_come_and_go_during_a_canary(world: World) -> None:
    served = first(world, "2")
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        canary(world, asking, "1", "2", rollout={"steps": WAITING})
        old = world.routers()
        count = world.restarts(old[0])
        # Not Envoy, which goes on by the files that are there.
        world.kill_program(old[0], "/lorafleet router")
        asking.go_on()
        # Of two routers one at a time: for a moment the kubelet takes the pod for ready all the same.
        until("the container was started again", lambda: world.restarts(old[0]) == count + 1, 60)
        settled = ("rollout", "status", f"deployment/{FLEET}-router", "--timeout=120s")
        world.kubectl(*settled, deadline=130)
        world.kubectl("delete", "pod", old[1], "--wait=false")
        world.act(ADAPTER, "promote")
        world.wait_stable(ADAPTER, "2")
        world.kubectl(*settled, deadline=130)
        assert old[1] not in world.routers()
        asking.go_on()


def test_an_operator_killed_at_a_change_of_weights_loses_no_step(world: World) -> None:
    served = first(world, "2")
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        world.adapter(ADAPTER, "1", "2", rollout={"steps": STEPS})
        until("the first weight", lambda: world.weights(ADAPTER).get("2"), 120, pause=0.02)
        killed(world)
        asking.learn("2", world.served_name(ADAPTER, "2"))
        assert world.wait_stable(ADAPTER, "2") in ([30, 60, 100], [60, 100])
        asking.go_on()
    world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/lorafleet", "--timeout=120s", deadline=130)


def test_all_engines_are_replaced_during_a_canary(world: World) -> None:
    served = first(world, "2")
    with users(world, ADAPTER) as asking:
        asking.learn("1", served)
        canary(world, asking, "1", "2", rollout={"steps": [{"weight": 50, "pause": "5s"}]})
        old = {world.pod(engine)["metadata"]["uid"] for engine in world.engines()}
        world.kubectl("rollout", "restart", f"statefulset/{FLEET}-engine")
        world.kubectl("rollout", "status", f"statefulset/{FLEET}-engine", "--timeout=400s", deadline=410)
        assert not old & {world.pod(engine)["metadata"]["uid"] for engine in world.engines()}
        world.wait_stable(ADAPTER, "2", deadline=120)
        asking.go_on()


def test_a_deletion_under_traffic_takes_only_its_own(world: World) -> None:
    trained(world, "python-1", "sql-1")
    world.adapter(ADAPTER, "1")
    world.adapter("sql", "1")
    served, other = world.wait_serving(ADAPTER, "1"), world.wait_serving("sql", "1")
    with users(world, "sql") as staying, may_fail(world, ADAPTER) as leaving:
        staying.learn("1", other)
        leaving.learn("1", served)
        leaving.go_on()
        world.kubectl("delete", "loraadapter", ADAPTER, "--timeout=60s")
        staying.go_on()
        found = leaving.stop()
    assert found.versions(leaving.known)["1"] > 0
    assert found.failed > 0
    assert all("status 404" in reason and "model_not_found" in reason for reason in found.reasons), found.reasons


def test_prometheus_decides_on_what_it_scraped(world: World, tmp_path: Path) -> None:
    answered = 'sum(lorafleet_router_requests_total{served_name="{{servedName}}"})'
    good = {"interval": "1s", "minRequests": 1, "queries": [{"name": "answered", "query": answered, "min": 5}]}
    bad = {"interval": "1s", "minRequests": 1, "queries": [{"name": "answered", "query": answered, "max": 5}]}
    served = first(world, "2", "3")
    targets = [f"{world.pod(router)['status']['podIP']}:9091" for router in world.routers()]
    where = Where(NODE, tuple(world.cluster.enter()))
    with prometheus(tmp_path, targets, where=where) as server, users(world, ADAPTER) as asking:
        world.kubectl("patch", "specialistfleet", FLEET, "--type=merge", "-p", url(server.url))
        asking.learn("1", served)
        canary(world, asking, "1", "2", rollout={"steps": STEPS, "analysis": good})
        world.wait_stable(ADAPTER, "2")
        canary(world, asking, "1", "2", "3", rollout={"steps": WAITING, "analysis": bad})
        reason, message = aborted(world, "3", stays="2")
        assert reason == "AnalysisFailed"
        assert "answered" in message
    world.kubectl("patch", "specialistfleet", FLEET, "--type=merge", "-p", '{"spec": {"prometheus": null}}')


def url(address: str) -> str:
    """A merge patch of a fleet."""
    return f'{{"spec": {{"prometheus": {{"url": "{address}"}}}}}}'
