"""What a router reads from one object: routes from adapters' statuses, engines from pods and the fleet's status."""

from typing import Any

import pytest

from lorafleet.engines.facts import engine_facts
from lorafleet.router.reading import Unreadable, base_names, engine_address, read_fleet, read_route
from lorafleet.router.table import EngineAddress, Target
from tests.router.objects import Object, adapter, engine, fleet, pod, served, traffic, version

HERE = {"vllm-0": EngineAddress("vllm-0", "10.0.0.1", 8000)}


def address(one: Object, *engines: Object) -> EngineAddress | None:
    view = read_fleet(fleet(*engines))
    return engine_address(engine_facts(one, view.port), view)


def test_weights_are_those_of_the_traffic() -> None:
    route = read_route(adapter("sql", traffic=traffic("sql", v1=95, v2=5)))
    assert route.targets == (Target(served("sql", "v1"), 95), Target(served("sql", "v2"), 5))


def test_version_without_weight_is_no_target() -> None:
    route = read_route(adapter("sql", traffic=traffic("sql", v1=100, v2=0)))
    assert route.targets == (Target(served("sql", "v1"), 100),)


@pytest.mark.parametrize("status", [None, {}, {"traffic": [], "versions": []}])
def test_adapter_that_does_not_serve_yet_has_no_target(status: Any) -> None:
    assert read_route(adapter("sql") | {"status": status}).targets == ()


@pytest.mark.parametrize(
    ("phase", "loaded", "may_be_asked_for"),
    [
        ("Loaded", 2, True),
        ("Loading", 1, True),
        ("Loading", 0, False),
        ("Loaded", None, False),
        ("Draining", None, False),
        ("Draining", 2, False),
        ("Published", None, False),
        ("Failed", None, False),
        ("Removing", 1, False),
    ],
)
def test_version_is_asked_for_by_name_while_engines_have_it(
    phase: str, loaded: int | None, may_be_asked_for: bool
) -> None:
    route = read_route(adapter("sql", version("sql", "v2", phase, loaded), traffic=traffic("sql", v1=100)))
    assert ("v2" in route.pinned) is may_be_asked_for


def test_version_with_weight_is_asked_for_by_name_whatever_its_phase() -> None:
    one = adapter("sql", version("sql", "v1", "Draining", None), traffic=traffic("sql", v1=100))
    assert read_route(one).pinned == {"v1": served("sql", "v1")}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"traffic": traffic("sql", v1=50)}, "sum up to 50"),
        ({"traffic": [{"version": "v1", "weight": 100}]}, "servedName"),
        ({"traffic": [{"version": "v1", "servedName": "x", "weight": "all"}]}, "sql"),
        ({"traffic": ["v1"]}, "sql"),
        ({"versions": [{"name": "v1", "servedName": "x"}]}, "phase"),
    ],
)
def test_status_that_nobody_wrote_like_that_is_unreadable(status: Object, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read_route(adapter("sql") | {"status": status})


def test_engine_takes_adapters_when_the_status_is_about_this_start_of_it() -> None:
    assert address(pod("vllm-0"), engine("vllm-0")) == EngineAddress("vllm-0", "10.0.0.1", 8000, adapters=True)


@pytest.mark.parametrize(
    "view",
    [
        [],
        [engine("vllm-1")],
        [engine("vllm-0", ready=False)],
        [engine("vllm-0", catchingUp=True)],
        [engine("vllm-0", instance="uid-vllm-0/containerd://vllm-0-1/1")],
        [engine("vllm-0") | {"instance": None}],
    ],
)
def test_ready_engine_takes_the_base_model_alone_until_the_operator_knows_it(view: list[Object]) -> None:
    assert address(pod("vllm-0"), *view) == EngineAddress("vllm-0", "10.0.0.1", 8000, adapters=False)


def test_what_an_engine_lacks_is_kept_by_served_name() -> None:
    found = address(pod("vllm-0"), engine("vllm-0", missing=["sql/v1-x"]))
    assert found and found.missing == {"sql/v1-x"}


@pytest.mark.parametrize(
    "one",
    [pod("vllm-0", ready=False), pod("vllm-0", leaving=True), pod("vllm-0", ip="")],
    ids=["unready", "leaving", "ip"],
)
def test_engine_that_is_not_ready_or_leaves_has_no_address(one: Object) -> None:
    assert address(one, engine("vllm-0")) is None


def test_base_model_has_all_names_that_engines_serve_it_by() -> None:
    view = read_fleet(fleet())
    pods = [
        pod("b", args=("--model", "m", "--served-model-name", "tiny", "small")),
        pod("a", args=("--model", "/m")),
    ]
    assert base_names([engine_facts(one, 8000) for one in pods], view) == ("/m", "tiny", "small")


def test_base_model_has_the_fleets_name_when_no_engine_shows_one() -> None:
    assert base_names([engine_facts(pod("a", args=()), 8000)], read_fleet(fleet())) == ("acme/base",)


def test_fleet_without_a_selector_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="SpecialistFleet fleet"):
        read_fleet(fleet() | {"spec": {"engines": {}, "baseModel": {"name": "x"}}})
