"""Whose turn it is to roll out: what a fleet's adapters do, as the order of its waves is decided from. Pure reading."""

from lorafleet.api.fleet import Wave
from lorafleet.controller.objects import Adapter
from lorafleet.controller.state import FleetState


def turn(state: FleetState, adapter: Adapter) -> str:
    """Why an adapter's rollout may not begin yet, in a sentence; empty when it may."""
    if state.fleet is None or state.fleet.spec is None:
        return ""
    rules = state.fleet.spec.rollouts
    if rules.max_concurrent is None and not rules.waves:
        return ""
    others = [one for one in state.adapters.values() if one.name != adapter.name and one.deleting_since is None]
    mine = _wave(rules.waves, adapter)
    earlier = sorted(one.name for one in others if _wave(rules.waves, one) < mine and _to_do(one))
    if earlier:
        names = ", ".join(earlier[:3]) + (", …" if len(earlier) > 3 else "")
        return f"{len(earlier)} adapter(s) of earlier waves have a rollout to do first: {names}"
    if rules.max_concurrent is None:
        return ""
    running = sorted(one.name for one in others if _runs(one) or one.name in state.turns)
    if len(running) >= rules.max_concurrent:
        names = ", ".join(running[:3]) + (", …" if len(running) > 3 else "")
        return f"{len(running)} rollout(s) run, and the fleet has {rules.max_concurrent} at once: {names}"
    return ""


def waiting(state: FleetState) -> list[str]:
    """Adapters whose rollout has not begun, the oldest first."""
    found = [one for one in state.adapters.values() if one.status.rollout is not None and not _runs(one)]
    return [one.name for one in sorted(found, key=lambda one: (one.created, one.name))]


def _wave(waves: tuple[Wave, ...], adapter: Adapter) -> int:
    found = (number for number, wave in enumerate(waves) if wave.match_labels.items() <= dict(adapter.labels).items())
    return next(found, len(waves))


def _runs(adapter: Adapter) -> bool:
    return adapter.status.rollout is not None and bool(adapter.status.rollout.steps_hash)


def _to_do(adapter: Adapter) -> bool:
    """Whether an adapter has a rollout, or its spec asks for one that no status says yet."""
    if adapter.status.rollout is not None:
        return True
    spec, status = adapter.spec, adapter.status
    if spec is None or spec.suspend or spec.traffic or status.stable_version is None:
        return False
    return spec.active != status.active_version
