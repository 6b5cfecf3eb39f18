"""What a command that goes on hears: changes, that nobody answers, that an object is gone; a refusal is its end."""

from contextlib import aclosing
from typing import Any

import pytest

from lorafleet import watch
from lorafleet.api.names import ADAPTER_PLURAL
from lorafleet.cli import actions
from lorafleet.cli.cluster import Cluster, Place
from lorafleet.cli.outcome import Ended
from lorafleet.kube import KubeError
from tests.harness.script import Script, named

OLD = KubeError(410, "Gone", "too old")


@pytest.fixture(autouse=True)
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_DELAY", 0.0)


async def said(*answers: Any, until: str, listing: Any = None) -> list[str | None]:
    """What comes, as ``name`` or ``-name``, up to that."""
    told: list[str | None] = []
    cluster = Cluster(Script(*answers), Place("test", "ns", "https://test"))
    async with aclosing(cluster.changes(ADAPTER_PLURAL, listing)) as changes:
        async for item in changes:
            told.append(item and f"{'-' if item.get('deleted') else ''}{item['metadata']['name']}")
            if told[-1] == until:
                return told
    raise AssertionError("a watch has no end of its own")


async def test_what_is_there_comes_first_and_then_each_change() -> None:
    events = [("MODIFIED", "a", 8), ("BOOKMARK", "", 9), ("DELETED", "a", 10)]
    assert await said((["a", "b"], "7", ""), events, until="-a") == ["a", "b", "a", "-a"]


@pytest.mark.parametrize("error", [KubeError(0, "ClientError", "cut"), KubeError(503, "Unavailable", "later")])
async def test_no_answer_is_said_and_waited_out(error: KubeError) -> None:
    answers = (error, (["a"], "7", ""), error, [("MODIFIED", "b", 8)])
    assert await said(*answers, until="b") == [None, "a", None, "b"]


async def test_an_object_deleted_while_no_watch_stood_is_said_to_be() -> None:
    assert await said((["a"], "7", ""), OLD, ([], "9", ""), until="-a") == ["a", "-a"]
    listing = {"metadata": {"resourceVersion": "7"}, "items": [named("a")]}
    assert await said(OLD, ([], "9", ""), until="-a", listing=listing) == ["-a"]


@pytest.mark.parametrize(("status", "text"), [(401, "log in again"), (403, "you may not watch"), (404, "install")])
async def test_a_refusal_that_does_not_pass_is_the_end(status: int, text: str) -> None:
    with pytest.raises(Ended, match=text):
        await said((["a"], "7", ""), KubeError(status, "Refused", "no"), until="")


async def test_a_verb_is_told_of_an_adapter_that_vanished() -> None:
    listing = {"metadata": {"resourceVersion": "7"}, "items": [named("a")]}
    cluster = Cluster(Script(OLD, ([], "9", "")), Place("test", "ns", "https://test"))
    (result,) = await actions._answers(cluster, listing, {"a": "pause@1"}, 10.0)
    assert result.became is actions.Became.GONE
