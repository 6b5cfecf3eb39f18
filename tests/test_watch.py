"""Following a collection: what is said of objects that vanished unseen, how long it waits, and what is logged."""

import asyncio
import logging
from contextlib import aclosing
from typing import Any

import pytest

from lorafleet import watch
from lorafleet.kube import KubeError, Object
from lorafleet.watch import informer, list_and_watch
from tests.harness.script import Script, named

OLD = KubeError(410, "Gone", "too old")
CUT = KubeError(0, "ClientError", "cut")
REFUSED = KubeError(403, "Forbidden", "no")
LABELS = {"app": "vllm"}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it slept; in truth it does not."""
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    return slept


async def heard(script: Script, listing: Object | None = None, **limits: Any) -> list[tuple[str, Any]]:
    """What is said until the script is at its end and its last watch stands."""
    said = []
    async with aclosing(list_and_watch(script, "/somewhere", listing, **limits)) as events:
        async for kind, item in events:
            if kind == "OPENED" and script.stands:
                return said
            said.append((kind, item))
    raise AssertionError("it goes on for ever")


def names(said: list[tuple[str, Any]]) -> list[str]:
    return [f"{kind} {item['metadata']['name']}" for kind, item in said if kind in ("ADDED", "MODIFIED", "DELETED")]


@pytest.mark.usefixtures("slept")
async def test_what_vanished_unseen_is_deleted_and_only_who_it_was_is_remembered() -> None:
    there = named("b", labels=LABELS, annotations={"note": "long"}) | {"spec": {"much": True}}
    events = [("ADDED", "c", 8), ("ADDED", "d", 9), ("DELETED", "d", 10)]
    said = await heard(Script((["a", there], "7", ""), events, OLD, (["a"], "20", "")))
    assert names(said)[-3:] == ["ADDED a", "DELETED b", "DELETED c"]
    gone = {"metadata": {"name": "b", "namespace": "ns", "uid": "b", "labels": LABELS}}
    assert ("DELETED", gone) in said
    kind, last = said[-1]
    assert (kind, last["metadata"]["resourceVersion"]) == ("LISTED", "20")
    assert [one["metadata"]["name"] for one in last["items"]] == ["a"]


@pytest.mark.usefixtures("slept")
async def test_another_of_the_same_name_comes_after_the_former_is_deleted() -> None:
    said = await heard(Script((["a"], "7", ""), OLD, ([named("a", uid="new")], "9", "")))
    told = [(kind, item["metadata"]["uid"]) for kind, item in said if kind in ("ADDED", "DELETED")]
    assert told == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "new")]


@pytest.mark.usefixtures("slept")
async def test_a_list_that_fails_halfway_deletes_nothing_and_the_next_does() -> None:
    halfway = ((["x"], "9", "more"), CUT)
    said = await heard(Script((["a", "b"], "7", ""), OLD, *halfway, (["a"], "11", "")))
    assert names(said) == ["ADDED a", "ADDED b", "ADDED x", "ADDED a", "DELETED b", "DELETED x"]


@pytest.mark.usefixtures("slept")
async def test_it_goes_on_after_a_list_that_was_read_already() -> None:
    script = Script([("MODIFIED", "a", 8)], OLD, (["a"], "9", ""))
    said = await heard(script, {"metadata": {"resourceVersion": "7"}, "items": [named("a"), named("b")]})
    assert script.asked[0] == ("watch", "7")
    assert names(said) == ["MODIFIED a", "ADDED a", "DELETED b"]


@pytest.mark.usefixtures("slept")
async def test_a_server_that_does_not_answer_is_asked_for_the_same_version_for_ever() -> None:
    script = Script(([], "7", ""), *[CUT] * 9)
    said = await heard(script)
    assert script.asked == [("list", None), *[("watch", "7")] * 10]
    assert said[1:] == [("LOST", CUT)] * 9


async def test_each_pause_is_twice_the_last_up_to_the_longest_until_something_comes(slept: list[float]) -> None:
    await heard(Script(CUT, ([], "7", ""), CUT, [], OLD, ([], "8", ""), [("ADDED", "a", 9)], CUT), longest=1.0)
    assert slept == [0.2, 0.4, 0.8, 1.0, 0.2, 0.4], "a watch that brings nothing is no reason to hurry"


async def test_many_that_lost_the_same_server_do_not_come_back_at_once(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: least)
    await heard(Script(CUT, ([], "7", "")))
    assert slept == [watch.FIRST_DELAY / 2]


@pytest.mark.usefixtures("slept")
async def test_the_controller_logs_refusals_and_not_that_nobody_answers(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(CUT, (["a"], "7", ""), CUT, OLD, (["a"], "8", ""), REFUSED, [("DELETED", "a", 9)])
    said = []
    with caplog.at_level(logging.INFO):
        async with aclosing(informer(script, "/pods", "app=vllm")) as events:
            async for kind, item in events:
                said.append(f"{kind} {item['metadata']['name']}" if item else kind)
                if kind == "DELETED":
                    break
    assert said == ["ADDED a", "LISTED", "ADDED a", "LISTED", "DELETED a"]
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "a watch is refused")
    assert {"path": "/pods", "selector": "app=vllm", "error": "403 Forbidden: no"}.items() <= vars(record).items()
