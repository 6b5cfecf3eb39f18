"""What adapters' decisions see of a fleet: the limits of its engines, the room on them, what versions must prove."""

from typing import Any

import pytest

from lorafleet.controller import fleetview
from lorafleet.controller.fleetview import room
from lorafleet.controller.state import FleetState
from lorafleet.controller.world import World
from tests.controller.fakes import world_of
from tests.controller.fleets import SPEC, add_adapter, engine, hash_of, state_of

LORA = ("--enable-lora", "--max-loras", "2")


def loaded(state: FleetState, name: str, phase: str = "Loaded", reason: str | None = None, created: str = "") -> str:
    """An adapter whose version is that far."""
    served = f"{name}/1-{'a' * 12}"
    version = {"name": "1", "phase": phase, "servedName": served, "digest": "sha256:" + "a" * 64, "reason": reason}
    status = {"activeVersion": "1", "versions": [version | {"entryHash": hash_of(state, "1")}]}
    add_adapter(state, name, status, created=created, uid=name)
    return served


def test_the_smallest_engine_decides_how_many_adapters_fit() -> None:
    state = state_of()
    assert fleetview.cpu_places(state) is None
    state.engines["a"] = engine("a", *LORA, "--max-cpu-loras", "16")
    state.engines["b"] = engine("b", *LORA, "--max-cpu-loras", "8")
    assert fleetview.cpu_places(state) == 8
    assert fleetview.gpu_slots(state) == 2


def test_engines_that_are_away_come_back_as_they_were() -> None:
    """Else everything would get a place, and every refused version be checked again, when a fleet is scaled to none."""
    state = state_of(status={"memory": {"maxCpuLoras": 8, "maxLoras": 2, "tensorParallelSize": 4}})
    found = (fleetview.cpu_places(state), fleetview.gpu_slots(state), fleetview.parallel_size(state))
    assert found == (8, 2, 4)
    state.engines["a"] = engine("a", "--config", "/c.yaml")
    assert fleetview.cpu_places(state) is None, "it is there, and does not say"


def test_an_engine_without_the_flag_has_vllms_default() -> None:
    state = state_of()
    state.engines["a"] = engine("a", *LORA)
    assert fleetview.cpu_places(state) == 2


def test_nothing_is_known_of_a_command_line_that_was_not_understood() -> None:
    state = state_of()
    state.engines["a"] = engine("a", "--config", "/c.yaml")
    assert fleetview.cpu_places(state) is None
    assert fleetview.room(state, state.adapters["python"]) is None


def test_the_spec_says_what_the_engines_do_not_show() -> None:
    state = state_of({"capacity": {"maxLoras": 3, "maxCpuLoras": 5, "tensorParallelSize": 2}})
    assert (fleetview.cpu_places(state), fleetview.gpu_slots(state), fleetview.parallel_size(state)) == (5, 3, 2)


def test_everything_that_takes_a_place_counts() -> None:
    state = state_of({"capacity": {"maxCpuLoras": 6}})
    names = {loaded(state, "loaded"), loaded(state, "loading", "Loading")}
    draining = {
        "name": "1",
        "phase": "Draining",
        "servedName": f"old/1-{'b' * 12}",
        "drainingSince": "2026-01-01T00:00:00Z",
    }
    add_adapter(state, "old", {"versions": [draining]})
    state.places.add("promised/1-x")
    state.engines["a"] = engine("a", *LORA, listing={"lingering/1-x": "/adapters/x", "static": "/elsewhere"})
    found = fleetview.room(state, state.adapters["python"])
    assert found is not None
    assert found.held == names | {draining["servedName"], "promised/1-x", "lingering/1-x", "static"}
    assert found.limit == 6


def test_nothing_is_counted_while_there_is_room_for_everything_twice() -> None:
    state = state_of({"capacity": {"maxCpuLoras": 9}})
    for number in range(8):
        loaded(state, f"a{number}")
    assert fleetview.room(state, state.adapters["python"]) is None
    loaded(state, "a8")
    assert fleetview.room(state, state.adapters["python"]) is not None


def test_an_adapter_whose_versions_have_their_places_needs_no_room() -> None:
    state = state_of({"capacity": {"maxCpuLoras": 1}})
    loaded(state, "python")
    assert fleetview.room(state, state.adapters["python"]) is None


