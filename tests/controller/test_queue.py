"""The queue: one worker per key, collapse, backoff, lanes that never block each other."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from lorafleet.controller.queue import FIRST_BACKOFF, Key, Lane, Retry, WorkQueue

KEY = Key("a", "ns", "one")


class Work:
    """Reconciles that a test holds and lets go."""

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.running: set[Key] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.answers: list[float | Exception | None] = []
        self.done = asyncio.Event()

    async def __call__(self, key: Key) -> float | None:
        assert key not in self.running, "two workers on one key"
        self.running.add(key)
        self.seen.append(key)
        try:
            await self.gate.wait()
        finally:
            self.running.discard(key)
            self.done.set()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


async def quiet(queue: WorkQueue) -> None:
    """Lets everything run that is ready."""
    for _ in range(50):
        await asyncio.sleep(0)
        if queue.idle():
            return


@pytest.fixture
async def work() -> Work:
    return Work()


@pytest.fixture
async def queue(work: Work) -> AsyncIterator[WorkQueue]:
    lanes = {"a": Lane(work, workers=2, deadline=5.0), "b": Lane(work, workers=1, deadline=5.0)}
    one = WorkQueue(lanes, random.Random(1))
    yield one
    await one.close()


async def test_keys_that_wait_collapse(queue: WorkQueue, work: Work) -> None:
    for _ in range(5):
        queue.add(KEY)
    await quiet(queue)
    assert work.seen == [KEY]


async def test_a_key_added_while_it_runs_runs_once_more_afterwards(queue: WorkQueue, work: Work) -> None:
    work.gate.clear()
    queue.add(KEY)
    await asyncio.sleep(0)
    for _ in range(3):
        queue.add(KEY)
    work.gate.set()
    await quiet(queue)
    assert work.seen == [KEY, KEY]


async def test_a_full_lane_does_not_hold_another(queue: WorkQueue, work: Work) -> None:
    work.gate.clear()
    for name in ("one", "two", "three"):
        queue.add(Key("a", "ns", name))
    queue.add(Key("b", "ns", "other"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(work.running) == 3
    assert Key("b", "ns", "other") in work.running
    assert queue.depth("a") == 1
    work.gate.set()
    await quiet(queue)
    assert len(work.seen) == 4


async def test_a_failure_is_tried_again_later_and_later(queue: WorkQueue, work: Work) -> None:
    loop = asyncio.get_running_loop()
    work.answers = [Retry("no"), Retry("no"), None]
    started = loop.time()
    times = []
    for _ in range(3):
        work.done.clear()
        if not times:
            queue.add(KEY)
        await work.done.wait()
        times.append(loop.time() - started)
    assert times[1] >= FIRST_BACKOFF / 2
    assert times[2] - times[1] >= FIRST_BACKOFF


async def test_an_unexpected_error_does_not_end_the_queue(queue: WorkQueue, work: Work) -> None:
    work.answers = [RuntimeError("bug"), None]
    queue.add(KEY)
    await quiet(queue)
    work.done.clear()
    queue.add(KEY)
    await work.done.wait()
    assert work.seen == [KEY, KEY]
    assert REGISTRY.get_sample_value("lorafleet_reconciles_total", {"kind": "a", "result": "error"})


async def test_the_earliest_of_several_times_counts(queue: WorkQueue, work: Work) -> None:
    queue.add(KEY, after=3600)
    queue.add(KEY, after=0.01)
    queue.add(KEY, after=7200)
    await asyncio.wait_for(work.done.wait(), 20)
    assert work.seen == [KEY]


async def test_forgetting_a_key_drops_what_was_planned(queue: WorkQueue, work: Work) -> None:
    queue.add(KEY, after=0.01)
    queue.forget(KEY)
    work.done.clear()
    other = Key("a", "ns", "other")
    queue.add(other, after=0.05)
    await work.done.wait()
    assert work.seen == [other]


async def test_what_takes_too_long_is_ended_and_tried_again(work: Work) -> None:
    queue = WorkQueue({"a": Lane(work, workers=1, deadline=0.05)})
    work.gate.clear()
    queue.add(KEY)
    await asyncio.wait_for(work.done.wait(), 20)
    assert not work.running
    assert queue.stuck() == []
    await queue.close()


async def test_a_worker_that_ignores_its_deadline_is_seen_as_stuck() -> None:
    release = asyncio.Event()

    async def stubborn(_: Key) -> float | None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return None

    queue = WorkQueue({"a": Lane(stubborn, workers=1, deadline=0.02)})
    queue.add(KEY)
    for _ in range(100):
        await asyncio.sleep(0.01)
        if queue.stuck():
            break
    assert queue.stuck() == [KEY]
    release.set()
    await queue.close()


async def test_what_a_person_asked_for_comes_before_all_that_waits(queue: WorkQueue, work: Work) -> None:
    keys = [Key("b", "ns", str(number)) for number in range(5)]
    work.gate.clear()
    for key in keys:
        queue.add(key)
    await asyncio.sleep(0)
    queue.add(keys[3], first=True)
    queue.add(keys[0], first=True)
    queue.add(Key("b", "ns", "new"), first=True)
    work.gate.set()
    await quiet(queue)
    assert [key.name for key in work.seen] == ["0", "0", "new", "3", "1", "2", "4"]


async def test_being_first_is_for_one_time(queue: WorkQueue, work: Work) -> None:
    keys = [Key("b", "ns", str(number)) for number in range(3)]
    queue.add(keys[2], first=True)
    await quiet(queue)
    for key in keys:
        queue.add(key)
    await quiet(queue)
    assert [key.name for key in work.seen] == ["2", "0", "1", "2"]
