"""What a sync Job is asked to do: the plan of its items, and what it must have mounted for them. Pure.

A source's Secret is named, never read: the Job mounts it, and no value of it passes through the operator.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lorafleet.api import names
from lorafleet.api.adapter import AdapterVersion, VersionStatus
from lorafleet.api.fleet import ClaimFolder, PicklePolicy, SpecialistFleetSpec
from lorafleet.api.model import quantity
from lorafleet.api.verification import ConfigMapKeyRef
from lorafleet.artifacts.files import Limits
from lorafleet.controller.fleetview import oldest_version, parallel_size, rank_limit
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, SyncItem, Task
from lorafleet.store.packing import pack
from lorafleet.store.plan import PublishItem, RemoveItem, ScrubItem, SyncPlan

COMPONENT = "sync"
ITEMS_ANNOTATION = f"{names.GROUP}/items"
SELECTOR = f"{names.MANAGED_BY_LABEL}=lorafleet,{names.COMPONENT_LABEL}={COMPONENT}"
VOLUME = "/volume"
SOURCES = "/sources"
SECRETS = "/secrets"
TRUST = "/trust"
BASE_CONFIG = "config.json"
MAX_PLAN_BYTES = 96 * 1024
"""Linux takes 128 KiB in one variable of the environment (MAX_ARG_STRLEN)."""
MAX_PLAIN_BYTES = 64 * 1024
"""A longer plan is packed."""
MAX_CONFIG_BYTES = 48 * 1024
MAX_ITEM_BYTES = 48 * 1024
"""What the items of a packed plan may take together; one item, whatever it is, is less."""
_BESIDE_BYTES = 8
"""What an item takes in a packed plan beside its own words."""
SCRUB_DEADLINES = 6
"""A scrub reads the whole volume: it may take so many times what a sync Job may."""


@dataclass(frozen=True)
class Mounts:
    """What a Job needs beside the fleet's volume: claims and Secrets by name, and the ConfigMap of the trust."""

    claims: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    trust: ConfigMapKeyRef | None = None


def _found(state: FleetState, item: SyncItem) -> tuple[AdapterVersion, VersionStatus | None] | None:
    """The entry that an item is about and what is known of its version; None when the entry is gone."""
    adapter = state.adapters.get(item.adapter)
    if adapter is None or adapter.spec is None or (item.task is Task.PUBLISH and adapter.uid != item.uid):
        return None
    entry = next((entry for entry in adapter.spec.versions if entry.name == item.version), None)
    if entry is None or entry.fingerprint != item.entry:
        return None
    version = next((version for version in adapter.status.versions if version.name == item.version), None)
    same = version is not None and version.entry_hash == item.entry
    return entry, version if same else None


def claims_of(state: FleetState, item: SyncItem) -> frozenset[str]:
    """The claims that an item needs beside the fleet's: one that does not exist holds its whole Job up."""
    assert state.fleet and state.fleet.spec
    claims: set[str | None] = set()
    if item.task in (Task.PUBLISH, Task.REPAIR):
        found = _found(state, item)
        source = found[0].source.volume if found else None
        claims |= {source.claim_name} if source else set()
        base = state.fleet.spec.base_model.volume
        claims |= {base.claim_name} if base else set()
    return frozenset(claim for claim in claims if claim and claim != state.fleet.spec.storage.claim_name)


