"""``lorafleet sync``: the process in a Job that works on a fleet's volume.

Executes a plan and reports on every item, also when it is told to stop, runs out of time or storage hangs: the work
runs in threads of its own, and the main thread reports whatever is known when the time is over. It has no access to
Kubernetes and needs none.
"""

import logging
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lorafleet import logs
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.cli import items
from lorafleet.cli.items import Work
from lorafleet.store import plan as plans
from lorafleet.store import progress as progresses
from lorafleet.store.collect import collect, strays
from lorafleet.store.fs import POSIX, FileSystem, volume_error
from lorafleet.store.layout import Layout, prepare
from lorafleet.store.plan import ItemResult, PublishItem, RemoveItem, ScrubItem, SyncPlan, SyncReport, VolumeReport
from lorafleet.store.progress import Board
from lorafleet.store.reading import READER, Pace
from lorafleet.store.room import used_bytes
from lorafleet.store.termination import encode, messages
from lorafleet.store.turns import TurnedFileSystem, Turns
from lorafleet.store.volume import Volume

log = logging.getLogger("lorafleet.sync")

GRACE_SECONDS = 10.0
"""How long the work may take to clean up after it was told to stop; below a pod's default grace of 30 s."""
SIDE_BY_SIDE = 24
"""Items at once: small adapters wait for their server most of the time. Large ones are fewer (``store.transfer``)."""
BEGIN_SECONDS = 60.0
"""Versions are begun for so long. What is left goes into another Job, so that no result waits for many large ones."""
TAKE_SECONDS = 15.0
"""How long a report that is too long for Kubernetes waits for the operator to ask for it."""

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

    def wait(self, ended: threading.Event, seconds: float) -> None:
        """Wait, unless ``ended`` is set. Raises Stopped when the work has to end."""
        until = time.monotonic() + seconds
        while not ended.wait(min(0.2, max(0.0, until - time.monotonic()))) and time.monotonic() < until:
            self.check()


def run_sync(
    plan: SyncPlan,
    *,
    stop: Stop | None = None,
    fs: FileSystem = POSIX,
    results: dict[int, ItemResult] | None = None,
    board: Board | None = None,
    pace: Pace | None = None,
) -> SyncReport:
    """Execute a plan and report on it; never raises for what an item does.

    Removals come first, they make room. ``results`` is filled as items end, for whoever watches from another thread.
    """
    stop = stop or Stop(plan.deadline_seconds)
    done = {} if results is None else results
    turns = Turns()
    volume = Volume(Layout(Path(plan.root)), TurnedFileSystem(fs, turns), plan.quota_bytes)
    try:
        prepare(volume.layout, fs)
    except ArtifactError as error:
        log.error("volume cannot be used", extra={"reason": error.reason, "detail": error.message})
        done.update({i: plans.failed(i, error) for i in range(len(plan.items))})
        return plans.complete(plan, done, "")
    work = Work(plan, volume, board or Board(), stop.check, pace or Pace(wait=stop.wait), turns)
    left: set[int] = set()
    for kind, at_once, seconds in (
        (RemoveItem, 1, math.inf),
        (PublishItem, SIDE_BY_SIDE, BEGIN_SECONDS),
        (ScrubItem, 1, math.inf),
    ):
        numbers = [i for i, item in enumerate(plan.items) if isinstance(item, kind)]
        left |= _run_items(numbers, work, stop, done, at_once, seconds)
    seen = None if stop.why else _finish(work)
    return plans.complete(plan, done, _LEFT.format(stop.why or "ended early"), seen, left)


def main(plan_json: str, termination_log: Path, log_level: str, port: int = plans.PROGRESS_PORT) -> int:
    """Run the plan of this process and write its report; the answer is the exit code, 0 once the report is written."""
    logs.configure(log_level.upper())
    try:
        plan = SyncPlan.model_validate_json(plan_json)
    except ValueError as error:
        log.error("plan cannot be read", extra={"detail": str(error)})
        return _write(termination_log, encode(SyncReport(error=f"the plan cannot be read: {error}")))
    stop = Stop(plan.deadline_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.ask())
    board, results, reports = Board(), dict[int, ItemResult](), list[SyncReport]()
    silence = progresses.serve(board, port) if any(isinstance(item, PublishItem) for item in plan.items) else None

    def work() -> None:
        reports.append(run_sync(plan, stop=stop, results=results, board=board))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    _wait(worker, stop)
    left = _LEFT.format(stop.why or "failed; its log says why")
    report = reports[0] if reports else plans.complete(plan, dict(results), left)
    message, whole = messages(report)
    if whole is not None and silence is not None:
        _offer(whole, board, stop)
    code = _write(termination_log, message)
    if silence is not None:
        silence()
    if worker.is_alive() or any(thread.name == READER for thread in threading.enumerate()):
        if worker.is_alive():
            log.error("work hangs in the storage; leaving it behind")
        logging.shutdown()
        os._exit(code)
    return code