@pytest.mark.parametrize(("suspend", "ahead"), [(False, 1), (True, 0)])
def test_older_adapters_that_wait_are_ahead_unless_they_are_suspended(suspend: bool, ahead: int) -> None:
    state = state_of({"capacity": {"maxCpuLoras": 1}})
    add_adapter(state, "python", created="2026-01-02T00:00:00Z")
    loaded(state, "older", "Published", "NoRoom", created="2026-01-01T00:00:00Z")
    loaded(state, "younger", "Published", "NoRoom", created="2026-01-03T00:00:00Z")
    spec = state.adapters["older"].spec
    assert spec
    state.adapters["older"].spec = spec.model_copy(update={"suspend": suspend})
    found = fleetview.room(state, state.adapters["python"])
    assert found is not None
    assert found.ahead == ahead


def test_one_that_waits_no_more_is_not_ahead() -> None:
    state = state_of({"capacity": {"maxCpuLoras": 4}})
    loaded(state, "older", "Published", "NoRoom")
    assert state.waiting
    loaded(state, "older", "Loading")
    assert not state.waiting
    loaded(state, "older", "Published", "NoRoom")
    state.contribute("older", None)
    assert not state.waiting


CHANGES: dict[str, dict[str, Any]] = {
    "aliases": {"baseModel": {"name": "base"}},
    "config": {"baseModel": {**SPEC["baseModel"], "config": {"hidden_size": 1}}},
    "volume": {"baseModel": {**SPEC["baseModel"], "volume": {"claimName": "m"}}},
    "pickle": {"artifacts": {"pickle": "Convert"}},
    "size": {"artifacts": {"maxSize": "1Gi"}},
    "policy": {"verification": {"policy": "Digest"}},
    "signer": {"verification": {"policy": "Signature", "signature": {"publicKey": {"name": "a", "key": "b"}}}},
    "rank": {"capacity": {"maxLoraRank": 8}},
    "parallelism": {"capacity": {"tensorParallelSize": 2}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_refused_version_is_checked_again_when_what_it_is_checked_against_changes(change: str) -> None:
    assert fleetview.expectations(state_of(CHANGES[change])) != fleetview.expectations(state_of())


def test_what_is_not_checked_changes_nothing() -> None:
    other = state_of({"drainTime": "1s", "storage": {**SPEC["storage"], "quota": "1Gi"}})
    assert fleetview.expectations(other) == fleetview.expectations(state_of())


def kept_state(limit: int, **kept: int) -> FleetState:
    """Adapters that serve one version each and keep some; ``waiting`` others wait."""
    state = state_of({"capacity": {"maxCpuLoras": limit}})
    for name, count in kept.items():
        versions = [
            {
                "name": str(number),
                "phase": "Loaded",
                "digest": "sha256:x",
                "provenAt": "2026-01-01T00:00:00Z",
                "servedName": f"{name}/{number}-{'a' * 12}",
                "kept": number > 0,
            }
            for number in range(count + 1)
        ]
        add_adapter(state, name, {"stableVersion": "0", "versions": versions}, uid=name)
    return state


def wait(state: FleetState, *names: str) -> None:
    for name in names:
        version = {"name": "1", "phase": "Published", "reason": "NoRoom", "digest": "sha256:x"}
        add_adapter(state, name, {"versions": [version | {"servedName": f"{name}/1-{'c' * 12}"}]}, uid=name)


def wanted_back(state: FleetState) -> dict[str, int]:
    rooms = {name: room(state, state.adapters[name]) for name in ("a", "b")}
    return {name: found.wanted_back for name, found in rooms.items() if found}


def test_kept_versions_are_wanted_back_only_when_somebody_waits() -> None:
    state = kept_state(5, a=2, b=1)
    assert wanted_back(state) in ({}, {"a": 0, "b": 0})
    wait(state, "c")
    assert sum(wanted_back(state).values()) == 1
    wait(state, "d", "e", "f", "g")
    assert wanted_back(state) == {"a": 2, "b": 1}


def test_what_is_free_or_leaves_is_counted_first() -> None:
    state = kept_state(6, a=2, b=1)
    wait(state, "c")
    assert sum(wanted_back(state).values()) == 0
    state = kept_state(5, a=2, b=1)
    wait(state, "c")
    state.keep.add("x/1-dddddddddddd")
    assert sum(wanted_back(state).values()) == 0


def test_adapters_with_kept_versions_look_when_somebody_begins_to_wait() -> None:
    state = kept_state(5, a=2)
    world, asked = world_of(state)
    wait(state, "c")
    adapter = state.adapters["c"]
    state.contribute("c", None)
    world._contribute(state, "c", adapter)
    assert World.adapter_key(("ns", "a")) in asked.keys
    asked.keys.clear()
    world._contribute(state, "c", adapter)
    assert asked.keys == []
