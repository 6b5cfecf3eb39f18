"""What a fleet's status says: its engines, its memory, its volume, and its conditions. Pure reading of memory.

The condition Checked speaks of the volume and of what cannot be checked; Ready of the engines alone.
"""

from collections.abc import Collection

from lorafleet.api.conditions import ConditionType, Verdict
from lorafleet.api.fleetstatus import DamagedVersion, EngineStatus, FleetMemory, FleetStorage
from lorafleet.api.model import moment
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.memory import fleet_slot_bytes
from lorafleet.controller.fleetview import cpu_places, gpu_slots, parallel_size, rank_limit
from lorafleet.controller.jobs import MAX_CONFIG_BYTES, config_too_large
from lorafleet.controller.objects import Fleet
from lorafleet.controller.scrubs import Refused
from lorafleet.controller.state import Engine, FleetState, Scrubbed
from lorafleet.engines.facts import instance_text
from lorafleet.store.plan import VolumeReport

MISSING = 32
"""So many names are listed at most: an engine that lacks more gets no adapter's requests."""


def model_of(engines: list[Engine]) -> str | None:
    """The ``--model`` of the first usable engine: what published configs are rewritten to, once and for all."""
    for engine in engines:
        if engine.usable and engine.bases:
            return engine.bases[0][1]
    return None


def engine_status(state: FleetState, engine: Engine) -> EngineStatus:
    """One engine's row."""
    listing = engine.listing or {}
    missing = state.carrying.difference(listing) if engine.usable else ()
    first = next(iter(sorted(engine.diagnoses, key=lambda diagnosis: not diagnosis.blocking)), None)
    return EngineStatus(
        name=engine.name,
        ready=engine.usable,
        loaded=len(listing.keys() & state.load.keys()),
        wanted=len(state.load),
        instance=instance_text(engine.facts),
        missing=tuple(sorted(missing)) if len(missing) <= MISSING else (),
        catching_up=len(missing) > MISSING or None,
        version=engine.version,
        model=engine.bases[0][1] if engine.bases else engine.facts.model,
        reason=first.reason.value if first else None,
        message=first.message if first else None,
    )


def verdicts(
    state: FleetState, fleet: Fleet, engines: list[Engine], storage: FleetStorage | None, refused: Refused | None
) -> list[Verdict]:
    """The fleet's conditions."""
    usable = [engine for engine in engines if engine.usable]
    ill = [(engine, diagnosis) for engine in engines for diagnosis in engine.diagnoses if diagnosis.blocking]
    warnings = [diagnosis for engine in usable for diagnosis in engine.diagnoses]
    count = f"{len(usable)} of {len(engines)} engines are usable"
    ready, stalled = False, False
    if fleet.spec is None:
        stalled, reason, text = True, Reason.INVALID_SPEC, f"{fleet.spec_error}; correct the spec"
    elif fleet.spec.suspend:
        reason, text = Reason.SUSPENDED, "the fleet is suspended; set spec.suspend to false to resume"
    elif not engines:
        reason, text = Reason.NO_ENGINES, state.trouble()
    elif ill:
        reasons = {diagnosis.reason for _, diagnosis in ill}
        passing = {Reason.UNREACHABLE, Reason.HUNG}
        reason = reasons.pop() if len(reasons) == 1 else Reason.ENGINES_UNHEALTHY
        text = "; ".join([count, *dict.fromkeys(diagnosis.message for _, diagnosis in ill[:5])])
        stalled = not all(diagnosis.reason in passing for _, diagnosis in ill)
    elif len(usable) < len(engines):
        reason, text = Reason.WAITING_FOR_ENGINES, f"{count}; {state.trouble() or 'the others are not ready'}"
        ready = bool(usable)
    else:
        ready = True
        reason = warnings[0].reason if warnings else Reason.ENGINES_HEALTHY
        text = "; ".join([count, *dict.fromkeys(diagnosis.message for diagnosis in warnings[:5])])
    moving = not ready and not stalled
    return [
        Verdict(type=ConditionType.READY, status=ready, reason=reason, message=text),
        _flag(ConditionType.RECONCILING, moving, reason, text),
        _flag(ConditionType.STALLED, stalled, reason, text),
        Verdict(
            type=ConditionType.AVAILABLE,
            status=bool(usable),
            reason=Reason.ENGINES_HEALTHY if usable else Reason.NO_ENGINES,
            message=count,
        ),
        *([_checked(fleet, storage, refused)] if fleet.spec else []),
    ]


