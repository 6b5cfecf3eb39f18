"""``LoRAAdapter``: an adapter, its versions, and which of them serves.

The registry of versions is a list keyed by name whose entries never change; what serves is ``activeVersion``. The
status is the operator's alone, and its ``traffic`` is the one contract with every data plane.
"""

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import ConfigDict, Field

from lorafleet.api.conditions import Condition
from lorafleet.api.model import ApiModel, Digest, DnsName, Percent, VersionName, rules
from lorafleet.api.rollout import Probe, Rollout, TrafficTarget
from lorafleet.api.rolloutstatus import AbortedVersion, HistoryEntry, RolloutStatus, VersionStatistics
from lorafleet.api.sources import Source

MAX_VERSIONS = 64


class AdapterVersion(ApiModel):
    """One version: a name and the bytes it stands for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self == oldSelf",
                "an entry of versions never changes once written: append an entry with a new name instead",
            )
        )
    )

    name: Annotated[VersionName, Field(description="The version's name, unique in the adapter, such as 1.2.0.")]
    source: Annotated[Source, Field(description="Where the bytes of this version come from.")]
    digest: Annotated[
        Digest | None,
        Field(description="Pin: the version is refused unless the digest of its files is this."),
    ] = None

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits that tell one entry from another of the same name; made once: entries never change."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class LoRAAdapterSpec(ApiModel):
    """What the user wants of an adapter."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.activeVersion) || self.versions.exists(v, v.name == self.activeVersion)",
                "activeVersion names no entry of versions: add the entry, or name one that exists",
            ),
            (
                "!has(self.traffic) || self.traffic.all(t, self.versions.exists(v, v.name == t.version))",
                "traffic names a version that is no entry of versions",
            ),
            (
                "!has(self.traffic) || self.traffic.size() == 0 || self.traffic.map(t, t.weight).sum() == 100",
                "the weights of traffic sum up to 100",
            ),
        )
    )

    fleet: Annotated[
        DnsName,
        Field(
            description="The SpecialistFleet of this namespace that serves the adapter.",
            json_schema_extra=rules(
                (
                    "self == oldSelf",
                    "fleet never changes: delete the adapter and create it in the other fleet",
                )
            ),
        ),
    ]
    domains: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
        Field(
            max_length=32,
            description="What the adapter is a specialist for.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = ()
    versions: Annotated[
        tuple[AdapterVersion, ...],
        Field(
            min_length=1,
            max_length=MAX_VERSIONS,
            description="The versions, oldest first. Append to deploy, remove to retire; entries never change.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ]
    active_version: Annotated[
        VersionName | None,
        Field(description="The version that serves; the last entry of versions when not set."),
    ] = None
    traffic: Annotated[
        tuple[TrafficTarget, ...],
        Field(
            max_length=8,
            description="Fixed shares for an A/B comparison, instead of a rollout.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["version"],
            },
        ),
    ] = ()
    rollout: Annotated[
        Rollout | None,
        Field(description="How a change of activeVersion reaches the clients; at once when not set."),
    ] = None
    probe: Annotated[
        Probe, Field(description="What a version must answer on every engine before it gets its first weight.")
    ] = Probe()
    suspend: Annotated[bool, Field(description="Stop acting on this adapter; what serves goes on serving.")] = False

    @property
    def active(self) -> str:
        """The name of the version that shall serve."""
        return self.active_version or self.versions[-1].name

    def not_acted_on(self) -> tuple[str, ...]:
        """The fields that are set and that this release accepts without acting on them."""
        fields = {"spec.domains": self.domains}
        return tuple(name for name, value in fields.items() if value)


class VersionPhase(StrEnum):
    """How far a version has come."""

    PENDING = "Pending"
    PUBLISHING = "Publishing"
    PUBLISHED = "Published"
    LOADING = "Loading"
    LOADED = "Loaded"
    DRAINING = "Draining"
    REMOVING = "Removing"
    FAILED = "Failed"


class VersionStatus(ApiModel):
    """What the operator knows of one version."""

    name: Annotated[str, Field(description="The version's name.")]
    phase: Annotated[VersionPhase, Field(description="How far the version has come.")]
    id: Annotated[
        int | None,
        Field(description="The fleet-wide number of the version (vLLM's lora_int_id); never reused."),
    ] = None
    digest: Annotated[str | None, Field(description="The digest of the source's files.")] = None
    pin: Annotated[
        str | None,
        Field(description="What the source's moving name (a branch, a tag) stood for when it was first asked."),
    ] = None
    bytes_done: Annotated[int | None, Field(description="Bytes that were fetched so far, while publishing.")] = None
    bytes_total: Annotated[int | None, Field(description="Bytes that are to be fetched, while publishing.")] = None
    dtype: Annotated[str | None, Field(description="The dtype of the version's matrices.")] = None
    slot_bytes: Annotated[
        int | None,
        Field(description="What the version's matrices take in an engine's slot, per GPU, in bytes; estimated."),
    ] = None
    verified_by: Annotated[str | None, Field(description="Whose signature of the files was verified.")] = None
    notices: Annotated[
        tuple[str, ...],
        Field(
            description="What was found and does not keep the version from serving: a reason and a message each.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    served_name: Annotated[str | None, Field(description="What engines call the version.")] = None
    path: Annotated[str | None, Field(description="Where engines see the version's files.")] = None
    rank: Annotated[int | None, Field(description="The highest LoRA rank in the version.")] = None
    target_modules: Annotated[
        tuple[str, ...] | None, Field(description="The modules of the base model that the version adapts.")
    ] = None
    size_bytes: Annotated[int | None, Field(description="The size of the version's files, in bytes.")] = None
    min_engine: Annotated[
        str | None, Field(description="The oldest version of vLLM that serves the version as it was trained.")
    ] = None
    loaded_engines: Annotated[int | None, Field(description="How many ready engines have the version loaded.")] = None
    ready_engines: Annotated[int | None, Field(description="How many ready engines should have it loaded.")] = None
    reason: Annotated[str | None, Field(description="Why the version is not further, in one word.")] = None
    message: Annotated[str | None, Field(description="Why the version is not further, and what to do.")] = None
    retry_at: Annotated[str | None, Field(description="When a failed step is tried again.")] = None
    attempts: Annotated[int | None, Field(description="How often the step has failed in a row.")] = None
    probed_engines: Annotated[
        int | None, Field(description="How many ready engines gave the answers that the version's probe expects.")
    ] = None
    proven_at: Annotated[
        str | None, Field(description="When the version last came to serve all requests; it needs no steps again.")
    ] = None
    kept: Annotated[bool | None, Field(description="Whether the version is loaded only for a rollback at once.")] = None
    statistics: Annotated[
        VersionStatistics | None, Field(description="What the routers saw of the version's requests.")
    ] = None
    draining_since: Annotated[
        str | None, Field(description="Since when the version has had no weight, if it is on its way out.")
    ] = None
    claim_name: Annotated[str | None, Field(description="The claim that the version is published on.")] = None
    entry_hash: Annotated[
        str | None, Field(description="Which entry of spec.versions this is about, should its name be used again.")
    ] = None
    checked_against: Annotated[
        str | None, Field(description="Which expectations of the fleet a failed version was checked against.")
    ] = None


class ServedTraffic(ApiModel):
    """Which version gets what share of the requests: the contract with data planes."""

    version: Annotated[str, Field(description="The version's name.")]
    served_name: Annotated[str, Field(description="What to put in the request's model field.")]
    weight: Annotated[Percent, Field(description="Its share of the requests, in percent.")]


class LoRAAdapterStatus(ApiModel):
    """What the operator found and did. Written by the operator alone."""

    observed_generation: Annotated[
        int | None, Field(description="The generation of the spec that this status is about.")
    ] = None
    stable_version: Annotated[
        str | None, Field(description="The version that was last proven by serving all requests.")
    ] = None
    active_version: Annotated[str | None, Field(description="The version that shall serve, after defaults.")] = None
    traffic: Annotated[
        tuple[ServedTraffic, ...],
        Field(
            description="Which version gets what share; empty when nothing serves.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    versions: Annotated[
        tuple[VersionStatus, ...],
        Field(
            description="The versions, and those that are on their way out.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    rollout: Annotated[RolloutStatus | None, Field(description="The rollout that has not ended.")] = None
    aborted: Annotated[
        tuple[AbortedVersion, ...],
        Field(
            description="Versions that were taken back; only the verb retry, or a new entry, tries one again.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    history: Annotated[
        tuple[HistoryEntry, ...],
        Field(
            description="The last things that happened to which version serves, the newest last.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    loaded: Annotated[
        str | None, Field(description="Ready engines that have the active version, of those that should.")
    ] = None
    last_handled_action: Annotated[
        str | None, Field(description="The value of the action annotation that was last acted on.")
    ] = None
    action_message: Annotated[str | None, Field(description="What came of that action, in a sentence.")] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            description="The adapter's state, by the kstatus convention.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = ()
