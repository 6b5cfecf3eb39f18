"""What an engine may still read, and what it counts for."""

from typing import Any

import pytest

from lorafleet.controller.state import Engine
from lorafleet.engines.facts import engine_facts


def engine(*, ready: bool = True, started: bool = True, listing: dict[str, str] | None = None) -> Engine:
    """An engine whose pod says this."""
    flag = "True" if ready else "False"
    container = {"name": "vllm", "containerID": "c1", "ready": ready, "started": started, "restartCount": 0}
    pod: dict[str, Any] = {
        "metadata": {"name": "vllm-0", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [{"name": "vllm"}]},
        "status": {
            "podIP": "127.1.0.1",
            "conditions": [{"type": "Ready", "status": flag}],
            "containerStatuses": [container],
        },
    }
    one = Engine(engine_facts(pod, 8000))
    one.listing = listing
    return one


@pytest.mark.parametrize(
    ("one", "reads"),
    [
        (engine(listing={"a/1": "/adapters/a/1"}), True),
        (engine(listing={}), False),
        (engine(ready=False, listing={"a/1": "/adapters/a/1"}), True),
        (engine(listing=None), True),
        (engine(ready=False, listing=None), True),
        (engine(ready=False, started=False, listing=None), False),
    ],
    ids=["lists it", "does not list it", "lists it, not ready", "never asked", "never asked, not ready", "starting"],
)
def test_bytes_stay_while_an_engine_may_read_them(one: Engine, reads: bool) -> None:
    assert one.may_read("a/1") is reads


def test_an_engine_counts_once_it_has_answered() -> None:
    assert not engine(listing=None).usable
    assert engine(listing={}).usable
    assert not engine(ready=False, listing={}).usable


def test_a_restarted_instance_has_nothing() -> None:
    one = engine(listing={"a/1": "/adapters/a/1"})
    one.dirty["a/2"] = None
    one.restarted(engine(ready=False, started=False).facts)
    assert one.listing is None
    assert not one.dirty
    assert not one.may_read("a/1")
