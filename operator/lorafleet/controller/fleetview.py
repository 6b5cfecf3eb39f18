"""A fleet as its adapters' decisions see it, computed from memory. Pure reading, no I/O."""

import hashlib
import json
import re

from lorafleet.api.model import seconds
from lorafleet.controller.state import FleetState
from lorafleet.rollout.observed import FleetView


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


def _age(version: str) -> tuple[tuple[int, ...], bool]:
    """Sorts versions, a release candidate before its release."""
    public = version.split("+")[0]
    return tuple(int(number) for number in re.findall(r"\d+", public)[:3]), public.replace(".", "").isdigit()


def expectations(state: FleetState) -> str:
    """Twelve hex digits of everything that an adapter's files are checked against."""
    assert state.fleet and state.fleet.spec
    facts = [state.fleet.spec.base_model.names, state.fleet.status.engine_model, rank_limit(state)]
    text = json.dumps([*facts, oldest_version(state)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
