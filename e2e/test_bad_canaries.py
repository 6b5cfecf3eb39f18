"""Versions that turn out bad under traffic are taken back by what clients see. The engines are fakes."""

import json
from collections.abc import Iterator

import pytest

from e2e import values
from e2e.cluster import images
from e2e.test_rollouts import ADAPTER, WAITING, aborted, canary, first
from e2e.users import may_fail, users
from e2e.values import CLAIM, CONTROL_PORT
from e2e.world import World

NAMESPACE = "fakes"
TELL = f"""\
import sys, urllib.request
url = "http://127.0.0.1:{CONTROL_PORT}/engines/0.0.0.0:8000"
urllib.request.urlopen(urllib.request.Request(url, sys.argv[1].encode(), method="POST"))
"""


@pytest.fixture(scope="module")
def fakes(cluster_world: World) -> Iterator[World]:
    """A second fleet, of fakes."""
    cluster_world.install_values(values.fakes(images.build("lorafleet").stem), NAMESPACE)
    cluster_world.wait_engines(2, NAMESPACE)
    yield cluster_world
    cluster_world.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", deadline=130)
    cluster_world.kubectl("delete", "pv", f"{NAMESPACE}-{CLAIM}", "--timeout=60s")


@pytest.fixture(autouse=True)
def no_adapters(fakes: World) -> Iterator[None]:
    """A scenario leaves no adapter behind, and no bad behaviour."""
    yield
    tell(fakes, replies={})
    fakes.kubectl("-n", NAMESPACE, "delete", "loraadapter", "--all", "--timeout=90s")


def tell(world: World, **settings: object) -> None:
    """Changes how every fake behaves."""
    for engine in world.engines(NAMESPACE):
        words = ["python3", "-c", TELL, json.dumps(settings)]
        world.kubectl("-n", NAMESPACE, "exec", engine, "-c", "vllm", "--", *words)


def test_errors_of_the_new_version_end_it(fakes: World) -> None:
    analysis = {"interval": "1s", "minRequests": 20, "maxErrorRate": 0.05}
    served = first(fakes, "2", namespace=NAMESPACE)
    # Clients do see the errors of a version that they were sent to; nobody may see one of anything else.
    with may_fail(fakes, ADAPTER, namespace=NAMESPACE) as asking:
        asking.learn("1", served)
        rollout = {"steps": WAITING, "analysis": analysis}
        bad = canary(fakes, asking, "1", "2", namespace=NAMESPACE, rollout=rollout)
        asking.go_on()
        tell(fakes, replies={bad: {"status": 500, "share": 0.5}})
        reason, message = aborted(fakes, "2", namespace=NAMESPACE)
        failed = asking.go_on().failed
        end = asking.go_on(100)
    assert reason == "AnalysisFailed"
    assert "error" in message
    assert 0 < failed == end.failed, "nobody fails any more"
    assert all("status 500" in why for why in end.reasons), end.reasons


def test_slowness_of_the_new_version_ends_it(fakes: World) -> None:
    analysis = {"interval": "1s", "minRequests": 20, "maxLatencyRatio": 3}
    served = first(fakes, "2", namespace=NAMESPACE)
    with users(fakes, ADAPTER, namespace=NAMESPACE) as asking:
        asking.learn("1", served)
        rollout = {"steps": WAITING, "analysis": analysis}
        slow = canary(fakes, asking, "1", "2", namespace=NAMESPACE, rollout=rollout)
        asking.go_on()
        tell(fakes, replies={slow: {"seconds": 0.3}})
        reason, message = aborted(fakes, "2", namespace=NAMESPACE)
        asking.go_on()
    assert reason == "AnalysisFailed"
    assert "latency" in message.lower()
