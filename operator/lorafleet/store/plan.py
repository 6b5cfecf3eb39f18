"""What a sync Job is asked to do and what it answers: the two documents between the operator and the Job.

The plan travels in an environment variable, the report as the container's termination message. No I/O here.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lorafleet.api.model import ApiModel, Digest, DnsName, ModelName, VersionName
from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source
from lorafleet.api.verification import SignatureTrust, VerificationPolicy
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.manifest import Manifest
from lorafleet.store.packing import unpacked

MAX_ITEMS = 500
PLAN_ENV = "LORAFLEET_PLAN"
PROGRESS_PORT = 8081
"""Where a Job's pod answers ``GET /progress`` with a SyncProgress while it fetches."""
REPORT_PATH = "/report"
"""Where it answers with a whole SyncReport, once there is one that no termination message can hold."""
REPORT_SECONDS = 20.0
"""How long whoever asks for that has to wait before the answer is that there is none yet."""


class _PlanModel(ApiModel):
    model_config = ConfigDict(extra="forbid")


class PublishItem(_PlanModel):
    """Publish a version.

    ``entry``: the hash of the version's entry, kept in the manifest, so that a moving name is not asked again for it.
    ``claim``, ``secret``: where the Job has the root of the source's claim, and its Secret's keys as files. ``digest``
    pins the bytes, ``pin`` what a moving name stood for. ``repair``: put the bytes of this served name right again,
    file by file, instead of publishing anything new.
    """

    adapter: DnsName
    version: VersionName
    entry: Annotated[str, Field(max_length=64)] = ""
    source: Source
    claim: Annotated[str | None, Field(pattern=r"^/")] = None
    secret: Annotated[str | None, Field(pattern=r"^/")] = None
    digest: Digest | None = None
    pin: Annotated[str | None, Field(max_length=256)] = None
    repair: Annotated[str | None, Field(max_length=140)] = None


class RemoveItem(_PlanModel):
    """Remove a published version."""

    served_name: Annotated[str, Field(max_length=140)]


class ScrubItem(_PlanModel):
    """Read every published file again and compare it with what was published."""

    scrub: Literal[True] = True


class SyncPlan(_PlanModel):
    """The work of one Job on one fleet's volume. It may be packed.

    ``root``: where the fleet's claim is mounted in the Job. ``model``: the engines' ``--model`` string.
    ``base_models``: the names that adapters may give it; ``base_config``: the base model's config.json, or
    ``base_config_file``: where the Job finds it. ``engine_version``: the oldest vLLM. ``min_id``: the lowest id that
    may be given. ``policy`` and ``signature``: what a version must prove, ``trust_file``: where the Job has the key,
    the authorities or the trust root. ``known``: the first 12 hex digits of the sha256 of every served name that a
    status names; when given, folders of ``serving/`` that are none of them are reported as strays, never removed.
    """

    schema_version: Literal[2] = 2
    root: Annotated[str, Field(pattern=r"^/")]
    model: ModelName
    base_models: Annotated[tuple[ModelName, ...], Field(min_length=1)]
    base_config: dict[str, Any] | None = None
    base_config_file: Annotated[str | None, Field(pattern=r"^/")] = None
    max_lora_rank: Annotated[int | None, Field(ge=1)] = None
    engine_version: Annotated[str | None, Field(max_length=128)] = None
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    min_id: Annotated[int, Field(ge=1, lt=2**53)] = 1
    max_bytes: Annotated[int, Field(ge=1)] = 64 * 1024**3
    quota_bytes: Annotated[int | None, Field(ge=0)] = None
    pickle: bool = False
    policy: VerificationPolicy = VerificationPolicy.NONE
    signature: SignatureTrust | None = None
    trust_file: Annotated[str | None, Field(pattern=r"^/")] = None
    known: tuple[str, ...] | None = None
    deadline_seconds: Annotated[float, Field(gt=0)] = 1800.0
    items: Annotated[tuple[PublishItem | RemoveItem | ScrubItem, ...], Field(max_length=MAX_ITEMS)]

    @model_validator(mode="before")
    @classmethod
    def _unpacked(cls, found: Any) -> Any:
        return unpacked(found)


