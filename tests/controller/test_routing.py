"""What routers route by in a fleet's status, how promptly it is written, and who is asked first."""

from typing import Any

import pytest

from lorafleet.controller import world as worlds
from lorafleet.controller.fleetstatus import MISSING, engine_status
from lorafleet.controller.lost import listed, strays, unknown
from lorafleet.controller.objects import parse_adapter
from lorafleet.controller.state import FleetState
from lorafleet.controller.world import PROMPT_WRITES, PROMPTLY, SOON, World
from tests.controller.fleets import META, SOURCES, add_adapter, engine, state_of

SERVED = f"python/1-{'a' * 12}"
OTHER = f"python/2-{'b' * 12}"


def carrying(count: int) -> tuple[FleetState, list[str]]:
    state = state_of()
    names = [f"a{number}/1-{'a' * 12}" for number in range(count)]
    for name in names:
        version = {"name": "1", "phase": "Loaded", "servedName": name}
        traffic = [{"version": "1", "servedName": name, "weight": 100}]
        add_adapter(state, name.partition("/")[0], {"versions": [version], "traffic": traffic}, uid=name)
    return state, names


@pytest.mark.parametrize("lacks", [0, 1, MISSING, MISSING + 1])
def test_a_few_missing_names_are_listed_and_more_are_catching_up(lacks: int) -> None:
    state, names = carrying(MISSING + 2)
    one = engine("e", listing={name: f"/adapters/{name}" for name in names[lacks:]})
    found = engine_status(state, one)
    assert (found.instance, found.ready) == ("e/c/0", True)
    if lacks > MISSING:
        assert (found.missing, found.catching_up) == ((), True)
    else:
        assert (set(found.missing), found.catching_up) == (set(names[:lacks]), None)


def test_of_an_engine_that_does_not_count_nothing_is_missing() -> None:
    state, _ = carrying(1)
    one = engine("e")
    one.listing = None
    found = engine_status(state, one)
    assert (found.ready, found.missing, found.catching_up) == (False, (), None)


class Delays:
    """Where keys go, with their delays."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.first: list[str] = []

    def __call__(self, key: Any, after: float = 0.0, *, first: bool = False) -> None:
        self.seen.append((key.kind, after))
        self.first += [key.name] if first else []


def test_changes_for_routers_are_written_promptly_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(worlds, "monotonic", lambda: now)
    state, delays = state_of(), Delays()
    world = World(delays, lambda key: None)
    for _ in range(20):
        world.ask_routing(state)
    assert [after for _, after in delays.seen] == [PROMPTLY] * int(PROMPT_WRITES) + [SOON] * (20 - int(PROMPT_WRITES))
    now += 1.0
    delays.seen.clear()
    world.ask_routing(state)
    world.ask_routing(state)
    assert [after for _, after in delays.seen] == [PROMPTLY, SOON]


def raw(generation: int, action: str, version: int, **labels: str) -> dict[str, Any]:
    meta = {**META, "name": "python", "uid": "a", "generation": generation, "resourceVersion": str(version)}
    meta |= {"annotations": {"lorafleet.dev/action": action}, "labels": labels}
    return {"metadata": meta, "spec": {"fleet": "fleet", "versions": [{"name": "1", "source": SOURCES["1"]}]}}


def test_what_a_person_changes_is_looked_at_first() -> None:
    delays = Delays()
    world = World(delays, lambda key: None)
    world.put_adapter(raw(1, "", 1))
    assert delays.first == []
    world.put_adapter(raw(1, "abort@1", 2))
    world.put_adapter(raw(2, "abort@1", 3))
    assert delays.first == ["python", "python"]
    world.put_adapter(raw(2, "abort@1", 4, wave="first"))
    assert delays.first == ["python", "python"]
    assert delays.seen.count(("adapter", 0.0)) == 4, "labels count as well"
    found = world.adapter(("ns", "python"))
    assert found is not None and found[1].labels == {"wave": "first"}


def test_what_engines_have_of_a_lost_status_is_found_and_left_alone() -> None:
    state = state_of()
    listing = {name: f"/adapters/{name}" for name in (SERVED, OTHER, "foreign")}
    one = state.engines["e"] = engine("e", listing=listing)
    one.strays = strays(state, listing)
    assert one.strays == {"python": (SERVED, OTHER)}
    adapter = state.adapters["python"]
    assert listed(state, adapter) == {SERVED: 1, OTHER: 1}
    assert unknown(state, adapter, SERVED)
    del listing[OTHER]
    assert listed(state, adapter) == {SERVED: 1}


@pytest.mark.parametrize(
    "status",
    [
        {"stableVersion": "1"},
        {"versions": [{"name": "1", "phase": "Published", "servedName": SERVED}]},
    ],
)
def test_what_a_status_knows_of_is_not_lost(status: dict[str, Any]) -> None:
    state = state_of()
    add_adapter(state, "python", status)
    assert not unknown(state, state.adapters["python"], SERVED)


def test_what_is_to_be_removed_is_not_lost() -> None:
    state = state_of(status={"pendingRemovals": [{"servedName": SERVED, "since": "x"}]})
    assert not unknown(state, state.adapters["python"], SERVED)
    assert unknown(state, state.adapters["python"], OTHER)


def test_the_labels_of_an_adapter_are_known() -> None:
    assert parse_adapter(raw(1, "", 1, team="x")).labels == {"team": "x"}
