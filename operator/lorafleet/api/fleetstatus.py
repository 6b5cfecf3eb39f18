"""The status of a ``SpecialistFleet``: what the operator found. Written by the operator alone."""

from typing import Annotated

from pydantic import Field

from lorafleet.api.conditions import Condition
from lorafleet.api.model import ApiModel


class EngineStatus(ApiModel):
    """One engine, as last seen."""

    name: Annotated[str, Field(description="The pod's name.")]
    ready: Annotated[bool, Field(description="Whether the pod is ready and nothing blocks its use.")]
    loaded: Annotated[int, Field(description="How many adapters of this fleet it has loaded.")]
    wanted: Annotated[int, Field(description="How many adapters of this fleet it should have loaded.")]
    instance: Annotated[
        str | None, Field(description="Which start of the container this is about; routers compare it with the pod.")
    ] = None
    missing: Annotated[
        tuple[str, ...],
        Field(
            description="Served names with traffic that it does not have yet, 32 at most.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    catching_up: Annotated[
        bool | None, Field(description="Whether it lacks more than missing lists, and gets no adapter's requests.")
    ] = None
    version: Annotated[str | None, Field(description="The version of vLLM.")] = None
    model: Annotated[str | None, Field(description="The --model it was started with.")] = None
    reason: Annotated[str | None, Field(description="What is wrong with it, in one word.")] = None
    message: Annotated[str | None, Field(description="What is wrong with it, and the fix.")] = None


class PendingRemoval(ApiModel):
    """A published version whose adapter is gone while an engine may still read it."""

    served_name: Annotated[str, Field(description="The version's served name.")]
    since: Annotated[str, Field(description="Since when it is to be removed.")]


class FleetMemory(ApiModel):
    """What adapters take on one engine."""

    slot_bytes: Annotated[
        int | None,
        Field(description="GPU memory of one slot, per GPU, at the engines' --max-lora-rank; estimated."),
    ] = None
    preallocated_bytes: Annotated[
        int | None, Field(description="GPU memory of all --max-loras slots, per GPU; estimated.")
    ] = None
    max_loras: Annotated[int | None, Field(description="The smallest --max-loras of the engines.")] = None
    max_cpu_loras: Annotated[int | None, Field(description="The smallest --max-cpu-loras of the engines.")] = None
    wanted: Annotated[int, Field(description="Versions that every engine should hold.")] = 0
    tensor_parallel_size: Annotated[int | None, Field(description="The engines' --tensor-parallel-size.")] = None


class DamagedVersion(ApiModel):
    """A published version whose files are not what was published."""

    served_name: Annotated[str, Field(description="The version's served name.")]
    since: Annotated[str, Field(description="Since when that is known.")]


class FleetStorage(ApiModel):
    """What was last known of the volume."""

    used_bytes: Annotated[int | None, Field(description="What lorafleet uses of it.")] = None
    free_bytes: Annotated[int | None, Field(description="What was free.")] = None
    sharing: Annotated[
        str | None,
        Field(description="How identical files are kept once: hardlink or reflink; copy where the volume can neither."),
    ] = None
    last_scrub: Annotated[str | None, Field(description="When published files were last read again.")] = None
    scrubbed: Annotated[int | None, Field(description="How many versions were read then.")] = None
    damaged: Annotated[
        tuple[DamagedVersion, ...],
        Field(
            description="Versions that are being fetched again because their files changed on the volume.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()


class SpecialistFleetStatus(ApiModel):
    """What the operator found. Written by the operator alone."""

    observed_generation: Annotated[
        int | None, Field(description="The generation of the spec that this status is about.")
    ] = None
    ready_engines: Annotated[int, Field(description="Engines that are ready and healthy.")] = 0
    total_engines: Annotated[int, Field(description="Pods that the selector matches.")] = 0
    adapters: Annotated[int, Field(description="Adapters of the fleet.")] = 0
    engine_model: Annotated[
        str | None, Field(description="The --model of the engines, which published configs are rewritten to.")
    ] = None
    max_lora_rank: Annotated[
        int | None, Field(description="The smallest --max-lora-rank of the engines, which adapters must fit.")
    ] = None
    highest_id: Annotated[int, Field(description="The highest version id ever given; ids are never reused.")] = 0
    routers: Annotated[int, Field(description="Routers that answered when they were last asked.")] = 0
    rolling_out: Annotated[int, Field(description="Adapters that have a rollout.")] = 0
    memory: Annotated[FleetMemory | None, Field(description="What adapters take on one engine.")] = None
    storage: Annotated[FleetStorage | None, Field(description="What was last known of the volume.")] = None
    engines: Annotated[
        tuple[EngineStatus, ...],
        Field(description="The engines.", json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    pending_removals: Annotated[
        tuple[PendingRemoval, ...],
        Field(
            description="Versions to be removed when no engine lists them any more.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            description="The fleet's state, by the kstatus convention.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = ()
