"""Whose turn it is: what memory says of other adapters, beside their written statuses. See `rollout.waves`."""

from typing import Any

from lorafleet.controller.objects import parse_adapter
from lorafleet.controller.state import FleetState
from lorafleet.controller.turns import turn, waiting
from tests.controller.fleets import META, SOURCES, state_of

RUNS = {"version": "2", "phase": "Progressing", "startedAt": "x", "progressAt": "x", "stepsHash": "abc", "steps": 1}
WAITS = {**RUNS, "phase": "Waiting", "stepsHash": ""}


def fleet(**rollouts: Any) -> FleetState:
    state = state_of({"rollouts": rollouts})
    del state.adapters["python"]
    return state


def put(state: FleetState, name: str, rollout: dict[str, Any] | None = None, **labels: str) -> None:
    status = {"stableVersion": "1", "activeVersion": "1", **({"rollout": rollout} if rollout else {})}
    versions = [{"name": version, "source": SOURCES["1"]} for version in ("1", "2")]
    spec = {"fleet": "fleet", "versions": versions, "rollout": {"steps": [{"weight": 5}]}}
    meta = {**META, "name": name, "uid": name, "creationTimestamp": f"2026-01-01-{name}", "labels": labels}
    active = {"activeVersion": "2" if rollout else "1"}
    state.adapters[name] = parse_adapter({"metadata": meta, "spec": {**spec, **active}, "status": status})


def refused(state: FleetState, name: str) -> str:
    return turn(state, state.adapters[name])


def test_without_rules_everybody_may() -> None:
    state = fleet()
    put(state, "a", RUNS)
    put(state, "b", WAITS)
    assert refused(state, "b") == ""


def test_others_that_roll_out_count_and_the_adapter_itself_does_not() -> None:
    state = fleet(maxConcurrent=1)
    put(state, "a", RUNS)
    put(state, "b", WAITS)
    assert "as many adapters roll out as spec.rollouts.maxConcurrent allows, 1: a" in refused(state, "b")
    assert refused(state, "a") == ""


def test_a_turn_that_was_given_counts_before_its_status_is_written() -> None:
    state = fleet(maxConcurrent=1)
    put(state, "a", WAITS)
    put(state, "b", WAITS)
    assert refused(state, "b") == ""
    state.turns.add("a")
    assert refused(state, "b") != ""


def test_labels_say_which_wave_an_adapter_is_of() -> None:
    state = fleet(waves=[{"matchLabels": {"wave": "first"}}])
    put(state, "a", WAITS, wave="first")
    put(state, "b", WAITS)
    assert "adapter a has a rollout to do" in refused(state, "b")
    assert refused(state, "a") == ""


def test_the_oldest_of_those_that_wait_looks_first() -> None:
    state = fleet(maxConcurrent=1)
    put(state, "c", WAITS)
    put(state, "a", WAITS)
    put(state, "b", RUNS)
    assert waiting(state) == ["a", "c"]
