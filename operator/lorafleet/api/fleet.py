"""``SpecialistFleet``: the engines that serve one base model, and the volume they share.

The fleet says what adapters must have been trained for, where engines are and how to talk to them, and where published
weights live. Its status carries the detail per engine, the highest id ever given, and removals that outlive an adapter.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from lorafleet.api.conditions import Condition
from lorafleet.api.model import ApiModel, Duration, ModelName, ObjectName, rules


class BaseModelRef(ApiModel):
    """The model that adapters of the fleet were trained for."""

    name: Annotated[ModelName, Field(description="The base model's name, as adapter_config.json carries it.")]
    aliases: Annotated[
        tuple[ModelName, ...],
        Field(
            max_length=32,
            description="Other names for the same weights, such as a path that engines were started with.",
        ),
    ] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names for the base model."""
        return (self.name, *self.aliases)


class LabelSelectorRequirement(ApiModel):
    """One requirement of a label selector."""

    key: Annotated[str, Field(max_length=317, description="The label's key.")]
    operator: Annotated[str, Field(pattern=r"^(In|NotIn|Exists|DoesNotExist)$", description="How values relate to it.")]
    values: Annotated[
        tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64, description="The values.")
    ] = ()


class LabelSelector(ApiModel):
    """Which pods are engines of the fleet (meta/v1 LabelSelector)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.matchLabels) && self.matchLabels.size() > 0) ||"
                " (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
                "the selector of engines is empty and would take every pod: give labels",
            )
        )
    )

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(max_length=32, description="Labels that the pods have."),
    ] = Field(default_factory=dict)
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=32, description="Requirements on labels.")
    ] = ()

    @property
    def query(self) -> str:
        """The selector as a query parameter of the Kubernetes API."""
        parts = [f"{key}={value}" for key, value in sorted(self.match_labels.items())]
        for requirement in self.match_expressions:
            values = ",".join(requirement.values)
            parts.append(
                {
                    "In": f"{requirement.key} in ({values})",
                    "NotIn": f"{requirement.key} notin ({values})",
                    "Exists": requirement.key,
                    "DoesNotExist": f"!{requirement.key}",
                }[requirement.operator]
            )
        return ",".join(parts)


class SecretKeyRef(ApiModel):
    """A key of a Secret of the fleet's namespace."""

    name: Annotated[ObjectName, Field(description="The Secret's name.")]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The key in it.")]


class ApiKey(ApiModel):
    """Where the engines' API key is."""

    secret_key_ref: Annotated[SecretKeyRef, Field(description="The key of a Secret of this namespace.")]


class Engines(ApiModel):
    """Where the engines are and how to talk to them."""

    selector: Annotated[LabelSelector, Field(description="Which pods of this namespace are engines.")]
    port: Annotated[
        int | str,
        Field(
            description="The number or name of the container port that serves the OpenAI API.",
            json_schema_extra={
                "x-kubernetes-int-or-string": True,
                "maxLength": 15,
                **rules(
                    (
                        "type(self) == int ? self > 0 && self < 65536"
                        " : self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                        "port is a number from 1 to 65535 or the name of a container port",
                    )
                ),
            },
        ),
    ] = 8000
    api_key: Annotated[ApiKey | None, Field(description="The key that engines were started with.")] = None
    load_timeout: Annotated[Duration, Field(description="How long one load may take on an engine.")] = "60s"


class Storage(ApiModel):
    """The shared volume."""

    claim_name: Annotated[
        ObjectName,
        Field(description="A ReadWriteMany claim of this namespace; its root holds serving/ and more."),
    ]
    mount_path: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^/([^/\x00]+/)*[^/\x00]+$",
            description="Where engines see the claim's serving folder; also their VLLM_LORA_RESOLVER_CACHE_DIR.",
        ),
    ]


class Capacity(ApiModel):
    """Limits of the engines that cannot be read from their own arguments."""

    max_loras: Annotated[int | None, Field(ge=1, le=4096, description="Engines' --max-loras.")] = None
    max_cpu_loras: Annotated[int | None, Field(ge=1, le=65536, description="Engines' --max-cpu-loras.")] = None
    max_lora_rank: Annotated[int | None, Field(ge=1, le=512, description="Engines' --max-lora-rank.")] = None


class SpecialistFleetSpec(ApiModel):
    """What the user wants of a fleet."""

    base_model: Annotated[BaseModelRef, Field(description="The model that adapters were trained for.")]
    engines: Annotated[Engines, Field(description="Where the engines are and how to talk to them.")]
    storage: Annotated[Storage, Field(description="The volume that engines and sync Jobs share.")]
    capacity: Annotated[Capacity, Field(description="Limits that cannot be read from the engines' own arguments.")] = (
        Capacity()
    )
    drain_time: Annotated[
        Duration,
        Field(description="How long a version without weight stays loaded, so that running requests end."),
    ] = "30s"
    deletion_deadline: Annotated[
        Duration,
        Field(description="How long the deletion of an adapter waits for engines that do not answer."),
    ] = "10m"
    suspend: Annotated[bool, Field(description="Stop acting on this fleet; what serves goes on serving.")] = False

    def not_acted_on(self) -> tuple[str, ...]:
        """The fields that are set and that this release accepts without acting on them."""
        fields = {
            "spec.capacity.maxLoras": self.capacity.max_loras,
            "spec.capacity.maxCpuLoras": self.capacity.max_cpu_loras,
        }
        return tuple(name for name, value in fields.items() if value is not None)


class EngineStatus(ApiModel):
    """One engine, as last seen."""

    name: Annotated[str, Field(description="The pod's name.")]
    ready: Annotated[bool, Field(description="Whether the pod is ready and nothing blocks its use.")]
    loaded: Annotated[int, Field(description="How many adapters of this fleet it has loaded.")]
    wanted: Annotated[int, Field(description="How many adapters of this fleet it should have loaded.")]
    version: Annotated[str | None, Field(description="The version of vLLM.")] = None
    model: Annotated[str | None, Field(description="The --model it was started with.")] = None
    reason: Annotated[str | None, Field(description="What is wrong with it, in one word.")] = None
    message: Annotated[str | None, Field(description="What is wrong with it, and the fix.")] = None


class PendingRemoval(ApiModel):
    """A published version whose adapter is gone while an engine may still read it."""

    served_name: Annotated[str, Field(description="The version's served name.")]
    since: Annotated[str, Field(description="Since when it is to be removed.")]


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
