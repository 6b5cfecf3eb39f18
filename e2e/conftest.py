"""One real fleet for all scenarios: it is expensive, so scenarios leave it as they found it."""

import os
from collections.abc import Iterator

import pytest

from e2e.values import BASE
from e2e.world import World

NAME = os.environ.get("LORAFLEET_E2E_CLUSTER", "lorafleet-e2e")


@pytest.fixture(scope="session")
def cluster_world() -> Iterator[World]:
    """Cluster, operator and fleet with two vLLM engines; taken down at the end unless LORAFLEET_KEEP is set."""
    world = World.up(NAME)
    try:
        world.install_operator()
        world.install_fleet()
        world.wait_engines(2)
        yield world
    finally:
        if not os.environ.get("LORAFLEET_KEEP"):
            world.cluster.down()


@pytest.fixture
def world(cluster_world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The fleet, healthy and without adapters; a scenario's adapters are deleted after it."""
    cluster_world.wait_engines(2)
    yield cluster_world
    failed = getattr(request.node, "failed", False)
    if failed:
        print(cluster_world.kubectl("get", "lora,lfleet,pods,jobs", "-o", "wide"))
        print(cluster_world.operator_log())
    cluster_world.kubectl("delete", "loraadapter", "--all", "--timeout=90s")
    cluster_world.forget_training()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Lets the fixture know that its test failed, while the cluster still shows why."""
    report = yield
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report


@pytest.fixture
def base_answer(world: World) -> str:
    """What the base model says."""
    return world.ask(world.engines()[0], BASE)