class Room:
    """The room for items in a packed plan."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(9)
        self._left = float(MAX_ITEM_BYTES)

    def take(self, state: FleetState, item: SyncItem) -> bool:
        """Whether there was room for one more item."""
        found = _found(state, item) if item.task in (Task.PUBLISH, Task.REPAIR) else None
        words = [item.adapter, item.version, item.served, item.entry]
        words += [found[0].model_dump_json(by_alias=True, exclude_none=True), _pin(found[1])] if found else []
        packed = self._packer.compress(" ".join(words).encode()) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        # Base 85 makes five bytes of four.
        self._left -= len(packed) * 1.25 + _BESIDE_BYTES
        return self._left >= 0


def _pin(version: VersionStatus | None) -> str:
    return f"{version.pin} {version.digest}" if version else ""


def plan_for(
    state: FleetState, items: Iterable[SyncItem], settings: Settings, known: Iterable[str] | None = None
) -> tuple[SyncPlan, tuple[SyncItem, ...], Mounts]:
    """The plan for a Job, the items that are in it in its order, and what the Job must have mounted.

    ``known``: all served names that a status names, if folders that are none of them are to be reported.
    """
    assert state.fleet and state.fleet.spec
    own = state.fleet.spec.storage.claim_name
    work: list[PublishItem | RemoveItem | ScrubItem] = []
    taken: list[SyncItem] = []
    secrets: set[str] = set()
    for item in items:
        if item.task is Task.REMOVE:
            work.append(RemoveItem(served_name=item.served))
        elif item.task is Task.SCRUB:
            work.append(ScrubItem())
        else:
            found = _found(state, item)
            if found is None:
                continue
            work.append(_publish(item, *found, own))
            secrets |= {found[0].source.secret_name} - {None}  # type: ignore[arg-type]
        taken.append(item)
    claims = frozenset().union(*(claims_of(state, item) for item in taken))
    signature = state.fleet.spec.verification.signature
    publishes = any(isinstance(item, PublishItem) for item in work)
    trust = signature.config_map_ref if signature and publishes else None
    plan = _plan(state, settings, tuple(work), publishes, trust)
    return _with_known(plan, known), tuple(taken), Mounts(claims, frozenset(secrets), trust)


def _publish(item: SyncItem, entry: AdapterVersion, version: VersionStatus | None, own: str) -> PublishItem:
    source = entry.source
    claim = source.volume and _folder(source.volume.claim_name, own)
    return PublishItem(
        adapter=item.adapter,
        version=item.version,
        entry=item.entry,
        source=source,
        claim=claim,
        secret=f"{SECRETS}/{source.secret_name}" if source.secret_name else None,
        digest=entry.digest or (version.digest if version and item.task is Task.REPAIR else None),
        pin=version.pin if version else None,
        repair=item.served if item.task is Task.REPAIR else None,
    )


def _folder(claim: str | None, own: str) -> str:
    """Where a Job sees a claim."""
    return VOLUME if claim in (None, own) else f"{SOURCES}/{claim}"


def _plan(
    state: FleetState,
    settings: Settings,
    work: tuple[PublishItem | RemoveItem | ScrubItem, ...],
    publishes: bool,
    trust: ConfigMapKeyRef | None,
) -> SyncPlan:
    fleet = state.fleet
    assert fleet and fleet.spec
    spec = fleet.spec
    scrubs = any(isinstance(item, ScrubItem) for item in work)
    return SyncPlan(
        root=VOLUME,
        model=fleet.status.engine_model or spec.base_model.name,
        base_models=spec.base_model.names,
        base_config=spec.base_model.config if publishes and not config_too_large(spec) else None,
        base_config_file=_base_file(spec.base_model.volume, spec) if publishes else None,
        max_lora_rank=rank_limit(state),
        engine_version=oldest_version(state),
        tensor_parallel_size=parallel_size(state) or 1,
        min_id=fleet.status.highest_id + 1,
        max_bytes=min(quantity(spec.artifacts.max_size), 2**62) or Limits().max_bytes,
        quota_bytes=spec.storage.quota_bytes,
        pickle=spec.artifacts.pickle is PicklePolicy.CONVERT,
        policy=spec.verification.policy,
        signature=spec.verification.signature,
        trust_file=f"{TRUST}/{trust.key}" if trust else None,
        deadline_seconds=settings.sync_deadline * (SCRUB_DEADLINES if scrubs else 1),
        items=work,
    )


def _base_file(folder: ClaimFolder | None, spec: SpecialistFleetSpec) -> str | None:
    if folder is None:
        return None
    parts = (_folder(folder.claim_name, spec.storage.claim_name), folder.path.strip("/"), BASE_CONFIG)
    return "/".join(part for part in parts if part)


def config_too_large(spec: SpecialistFleetSpec) -> bool:
    """Whether the base model's config.json is too large to travel in the plan of a Job."""
    return spec.base_model.config is not None and len(json.dumps(spec.base_model.config)) > MAX_CONFIG_BYTES


def _with_known(plan: SyncPlan, known: Iterable[str] | None) -> SyncPlan:
    """The plan with the names that a status names, if there is room for all of them."""
    if known is None:
        return plan
    short = sorted(hashlib.sha256(name.encode()).hexdigest()[:12] for name in known)
    larger = plan.model_copy(update={"known": tuple(short)})
    return larger if len(dump_plan(larger)) <= MAX_PLAN_BYTES else plan


def dump_plan(plan: SyncPlan) -> str:
    """The plan as it travels in a Job's environment: packed when it is long."""
    text = plan.model_dump_json(by_alias=True, exclude_none=True)
    return text if len(text.encode()) <= MAX_PLAIN_BYTES else pack(text.encode()).decode()


def dump_items(items: Sequence[SyncItem]) -> str:
    """The items as text for an annotation, so that the next leader knows what a Job is about."""
    return json.dumps(
        [
            [item.adapter, item.uid, item.version, item.served, item.entry, item.expectations]
            + ([True] if item.repair else [])
            for item in items
        ]
    )


def read_items(job: dict[str, Any]) -> tuple[SyncItem, ...]:
    """The items of a Job; none when it is not one of ours."""
    text = (job["metadata"].get("annotations") or {}).get(ITEMS_ANNOTATION, "[]")
    try:
        return tuple(_item(item) for item in json.loads(text))
    except (ValueError, TypeError):
        return ()


def _item(found: list[Any]) -> SyncItem:
    adapter, uid, version, served, entry, expectations = map(str, found[:6])
    return SyncItem(adapter, uid, version, served, entry, expectations, repair=any(found[6:]))
