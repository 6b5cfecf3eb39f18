"""An API server that only remembers what it was asked, for tests of single reconcilers."""

from typing import Any

import httpx

from lorafleet.controller.prometheus import Prometheus
from lorafleet.controller.queue import Key
from lorafleet.controller.secrets import Secrets
from lorafleet.controller.state import FleetState
from lorafleet.controller.statistics import Statistics
from lorafleet.controller.world import World
from lorafleet.kube import Kube, KubeError


class FakeKube(Kube):
    """Takes everything, or refuses with ``refusal``."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.applied: list[tuple[str, dict[str, Any]]] = []
        self.deleted: list[str] = []
        self.refusal: KubeError | None = None
        self.version = 100

    def _answer(self) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        self.version += 1
        return {"metadata": {"resourceVersion": str(self.version)}}

    async def create(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._answer()
        self.created.append(body)
        return answer

    async def apply(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._answer()
        self.applied.append((where, body))
        return answer

    async def delete(self, where: str, **options: Any) -> None:
        self._answer()
        self.deleted.append(where)


class Asked:
    """Where keys go in a test."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.first: list[Key] = []

    def __call__(self, key: Key, after: float = 0.0, *, first: bool = False) -> None:
        self.keys.append(key)
        if first:
            self.first.append(key)


def world_of(*states: FleetState) -> tuple[World, Asked]:
    """A world of these fleets, and what it asks for."""
    asked = Asked()
    world = World(asked, lambda key: None)
    for state in states:
        world.fleets[state.ref] = state
    return world, asked


def measuring(world: World, kube: Kube) -> tuple[Statistics, Prometheus]:
    """What an adapter's judgements come from; nobody answers."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(503)))
    return Statistics(world, kube, http), Prometheus(world, Secrets(kube), http)
