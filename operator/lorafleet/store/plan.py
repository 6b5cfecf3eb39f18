"""What a sync Job is asked to do and what it answers: the two documents between the operator and the Job.

The plan travels in an environment variable; the report is the container's termination message, of which Kubernetes
keeps 4,096 bytes. So a plan has at most ten items, and a report of ten always fits: texts are cut before facts. No
I/O here.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from lorafleet.api.model import ApiModel, Digest, DnsName, ModelName, VersionName
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.manifest import Manifest

MAX_ITEMS = 10
MAX_REPORT_BYTES = 4096
PLAN_ENV = "LORAFLEET_PLAN"

_MESSAGE_LENGTHS = (2000, 1000, 500, 250, 120, 40)
_MODULE_BYTES = (1000, 200, 100, 40, 0)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


class _PlanModel(ApiModel):
    model_config = ConfigDict(extra="forbid")


class VolumeLocation(_PlanModel):
    """An adapter's folder: where its claim is mounted in the Job, and the path below that."""

    root: Annotated[str, Field(pattern=r"^/")]
    path: Annotated[str, Field(min_length=1, max_length=512)]


class PublishItem(_PlanModel):
    """Publish a version. Exactly one source is set; ``digest`` pins its bytes."""

    adapter: DnsName
    version: VersionName
    volume: VolumeLocation | None = None
    digest: Digest | None = None


class RemoveItem(_PlanModel):
    """Remove a published version."""

    served_name: Annotated[str, Field(max_length=140)]


class SizeLimits(_PlanModel):
    """How large an adapter may be."""

    max_bytes: Annotated[int, Field(ge=1)]


class SyncPlan(_PlanModel):
    """The work of one Job on one fleet's volume.

    ``root``: where the fleet's claim is mounted in the Job. ``model``: the engines' ``--model`` string.
    ``base_models``: the names that adapters may give it. ``engine_version``: the oldest vLLM. ``min_id``: the lowest
    id that may be given.
    """

    schema_version: Literal[1] = 1
    root: Annotated[str, Field(pattern=r"^/")]
    model: ModelName
    base_models: Annotated[tuple[ModelName, ...], Field(min_length=1)]
    max_lora_rank: Annotated[int | None, Field(ge=1)] = None
    engine_version: Annotated[str | None, Field(max_length=128)] = None
    min_id: Annotated[int, Field(ge=1, lt=2**53)] = 1
    limits: SizeLimits | None = None
    deadline_seconds: Annotated[float, Field(gt=0)] = 1800.0
    items: Annotated[tuple[PublishItem | RemoveItem, ...], Field(max_length=MAX_ITEMS)]


class ItemResult(ApiModel):
    """What came of the item at index ``i``. With a ``reason`` it failed; a removed item has only its ``served_name``.

    ``target_modules`` may be cut to fit; ``more_target_modules`` says by how many. The manifest on the volume has all.
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
    reason: str | None = None
    message: str | None = None
    retry: bool | None = None


class SyncReport(ApiModel):
    """What came of a plan: one result for each item, in its order. ``error``: the plan itself could not be read."""

    schema_version: Literal[1] = 1
    results: tuple[ItemResult, ...] = ()
    error: str | None = None


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
    )


def failed(i: int, error: ArtifactError) -> ItemResult:
    """The result of an item that failed."""
    return ItemResult(i=i, reason=error.reason.value, message=error.message, retry=error.retry)


def complete(plan: SyncPlan, results: Mapping[int, ItemResult], why: str) -> SyncReport:
    """The report on a plan; items without a result are to be tried again, because of ``why``."""
    left = ArtifactError(Reason.SYNC_FAILED, why)
    return SyncReport(results=tuple(results.get(i) or failed(i, left) for i in range(len(plan.items))))


def encode(report: SyncReport) -> bytes:
    """The report as compact JSON in UTF-8, at most 4,096 bytes for ten items whatever is in them.

    When it is too long, messages are cut, then target modules left out, as little as it takes.
    """
    for modules in _MODULE_BYTES:
        for length in _MESSAGE_LENGTHS:
            data = _dump(report, length, modules)
            if len(data) <= MAX_REPORT_BYTES:
                return data
    raise ValueError(f"a report on {len(report.results)} items does not fit; expected at most {MAX_ITEMS}")


def _dump(report: SyncReport, message_bytes: int, module_bytes: int) -> bytes:
    cut = SyncReport(
        results=tuple(_cut_result(result, message_bytes, module_bytes) for result in report.results),
        error=_cut_text(report.error, message_bytes),
    )
    return cut.model_dump_json(by_alias=True, exclude_none=True).encode()


def _cut_result(result: ItemResult, message_bytes: int, module_bytes: int) -> ItemResult:
    kept: list[str] = []
    for module in result.target_modules or ():
        module_bytes -= len(module) + 3
        if module_bytes < 0:
            break
        kept.append(module)
    left_out = len(result.target_modules or ()) - len(kept)
    return result.model_copy(
        update={
            "message": _cut_text(result.message, message_bytes),
            "target_modules": tuple(kept) if kept else None,
            "more_target_modules": left_out or None,
        }
    )


def _cut_text(text: str | None, limit: int) -> str | None:
    """At most ``limit`` bytes of UTF-8 in JSON, without control characters or broken surrogates."""
    if text is None:
        return None
    clean = _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace").decode()
    # A quote or backslash takes two bytes in JSON.
    if len(clean.encode()) + clean.count('"') + clean.count("\\") <= limit:
        return clean
    room = limit - len("…".encode())
    kept = []
    for character in clean:
        room -= 2 if character in '"\\' else len(character.encode())
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"
