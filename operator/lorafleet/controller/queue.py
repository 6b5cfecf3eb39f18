"""The work queue: keys in, one worker per key at a time, retries with backoff.

Adding a key that waits collapses into it; adding one that is being worked on runs it once more
afterwards. Each kind has its own limit of workers, so that slow work of one kind never keeps
another waiting. Knows nothing of what a key means.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lorafleet.controller.metrics import QUEUE_DEPTH, RECONCILE_SECONDS, RECONCILES

log = logging.getLogger(__name__)

FIRST_BACKOFF = 0.5
LAST_BACKOFF = 120.0


class Key(NamedTuple):
    """What to reconcile: a kind of work, a namespace and a name."""

    kind: str
    namespace: str
    name: str

    @property
    def about(self) -> dict[str, str]:
        """The key for a log line; `name` is taken there."""
        return {"kind": self.kind, "namespace": self.namespace, "object": self.name}


class Retry(Exception):
    """The work failed in a way that may pass: try again with backoff."""


Reconcile = Callable[[Key], Awaitable[float | None]]
"""Does the work for a key; the answer is in how many seconds to look again, None for when something changes."""


@dataclass(frozen=True)
class Lane:
    """How one kind of work is done: by what, how many at once, and how many seconds one may take."""

    reconcile: Reconcile
    workers: int
    deadline: float


@dataclass
class _Entry:
    running: bool = False
    waiting: bool = False
    again: bool = False
    first: bool = False
    failures: int = 0
    timer: asyncio.TimerHandle | None = None
    started: float = 0.0


@dataclass
class _LaneState:
    lane: Lane
    ready: deque[Key] = field(default_factory=deque)
    busy: int = 0


class WorkQueue:
    """Runs reconciles. Must be created and used inside one event loop."""

    def __init__(self, lanes: Mapping[str, Lane], random_: random.Random | None = None) -> None:
        self._lanes = {kind: _LaneState(lane) for kind, lane in lanes.items()}
        self._entries: dict[Key, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random_ or random.Random()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def add(self, key: Key, after: float = 0.0, *, first: bool = False) -> None:
        """Asks for a reconcile, at the latest ``after`` seconds from now; ``first``: before all others that wait."""
        if self._closed:
            return
        entry = self._entries.setdefault(key, _Entry())
        if first and not entry.first:
            entry.first = True
            if entry.waiting:
                ready = self._lanes[key.kind].ready
                ready.remove(key)
                ready.appendleft(key)
        if entry.waiting or (entry.again and after <= 0):
            return
        if after > 0:
            due = self._loop.time() + after
            if entry.timer is None or due < entry.timer.when():
                self._cancel_timer(entry)
                entry.timer = self._loop.call_at(due, self._due, key)
            return
        self._cancel_timer(entry)
        if entry.running:
            entry.again = True
            return
        entry.waiting = True
        ready = self._lanes[key.kind].ready
        if entry.first:
            ready.appendleft(key)
        else:
            ready.append(key)
        self._dispatch(key.kind)

    def forget(self, key: Key) -> None:
        """Drops what is planned for a key, and its backoff."""
        entry = self._entries.get(key)
        if entry is not None:
            self._cancel_timer(entry)
            entry.again = False
            entry.failures = 0
            if not (entry.running or entry.waiting):
                del self._entries[key]

    def depth(self, kind: str) -> int:
        """How many keys of a kind wait for a worker."""
        return len(self._lanes[kind].ready)

    def idle(self) -> bool:
        """Whether nothing runs and nothing waits for a worker; timers may be set."""
        return all(not state.ready and not state.busy for state in self._lanes.values())

    def stuck(self) -> list[Key]:
        """The keys whose worker is running past twice its deadline: cancelling it did not help."""
        now = self._loop.time()
        return [
            key
            for key, entry in self._entries.items()
            if entry.running and now - entry.started > 2 * self._lanes[key.kind].lane.deadline
        ]

    async def close(self) -> None:
        """Cancels everything and waits for it."""
        self._closed = True
        for entry in self._entries.values():
            self._cancel_timer(entry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    def _cancel_timer(entry: _Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None

    def _due(self, key: Key) -> None:
        self._entries[key].timer = None
        self.add(key)

    def _dispatch(self, kind: str) -> None:
        state = self._lanes[kind]
        while state.ready and state.busy < state.lane.workers:
            key = state.ready.popleft()
            entry = self._entries[key]
            state.busy += 1
            task = self._loop.create_task(self._work(key, entry, state))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        QUEUE_DEPTH.labels(kind).set(len(state.ready))

    async def _work(self, key: Key, entry: _Entry, state: _LaneState) -> None:
        entry.waiting, entry.running, entry.first, entry.started = False, True, False, self._loop.time()
        again: float | None = None
        result = "ok"
        try:
            async with asyncio.timeout(state.lane.deadline):
                again = await state.lane.reconcile(key)
            entry.failures = 0
        except Retry as error:
            result = "retry"
            again = self._backoff(entry)
            log.warning("will try again", extra={**key.about, "error": str(error), "in_s": round(again, 1)})
        except TimeoutError:
            result = "timeout"
            again = self._backoff(entry)
            log.error("took too long", extra={**key.about, "deadline_s": state.lane.deadline})
        except Exception:
            result = "error"
            again = self._backoff(entry)
            log.exception("failed", extra={**key.about, "in_s": round(again, 1)})
        finally:
            RECONCILES.labels(key.kind, result).inc()
            RECONCILE_SECONDS.labels(key.kind).observe(self._loop.time() - entry.started)
            entry.running = False
            state.busy -= 1
            self._after(key, entry, again)
            self._dispatch(key.kind)

    def _after(self, key: Key, entry: _Entry, again: float | None) -> None:
        if self._closed:
            return
        if entry.again:
            entry.again = False
            self.add(key)
        elif again is not None:
            self.add(key, max(again, 0.001))
        elif entry.timer is None and entry.failures == 0:
            self._entries.pop(key, None)

    def _backoff(self, entry: _Entry) -> float:
        """Seconds until the next try: doubling, with half of it random so that failures spread out."""
        delay: float = min(FIRST_BACKOFF * 2.0 ** min(entry.failures, 16), LAST_BACKOFF)
        entry.failures += 1
        return delay * (0.5 + self._random.random() / 2)