def _checked(fleet: Fleet, storage: FleetStorage | None, refused: Refused | None) -> Verdict:
    """What a person should look at that is not about engines; the worst first."""
    spec = fleet.spec
    assert spec
    found: list[tuple[Reason, str]] = []
    damaged = [one.served_name for one in storage.damaged] if storage else []
    if damaged:
        names = ", ".join(damaged[:5]) + (", …" if len(damaged) > 5 else "")
        text = f"files of {len(damaged)} published version(s) changed on the volume: {names}"
        found.append((Reason.FILES_DAMAGED, f"{text}; they are fetched again, see the adapters; look at the volume"))
    if refused is not None:
        found.append((refused.reason, refused.message))
    if config_too_large(spec):
        text = f"spec.baseModel.config has more than {MAX_CONFIG_BYTES} bytes of JSON and does not fit into a Job"
        found.append((Reason.SHAPES_NOT_CHECKED, f"{text}: leave out what is no number of a shape, or use volume"))
    if found:
        text = "; ".join(text for _, text in found)
        return Verdict(type=ConditionType.CHECKED, status=False, reason=found[0][0], message=text)
    said = ["nothing is damaged as far as is known"]
    if storage and storage.last_scrub:
        said = [f"{storage.scrubbed or 0} version(s) were read again at {storage.last_scrub} and are as published"]
    if storage and storage.sharing == "copy":
        said.append("the volume can neither link nor clone files, so identical files take their room each time")
    return Verdict(type=ConditionType.CHECKED, status=True, reason=Reason.CHECKED, message="; ".join(said))


def memory(state: FleetState, volume: VolumeReport | None) -> FleetMemory:
    """What adapters take on one engine, as far as it is known."""
    slots = gpu_slots(state)
    slot = _slot_bytes(state, volume)
    return FleetMemory(
        slot_bytes=slot,
        preallocated_bytes=slot * slots if slot is not None and slots is not None else None,
        max_loras=slots,
        max_cpu_loras=cpu_places(state),
        wanted=len(state.load),
        tensor_parallel_size=parallel_size(state),
    )


def _slot_bytes(state: FleetState, volume: VolumeReport | None) -> int | None:
    """What a slot takes: from the base model's config in the spec, or as the last Job that has read its folder says."""
    fleet = state.fleet
    assert fleet and fleet.spec
    base = fleet.spec.base_model
    if base.config is not None:
        dtypes = {engine.facts.dtype for engine in state.engines.values()}
        dtype = "float32" if "float32" in dtypes else None
        return fleet_slot_bytes(base.config, rank_limit(state), parallel_size(state) or 1, dtype)
    if base.volume is None:
        return None
    if volume is not None and volume.slot_bytes is not None:
        return volume.slot_bytes
    before = fleet.status.memory or FleetMemory()
    same = before.tensor_parallel_size == parallel_size(state) and fleet.status.max_lora_rank == rank_limit(state)
    return before.slot_bytes if same else None


def storage(
    before: FleetStorage | None,
    volume: VolumeReport | None,
    scrubbed: Scrubbed | None,
    repaired: Collection[str],
    alive: Collection[str],
    now: str,
) -> FleetStorage | None:
    """What is known of the volume after a Job's report, a scrub and repairs; None as long as nothing is known.

    A damaged version stays one until its repair has succeeded: a scrub reports only as many as fit.
    """
    if before is None and volume is None and scrubbed is None:
        return None
    known = before or FleetStorage()
    damaged = {one.served_name: one for one in known.damaged if one.served_name not in repaired}
    fields: dict[str, object] = {}
    if volume is not None:
        seen = {"used_bytes": volume.used_bytes, "free_bytes": volume.free_bytes, "sharing": volume.sharing}
        fields |= {name: value for name, value in seen.items() if value is not None}
    if scrubbed is not None:
        ended = scrubbed.ended or now
        if known.last_scrub is None or moment(ended) > moment(known.last_scrub):
            fields |= {"last_scrub": ended, "scrubbed": scrubbed.versions}
            for served in scrubbed.damaged:
                damaged.setdefault(served, DamagedVersion(served_name=served, since=now))
    left = sorted((one for one in damaged.values() if one.served_name in alive), key=lambda one: one.served_name)
    return known.model_copy(update=fields | {"damaged": tuple(left)})


def _flag(kind: ConditionType, holds: bool, reason: Reason, message: str) -> Verdict:
    return Verdict(
        type=kind, status=holds, reason=reason if holds else Reason.SETTLED, message=message if holds else ""
    )
