"""What a sync Job is asked to do and what it answers: the two documents between the operator and the Job.

The plan travels in an environment variable; the report is the container's termination message, of which Kubernetes
keeps 4,096 bytes. A longer report is packed: compressed, in a text that JSON takes as it is. So that forty items always
fit, texts are cut before facts. No I/O here.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lorafleet.api.fleet import SignatureTrust, VerificationPolicy
from lorafleet.api.model import ApiModel, Digest, DnsName, ModelName, VersionName
from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.manifest import Manifest

MAX_ITEMS = 40
MAX_REPORT_BYTES = 4096
PLAN_ENV = "LORAFLEET_PLAN"
PROGRESS_PORT = 8081
"""Where a Job's pod answers ``GET /progress`` with a SyncProgress while it fetches."""

_MESSAGE_BYTES = (2000, 1000, 500, 250, 120, 60, 20)
_MODULE_BYTES = (1000, 200, 100, 40, 0)
_NAMES = (1000, 20, 5, 1)
"""How many names of damaged versions and strays are kept."""
_UNPACKED_BYTES = 4 * 1024 * 1024
_HASH = {64: b"\x01", 40: b"\x02"}
"""What stands for a hash of so many digits in a packed report: JSON never holds such a byte."""
_HASH_DIGITS = {mark: digits for digits, mark in _HASH.items()}
_HEX = re.compile(rb"([0-9a-f]{65,})|[0-9a-f]{64}|[0-9a-f]{40}")
_HASHED = re.compile(rb"[\x01\x02]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


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
    """The work of one Job on one fleet's volume.

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

    A report may be in a field ``packed``: base 85 of what zlib makes of its JSON, and of the hashes that were in it.
    """

    schema_version: Literal[2] = 2
    results: tuple[ItemResult, ...] = ()
    volume: VolumeReport | None = None
    error: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _unpacked(cls, found: Any) -> Any:
        if not isinstance(found, dict) or not isinstance(found.get("packed"), str):
            return found
        return _unpack(found["packed"])


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
    plan: SyncPlan, results: Mapping[int, ItemResult], why: str, volume: VolumeReport | None = None
) -> SyncReport:
    """The report on a plan; items without a result are to be tried again, because of ``why``."""
    left = ArtifactError(Reason.SYNC_FAILED, why)
    found = tuple(results.get(i) or failed(i, left) for i in range(len(plan.items)))
    return SyncReport(results=found, volume=volume)


def encode(report: SyncReport) -> bytes:
    """The report as JSON in UTF-8, at most 4,096 bytes whatever is in it; packed when it is too long as it is.

    Messages are cut, then target modules and names left out, as little as it takes. What pins and the like make too
    long even so loses its last results: their items are tried again, and cost nothing when they are done.
    """
    for names in _NAMES:
        for modules in _MODULE_BYTES:
            for length in _MESSAGE_BYTES:
                whole = _dump(report, length, modules, names)
                if len(whole) <= MAX_REPORT_BYTES:
                    return whole
                for one in (report, _without_names(report)):
                    packed = _pack(_dump(one, length, modules, names))
                    if len(packed) <= MAX_REPORT_BYTES:
                        return packed
    return encode(report.model_copy(update={"results": report.results[: len(report.results) * 7 // 8]}))


def _without_names(report: SyncReport) -> SyncReport:
    """Whoever asked for a version knows its name, and makes its served name of that and the digest."""
    results = (one.model_copy(update={"served_name": None}) if one.digest else one for one in report.results)
    return report.model_copy(update={"results": tuple(results)})


def _pack(text: bytes) -> bytes:
    """Hashes do not compress: they travel as bytes behind the rest."""
    hashes: list[bytes] = []

    def take(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return match[0]
        hashes.append(bytes.fromhex(match[0].decode()))
        return _HASH[len(match[0])]

    rest = zlib.compress(_HEX.sub(take, text), 9)
    return b'{"packed":"' + base64.b85encode(rest + b"".join(hashes)) + b'"}'


def _unpack(packed: str) -> Any:
    """Raises ValueError when it is damaged."""
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(base64.b85decode(packed), _UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"the packed report is damaged: {error}") from None
    hashes, at = inflater.unused_data, 0

    def put(match: re.Match[bytes]) -> bytes:
        nonlocal at
        count = _HASH_DIGITS[match[0]] // 2
        at += count
        return hashes[at - count : at].hex().encode()

    return json.loads(_HASHED.sub(put, text))


def _dump(report: SyncReport, message_bytes: int, module_bytes: int, names: int) -> bytes:
    volume = report.volume
    if volume is not None and volume.strays is not None:
        volume = volume.model_copy(update={"strays": volume.strays[:names]})
    cut = SyncReport(
        results=tuple(_cut_result(result, message_bytes, module_bytes, names) for result in report.results),
        volume=volume,
        error=_cut_text(report.error, message_bytes),
    )
    return cut.model_dump_json(by_alias=True, exclude_none=True).encode()


def _cut_result(result: ItemResult, message_bytes: int, module_bytes: int, names: int) -> ItemResult:
    kept: list[str] = []
    for module in result.target_modules or ():
        module_bytes -= len(module) + 3
        if module_bytes < 0:
            break
        kept.append(module)
    left_out = len(result.target_modules or ()) - len(kept)
    notices = tuple(
        notice.model_copy(update={"message": _cut_text(notice.message, message_bytes)})
        for notice in result.notices or ()
    )
    return result.model_copy(
        update={
            "message": _cut_text(result.message, message_bytes),
            "target_modules": tuple(kept) if kept else None,
            "more_target_modules": left_out or None,
            "damaged": result.damaged if result.damaged is None else result.damaged[:names],
            "verified_by": _cut_text(result.verified_by, max(message_bytes, 60)),
            "notices": notices or None,
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
