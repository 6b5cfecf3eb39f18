"""The items of a sync Job's plan, each turned into one call of the store and its result."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import VerificationPolicy
from lorafleet.artifacts.check import Expectations
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.artifacts.memory import fleet_slot_bytes
from lorafleet.sources import Place, Source, open_source
from lorafleet.store import plan as plans
from lorafleet.store.build import How, Request
from lorafleet.store.fs import volume_error
from lorafleet.store.plan import ItemResult, Notice, PublishItem, RemoveItem, SyncPlan
from lorafleet.store.progress import Board
from lorafleet.store.proof import Trust
from lorafleet.store.publish import Outcome, publish
from lorafleet.store.reading import Pace
from lorafleet.store.remove import remove
from lorafleet.store.repair import repair
from lorafleet.store.scrub import scrub
from lorafleet.store.transfer import Progress
from lorafleet.store.turns import TurnedSource, Turns
from lorafleet.store.volume import Volume

log = logging.getLogger("lorafleet.sync")

PROGRESS_SECONDS = 10.0
_MAX_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass
class Work:
    """What all items of a Job share. ``check`` raises when the Job has to end."""

    plan: SyncPlan
    volume: Volume
    board: Board
    check: Callable[[], None]
    pace: Pace
    turns: Turns

    @cached_property
    def wanted(self) -> Wanted:
        """Which files a fetch is for."""
        signed = self.plan.policy is VerificationPolicy.SIGNATURE
        return Wanted(Limits(max_bytes=self.plan.max_bytes), self.plan.pickle, signed)

    @cached_property
    def trust(self) -> Trust | None:
        """The signatures that count. Raises ArtifactError when one is asked for and it is not said whose."""
        if self.plan.policy is not VerificationPolicy.SIGNATURE:
            return None
        if self.plan.signature is None or self.plan.trust_file is None:
            raise ArtifactError(
                Reason.SIGNATURE_INVALID,
                "the fleet takes only signed versions and does not say whose signature counts: set"
                " spec.verification.signature",
            )
        return Trust(self.plan.signature, Path(self.plan.trust_file))

    @cached_property
    def base_config(self) -> dict[str, Any] | None:
        """The base model's config.json; None where it is not given or cannot be read, which the checks then say."""
        if self.plan.base_config is not None or self.plan.base_config_file is None:
            return self.plan.base_config
        try:
            with Path(self.plan.base_config_file).open("rb") as file:
                found = json.loads(file.read(_MAX_CONFIG_BYTES))
        except (OSError, ValueError) as error:
            log.warning("the base model's config.json cannot be read", extra={"detail": type(error).__name__})
            return None
        return found if isinstance(found, dict) else None

    @cached_property
    def expectations(self) -> Expectations:
        """What the fleet can serve."""
        return Expectations(
            self.plan.base_models,
            self.plan.max_lora_rank,
            self.plan.engine_version,
            self.wanted.limits,
            self.base_config,
            self.plan.tensor_parallel_size,
        )

    @property
    def slot_bytes(self) -> int | None:
        """What a slot of the fleet's engines takes, if only this Job can read the base model's config.json."""
        if self.plan.base_config_file is None:
            return None
        return fleet_slot_bytes(self.base_config, self.plan.max_lora_rank, self.plan.tensor_parallel_size)


def publish_one(i: int, item: PublishItem, work: Work, pinned: Callable[[str], None]) -> ItemResult:
    """Publish or repair a version. Raises ArtifactError, and what ``work.check`` raises."""
    place = Place(*(Path(folder) if folder else None for folder in (item.claim, item.secret)))

    def opened(pin: str | None) -> Source:
        return TurnedSource(open_source(item.source, place, work.wanted, pin), work.turns)

    packed = item.source.oci or item.source.http
    request = Request(
        adapter=item.adapter,
        version=item.version,
        model=work.plan.model,
        expectations=work.expectations,
        min_id=work.plan.min_id,
        digest=item.digest,
        pin=item.pin,
        entry=item.entry,
        wanted=work.wanted,
        subfolder=packed.subfolder if packed else None,
        policy=work.plan.policy,
        trust=work.trust,
    )
    how = How(_progress(i, item, work), work.pace)
    start = time.monotonic()
    with work.turns.taken():
        if item.repair is not None:
            outcome = repair(work.volume, request, item.repair, opened, how=how, pinned=pinned)
        else:
            outcome = publish(work.volume, request, opened, how=how, pinned=pinned)
    manifest = outcome.manifest
    about = {"adapter": item.adapter, "version": item.version, "servedName": manifest.served_name, "id": manifest.id}
    about |= {"bytes": manifest.size_bytes, "seconds": round(time.monotonic() - start, 3)}
    log.info("version is whole" if item.repair else "version published", extra=about)
    return _result(i, outcome)


def remove_one(i: int, item: RemoveItem, work: Work) -> ItemResult:
    """Remove a version. Raises ArtifactError."""
    found = remove(work.volume.layout, item.served_name, work.volume.fs)
    log.info("version removed" if found else "version was not there", extra={"servedName": item.served_name})
    return ItemResult(i=i, served_name=item.served_name)


def scrub_all(i: int, work: Work) -> ItemResult:
    """Read all versions again. Raises ArtifactError, and what ``work.check`` raises."""
    try:
        found = scrub(work.volume.layout, work.check)
    except OSError as error:
        raise volume_error(error, "published files were read again") from error
    for name, problem in found.damaged:
        log.error("published version is damaged", extra={"servedName": name, "detail": problem})
    log.info("volume scrubbed", extra={"versions": found.count, "damaged": len(found.damaged)})
    return ItemResult(i=i, scrubbed=found.count, damaged=tuple(name for name, _ in found.damaged))


def _result(i: int, outcome: Outcome) -> ItemResult:
    info, manifest = outcome.info, outcome.manifest
    notices = [Notice(reason=reason.value, message=text) for reason, text in (info.notices if info else ())]
    if manifest.converted is not None:
        text = f"{manifest.converted} is a pickle; its tensors were written to a safetensors file, which engines load"
        notices.append(Notice(reason=Reason.PICKLE_CONVERTED.value, message=text))
    return plans.published(i, manifest).model_copy(
        update={"notices": tuple(notices) or None, "slot_bytes": info.slot_bytes if info else None}
    )


def _progress(i: int, item: PublishItem, work: Work) -> Progress:
    last = time.monotonic()

    def progress(done: int, total: int | None) -> None:
        nonlocal last
        work.check()
        work.board.show(i, done, total)
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            about = {"adapter": item.adapter, "version": item.version, "bytes": done, "of": total}
            log.info("fetching", extra=about)

    return progress
