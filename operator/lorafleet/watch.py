"""The one way to follow a collection of the Kubernetes API: a list, then a watch, and on after every loss.

It remembers who is there, less than a KiB of each, and not the objects, which have 13 and more. What a loss means, and
whether to say so, is up to those who follow.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from lorafleet.kube import Kube, KubeError, Object

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
"""Seconds at most until a watch that ended is asked for again; twice as long after each that brought nothing."""

REFUSALS = 3
"""So many refusals of a watch in a row, and its resource version is given up."""

PAGE = 500
"""Objects of an answer to a list at most."""


async def list_and_watch(
    kube: Kube, where: str, listing: Object | None = None, /, *, longest: float = 10.0, **query: str
) -> AsyncGenerator[tuple[str, Object | KubeError], None]:
    """A collection for ever: each object as ADDED, then LISTED, then the events of a watch without its bookmarks.

    A watch that ended goes on from the last version seen, after ``longest`` seconds at most. A version that is too old,
    or was refused ``REFUSALS`` times (a restored API server may never come to it), lists anew: what vanished meanwhile
    comes as DELETED. Of that, and of all that LISTED names, there is only the metadata that ``_identity`` keeps.
    ``listing`` is a list that was read already. ``("OPENED", {})`` comes when the server has accepted a watch, and
    ``("LOST", KubeError)`` when it refuses or does not answer.
    """
    known = {_key(item): _identity(item) for item in listing["items"]} if listing else {}
    version = listing["metadata"]["resourceVersion"] if listing else ""
    delay, refusals = FIRST_DELAY, 0
    while True:
        try:
            if not version:
                async for kind, item in _listed(kube, where, query, known):
                    yield kind, item
                version = item["metadata"]["resourceVersion"]
            async for kind, item in kube.watch(where, version, **query):
                if kind != "OPENED":
                    delay, refusals = FIRST_DELAY, 0
                    version = item["metadata"]["resourceVersion"]
                if kind == "DELETED":
                    known.pop(_key(item), None)
                elif kind in ("ADDED", "MODIFIED"):
                    known[_key(item)] = _identity(item)
                if kind != "BOOKMARK":
                    yield kind, item
        except KubeError as error:
            refusals += not error.unreachable
            if error.status == 410 or refusals >= REFUSALS:
                version, refusals = "", 0
            if error.status != 410:
                yield "LOST", error
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))
        delay = min(delay * 2, longest)


async def _listed(
    kube: Kube, where: str, query: Mapping[str, str], known: dict[tuple[str, str], Object]
) -> AsyncIterator[tuple[str, Object]]:
    """What is there by pages, what of ``known`` is not, then LISTED; ``known`` is brought up to date."""
    left = dict(known)
    page = {"limit": str(PAGE)}
    while page.get("continue") != "":
        listing = await kube.list(where, **query, **page)
        for item in listing.get("items", ()):
            former = left.pop(_key(item), None)
            known[_key(item)] = _identity(item)
            if former and former["metadata"]["uid"] != item["metadata"]["uid"]:
                yield "DELETED", former
            yield "ADDED", item
        page["continue"] = listing["metadata"].get("continue") or ""
    for key in left:
        yield "DELETED", known.pop(key)
    yield "LISTED", {"metadata": listing["metadata"], "items": list(known.values())}


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _identity(item: Object) -> Object:
    """What is remembered of an object, to be able to say that it is gone."""
    return {"metadata": {field: item["metadata"].get(field) for field in ("namespace", "name", "uid", "labels")}}


async def informer(kube: Kube, where: str, selector: str) -> AsyncGenerator[tuple[str, Object | None], None]:
    """A collection for ever: ``("LISTED", None)`` after each full list, and the events of ``list_and_watch``."""
    async for kind, item in list_and_watch(kube, where, labelSelector=selector):
        if not isinstance(item, KubeError):
            if kind != "OPENED":
                yield kind, item if kind != "LISTED" else None
        elif not item.unreachable:
            log.warning("a watch is refused", extra={"path": where, "selector": selector, "error": str(item)})
