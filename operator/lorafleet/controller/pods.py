"""Watches of pods: the engines of each fleet by its own selector, and the pods of sync Jobs by their label.

Server-side selectors keep the rest of a cluster's pods away from us. A watch reports to memory and decides nothing.
"""

import asyncio
import logging
from collections.abc import Callable

from lorafleet.controller.objects import Ref
from lorafleet.controller.state import FleetState
from lorafleet.controller.world import World
from lorafleet.kube import Kube, Object, path
from lorafleet.watch import informer

log = logging.getLogger(__name__)


class PodWatches:
    """One watch per fleet, restarted when its selector or port changes."""

    def __init__(self, kube: Kube, world: World, died: Callable[[str], None]) -> None:
        self._kube = kube
        self._world = world
        self._died = died
        self._tasks: dict[Ref, tuple[tuple[str, str], asyncio.Task[None]]] = {}

    def watch(self, state: FleetState, selector: str, port: str) -> None:
        """Watches the pods of a fleet."""
        mark = (selector, port)
        known = self._tasks.get(state.ref)
        if known is not None and known[0] == mark:
            return
        if known is not None:
            known[1].cancel()
            state.discovered = state.settled_once = False
            for name, engine in list(state.engines.items()):
                self._world.drop_pod(state, name, engine.facts.uid)
        task = asyncio.create_task(self._follow(state, selector))
        task.add_done_callback(self._ended)
        self._tasks[state.ref] = (mark, task)

    def stop(self, ref: Ref) -> None:
        """Ends the watch of a fleet that is gone."""
        known = self._tasks.pop(ref, None)
        if known is not None:
            known[1].cancel()
        state = self._world.fleets.get(ref)
        if state is not None:
            state.discovered = state.settled_once = False
            for name, engine in list(state.engines.items()):
                self._world.drop_pod(state, name, engine.facts.uid)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("a watch of pods died", exc_info=task.exception())
            self._died("pods")

    async def _follow(self, state: FleetState, selector: str) -> None:
        async for kind, pod in informer(self._kube, path("v1", "pods", state.ref[0]), selector):
            if pod is None:
                state.discovered = True
                self._world.ask_fleet(state, 0.0)
                continue
            try:
                self._report(state, kind, pod)
            except Exception:
                # Pods are written by anyone: an odd one must not end the watch of the others.
                log.exception("a pod could not be read", extra={"namespace": state.ref[0], "fleet": state.ref[1]})

    def _report(self, state: FleetState, kind: str, pod: Object) -> None:
        if kind == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed"):
            self._world.drop_pod(state, pod["metadata"]["name"], pod["metadata"]["uid"])
        else:
            self._world.put_pod(state, pod)
