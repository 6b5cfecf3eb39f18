"""Following a collection: pages, cut watches, versions that are too old, and since when nothing was heard."""

import asyncio
import logging
from typing import Any

import pytest

from lorafleet import watch
from lorafleet.kube import KubeError, Object
from lorafleet.router.follow import LAST_DELAY, Follower, Sink
from tests.harness.plane import until
from tests.harness.script import Script


class Heard:
    """What a sink was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.sink = Sink(
            lambda item: self.told.append(f"+{item['metadata']['name']}"),
            lambda item: self.told.append(f"-{item['metadata']['name']}"),
            lambda names, version: self.told.append((names, version)),
        )


async def followed(script: Script, heard: Heard) -> Follower:
    """Follows until the script is at its end and the last watch stands."""
    one = Follower(script, "/somewhere", heard.sink)
    task = asyncio.create_task(one.run())
    try:
        await until("the last watch stands", lambda: script.stands and not one.stale)
    finally:
        task.cancel()
    return one


@pytest.fixture(autouse=True)
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_DELAY", 0.0)


async def test_a_list_comes_by_pages_and_is_complete_at_the_last() -> None:
    heard = Heard()
    script = Script((["a", "b"], "7", "more"), (["c"], "7", ""))
    await followed(script, heard)
    assert heard.told == ["+a", "+b", "+c", ({"a", "b", "c"}, "7")]
    assert script.asked == [("list", None), ("list", "more"), ("watch", "7")]


async def test_a_watch_that_ends_goes_on_from_the_last_version_without_a_list() -> None:
    heard = Heard()
    script = Script(([], "7", ""), [("ADDED", "a", 8), ("BOOKMARK", "", 12)], [("DELETED", "a", 13)])
    await followed(script, heard)
    assert heard.told == [(set(), "7"), "+a", "-a"]
    assert script.asked == [("list", None), ("watch", "7"), ("watch", "12"), ("watch", "13")]


@pytest.mark.parametrize(
    "refusals", [[KubeError(410, "Gone", "too old")], [KubeError(504, "Timeout", "too large")] * 3]
)
async def test_a_version_that_the_server_does_not_know_lists_anew(refusals: list[KubeError]) -> None:
    heard = Heard()
    script = Script((["a"], "7", ""), *refusals, (["b"], "9", ""))
    await followed(script, heard)
    assert heard.told == ["+a", ({"a"}, "7"), "+b", "-a", ({"b"}, "9")]


async def test_a_list_that_fails_halfway_drops_nothing() -> None:
    heard = Heard()
    script = Script((["a"], "7", "more"), KubeError(0, "ClientError", "cut"), (["a"], "8", "more"), (["b"], "8", ""))
    await followed(script, heard)
    assert [told for told in heard.told if isinstance(told, tuple)] == [({"a", "b"}, "8")]


async def test_an_object_that_cannot_be_taken_ends_nothing() -> None:
    heard = Heard()

    def odd(item: Object) -> None:
        if item["metadata"]["name"] == "odd":
            raise RuntimeError("odd")
        heard.told.append(item["metadata"]["name"])

    heard.sink = Sink(odd, odd, heard.sink.listed)
    await followed(Script((["odd", "a"], "7", ""), [("MODIFIED", "odd", 8), ("MODIFIED", "b", 9)]), heard)
    assert heard.told == ["a", ({"odd", "a"}, "7"), "b"]


async def test_it_says_since_when_and_why_it_has_not_heard_of_the_server() -> None:
    script = Script(([], "7", ""))
    one = Follower(script, "/somewhere", Heard().sink)
    assert one.stale > 0, "it has not heard of it yet"
    task = asyncio.create_task(one.run())
    await until("the watch stands", lambda: not one.stale)
    script.away = KubeError(0, "ClientError", "no answer")
    script.cut.set()
    await until("it has lost the server", lambda: one.stale)
    assert "no answer" in one.problem
    script.cut.clear()
    script.away = None
    await until("it hears the server again", lambda: not one.stale)
    assert one.problem == ""
    task.cancel()


async def test_a_loss_is_logged_once_and_so_is_its_end_and_a_version_too_old_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cut, old = KubeError(0, "ClientError", "cut"), KubeError(410, "Gone", "too old")
    with caplog.at_level(logging.INFO):
        await followed(Script(([], "7", ""), old, ([], "9", ""), cut, cut), Heard())
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "a watch is lost; routing goes on as last known"),
        ("INFO", "the API server answers again"),
    ]


async def test_the_server_is_asked_again_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept, sleep = [], asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(watch, "FIRST_DELAY", 0.2)
    monkeypatch.setattr(asyncio, "sleep", noted)
    await followed(Script(([], "7", ""), *[KubeError(0, "ClientError", "cut")] * 20), Heard())
    assert LAST_DELAY / 2 < max(slept) <= LAST_DELAY
