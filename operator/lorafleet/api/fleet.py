"""``SpecialistFleet``: the engines that serve one base model, and the volume they share.

The fleet says what adapters must have been trained for, where engines are and how to talk to them, and where published
weights live. Its status carries the detail per engine, the highest id ever given, and removals that outlive an adapter.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from lorafleet.api.conditions import Condition
from lorafleet.api.model import ApiModel, Duration, ModelName, ObjectName, Quantity, quantity, rules


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


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap of the fleet's namespace."""

    name: Annotated[ObjectName, Field(description="The ConfigMap's name.")]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The key in it.")]


class CertificateTrust(ApiModel):
    """Signatures made with a certificate that the given authorities issued."""

    authorities: Annotated[ConfigMapKeyRef, Field(description="The authorities' certificates, in PEM.")]
    identity: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            description="Who must have signed: a subject alternative name (mail address, URI or DNS name) of the"
            " certificate, or its common name.",
        ),
    ]


class SigstoreTrust(ApiModel):
    """Signatures made with sigstore, verified without a network."""

    identity: Annotated[str, Field(min_length=1, max_length=512, description="Who must have signed.")]
    issuer: Annotated[
        str, Field(min_length=1, max_length=512, description="The OIDC issuer that vouched for the identity.")
    ]
    trust_config: Annotated[
        ConfigMapKeyRef, Field(description="The trust root, as a sigstore ClientTrustConfig in JSON.")
    ]


class SignatureTrust(ApiModel):
    """Whose OpenSSF model signature an adapter must carry, in the file model.sig: exactly one of the ways."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.publicKey), has(self.certificate), has(self.sigstore)].filter(x, x).size() == 1",
                "a signature has exactly one of publicKey, certificate, sigstore",
            )
        )
    )

    public_key: Annotated[ConfigMapKeyRef | None, Field(description="The signer's public key (EC), in PEM.")] = None
    certificate: Annotated[CertificateTrust | None, Field(description="A certificate of given authorities.")] = None
    sigstore: Annotated[SigstoreTrust | None, Field(description="An identity of sigstore.")] = None

    @property
    def config_map_ref(self) -> ConfigMapKeyRef:
        """Where the key, the authorities or the trust root are."""
        found = (
            self.public_key
            or (self.certificate.authorities if self.certificate else None)
            or (self.sigstore.trust_config if self.sigstore else None)
        )
        if found is None:
            raise ValueError("a signature has exactly one of publicKey, certificate, sigstore")
        return found


class VerificationPolicy(StrEnum):
    """What a version must prove before it is published."""

    NONE = "None"
    DIGEST = "Digest"
    SIGNATURE = "Signature"


class Verification(ApiModel):
    """What a version must prove before it is published."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(self.policy == 'Signature') == has(self.signature)",
                "verification.signature goes with policy Signature, and only with it",
            )
        )
    )

    policy: Annotated[
        VerificationPolicy,
        Field(description="None; Digest: every version is pinned by its digest; Signature: every version is signed."),
    ] = VerificationPolicy.NONE
    signature: Annotated[SignatureTrust | None, Field(description="Whose signature counts.")] = None


class Capacity(ApiModel):
    """Limits of the engines that cannot be read from their own arguments."""

    max_loras: Annotated[int | None, Field(ge=1, le=4096, description="Engines' --max-loras.")] = None
    max_cpu_loras: Annotated[int | None, Field(ge=1, le=65536, description="Engines' --max-cpu-loras.")] = None
    max_lora_rank: Annotated[int | None, Field(ge=1, le=512, description="Engines' --max-lora-rank.")] = None
    tensor_parallel_size: Annotated[
        int | None, Field(ge=1, le=1024, description="Engines' --tensor-parallel-size.")
    ] = None


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
    drain_time: Annotated[
        Duration,
        Field(description="How long a version without weight stays loaded, so that running requests end."),
    ] = "30s"
    deletion_deadline: Annotated[
        Duration,
        Field(description="How long the deletion of an adapter waits for engines that do not answer."),
    ] = "10m"
    suspend: Annotated[bool, Field(description="Stop acting on this fleet; what serves goes on serving.")] = False


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
