"""Engines that restart, vanish, hang or are not set up right."""

import copy
import signal
from typing import Any

from e2e.test_adapters import trained
from e2e.values import BASE, CLAIM
from e2e.world import NAMESPACE, PROMPT, SYSTEM, World, until


def test_a_restarted_container_gets_its_adapter_back(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    engine = world.engines()[0]
    answer = world.ask(engine, served)
    count = world.restarts(engine)
    world.kill_engine(engine)
    until("the container was started again", lambda: world.restarts(engine) == count + 1, 60)
    until("the adapter is back", lambda: served in world.listed(engine), 300, pause=1)
    assert world.ask(engine, served) == answer
    world.wait_serving("python", "1")


def test_a_client_is_served_right_after_a_restart_before_the_operator_acted(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    engine = world.engines()[0]
    answer = world.ask(engine, served)
    world.kubectl("-n", SYSTEM, "scale", "deployment/lorafleet", "--replicas=0")
    try:
        until("the operator is gone", lambda: not world.operators(), 60)
        count = world.restarts(engine)
        world.kill_engine(engine)
        until("the container was started again", lambda: world.restarts(engine) == count + 1, 60)
        until("the engine answers", lambda: world.request(engine, "/health") == {}, 300, pause=0.5)
        assert served not in world.listed(engine)
        assert world.ask(engine, served) == answer, "vLLM's filesystem resolver loads it by its name"
    finally:
        world.kubectl("-n", SYSTEM, "scale", "deployment/lorafleet", "--replicas=2")
        world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/lorafleet", "--timeout=120s", deadline=130)
    world.wait_serving("python", "1")
    assert 400 not in world.load_calls(engine)


def test_a_deleted_pod_comes_back_with_its_adapter(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    engine = world.engines()[1]
    uid = world.pod(engine)["metadata"]["uid"]
    world.kubectl("delete", "pod", engine, "--wait=false")

    def back() -> bool:
        return world.pod(engine)["metadata"]["uid"] != uid and served in world.listed(engine)

    until("the new pod has the adapter", back, 300, pause=1)
    world.wait_serving("python", "1")


def test_a_deletion_does_not_wait_for_a_dead_engine_for_ever(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    engine = world.engines()[0]
    count = world.restarts(engine)
    world.signal(engine, signal.SIGSTOP)
    try:
        # The fleet's deletionDeadline is 20 s.
        world.kubectl("delete", "loraadapter", "python", "--timeout=60s")
        assert (world.volume_path() / "serving" / served).exists(), "bytes that an engine may read stay"
        fleet = world.json("get", "specialistfleet", "tiny")
        assert [one["servedName"] for one in fleet["status"]["pendingRemovals"]] == [served]
    finally:
        world.signal(engine, signal.SIGCONT)
    until("the bytes are gone", lambda: not (world.volume_path() / "serving" / served).exists(), 300, pause=1)
    if world.restarts(engine) == count:
        assert served not in world.listed(engine)


def plain_engine(world: World) -> dict[str, Any]:
    """A pod like the fleet's engines, of another fleet, without runtime updating; the pod does not show it."""
    like = copy.deepcopy(world.pod(world.engines()[0]))
    spec = like["spec"]
    spec.pop("nodeName", None)
    spec.pop("hostname", None)
    (container,) = spec["containers"]
    for variable in container["env"]:
        if variable["name"] == "VLLM_ALLOW_RUNTIME_LORA_UPDATING":
            del variable["value"]
            variable["valueFrom"] = {"configMapKeyRef": {"name": "plain", "key": "updating"}}
    metadata = {"name": "plain-0", "namespace": NAMESPACE, "labels": {"app": "plain"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def plain_fleet(world: World) -> dict[str, Any]:
    """A second fleet, for the same base model."""
    model = world.json("get", "specialistfleet", "tiny")["status"]["engineModel"]
    return {
        "apiVersion": "lorafleet.dev/v1alpha1",
        "kind": "SpecialistFleet",
        "metadata": {"name": "plain", "namespace": NAMESPACE},
        "spec": {
            "baseModel": {"name": BASE, "aliases": [model]},
            "engines": {"selector": {"matchLabels": {"app": "plain"}}},
            "storage": {"claimName": CLAIM, "mountPath": "/adapters"},
            "drainTime": "1s",
        },
    }


def test_an_engine_without_runtime_updating_is_diagnosed_with_the_fix(world: World) -> None:
    trained(world, "python-1", "plain-1")
    world.adapter("python", "1")
    world.wait_serving("python", "1")
    before = [(world.listed(engine), world.load_calls(engine)) for engine in world.engines()]
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "plain", "namespace": NAMESPACE},
        "data": {"updating": "false"},
    }
    world.apply(config, plain_fleet(world), plain_engine(world))
    world.adapter("plain", "1", fleet="plain")
    try:

        def stalled() -> str:
            status = world.json("get", "specialistfleet", "plain").get("status") or {}
            found = {c["type"]: c for c in status.get("conditions", ())}.get("Stalled", {})
            return str(found["message"]) if found.get("reason") == "RuntimeUpdatingDisabled" else ""

        message = until("the diagnosis", stalled, 300, pause=1)
        assert "plain-0" in message
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in message
        assert world.condition("plain", "Available")["status"] == "False"
        assert world.listed("plain-0") == {}
        assert [(world.listed(engine), world.load_calls(engine)) for engine in world.engines()] == before
    finally:
        world.kubectl("delete", "loraadapter/plain", "--timeout=60s")
        world.kubectl("delete", "pod/plain-0", "specialistfleet/plain", "configmap/plain", "--timeout=60s")


def test_base_model_goes_on_answering_through_all_this(world: World) -> None:
    for engine in world.engines():
        assert world.ask(engine, BASE, PROMPT)
