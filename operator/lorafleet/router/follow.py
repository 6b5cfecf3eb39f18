"""Follows one collection of the Kubernetes API for ever: lists it by pages, then watches, and goes on after every loss.

Unlike ``kube.informer`` it keeps no objects, only names: a router of 10,000 adapters needs a hundred bytes of each. It
also knows since when it has not heard of the API server, because a router goes on meanwhile and must say so.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from lorafleet.kube import Kube, KubeError, Object

log = logging.getLogger(__name__)

PAGE = 500
FIRST_DELAY = 0.1
LAST_DELAY = 3.0
"""Seconds between tries at most: routers are few, and each second without the API server is one without new weights."""
REFUSALS = 3
"""So many refusals of a watch in a row, and its resource version is given up."""


@dataclass(frozen=True)
class Sink:
    """Who is told. ``listed`` gets the names of all objects, and their resource version, after each full list."""

    put: Callable[[Object], None]
    drop: Callable[[Object], None]
    listed: Callable[[set[str], str], None]


class Follower:
    """One collection, or the objects of it that the selectors choose."""

    def __init__(self, kube: Kube, where: str, sink: Sink, *, labels: str = "", fields: str = "") -> None:
        self._kube = kube
        self._where = where
        self._sink = sink
        query = {"labelSelector": labels, "fieldSelector": fields}
        self._query = {name: value for name, value in query.items() if value}
        self._lost_at: float | None = time.monotonic()
        self.problem = ""
        """Why it does not follow at the moment; empty while it does."""

    @property
    def stale(self) -> float:
        """Seconds since the API server was last heard; 0 while a watch stands."""
        return 0.0 if self._lost_at is None else time.monotonic() - self._lost_at

    async def run(self) -> None:
        """Follows until cancelled."""
        version = ""
        delay = FIRST_DELAY
        refusals = 0
        while True:
            try:
                if not version:
                    version = await self._list()
                async for kind, item in self._kube.watch(self._where, version, self._heard, **self._query):
                    delay, refusals = FIRST_DELAY, 0
                    version = item["metadata"]["resourceVersion"]
                    if kind == "DELETED":
                        self._tell(self._sink.drop, item)
                    elif kind != "BOOKMARK":
                        self._tell(self._sink.put, item)
            except KubeError as error:
                self._lost(error)
                refusals += not error.unreachable
                # 410: the version is too old. Other refusals: a restored API server may never come to that version.
                if error.status == 410 or refusals >= REFUSALS:
                    version, refusals = "", 0
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, LAST_DELAY)

    async def _list(self) -> str:
        """Reads everything; the version to watch from."""
        names: set[str] = set()
        token = ""
        while True:
            page = {"limit": str(PAGE), **({"continue": token} if token else {})}
            listing = await self._kube.list(self._where, **self._query, **page)
            for item in listing.get("items", ()):
                names.add(item["metadata"]["name"])
                self._tell(self._sink.put, item)
            token = listing["metadata"].get("continue") or ""
            if not token:
                break
        version = str(listing["metadata"]["resourceVersion"])
        self._sink.listed(names, version)
        return version

    def _tell(self, whom: Callable[[Object], None], item: Object) -> None:
        try:
            whom(item)
        except Exception:
            # Objects are written by anyone: an odd one must not end the watch of the others.
            name = item["metadata"].get("name")
            log.exception("an object could not be read", extra={"path": self._where, "object": name})

    def _heard(self) -> None:
        if self._lost_at is not None and self.problem:
            log.info("the API server answers again", extra={"path": self._where, "after_s": round(self.stale, 1)})
        self._lost_at, self.problem = None, ""

    def _lost(self, error: KubeError) -> None:
        if error.status == 410:
            return
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        if self.problem != str(error):
            log.warning(
                "a watch is lost; routing goes on as last known", extra={"path": self._where, "error": str(error)}
            )
        self.problem = str(error)
