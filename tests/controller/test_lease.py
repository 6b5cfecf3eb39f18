"""At most one replica leads: on a small API server with optimistic locking, and faults on demand."""

import asyncio
import copy
from typing import Any, cast

import pytest

from lorafleet.controller.lease import Lease, LeaseTimes
from lorafleet.kube import Kube, KubeError

TIMES = LeaseTimes(duration=2.0, renew=1.2, retry=0.1)


class Server:
    """Keeps one Lease, refuses stale writes, and can be silent."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.silent_for: set[str] = set()

    def client(self, who: str) -> Kube:
        return cast(Kube, Client(self, who))


class Client:
    """What a Lease needs of ``Kube``."""

    def __init__(self, server: Server, who: str) -> None:
        self.server = server
        self.who = who

    def _reach(self) -> None:
        if self.who in self.server.silent_for:
            raise KubeError(0, "ConnectionError", "silent")

    async def request(self, method: str, where: str, **_: Any) -> dict[str, Any]:
        self._reach()
        if self.server.lease is None:
            raise KubeError(404, "NotFound", where)
        return copy.deepcopy(self.server.lease)

    async def create(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        self._reach()
        if self.server.lease is not None:
            raise KubeError(409, "AlreadyExists", where)
        return self._store(body)

    async def replace(self, where: str, body: dict[str, Any], timeout: float = 1) -> dict[str, Any]:
        self._reach()
        assert self.server.lease is not None
        if body["metadata"]["resourceVersion"] != self.server.lease["metadata"]["resourceVersion"]:
            raise KubeError(409, "Conflict", where)
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.server.version += 1
        self.server.lease = copy.deepcopy(body)
        self.server.lease["metadata"]["resourceVersion"] = str(self.server.version)
        return copy.deepcopy(self.server.lease)


def candidate(server: Server, who: str) -> Lease:
    return Lease(server.client(who), "ns", "lease", who, TIMES)


@pytest.fixture
def server() -> Server:
    return Server()


async def test_only_one_of_two_leads(server: Server) -> None:
    one, two = candidate(server, "one"), candidate(server, "two")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    waiting = asyncio.create_task(two.acquire())
    done, _ = await asyncio.wait({waiting, keeping}, timeout=2 * TIMES.duration)
    assert not done, "the leader renews, so nobody else may lead"
    keeping.cancel()
    waiting.cancel()


async def test_a_lease_that_is_given_back_is_taken_at_once(server: Server) -> None:
    one, two = candidate(server, "one"), candidate(server, "two")
    await one.acquire()
    waiting = asyncio.create_task(two.acquire())
    await one.release()
    await asyncio.wait_for(waiting, TIMES.duration / 2)
    assert two.held
    assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 2


async def test_a_leader_that_died_is_followed_after_the_lease_ran_out(server: Server) -> None:
    one, two = candidate(server, "one"), candidate(server, "two")
    await one.acquire()
    started = asyncio.get_running_loop().time()
    await two.acquire()
    assert asyncio.get_running_loop().time() - started >= TIMES.duration


async def test_a_leader_that_cannot_renew_gives_up_before_anyone_else_may_lead(server: Server) -> None:
    one = candidate(server, "one")
    await one.acquire()
    server.silent_for.add("one")
    started = asyncio.get_running_loop().time()
    await asyncio.wait_for(one.keep(), 20)
    assert asyncio.get_running_loop().time() - started < TIMES.duration
    assert not one.held


async def test_a_short_silence_does_not_cost_the_lease(server: Server) -> None:
    one = candidate(server, "one")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    server.silent_for.add("one")
    await asyncio.sleep(TIMES.renew / 3)
    server.silent_for.clear()
    done, _ = await asyncio.wait({keeping}, timeout=TIMES.renew)
    assert not done
    assert one.held
    keeping.cancel()


async def test_a_leader_whose_lease_was_taken_ends_at_once(server: Server) -> None:
    one = candidate(server, "one")
    await one.acquire()
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "thief"
    server.lease["metadata"]["resourceVersion"] = "99"
    await asyncio.wait_for(one.keep(), 20)
    assert not one.held
