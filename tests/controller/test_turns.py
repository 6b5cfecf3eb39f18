"""Whose turn it is: how many roll out at once, and which wave comes first."""

from typing import Any

import pytest

from lorafleet.controller.state import FleetState
from lorafleet.controller.turns import turn, waiting
from tests.controller.fleets import add_adapter, state_of

WAVES = [{"matchLabels": {"wave": "first"}}, {"matchLabels": {"wave": "second"}}]
RUNS = {"version": "2", "phase": "Progressing", "startedAt": "x", "progressAt": "x", "stepsHash": "abc"}
WAITS = {**RUNS, "phase": "Waiting", "stepsHash": ""}


def fleet(**rollouts: Any) -> FleetState:
    state = state_of({"rollouts": rollouts})
    del state.adapters["python"]
    return state


def put(state: FleetState, name: str, rollout: dict[str, Any] | None = None, wave: str = "", **changes: Any) -> None:
    status = {"stableVersion": "1", "activeVersion": "1", **({"rollout": rollout} if rollout else {}), **changes}
    add_adapter(state, name, status, created=f"2026-01-01-{name}", uid=name)
    state.adapters[name].labels = {"wave": wave}


def refused(state: FleetState, name: str) -> str:
    return turn(state, state.adapters[name])


def test_without_rules_everybody_may() -> None:
    state = fleet()
    put(state, "a", RUNS)
    put(state, "b", WAITS)
    assert refused(state, "b") == ""


@pytest.mark.parametrize(("running", "may"), [(0, True), (1, True), (2, False)])
def test_so_many_roll_out_at_once(running: int, may: bool) -> None:
    state = fleet(maxConcurrent=2)
    for number in range(running):
        put(state, f"r{number}", RUNS)
    put(state, "mine", WAITS)
    put(state, "other", WAITS)
    assert (refused(state, "mine") == "") is may
    if not may:
        assert refused(state, "mine") == "2 rollout(s) run, and the fleet has 2 at once: r0, r1"


def test_a_turn_that_was_given_counts_before_its_status_is_written() -> None:
    state = fleet(maxConcurrent=1)
    put(state, "a")
    put(state, "b")
    state.turns.add("a")
    assert "1 rollout(s) run" in refused(state, "b")
    assert refused(state, "a") == ""


@pytest.mark.parametrize(
    ("rollout", "changes", "blocks"),
    [
        (RUNS, {}, True),
        (WAITS, {}, True),
        (None, {}, False),
        (None, {"activeVersion": "0"}, True),
        (None, {"stableVersion": None, "activeVersion": "0"}, False),
    ],
)
def test_an_earlier_wave_comes_first(rollout: dict[str, Any] | None, changes: dict[str, Any], blocks: bool) -> None:
    state = fleet(waves=WAVES)
    put(state, "a", rollout, wave="first", **changes)
    put(state, "b", WAITS, wave="second")
    put(state, "c", WAITS)
    for name in ("b", "c"):
        assert bool(refused(state, name)) is (blocks or name == "c")
    assert refused(state, "a") == ""


def test_adapters_of_no_wave_come_last() -> None:
    state = fleet(waves=WAVES)
    put(state, "a", WAITS, wave="second")
    put(state, "b", WAITS, wave="unknown")
    assert refused(state, "a") == ""
    assert refused(state, "b") == "1 adapter(s) of earlier waves have a rollout to do first: a"


def test_the_oldest_of_those_that_wait_looks_first() -> None:
    state = fleet(maxConcurrent=1)
    put(state, "c", WAITS)
    put(state, "a", WAITS)
    put(state, "b", RUNS)
    assert waiting(state) == ["a", "c"]
