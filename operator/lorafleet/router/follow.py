"""Follows one collection of the Kubernetes API for ever, and knows since when it has not heard of the API server.

A router goes on meanwhile, and must say so.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from lorafleet.kube import Kube, KubeError, Object
from lorafleet.watch import list_and_watch

log = logging.getLogger(__name__)

LAST_DELAY = 3.0
"""Seconds between tries at most: routers are few, and each second without the API server is one without new weights."""


@dataclass(frozen=True)
class Sink:
    """Who is told. ``listed`` gets the names of all objects, and their resource version, after each full list."""

    put: Callable[[Object], None]
    drop: Callable[[Object], None]
    listed: Callable[[set[str], str], None]


class Follower:
    """One collection, or the objects of it that ``query`` selects."""

    def __init__(self, kube: Kube, where: str, sink: Sink, **query: str) -> None:
        self._kube = kube
        self._where = where
        self._sink = sink
        self._query = query
        self._lost_at: float | None = time.monotonic()
        self.problem = ""
        """Why it does not follow at the moment; empty while it does."""

    @property
    def stale(self) -> float:
        """Seconds since the API server was last heard; 0 while a watch stands."""
        return 0.0 if self._lost_at is None else time.monotonic() - self._lost_at

    async def run(self) -> None:
        """Follows until cancelled."""
        async for kind, item in list_and_watch(self._kube, self._where, longest=LAST_DELAY, **self._query):
            if isinstance(item, KubeError):
                self._lost(item)
            elif kind == "OPENED":
                self._heard()
            elif kind == "LISTED":
                names = {one["metadata"]["name"] for one in item["items"]}
                self._sink.listed(names, item["metadata"]["resourceVersion"])
            else:
                self._tell(self._sink.drop if kind == "DELETED" else self._sink.put, item)

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
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        if self.problem != str(error):
            log.warning(
                "a watch is lost; routing goes on as last known", extra={"path": self._where, "error": str(error)}
            )
        self.problem = str(error)