def from_environment(environment: Mapping[str, str]) -> int | None:
    """``main`` with what a Job's environment says, as the command line reads it; None when that would refuse it."""
    plan = environment.get(plans.PLAN_ENV)
    port = environment.get("LORAFLEET_PROGRESS_PORT") or str(plans.PROGRESS_PORT)
    if not plan or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        return None
    log_level = environment.get("LORAFLEET_LOG_LEVEL") or "INFO"
    return main(plan, Path(environment.get("TERMINATION_LOG") or "/dev/termination-log"), log_level, int(port))


def _wait(worker: threading.Thread, stop: Stop) -> None:
    while worker.is_alive() and not stop.why:
        worker.join(0.2)
    worker.join(GRACE_SECONDS)


def _run_items(
    numbers: Sequence[int], work: Work, stop: Stop, done: dict[int, ItemResult], at_once: int, seconds: float
) -> set[int]:
    """Run items, some of them side by side in threads that the interpreter does not wait for.

    The answer are those that were not begun within so many seconds.
    """
    until = time.monotonic() + seconds
    left: set[int] = set()

    def one(i: int) -> None:
        if stop.why:
            return
        if i != numbers[0] and time.monotonic() >= until:
            left.add(i)
            return
        result = _run_item(i, work)
        work.board.drop(i)
        if result is not None:
            done[i] = result

    if at_once == 1 or len(numbers) <= 1:
        for i in numbers:
            one(i)
        return left
    with ThreadPoolExecutor(min(at_once, len(numbers)), "lorafleet-item") as pool:
        for future in [pool.submit(one, i) for i in numbers]:
            future.result()
    return left


def _run_item(i: int, work: Work) -> ItemResult | None:
    """The result of one item; None when it was stopped."""
    item = work.plan.items[i]
    pins: list[str] = []
    if isinstance(item, RemoveItem):
        about = {"servedName": item.served_name}
        run: Callable[[], ItemResult] = lambda: items.remove_one(i, item, work)  # noqa: E731
    elif isinstance(item, ScrubItem):
        about = {"item": "scrub"}
        run = lambda: items.scrub_all(i, work)  # noqa: E731
    else:
        about = {"adapter": item.adapter, "version": item.version}
        run = lambda: items.publish_one(i, item, work, pins.append)  # noqa: E731
    try:
        return run()
    except Stopped as error:
        log.warning("item stopped", extra=about | {"detail": str(error)})
        return None
    except ArtifactError as error:
        log.warning("item failed", extra=about | {"reason": error.reason, "detail": error.message})
        failure = error
    except Exception as error:
        log.exception("item failed in an unforeseen way", extra=about)
        text = f"the sync Job failed with {type(error).__name__}; its log says more: report this as a bug of lorafleet"
        failure = ArtifactError(Reason.SYNC_FAILED, text)
    return plans.failed(i, failure).model_copy(update={"pin": (pins or [""])[-1] or None})


def _finish(work: Work) -> VolumeReport | None:
    """Collect garbage, and say what the volume looks like then; None when it cannot be looked at."""
    plan, volume = work.plan, work.volume
    try:
        collect(volume)
        return VolumeReport(
            used_bytes=used_bytes(volume.layout),
            free_bytes=volume.fs.free_bytes(volume.layout.root),
            sharing=volume.blobs.sharing.value,
            strays=None if plan.known is None else strays(volume, frozenset(plan.known)),
            slot_bytes=work.slot_bytes,
        )
    except OSError as error:
        log.warning(
            "leftovers not collected", extra={"detail": volume_error(error, "leftovers were collected").message}
        )
        return None


def _offer(report: bytes, board: Board, stop: Stop) -> None:
    """Wait until the operator has asked for the report, which no termination message can hold, but not for long."""
    board.offer(report)
    until = time.monotonic() + TAKE_SECONDS
    while not board.taken.wait(0.1):
        if stop.why or time.monotonic() >= until:
            log.warning("nobody asked for the report; the operator learns the rest from another Job")
            return


def _write(path: Path, message: bytes) -> int:
    try:
        # Kubernetes mounts this very file: it is written in place.
        path.write_bytes(message)
    except OSError as error:
        log.error("report not written", extra={"path": str(path), "detail": str(error)})
        return 1
    return 0
