"""``lorafleet sync``: the process in a Job that works on a fleet's volume.

Executes a plan item by item and reports on every item, also when it is told to stop, runs out of time or storage
hangs: the work runs in a thread of its own, and the main thread reports whatever is known when the time is over. It
has no access to Kubernetes and needs none.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lorafleet import logs
from lorafleet.api.fleet import VerificationPolicy
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Expectations
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.sources import Place, open_source
from lorafleet.store import plan as plans
from lorafleet.store.fs import POSIX, FileSystem, volume_error
from lorafleet.store.layout import Layout, prepare
from lorafleet.store.plan import ItemResult, PublishItem, RemoveItem, ScrubItem, SyncPlan, SyncReport
from lorafleet.store.publish import Request, publish
from lorafleet.store.remove import remove, sweep_trash
from lorafleet.store.staging import Progress, sweep_staging

log = logging.getLogger("lorafleet.sync")

GRACE_SECONDS = 10.0
"""How long the work may take to clean up after it was told to stop; below a pod's default grace of 30 s."""
STAGING_SECONDS = 24 * 3600.0
"""Staging that nobody wrote to for so long is a dead job's; no Job lives so long."""
PROGRESS_SECONDS = 10.0

_LEFT = "the sync Job {}; it is tried again"


class Stopped(Exception):
    """The process was told to stop, or its time is over."""


class Stop:
    """Ends the work: by a signal or at the deadline, whichever is first. Safe to use from any thread."""

    def __init__(self, seconds: float) -> None:
        self._asked = threading.Event()
        self._deadline = time.monotonic() + seconds

    def ask(self) -> None:
        """Ask the work to end."""
        self._asked.set()

    @property
    def why(self) -> str | None:
        """Why the work has to end; None while it may go on."""
        if self._asked.is_set():
            return "was told to stop before this item was done"
        if time.monotonic() >= self._deadline:
            return "ran out of time before this item was done"
        return None

    def check(self) -> None:
        """Raises Stopped when the work has to end."""
        if self.why:
            raise Stopped(self.why)


def run_sync(
    plan: SyncPlan,
    *,
    stop: Stop | None = None,
    fs: FileSystem = POSIX,
    results: dict[int, ItemResult] | None = None,
) -> SyncReport:
    """Execute a plan and report on it; never raises for what an item does.

    Removals come first, they make room. ``results`` is filled as items end, for whoever watches from another thread.
    """
    stop = stop or Stop(plan.deadline_seconds)
    done = {} if results is None else results
    layout = Layout(Path(plan.root))
    try:
        prepare(layout, fs)
    except ArtifactError as error:
        log.error("volume cannot be used", extra={"reason": error.reason, "detail": error.message})
        done.update({i: plans.failed(i, error) for i in range(len(plan.items))})
        return plans.complete(plan, done, "")
    order = sorted(enumerate(plan.items), key=lambda pair: isinstance(pair[1], PublishItem))
    for i, item in order:
        if stop.why:
            break
        result = _run_item(i, item, plan, layout, stop, fs)
        if result is not None:
            done[i] = result
    if not stop.why:
        _sweep(layout, fs)
    return plans.complete(plan, done, _LEFT.format(stop.why or "ended early"))


def main(plan_json: str, termination_log: Path, log_level: str) -> int:
    """Run the plan of this process and write its report; the answer is the exit code, 0 once the report is written."""
    logs.configure(log_level.upper())
    try:
        plan = SyncPlan.model_validate_json(plan_json)
    except ValueError as error:
        log.error("plan cannot be read", extra={"detail": str(error)})
        return _write(termination_log, SyncReport(error=f"the plan cannot be read: {error}"))
    stop = Stop(plan.deadline_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.ask())
    results: dict[int, ItemResult] = {}
    worker = threading.Thread(target=run_sync, args=(plan,), kwargs={"stop": stop, "results": results}, daemon=True)
    worker.start()
    _wait(worker, stop)
    report = plans.complete(plan, dict(results), _LEFT.format(stop.why or "failed; its log says why"))
    code = _write(termination_log, report)
    if worker.is_alive():
        log.error("work hangs in the storage; leaving it behind")
        logging.shutdown()
        os._exit(code)
    return code


def _wait(worker: threading.Thread, stop: Stop) -> None:
    while worker.is_alive() and not stop.why:
        worker.join(0.2)
    worker.join(GRACE_SECONDS)


