"""Users of a fleet's router while something happens, and what each version of an adapter says to them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from e2e.cluster import paths
from e2e.load import Load, Plan, Said, Summary, load
from e2e.world import NAMESPACE, World


class Users:
    """Traffic that runs. Versions are known by what an engine says when it is asked for them past the router."""

    def __init__(self, world: World, running: Load, plan: Plan, namespace: str) -> None:
        self._world = world
        self._load = running
        self._plan = plan
        self._namespace = namespace
        self.known: dict[Said, str] = {}

    def learn(self, version: str, served: str) -> None:
        """From now on this version is told by its answers; a first engine has it loaded."""
        engine = self._world.engines(self._namespace)[0]
        common = {"model": served, "max_tokens": self._plan.tokens, "temperature": 0}
        asked: dict[str, dict[str, Any]] = {
            "completions": {"prompt": self._plan.prompt},
            "chat": {"messages": [{"role": "user", "content": self._plan.prompt}]},
        }
        for kind, body in asked.items():
            where = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
            choice = self._world.request(engine, where, {**common, **body}, self._namespace)["choices"][0]
            self.known[kind, choice["message"]["content"] if kind == "chat" else choice["text"]] = version

    def summary(self) -> Summary:
        """What came of it so far."""
        return self._load.summary()

    def versions(self, model: str | None = None) -> dict[str, int]:
        """Answers by version; AssertionError for one that no known version gives."""
        return self._load.summary().versions(self.known, model)

    def go_on(self, count: int = 30) -> Summary:
        """Waits until so many more requests have ended."""
        return self._load.after(count)

    def last(self, version: str) -> float:
        """Seconds since a version's last answer was asked for."""
        return time.monotonic() - self._load.summary().last(self.known, version)

    def stop(self) -> Summary:
        """The end: no new requests, the last answers awaited."""
        return self._load.stop()


@contextlib.contextmanager
def users(world: World, *models: str, namespace: str = NAMESPACE, **plan: object) -> Iterator[Users]:
    """Traffic to a fleet's router while the block runs, without one failed request and without an unknown answer."""
    with may_fail(world, *models, namespace=namespace, **plan) as found:
        yield found
        end = found.stop()
        assert end.failed == 0, f"{end.failed} of {end.asked} requests failed: {end.reasons}"
        assert end.asked > 0
        assert end.versions(found.known)


@contextlib.contextmanager
def may_fail(world: World, *models: str, namespace: str = NAMESPACE, **plan: object) -> Iterator[Users]:
    """The same where requests do fail; what may, the scenario says."""
    wanted = Plan(world.router(namespace), models, **plan)  # type: ignore[arg-type]
    log = paths.state_dir(world.cluster.name) / "load.log"
    with load(wanted, log, world.cluster.enter()) as running:
        yield Users(world, running, wanted, namespace)
