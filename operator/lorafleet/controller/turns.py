"""Whose turn it is to roll out: what a fleet's adapters do, gathered for the decision. Pure reading of memory."""

from dataclasses import replace

from lorafleet.controller.objects import Adapter
from lorafleet.controller.state import FleetState
from lorafleet.rollout.waves import Standing, line, standing


def turn(state: FleetState, adapter: Adapter) -> str:
    """Why an adapter's rollout may not begin yet, in a sentence; empty when it may."""
    if state.fleet is None or state.fleet.spec is None:
        return ""
    rules = state.fleet.spec.rollouts
    if rules.max_concurrent is None and not rules.waves:
        return ""
    others = (one for one in state.adapters.values() if one.name != adapter.name and one.deleting_since is None)
    return line((_standing(state, one) for one in others), rules).turn(adapter.labels)


def _standing(state: FleetState, adapter: Adapter) -> Standing:
    """Where an adapter stands; one that was given a turn rolls out, though no written status says so yet."""
    found = standing(adapter.name, adapter.labels, adapter.spec, adapter.status)
    return replace(found, rolls=True) if adapter.name in state.turns else found


def waiting(state: FleetState) -> list[str]:
    """Adapters whose rollout has not begun, the oldest first."""
    found = [one for one in state.adapters.values() if one.status.rollout and not one.status.rollout.steps_hash]
    return [one.name for one in sorted(found, key=lambda one: (one.created, one.name))]