class Notice(ApiModel):
    """What was found and does not keep a version from serving."""

    reason: str
    message: str


class ItemResult(ApiModel):
    """What came of the item at index ``i``. With a ``reason`` it failed; a removed item has only its ``served_name``.

    ``target_modules`` may be cut to fit; ``more_target_modules`` says by how many. The manifest on the volume has all.
    ``pin`` is reported by a failed item, too, once its source was asked. A scrub has ``damaged`` served names, as many
    as fit, and how many versions were ``scrubbed``.
    """

    i: int
    id: int | None = None
    digest: str | None = None
    served_name: str | None = None
    rank: int | None = None
    target_modules: tuple[str, ...] | None = None
    more_target_modules: int | None = None
    size_bytes: int | None = None
    dtype: str | None = None
    min_engine: str | None = None
    pin: str | None = None
    slot_bytes: int | None = None
    verified_by: str | None = None
    notices: tuple[Notice, ...] | None = None
    damaged: tuple[str, ...] | None = None
    scrubbed: int | None = None
    reason: str | None = None
    message: str | None = None
    retry: bool | None = None


class VolumeReport(ApiModel):
    """What a Job saw of the volume: see ``FleetStorage`` of the fleet's status. ``strays``: see ``SyncPlan.known``.

    ``slot_bytes``: what one slot of the fleet's engines takes by ``artifacts.memory``, if the plan has a
    ``base_config_file``, which the operator cannot read.
    """

    used_bytes: int | None = None
    free_bytes: int | None = None
    sharing: str | None = None
    strays: tuple[str, ...] | None = None
    slot_bytes: int | None = None


class SyncReport(ApiModel):
    """What came of a plan: one result for each item, in its order. ``error``: the plan itself could not be read.

    ``left``: how many items have no result here because there was no time to begin them or no room to say what came of
    them; they are to be asked for again. ``full``: the sha256 of the whole report, in JSON, of which this is a part.
    It may be packed.
    """

    schema_version: Literal[2] = 2
    results: tuple[ItemResult, ...] = ()
    left: int | None = None
    full: str | None = None
    volume: VolumeReport | None = None
    error: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _unpacked(cls, found: Any) -> Any:
        return unpacked(found)


class ItemProgress(ApiModel):
    """How far the item at index ``i`` is, in bytes fetched; ``total`` when the source has said it."""

    i: int
    done: int
    total: int | None = None


class SyncProgress(ApiModel):
    """How far the items are that a Job is fetching right now."""

    items: tuple[ItemProgress, ...] = ()


def published(i: int, manifest: Manifest) -> ItemResult:
    """The result of an item whose version is published."""
    return ItemResult(
        i=i,
        id=manifest.id,
        digest=manifest.digest,
        served_name=manifest.served_name,
        rank=manifest.rank,
        target_modules=manifest.target_modules,
        size_bytes=manifest.size_bytes,
        dtype=manifest.dtype,
        min_engine=manifest.min_engine,
        pin=manifest.pin or None,
        verified_by=manifest.verified_by or None,
    )


def failed(i: int, error: ArtifactError) -> ItemResult:
    """The result of an item that failed."""
    return ItemResult(i=i, reason=error.reason.value, message=error.message, retry=error.retry)


def complete(
    plan: SyncPlan,
    results: Mapping[int, ItemResult],
    why: str,
    volume: VolumeReport | None = None,
    left: Collection[int] = (),
) -> SyncReport:
    """The report on a plan; ``left``: items that were not begun. All others without a result failed because of ``why``.

    Raises nothing.
    """
    failure = ArtifactError(Reason.SYNC_FAILED, why)
    numbers = [i for i in range(len(plan.items)) if i in results or i not in left]
    found = tuple(results.get(i) or failed(i, failure) for i in numbers)
    return SyncReport(results=found, left=len(plan.items) - len(found) or None, volume=volume)
