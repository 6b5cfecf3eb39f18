"""Probes and warm-ups: one engine is asked for answers by served names, when it has nothing to load.

An engine has a lane of its own for this, so that an answer that takes its time delays no load; and nothing is asked
while loads run. A version that loads and answers wrongly is found here, before it gets its first weight.
"""

import heapq
import logging
from time import monotonic

from lorafleet.api.model import seconds
from lorafleet.api.reasons import Reason
from lorafleet.api.rollout import GoldenPrompt, Probe
from lorafleet.controller.engineclients import EngineClients
from lorafleet.controller.metrics import PROBES
from lorafleet.controller.probing import Answered, Probing
from lorafleet.controller.queue import Key
from lorafleet.controller.state import Engine, FleetState
from lorafleet.controller.world import SOON, World
from lorafleet.engines.client import EngineClient
from lorafleet.engines.errors import EngineError, Misconfigured, NotLoaded, Rejected
from lorafleet.rollout.observed import Refusal

log = logging.getLogger(__name__)

PROMPT = "Hello"
"""What an engine is asked to go on with where any answer will do."""
TRIES = 5
FIRST_AGAIN = 1.0
RECHECK = 30.0
PASS = 60.0
SHOWN = 80


class ProbeReconciler:
    """Asks one engine a call."""

    def __init__(self, world: World, clients: EngineClients) -> None:
        self._world = world
        self._clients = clients

    async def __call__(self, key: Key) -> float | None:
        """One pass; the answer is when the next question is due. Whoever ends loads, or wants a probe, asks for one."""
        found = self._world.engine(key)
        if found is None:
            return None
        state, engine = found
        if not engine.usable or engine.loading or state.suspended or state.fleet is None or state.fleet.spec is None:
            return None
        if not state.probes and engine.warm:
            return None
        client = await self._clients.of(state, engine)
        until = monotonic() + PASS
        again: list[float] = []
        for served, probing in list(state.probes.items()):
            answered = probing.of(engine)
            if answered.decided or served not in (engine.listing or ()) or state.probes.get(served) is not probing:
                continue
            if answered.due <= monotonic():
                await self._ask(state, engine, client, served, probing, answered)
            if not answered.decided:
                again.append(answered.due)
            if engine.loading or not engine.usable:
                return None
            if monotonic() > until:
                return 0.0
        await self._warm(state, engine, client)
        return max(min(again) - monotonic(), 0.05) if again else None

    async def _ask(
        self, state: FleetState, engine: Engine, client: EngineClient, served: str, probing: Probing, answered: Answered
    ) -> None:
        """Asks by one served name and takes down what came of it."""
        result = "error"
        try:
            wrong = await _wrong(client, engine, served, probing.probe)
        except NotLoaded:
            # Not as listed: the listing is read again, and then it is loaded.
            self._list_again(state, engine, answered)
        except Rejected as error:
            answered.failure, result = Refusal(engine.name, Reason.PROBE_FAILED, error.message), "failed"
        except Misconfigured:
            answered.due = monotonic() + RECHECK
            self._clients.refused()
        except EngineError as error:
            if error.reason is Reason.UNREACHABLE and not await _answers(client):
                # The engine is away, whatever it is asked: that says nothing of a version.
                self._list_again(state, engine, answered)
            else:
                self._failed(engine, error, answered)
            result = "failed" if answered.failure else result
        else:
            answered.passed, result = not wrong, "failed" if wrong else "passed"
            answered.failure = Refusal(engine.name, Reason.PROBE_FAILED, wrong) if wrong else None
        PROBES.labels(*state.ref, result).inc()
        if answered.failure is not None:
            about = {"namespace": state.ref[0], "fleet": state.ref[1], "engine": engine.name, "servedName": served}
            log.warning("probe failed", extra=about | {"error": answered.failure.message})
        if answered.decided:
            complete = answered.failure is not None or probing.decided(state.engines.values())
            self._world.ask_served(state, served, 0.0 if complete else SOON)

    def _list_again(self, state: FleetState, engine: Engine, answered: Answered) -> None:
        engine.listed_at = float("-inf")
        answered.due = monotonic() + FIRST_AGAIN
        self._world.ask_engine(state, engine.name)

    @staticmethod
    def _failed(engine: Engine, error: EngineError, answered: Answered) -> None:
        """An answer did not come: it is asked for again, but not for ever."""
        answered.tries += 1
        answered.due = monotonic() + FIRST_AGAIN * 2.0 ** (answered.tries - 1)
        if answered.tries >= TRIES:
            said = error.message.removesuffix("; trying again")
            text = f"{said}; so it went {answered.tries} times in a row: look at the engine's log"
            answered.failure = Refusal(engine.name, Reason.PROBE_FAILED, text)

    async def _warm(self, state: FleetState, engine: Engine, client: EngineClient) -> None:
        """After a start of the engine: one token of each of the most used adapters, so that no client waits for it."""
        if engine.warm:
            return
        engine.warm = True
        assert state.fleet and state.fleet.spec
        for served in most_used(state, state.fleet.spec.engines.warm_up):
            if engine.loading or not engine.usable:
                engine.warm = False
                return
            if served not in (engine.listing or ()):
                continue
            try:
                await client.complete(served, PROMPT)
            except EngineError as error:
                about = {"namespace": state.ref[0], "fleet": state.ref[1], "engine": engine.name, "servedName": served}
                log.warning("not warmed up", extra=about | {"error": error.message})
                return


def most_used(state: FleetState, count: int) -> list[str]:
    """Served names with traffic that got the most requests, as statuses say; the last used first among equals."""
    used = []
    for adapter in state.adapters.values():
        for version in adapter.status.versions:
            seen = version.statistics
            if seen and seen.request_count and version.served_name in state.carrying and version.served_name:
                used.append((seen.request_count, seen.last_used or "", version.served_name))
    return [served for _, _, served in heapq.nlargest(count, used)]


async def _answers(client: EngineClient) -> bool:
    """Whether an engine answers at all."""
    try:
        await client.loaded()
    except EngineError:
        return False
    return True


async def _wrong(client: EngineClient, engine: Engine, served: str, probe: Probe) -> str:
    """What is wrong with an engine's answers, in a sentence; empty when they are as expected."""
    timeout = seconds(probe.timeout)
    if not probe.prompts:
        await client.complete(served, PROMPT, timeout=timeout)
    for golden in probe.prompts:
        said = await client.complete(served, golden.prompt, max_tokens=golden.max_tokens, timeout=timeout)
        if golden.expect is not None and golden.expect not in said:
            return _sentence(engine, served, golden, said, f"which does not contain '{shown(golden.expect)}'")
        if golden.differs_from_base and engine.bases:
            base = engine.bases[0][0]
            plain = await client.complete(base, golden.prompt, max_tokens=golden.max_tokens, timeout=timeout)
            if said == plain:
                return _sentence(engine, served, golden, said, f"as the base model {base} does")
    return ""


def _sentence(engine: Engine, served: str, golden: GoldenPrompt, said: str, but: str) -> str:
    return (
        f"engine {engine.name} answers '{shown(golden.prompt)}' as {served} with '{shown(said)}', {but}: publish a"
        " version that answers as spec.probe expects, or correct spec.probe"
    )


def shown(text: str) -> str:
    """A text on one line, cut to what a message holds."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * SHOWN]).split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
