"""A router that ends waits for its clients: not too short, not for ever."""

import time

import pytest

from lorafleet.router import drain as drains
from lorafleet.router.admin import Admin, AdminError, EnvoyGone
from lorafleet.router.drain import drain
from tests.harness.replica import free_port

Activity = tuple[int, int, int]


class FakeEnvoy(Admin):
    """Says one activity after another, and the last one for ever."""

    def __init__(self, *script: Activity | AdminError, deaf: int = 0) -> None:
        self.script = list(script)
        self.deaf = deaf
        self.told = 0
        self.asked = 0

    async def drain(self) -> None:
        if self.deaf:
            self.deaf -= 1
            raise AdminError("slow")
        self.told += 1

    async def activity(self) -> Activity:
        self.asked += 1
        one = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(one, AdminError):
            raise one
        return one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "PAUSE", 0.002)
    monkeypatch.setattr(drains, "QUIET", 0.05)


async def drained(envoy: FakeEnvoy, leave: float = 0.0, grace: float = 30.0) -> float:
    begin = time.monotonic()
    await drain(envoy, leave, grace)
    assert envoy.told == 1
    return time.monotonic() - begin


async def test_it_waits_for_requests_that_run() -> None:
    envoy = FakeEnvoy(*[(3, 1, 9)] * 20, (0, 0, 9))
    await drained(envoy)
    assert envoy.asked >= 21


async def test_it_stays_until_others_have_heard_of_it() -> None:
    assert await drained(FakeEnvoy((0, 0, 0)), leave=0.1) >= 0.1


async def test_it_does_not_wait_for_connections_that_are_only_kept() -> None:
    assert await drained(FakeEnvoy((3, 0, 9))) >= 0.05


async def test_requests_that_still_come_keep_it() -> None:
    envoy = FakeEnvoy(*[(1, 0, count) for count in range(100)], (0, 0, 100))
    await drained(envoy)
    assert envoy.asked >= 100


async def test_after_the_grace_period_it_ends_whatever_runs(caplog: pytest.LogCaptureFixture) -> None:
    assert await drained(FakeEnvoy((1, 1, 1)), grace=0.05) >= 0.05
    assert "requests that still run are cut" in caplog.text


async def test_nothing_is_waited_for_when_envoy_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    await drained(FakeEnvoy((1, 1, 1), EnvoyGone("gone")), leave=30.0)
    assert "nothing to wait for" in caplog.text


async def test_envoy_is_gone_when_nobody_listens() -> None:
    admin = Admin(free_port())
    with pytest.raises(EnvoyGone):
        await admin.live()
    await admin.close()


async def test_requests_are_waited_for_when_envoy_is_slow_to_answer() -> None:
    envoy = FakeEnvoy((3, 1, 9), AdminError("slow"), *[(3, 1, 9)] * 20, (0, 0, 9))
    await drained(envoy)
    assert envoy.asked >= 23


async def test_envoy_is_told_again_when_it_was_slow_to_hear() -> None:
    assert await drained(FakeEnvoy((1, 1, 1), (0, 0, 1), deaf=2)) < 5.0


async def test_an_envoy_that_hangs_is_given_up_after_the_grace_period() -> None:
    await drained(FakeEnvoy((1, 1, 1), AdminError("slow")), grace=0.05)
