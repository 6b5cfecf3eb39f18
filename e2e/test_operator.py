"""The operator killed, handed over, cut off from the API server; namespaces and volumes at their end."""

import os
import signal
from typing import Any

import pytest

from e2e.cluster.own import OwnCluster
from e2e.test_adapters import trained
from e2e.values import CLAIM, FLEET
from e2e.world import SYSTEM, World, until


def new_leader(world: World, old: str) -> str:
    """Waits until another pod leads."""

    def other() -> str:
        leader = world.leader()
        return leader if leader and leader != old and leader in world.operators() else ""

    return until("another replica leads", other, 60)


def killed(world: World) -> str:
    """The leader, killed with SIGKILL."""
    leader = world.leader()
    world.signal(leader, signal.SIGKILL, SYSTEM)
    return leader


def test_killed_in_the_middle_of_a_publish_nothing_partial_is_seen(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    until("the sync job runs", lambda: world.json("get", "jobs")["items"], 30, pause=0.02)
    killed(world)
    served = world.wait_serving("python", "1", deadline=180)
    folders = [entry.name for entry in (world.volume_path() / "serving" / "python").iterdir()]
    assert folders == [served.split("/")[1]]
    assert list((world.volume_path() / "staging").iterdir()) == []
    assert world.status("python")["versions"][0]["id"] > 0


def test_killed_in_the_middle_of_loads_every_adapter_is_loaded_once(world: World) -> None:
    names = [f"load{number}" for number in range(10)]
    trained(world, *(f"{name}-1" for name in names))
    before = {engine: len(world.load_calls(engine)) for engine in world.engines()}
    for name in names:
        world.adapter(name, "1")
    engine = world.engines()[0]
    until("loads began", lambda: len(world.load_calls(engine)) > before[engine], 60, pause=0.02)
    killed(world)
    for name in names:
        world.wait_serving(name, "1", deadline=180)
    for engine in world.engines():
        calls = world.load_calls(engine)[before[engine] :]
        assert calls == [200] * len(names), "no load twice, none refused"


def test_a_handover_loads_nothing_twice(world: World) -> None:
    trained(world, "python-1", "python-2")
    world.adapter("python", "1")
    world.wait_serving("python", "1")
    calls = [world.load_calls(engine) for engine in world.engines()]
    old = world.leader()
    world.kubectl("-n", SYSTEM, "delete", "pod", old, "--wait=false")
    new_leader(world, old)
    world.adapter("python", "1", "2")
    world.wait_serving("python", "2", deadline=180)
    assert [world.load_calls(engine) for engine in world.engines()] == [[*before, 200] for before in calls]
    world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/lorafleet", "--timeout=120s", deadline=130)


def test_a_restart_of_the_api_server_is_survived(world: World) -> None:
    if not isinstance(world.cluster, OwnCluster):
        pytest.skip("only our own cluster lets its API server be killed")
    trained(world, "python-1", "python-2")
    world.adapter("python", "1")
    world.wait_serving("python", "1")
    world.cluster.restart("kube-apiserver")
    until("the API server answers", lambda: world.kubectl("get", "--raw", "/readyz") == "ok", 60)
    world.adapter("python", "1", "2")
    world.wait_serving("python", "2", deadline=180)
    for engine in world.engines():
        assert set(world.load_calls(engine)) == {200}


def second_fleet(world: World, namespace: str, size: str | None = None) -> None:
    """A fleet with one engine in a namespace of its own."""
    world.install_fleet(namespace, size=size, replicas=1)
    world.wait_engines(1, namespace)


def test_a_full_volume_is_said_and_mends_itself_and_its_namespace_goes_at_once(world: World) -> None:
    namespace = "full"
    second_fleet(world, namespace, size="16Mi")
    try:
        world.train([{"name": "big-1", "seed": 7}], namespace)
        filler = world.volume_path(namespace) / "filler"
        filler.write_bytes(os.urandom(16 * 2**20 - 512 * 2**10))
        world.adapter("big", "1", namespace=namespace)

        def full() -> str:
            status = world.status("big", namespace)
            return next((v["message"] for v in status.get("versions", ()) if v.get("reason") == "VolumeFull"), "")

        message = until("VolumeFull", full, 90)
        assert "free" in message
        serving = world.volume_path(namespace) / "serving"
        assert not (serving / "big").exists()
        filler.unlink()
        served = world.wait_serving("big", "1", namespace, deadline=180)
        engine = world.engines(namespace)[0]
        assert world.ask(engine, served, namespace=namespace)
    finally:
        gone: dict[str, Any] = world.json("-n", namespace, "get", "loraadapter")
        assert all("deletionTimestamp" not in one["metadata"] for one in gone["items"])
        world.kubectl("delete", "namespace", namespace, "--timeout=120s", deadline=130)
        world.kubectl("delete", "pv", f"{namespace}-{CLAIM}", "--timeout=60s")
    assert world.json("get", "specialistfleet", FLEET)["status"]["readyEngines"] == 2