def _run_item(
    i: int, item: PublishItem | RemoveItem | ScrubItem, plan: SyncPlan, layout: Layout, stop: Stop, fs: FileSystem
) -> ItemResult | None:
    """The result of one item; None when it was stopped."""
    if isinstance(item, RemoveItem):
        about = {"servedName": item.served_name}
        run: Callable[[], ItemResult] = lambda: _remove(i, item, layout, fs)  # noqa: E731
    elif isinstance(item, ScrubItem):
        return ItemResult(i=i, scrubbed=0)
    else:
        about = {"adapter": item.adapter, "version": item.version}
        run = lambda: _publish(i, item, plan, layout, stop, fs)  # noqa: E731
    try:
        return run()
    except Stopped as error:
        log.warning("item stopped", extra=about | {"detail": str(error)})
        return None
    except ArtifactError as error:
        log.warning("item failed", extra=about | {"reason": error.reason, "detail": error.message})
        return plans.failed(i, error)
    except Exception as error:
        log.exception("item failed in an unforeseen way", extra=about)
        text = f"the sync Job failed with {type(error).__name__}; its log says more: report this as a bug of lorafleet"
        return plans.failed(i, ArtifactError(Reason.SYNC_FAILED, text))


def _publish(i: int, item: PublishItem, plan: SyncPlan, layout: Layout, stop: Stop, fs: FileSystem) -> ItemResult:
    _require_proof(item, plan)
    limits = Limits(max_bytes=plan.max_bytes)
    place = Place(*(Path(folder) if folder else None for folder in (item.claim, item.secret)))
    source = open_source(item.source, place, Wanted(limits), item.pin)
    request = Request(
        adapter=item.adapter,
        version=item.version,
        model=plan.model,
        expectations=Expectations(plan.base_models, plan.max_lora_rank, plan.engine_version, limits),
        min_id=plan.min_id,
        pin=item.digest,
    )
    start = time.monotonic()
    manifest = publish(layout, request, source, fs=fs, progress=_progress(item, stop))
    about = {"adapter": item.adapter, "version": item.version, "servedName": manifest.served_name, "id": manifest.id}
    about |= {"bytes": manifest.size_bytes, "seconds": round(time.monotonic() - start, 3)}
    log.info("version published", extra=about)
    return plans.published(i, manifest)


def _require_proof(item: PublishItem, plan: SyncPlan) -> None:
    """What the fleet's policy asks for before a byte is fetched. Raises ArtifactError."""
    if plan.policy is VerificationPolicy.DIGEST and item.digest is None:
        raise ArtifactError(
            Reason.DIGEST_REQUIRED,
            f"version {item.version} has no digest and the fleet's spec.verification takes only pinned versions: append"
            " a new version with the digest of its files",
        )
    if plan.policy is VerificationPolicy.SIGNATURE:
        raise ArtifactError(
            Reason.SIGNATURE_INVALID,
            "this release does not verify signatures yet, and the fleet's spec.verification takes only signed versions:"
            " use policy Digest",
        )


def _remove(i: int, item: RemoveItem, layout: Layout, fs: FileSystem) -> ItemResult:
    found = remove(layout, item.served_name, fs)
    log.info("version removed" if found else "version was not there", extra={"servedName": item.served_name})
    return ItemResult(i=i, served_name=item.served_name)


def _progress(item: PublishItem, stop: Stop) -> Progress:
    last = time.monotonic()

    def progress(path: str, done: int, size: int) -> None:
        nonlocal last
        stop.check()
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            about = {"adapter": item.adapter, "version": item.version, "file": path, "bytes": done, "of": size}
            log.info("copying", extra=about)

    return progress


def _sweep(layout: Layout, fs: FileSystem) -> None:
    try:
        swept = sweep_staging(layout, STAGING_SECONDS, fs)
        sweep_trash(layout, fs)
    except OSError as error:
        log.warning("leftovers not swept", extra={"detail": volume_error(error, "leftovers were swept").message})
        return
    if swept:
        log.info("leftovers swept", extra={"folders": swept})


def _write(path: Path, report: SyncReport) -> int:
    try:
        # Kubernetes mounts this very file: it is written in place.
        path.write_bytes(plans.encode(report))
    except (OSError, ValueError) as error:
        log.error("report not written", extra={"path": str(path), "detail": str(error)})
        return 1
    return 0
