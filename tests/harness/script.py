"""An API server that says what a test wrote down."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lorafleet.kube import Kube, KubeError, Object


def named(name: str, at: int = 1, **metadata: Any) -> Object:
    """An object without content."""
    return {"metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(at), **metadata}}


class Script(Kube):
    """Answers lists and watches one after another; then its watches stand still until ``cut``."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []
        self.away: KubeError | None = None
        self.cut = asyncio.Event()
        self.stands = False
        """Whether all answers are given."""

    async def list(self, where: str, **query: str) -> Object:
        self.asked.append(("list", query.get("continue")))
        answer = self.answers.pop(0)
        if isinstance(answer, KubeError):
            raise answer
        items, version, token = answer
        metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
        return {"metadata": metadata, "items": [named(item) if isinstance(item, str) else item for item in items]}

    async def watch(self, where: str, version: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        self.asked.append(("watch", version))
        events = self.away or (self.answers.pop(0) if self.answers else None)
        if isinstance(events, KubeError):
            raise events
        self.stands = events is None
        yield "OPENED", {}
        if events is None:
            await self.cut.wait()
            raise self.away or KubeError(0, "ClientError", "cut")
        for kind, name, at in events:
            yield kind, named(name, at)
