"""The verbs: one annotation on each adapter, and what the operator says came of it.

``lorafleet.dev/action: <verb>[:<argument>]@<token>`` is handled once (``status.lastHandledAction``). Nothing is decided
here: the operator refuses what does not fit, and its words are printed.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from rich.table import Table
from rich.text import Text

from lorafleet.api.names import ACTION_ANNOTATION, ADAPTER_PLURAL
from lorafleet.cli.cluster import Cluster
from lorafleet.cli.outcome import Exit, cannot_ask, no
from lorafleet.cli.seen import Adapter, adapter
from lorafleet.cli.terminal import printable, table
from lorafleet.kube import KubeError, Object

_AT_ONCE = 16
_MERGE = "application/merge-patch+json"
_MANAGER = {"fieldManager": "kubectl-lorafleet"}
_REFUSED = re.compile(r".{1,80}? was (refused|not acted on): ")
"""How the operator's answer begins when nothing came of an action (``rollout.verbs``)."""


class Became(StrEnum):
    """What came of a verb."""

    DONE = "done"
    REFUSED = "refused"
    ASKED = "asked"
    """Nobody waited for the operator."""
    SUPERSEDED = "superseded"
    """Another verb took its place before the operator saw it."""
    GONE = "gone"
    UNANSWERED = "unanswered"


_EXITS = {
    Became.DONE: Exit.OK,
    Became.ASKED: Exit.OK,
    Became.REFUSED: Exit.NO,
    Became.SUPERSEDED: Exit.NO,
    Became.GONE: Exit.NO,
    Became.UNANSWERED: Exit.TIMEOUT,
}
_STYLES = {Became.DONE: "green", Became.ASKED: "yellow"}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a verb on one adapter."""

    adapter: str
    action: str
    became: Became
    message: str


def value(verb: str, argument: str | None = None) -> str:
    """The annotation's value, with a token that is new each time."""
    token = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
    return f"{verb}:{argument}@{token}" if argument else f"{verb}@{token}"


def outcome(found: Adapter, action: str, arrived: bool) -> Result | None:
    """What came of an action, as far as the adapter says; None while nothing has.

    ``arrived``: the annotation was seen on the adapter, so that another value is a later one.
    """
    if found.status.last_handled_action == action:
        message = found.status.action_message or ""
        became = Became.REFUSED if _REFUSED.match(message) else Became.DONE
        return Result(found.name, action, became, message)
    if arrived and found.action != action:
        by = (found.action or "").partition("@")[0] or "nothing"
        return Result(
            found.name, action, Became.SUPERSEDED, f"the annotation was changed to {by} before it was handled"
        )
    return None


async def act(
    cluster: Cluster, names: Sequence[str], selector: str | None, verb: str, argument: str | None, timeout: float | None
) -> list[Result]:
    """Ask for a verb on adapters, by name or label; wait for the operator so many seconds, not at all for None."""
    listing = await _asked_for(cluster, names, selector)
    items = listing["items"]
    if argument is not None:
        _known_version(adapter(items[0]), argument)
    actions = {item["metadata"]["name"]: value(verb, argument) for item in items}
    turns = asyncio.Semaphore(_AT_ONCE)

    async def annotate(name: str) -> None:
        async with turns:
            body = {"metadata": {"annotations": {ACTION_ANNOTATION: actions[name]}}}
            where = cluster.where(ADAPTER_PLURAL, name)
            try:
                await cluster.kube.request("PATCH", where, query=_MANAGER, body=body, content_type=_MERGE)
            except KubeError as error:
                if not error.not_found:
                    raise cluster.ended(error, "patch", ADAPTER_PLURAL) from None

    await asyncio.gather(*(annotate(name) for name in actions))
    if timeout is None:
        return [Result(name, action, Became.ASKED, "the operator was asked") for name, action in actions.items()]
    return await _answers(cluster, listing, actions, timeout)


async def _asked_for(cluster: Cluster, names: Sequence[str], selector: str | None) -> Object:
    """The list with the adapters that are meant. Raises Ended."""
    if bool(names) == (selector is not None):
        raise cannot_ask("name adapters, or select them by label with -l; one of both")
    if selector is not None:
        listing = await cluster.all(ADAPTER_PLURAL, labelSelector=selector)
        if not listing["items"]:
            raise no(f"no adapter in namespace {cluster.place.namespace} has the labels {selector}")
        return listing
    if len(names) == 1:
        item = await cluster.one(ADAPTER_PLURAL, names[0])
        return {"metadata": {"resourceVersion": item["metadata"]["resourceVersion"]}, "items": [item]}
    listing = await cluster.all(ADAPTER_PLURAL)
    known = {item["metadata"]["name"]: item for item in listing["items"]}
    if missing := [name for name in names if name not in known]:
        raise await cluster.unknown(ADAPTER_PLURAL, missing, known)
    return {**listing, "items": [known[name] for name in dict.fromkeys(names)]}


def _known_version(found: Adapter, version: str) -> None:
    names = [one.name for one in found.spec.versions] if found.spec else []
    if found.spec and version not in names:
        raise no(f"adapter {found.name} has no version {version}; spec.versions has {', '.join(names)}")


async def _answers(cluster: Cluster, listing: Object, actions: Mapping[str, str], timeout: float) -> list[Result]:
    """What the operator says to each, in the order of the adapters."""
    results: dict[str, Result] = {}
    arrived: set[str] = set()
    only: dict[str, Any] = {"fieldSelector": f"metadata.name={next(iter(actions))}"} if len(actions) == 1 else {}

    async def listen(changes: AsyncGenerator[Object | None, None]) -> None:
        async for item in changes:
            if item is None or (name := item["metadata"]["name"]) not in actions or name in results:
                continue
            found = adapter(item)
            if item.get("deleted"):
                results[name] = Result(name, actions[name], Became.GONE, "the adapter was deleted meanwhile")
            elif result := outcome(found, actions[name], name in arrived):
                results[name] = result
            elif found.action == actions[name]:
                arrived.add(name)
            if len(results) == len(actions):
                return

    try:
        async with asyncio.timeout(timeout), aclosing(cluster.changes(ADAPTER_PLURAL, listing, **only)) as changes:
            await listen(changes)
    except TimeoutError:
        text = f"the operator did not answer within {timeout:g} s; it acts as soon as it runs: see its pods and its log"
        for name, action in actions.items():
            results.setdefault(name, Result(name, action, Became.UNANSWERED, text))
    return [results[name] for name in actions]


def exit_of(results: Sequence[Result]) -> Exit:
    """The exit code for all of them: the first that is not OK, a refusal before a timeout."""
    codes = {_EXITS[result.became] for result in results}
    return next((code for code in (Exit.NO, Exit.TIMEOUT) if code in codes), Exit.OK)


def page(results: Sequence[Result]) -> Table:
    """The results as a table."""
    made = table("ADAPTER", "VERB", "RESULT", "MESSAGE", fold=("MESSAGE",))
    for one in results:
        verb = one.action.rpartition("@")[0]
        made.add_row(one.adapter, verb, Text(one.became, style=_STYLES.get(one.became, "red")), printable(one.message))
    return made


def document(results: Sequence[Result], namespace: str) -> dict[str, Any]:
    """The results for programs."""
    rows = [
        {"adapter": one.adapter, "action": one.action, "result": one.became.value, "message": one.message}
        for one in results
    ]
    return {"schemaVersion": 1, "namespace": namespace, "results": rows}
