"""A fleet as its adapters' decisions see it, computed from memory. Pure reading, no I/O."""

import hashlib
import json
import re

from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.api.fleetstatus import FleetMemory
from lorafleet.api.model import seconds
from lorafleet.controller.objects import Adapter
from lorafleet.controller.state import FleetState
from lorafleet.engines.facts import EngineFacts
from lorafleet.rollout.kept import places_wanted
from lorafleet.rollout.observed import FleetView
from lorafleet.rollout.room import Room


def rank_limit(state: FleetState) -> int | None:
    """The highest rank that fits every engine: from the spec, else the smallest that the engines were started with."""
    assert state.fleet and state.fleet.spec
    if state.fleet.spec.capacity.max_lora_rank:
        return state.fleet.spec.capacity.max_lora_rank
    known = [engine.facts.max_lora_rank for engine in state.engines.values() if engine.facts.max_lora_rank]
    return min(known) if known else state.fleet.status.max_lora_rank


def oldest_version(state: FleetState) -> str | None:
    """The oldest vLLM version among the engines that answered."""
    known = [engine.version for engine in state.engines.values() if engine.version]
    return min(known, key=_age) if known else None


def _told(state: FleetState) -> list[EngineFacts]:
    """The engines whose command line was understood: of the others nothing is known, not even vLLM's defaults."""
    return [engine.facts for engine in state.engines.values() if engine.facts.enable_lora]


def _kept(state: FleetState) -> FleetMemory:
    """What was last known of the engines, for while there are none: they come back as they were."""
    memory = state.fleet.status.memory if state.fleet else None
    return memory if memory and not state.engines else FleetMemory()


def cpu_places(state: FleetState) -> int | None:
    """How many adapters every engine can keep: the smallest ``--max-cpu-loras``, or the spec's; None: not known."""
    assert state.fleet and state.fleet.spec
    known = [facts.max_cpu_loras for facts in _told(state)]
    return state.fleet.spec.capacity.max_cpu_loras or min(known, default=_kept(state).max_cpu_loras)


def gpu_slots(state: FleetState) -> int | None:
    """How many adapters one batch may have: the smallest ``--max-loras``, or the spec's; None: not known."""
    assert state.fleet and state.fleet.spec
    known = [facts.max_loras for facts in _told(state)]
    return state.fleet.spec.capacity.max_loras or min(known, default=_kept(state).max_loras)


def parallel_size(state: FleetState) -> int | None:
    """The ``--tensor-parallel-size`` that versions are checked for: the largest, or the spec's; None: not known."""
    assert state.fleet and state.fleet.spec
    known = [facts.tensor_parallel_size for facts in _told(state)]
    return state.fleet.spec.capacity.tensor_parallel_size or max(known, default=_kept(state).tensor_parallel_size)


def room(state: FleetState, adapter: Adapter) -> Room | None:
    """The places on the engines, as an adapter sees them; None when it needs none, or nothing has to be counted."""
    if state.fleet is None or state.fleet.spec is None or adapter.spec is None:
        return None
    names = places_wanted(adapter.spec, adapter.status)
    mine = [version.served_name for version in adapter.status.versions if version.name in names]
    limit = cpu_places(state)
    yields = bool(state.waiting) and adapter.name in state.kept.values()
    if limit is None or (not yields and len(mine) == len(names) and all(name in state.load for name in mine)):
        return None
    listed = max((len(engine.listing or ()) for engine in state.engines.values()), default=0)
    if listed + len(state.load) + len(state.keep) + len(state.places) + len(state.waiting) < limit:
        # Even if all of these were different names: with thousands of adapters the sets below take their time.
        return None
    held = state.load.keys() | state.keep | state.places
    for engine in state.engines.values():
        # What it was told to forget, or has from elsewhere, takes a place as well.
        held |= (engine.listing or {}).keys() if engine.usable else set()
    age = (adapter.created, adapter.name)
    others = [state.adapters[name] for name in set(state.waiting.values()) - {adapter.name} if name in state.adapters]
    active = [one for one in others if one.deleting_since is None and one.spec and not one.spec.suspend]
    ahead = sum((one.created, one.name) < age for one in active)
    back = _wanted_back(state, adapter, limit - len(held))
    return Room(limit, frozenset(held), waiting=len(active) + 1, ahead=ahead, wanted_back=back)


def _wanted_back(state: FleetState, adapter: Adapter, free: int) -> int:
    """How many kept versions of an adapter have to go for versions that wait, after what is free and what leaves."""
    waiting = sum(name != adapter.name for name in state.waiting.values())
    short = waiting - max(free, 0) - len(state.keep)
    return sum(state.kept[served] == adapter.name for served in sorted(state.kept)[: max(short, 0)])


def _age(version: str) -> tuple[tuple[int, ...], bool]:
    """Sorts versions, a release candidate before its release."""
    public = version.split("+")[0]
    return tuple(int(number) for number in re.findall(r"\d+", public)[:3]), public.replace(".", "").isdigit()


def expectations(state: FleetState) -> str:
    """Twelve hex digits of everything that an adapter's files are checked against."""
    assert state.fleet and state.fleet.spec
    facts = [state.fleet.status.engine_model, rank_limit(state), oldest_version(state), parallel_size(state)]
    text = json.dumps([*facts, _asked(state, state.fleet.spec)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _asked(state: FleetState, spec: SpecialistFleetSpec) -> str:
    """What the spec asks of versions, as text; kept as long as the spec is the same, because all adapters ask."""
    if state.asked[0] is not spec:
        base = spec.base_model
        parts = [base.to_json(), spec.artifacts.to_json(), spec.verification.to_json()]
        state.asked = (spec, json.dumps(parts, sort_keys=True))
    return state.asked[1]


def fleet_view(state: FleetState) -> FleetView | None:
    """The fleet for decisions; None when it does not exist or its spec cannot be read."""
    fleet = state.fleet
    if fleet is None or fleet.spec is None:
        return None
    spec = fleet.spec
    return FleetView(
        name=fleet.name,
        claim_name=spec.storage.claim_name,
        mount_path=spec.storage.mount_path,
        drain_seconds=seconds(spec.drain_time),
        deletion_seconds=seconds(spec.deletion_deadline),
        ready_to_publish=fleet.status.engine_model is not None and rank_limit(state) is not None,
        usable_engines=state.usable_engines(),
        expectations=expectations(state),
        deleting=fleet.deleting_since is not None,
        suspended=spec.suspend,
        trouble=state.trouble(),
    )
