"""``SpecialistFleet``: the engines that serve one base model, and the volume they share.

The fleet says what adapters must have been trained for, where engines are and how to talk to them, and where published
weights live. Its status carries the detail per engine, the highest id ever given, and removals that outlive an adapter.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from lorafleet.api.model import ApiModel, Duration, ModelName, ObjectName, Quantity, quantity, rules
from lorafleet.api.verification import Verification


class ClaimFolder(ApiModel):
    """A folder on a claim of the fleet's namespace."""

    claim_name: Annotated[ObjectName, Field(description="The claim.")]
    path: Annotated[
        str,
        Field(
            max_length=512,
            description="The folder on the claim, relative to its root; the root itself when empty.",
            json_schema_extra=rules(
                (
                    "!self.startsWith('/') && !self.split('/').exists(p, p == '..')",
                    "path is relative to the root of the claim and stays inside: remove a leading slash and '..'",
                )
            ),
        ),
    ] = ""


class BaseModelRef(ApiModel):
    """The model that adapters of the fleet were trained for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(has(self.config) && has(self.volume))",
                "the base model's config.json comes from config or from volume, not from both",
            )
        )
    )

    name: Annotated[ModelName, Field(description="The base model's name, as adapter_config.json carries it.")]
    aliases: Annotated[
        tuple[ModelName, ...],
        Field(
            max_length=32,
            description="Other names for the same weights, such as a path that engines were started with.",
        ),
    ] = ()
    config: Annotated[
        dict[str, Any] | None,
        Field(
            description="The content of the base model's config.json, to check the shapes of adapters against.",
            json_schema_extra={"x-kubernetes-preserve-unknown-fields": True, "type": "object", "maxProperties": 256},
        ),
    ] = None
    volume: Annotated[
        ClaimFolder | None,
        Field(description="The folder with the base model's config.json, such as the one that engines load."),
    ] = None

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
    warm_up: Annotated[
        int,
        Field(
            ge=0,
            le=256,
            description="How many of the most used adapters an engine answers one token with after it started.",
        ),
    ] = 8


class Scrub(ApiModel):
    """When published files are read again and compared with what was published."""

    schedule: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=r"^(@(hourly|daily|weekly|monthly)|[0-9*/,A-Za-z-]+( [0-9*/,A-Za-z-]+){4})$",
            description="When, in the form of cron, such as 0 3 * * *.",
        ),
    ]


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
    quota: Annotated[
        Quantity | None,
        Field(description="How much of the claim lorafleet may use, such as 100Gi; all of it when not set."),
    ] = None
    scrub: Annotated[
        Scrub | None, Field(description="Read published files again now and then; never when not set.")
    ] = None

    @property
    def quota_bytes(self) -> int | None:
        """The quota in bytes."""
        return quantity(self.quota) if self.quota else None


class PicklePolicy(StrEnum):
    """What happens to weights that are there only as a pickle."""

    REFUSE = "Refuse"
    CONVERT = "Convert"


class Artifacts(ApiModel):
    """What adapters may be."""

    pickle: Annotated[
        PicklePolicy,
        Field(
            description="Weights that are there only as a pickle: Refuse them, or Convert them to safetensors in the"
            " sync Job, reading nothing but tensors."
        ),
    ] = PicklePolicy.REFUSE
    max_size: Annotated[Quantity, Field(description="How large all files of one version may be.")] = "64Gi"


class Capacity(ApiModel):
    """Limits of the engines that cannot be read from their own arguments."""

    max_loras: Annotated[int | None, Field(ge=1, le=4096, description="Engines' --max-loras.")] = None
    max_cpu_loras: Annotated[int | None, Field(ge=1, le=65536, description="Engines' --max-cpu-loras.")] = None
    max_lora_rank: Annotated[int | None, Field(ge=1, le=512, description="Engines' --max-lora-rank.")] = None
    tensor_parallel_size: Annotated[
        int | None, Field(ge=1, le=1024, description="Engines' --tensor-parallel-size.")
    ] = None


class Wave(ApiModel):
    """Adapters whose rollouts come at the same time."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(max_length=16, min_length=1, description="Labels that the adapters of the wave have."),
    ]


class Rollouts(ApiModel):
    """How many rollouts a fleet has at once, and in which order they come."""

    max_concurrent: Annotated[
        int | None, Field(ge=1, le=10_000, description="How many adapters may roll out at once; all when not set.")
    ] = None
    waves: Annotated[
        tuple[Wave, ...],
        Field(
            max_length=16,
            description="Adapters of a wave begin when no adapter of an earlier one has a rollout to do; an adapter of"
            " no wave comes last.",
        ),
    ] = ()


class Prometheus(ApiModel):
    """Where the queries of analyses go."""

    url: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^https?://[^\s?#@]+$",
            description="The server's address, such as http://prometheus.monitoring:9090.",
        ),
    ]
    bearer_token: Annotated[ApiKey | None, Field(description="The token that it asks for.")] = None


class SpecialistFleetSpec(ApiModel):
    """What the user wants of a fleet."""

    base_model: Annotated[BaseModelRef, Field(description="The model that adapters were trained for.")]
    engines: Annotated[Engines, Field(description="Where the engines are and how to talk to them.")]
    storage: Annotated[Storage, Field(description="The volume that engines and sync Jobs share.")]
    capacity: Annotated[Capacity, Field(description="Limits that cannot be read from the engines' own arguments.")] = (
        Capacity()
    )
    artifacts: Annotated[Artifacts, Field(description="What adapters may be.")] = Artifacts()
    verification: Annotated[Verification, Field(description="What a version must prove before it is published.")] = (
        Verification()
    )
    rollouts: Annotated[
        Rollouts, Field(description="How many rollouts there are at once, and in which order they come.")
    ] = Rollouts()
    prometheus: Annotated[Prometheus | None, Field(description="Where the queries of analyses go.")] = None
    drain_time: Annotated[
        Duration,
        Field(description="How long a version without weight stays loaded, so that running requests end."),
    ] = "30s"
    deletion_deadline: Annotated[
        Duration,
        Field(description="How long the deletion of an adapter waits for engines that do not answer."),
    ] = "10m"
    suspend: Annotated[bool, Field(description="Stop acting on this fleet; what serves goes on serving.")] = False
