"""``status -w`` and ``status --wait``: an adapter or a fleet, again at each change.

On a terminal the picture is redrawn, also once a second for the times in it; elsewhere each change is a line, or a
document. Nothing is decided here but when to end.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lorafleet.api.conditions import ConditionType
from lorafleet.api.names import ADAPTER_PLURAL, FLEET_PLURAL
from lorafleet.cli import fleetpicture, picture, seen, summary
from lorafleet.cli.cluster import Cluster
from lorafleet.cli.outcome import Exit, no
from lorafleet.cli.terminal import console, document, put
from lorafleet.kube import Object

_Seen = TypeVar("_Seen", bound=seen.HasConditions)
_NO_ANSWER = "no answer from the API server; what is shown may be old; trying again"


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Seen]):
    """How a kind is read and shown."""

    plural: str
    read: Callable[[Object], _Seen]
    picture: Callable[[_Seen, datetime, int], Iterator[RenderableType]]
    line: Callable[[_Seen], str]
    document: Callable[[_Seen], dict[str, Any]]


ADAPTER = Kind(ADAPTER_PLURAL, seen.adapter, picture.adapter, summary.line, summary.full_document)
FLEET = Kind(
    FLEET_PLURAL, seen.fleet, fleetpicture.fleet, summary.fleet_line, lambda found: summary.fleet_document(found, True)
)


def show(kind: Kind[_Seen], found: _Seen, form: str) -> None:
    """Print it once."""
    if form != "text":
        sys.stdout.write(document({"schemaVersion": 1, **kind.document(found)}, form))
        return
    page = console(sys.stdout)
    for part in kind.picture(found, datetime.now(UTC), page.width):
        if isinstance(part, Table):
            put(page, part)
        else:
            page.print(part, soft_wrap=True)


def settled(found: seen.HasConditions) -> Exit | None:
    """How waiting for it ends: OK when it is Ready, NO when it is Stalled, None as long as it is on its way."""
    if seen.holds(found, ConditionType.STALLED):
        return Exit.NO
    return Exit.OK if seen.holds(found, ConditionType.READY) else None


async def wait(cluster: Cluster, kind: Kind[_Seen], name: str, timeout: float) -> tuple[_Seen, Exit]:
    """The object as it is when waiting for it ends, and how. Raises Ended when it is not there."""
    last = kind.read(await cluster.one(kind.plural, name))
    try:
        async with asyncio.timeout(timeout), aclosing(_versions(cluster, kind, name)) as versions:
            async for found in versions:
                last = found or last
                if (end := settled(last)) is not None:
                    return last, end
    except TimeoutError:
        pass
    return last, Exit.TIMEOUT


async def watch(cluster: Cluster, kind: Kind[_Seen], name: str, form: str) -> None:
    """Show it again at each change, until it is deleted. Raises Ended when it is not there."""
    await cluster.one(kind.plural, name)
    page = console(sys.stdout)
    if page.is_terminal and form == "text":
        await _redraw(cluster, kind, name)
        return
    async with aclosing(_versions(cluster, kind, name)) as versions:
        before = ""
        async for found in versions:
            if found is None:
                sys.stderr.write(f"{_NO_ANSWER}\n")
            elif (text := _told(kind, found, form)) != before:
                stamp = f"{datetime.now(UTC):%H:%M:%S}  " if form == "text" else ""
                sys.stdout.write(f"{stamp}{text}\n")
                sys.stdout.flush()
                before = text


def _told(kind: Kind[_Seen], found: _Seen, form: str) -> str:
    if form == "text":
        return kind.line(found)
    body = {"schemaVersion": 1, **kind.document(found)}
    return json.dumps(body, ensure_ascii=False) if form == "json" else f"---\n{document(body, form)}".rstrip()


async def _redraw(cluster: Cluster, kind: Kind[_Seen], name: str) -> None:
    """The picture on a terminal; at most once a second without a change."""
    changes: asyncio.Queue[_Seen | Exception | None] = asyncio.Queue()

    async def gather() -> None:
        try:
            async with aclosing(_versions(cluster, kind, name)) as versions:
                async for found in versions:
                    changes.put_nowait(found)
        except Exception as end:
            changes.put_nowait(end)

    last, note = None, ""
    task = asyncio.create_task(gather())
    try:
        with Live(console=console(sys.stdout), auto_refresh=False, vertical_overflow="ellipsis") as live:
            while True:
                try:
                    got = await asyncio.wait_for(changes.get(), 1.0)
                    if isinstance(got, Exception):
                        raise got
                    last, note = got or last, "" if got else _NO_ANSWER
                except TimeoutError:
                    pass
                if last is not None:
                    parts = kind.picture(last, datetime.now(UTC), live.console.width)
                    live.update(Group(*parts, Text(note, style="bold red")), refresh=True)
    finally:
        task.cancel()


async def _versions(cluster: Cluster, kind: Kind[_Seen], name: str) -> AsyncGenerator[_Seen | None, None]:
    """The object as it is and at each change; None while there is no answer. Raises Ended when it is deleted."""
    async with aclosing(cluster.changes(kind.plural, fieldSelector=f"metadata.name={name}")) as changes:
        async for item in changes:
            if item is not None and item.get("deleted"):
                raise no(f"{name} in namespace {cluster.place.namespace} was deleted")
            yield kind.read(item) if item is not None else None
