"""One engine: list what it has, load what is missing, unload what nobody wants, one call after another.

Engines run side by side and never wait for each other. The first contact with a container instance lists its models and
diagnoses it; after that only changes are looked at, and the listing is read again now and then. Nothing is unloaded
before the adapters of the whole cluster are known.
"""

import logging
import random
from time import monotonic

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import at_least, release
from lorafleet.controller.engineclients import EngineClients
from lorafleet.controller.lost import strays, unknown
from lorafleet.controller.metrics import LISTS, LOAD_SECONDS, LOADS, UNLOADS
from lorafleet.controller.queue import Key
from lorafleet.controller.queue import Retry as QueueRetry
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import Engine, FleetState
from lorafleet.controller.world import SOON, World
from lorafleet.engines.client import EngineClient, LoadOutcome
from lorafleet.engines.diagnosis import Expectations, diagnose
from lorafleet.engines.errors import EngineError, Misconfigured, Rejected, Retry
from lorafleet.rollout.observed import Refusal
from lorafleet.rollout.wanted import Action, action

log = logging.getLogger(__name__)

RECHECK = 30.0
"""Seconds after which an engine that a person has to mend is asked again."""
RESOLVED_AGAIN = 5.0
PASS = 60.0
"""Seconds after which a long pass over one engine goes back to the queue, so that its deadline means something."""


class EngineReconciler:
    """Reconciles one engine a call; see the module."""

    def __init__(self, world: World, clients: EngineClients, settings: Settings) -> None:
        self._world = world
        self._clients = clients
        self._settings = settings

    async def __call__(self, key: Key) -> float | None:
        """One pass; the answer is when to read the listing again."""
        found = self._world.engine(key)
        if found is None:
            self._clients.forget(key.namespace, key.name)
            return None
        state, engine = found
        if not engine.reachable:
            self._diagnose(state, engine)
            self._world.ask_fleet(state)
            return None
        if state.fleet is None or state.fleet.spec is None or state.suspended:
            return None
        instance = engine.facts.instance
        try:
            client = await self._clients.of(state, engine)
            engine.loading = True
            again = await self._pass(state, engine, client)
        except EngineError as error:
            if engine.facts.instance != instance or self._world.engine(key) is None:
                return 0.0
            self._failed(state, engine, error)
            if isinstance(error, Misconfigured):
                return RECHECK
            raise QueueRetry(str(error)) from error
        finally:
            engine.loading = False
            if state.probes or not engine.warm:
                self._world.ask_probe(state, engine.name)
        return again

    async def _pass(self, state: FleetState, engine: Engine, client: EngineClient) -> float:
        instance = engine.facts.instance
        due = engine.listed_at + self._settings.resync
        if engine.listing is None or not engine.usable or monotonic() >= due:
            await self._list(state, engine, client)
        if not engine.usable:
            return RECHECK
        until = monotonic() + PASS
        unloaded = False
        again: list[str] = []
        while engine.dirty:
            if engine.facts.instance != instance or monotonic() > until:
                return 0.0
            served = next(iter(engine.dirty))
            del engine.dirty[served]
            try:
                unloaded |= await self._settle(state, engine, client, served)
            except EngineError as error:
                if error.reason is not Reason.LOAD_FAILED:
                    engine.dirty[served] = None
                    raise
                engine.refused[served] = Refusal(engine.name, error.reason, error.message, final=False)
                self._world.ask_served(state, served, 0.0)
                again.append(served)
        if again:
            engine.dirty.update(dict.fromkeys(again))
            raise QueueRetry(f"{len(again)} adapters did not load on {engine.name}")
        if unloaded:
            await self._list(state, engine, client)
            if engine.dirty:
                # A client asked for what we unloaded, and vLLM's resolver loaded it again.
                return RESOLVED_AGAIN
        left = engine.listed_at + self._settings.resync - monotonic()
        return max(left, 1.0) * (1.0 + 0.1 * random.random())

    async def _list(self, state: FleetState, engine: Engine, client: EngineClient) -> None:
        """Reads what the engine has, diagnoses it, and marks every name that differs."""
        fleet = state.ref
        usable = engine.usable
        instance = engine.facts.instance
        try:
            listing = await client.loaded()
            version = engine.version or await client.version()
            if engine.updating is None:
                engine.updating = await client.runtime_updating()
        except EngineError:
            LISTS.labels(*fleet, "error").inc()
            raise
        LISTS.labels(*fleet, "ok").inc()
        if engine.facts.instance != instance:
            # What a former instance had says nothing about this one.
            raise Retry(Reason.UNREACHABLE, f"engine {engine.name} was restarted while it was asked; asking again")
        adapters = dict(listing.adapters)
        before = engine.listing
        engine.listing, engine.listed_at, engine.version = adapters, monotonic(), version
        engine.bases = tuple((base.id, base.root) for base in listing.bases)
        engine.failing = False
        engine.strays = strays(state, adapters)
        if before is None:
            # What has our adapters already was not started just now.
            engine.warm = any(name in state.load for name in adapters)
        self._diagnose(state, engine)
        assert state.fleet and state.fleet.spec
        engine.dirty.clear()
        names = sorted(state.load.keys() | adapters.keys(), key=lambda name: (name not in state.carrying, name))
        for name in names:
            if self._action(state, engine, name) is not Action.NOTHING:
                engine.dirty[name] = None
        if usable != engine.usable:
            self._world.ask_adapters(state, SOON)
        elif before is not None and before != adapters:
            for name in before.keys() ^ adapters.keys():
                self._world.ask_served(state, name, SOON)
            self._world.ask_waiting(state)
        if usable != engine.usable or before != adapters:
            self._world.ask_routing(state)
        else:
            self._world.ask_fleet(state)

    def _action(self, state: FleetState, engine: Engine, served: str) -> Action:
        assert state.fleet and state.fleet.spec and engine.listing is not None
        refusal = engine.refused.get(served)
        if refusal is not None and refusal.final and served in state.load:
            return Action.NOTHING
        owner = self._world.adapter((state.ref[0], served.partition("/")[0]))
        if owner is not None and owner[0] is not state:
            # Two fleets may claim one engine: neither touches what is the other's.
            return Action.NOTHING
        todo = action(served, state.load.get(served), served in state.keep, engine.listing.get(served))
        if todo is Action.UNLOAD and owner is not None and unknown(state, owner[1], served):
            # Its adapter's status was lost: what serves stays until the adapter has been decided on again.
            return Action.NOTHING
        return todo

    async def _settle(self, state: FleetState, engine: Engine, client: EngineClient, served: str) -> bool:
        """Does what one name needs; whether something was unloaded."""
        if state.fleet is None or state.fleet.spec is None or engine.listing is None:
            return False
        todo = self._action(state, engine, served)
        if todo is Action.NOTHING:
            return False
        if todo in (Action.UNLOAD, Action.REPLACE):
            await self._unload(state, engine, client, served)
        if todo in (Action.LOAD, Action.REPLACE):
            await self._load(state, engine, client, served, state.load.get(served))
        return todo is not Action.LOAD

    async def _load(
        self, state: FleetState, engine: Engine, client: EngineClient, served: str, place: str | None
    ) -> None:
        if place is None or engine.listing is None:
            return
        if served in state.damaged:
            text = f"files of {served} changed on the volume; engine {engine.name} loads it when they are put right"
            engine.refused[served] = Refusal(engine.name, Reason.FILES_DAMAGED, text, final=False)
            self._world.ask_served(state, served, 0.0)
            return
        oldest = state.oldest.get(served)
        if oldest is not None and not at_least(engine.version, release(oldest)):
            # An older vLLM would load it and serve it with a wrong scale, without a word (vLLM contract).
            text = (
                f"engine {engine.name} runs vLLM {engine.version} and {served} needs {oldest} or later, which reads its"
                " rank_pattern and alpha_pattern: upgrade the engine"
            )
            engine.refused[served] = Refusal(engine.name, Reason.FEATURE_NOT_SUPPORTED, text)
            LOADS.labels(*state.ref, "rejected").inc()
            self._world.ask_served(state, served, 0.0)
            return
        listing = engine.listing
        started = monotonic()
        try:
            outcome = await client.load(served, place)
        except Rejected as error:
            LOADS.labels(*state.ref, "rejected").inc()
            engine.refused[served] = Refusal(engine.name, error.reason, error.message)
            log.warning("load rejected", extra=self._about(state, engine, served) | {"error": error.message})
            self._world.ask_served(state, served, 0.0)
            return
        except EngineError as error:
            LOADS.labels(*state.ref, "error").inc()
            log.warning("load failed", extra=self._about(state, engine, served) | {"error": error.message})
            raise
        taken = monotonic() - started
        LOADS.labels(*state.ref, outcome.value).inc()
        if outcome is LoadOutcome.LOADED:
            LOAD_SECONDS.observe(taken)
        listing[served] = place
        engine.refused.pop(served, None)
        log.debug("loaded", extra=self._about(state, engine, served) | {"seconds": round(taken, 3)})
        # Ends at the first engine that lacks it: this runs once per load.
        complete = all(
            other.listing is None or served in other.listing or not other.usable for other in state.engines.values()
        )
        self._world.ask_served(state, served, 0.0 if complete else SOON)
        if served in state.carrying:
            self._world.ask_routing(state)
        else:
            self._world.ask_fleet(state)

    async def _unload(self, state: FleetState, engine: Engine, client: EngineClient, served: str) -> None:
        outcome = await client.unload(served)
        UNLOADS.labels(*state.ref, outcome.value).inc()
        if engine.listing is not None:
            engine.listing.pop(served, None)
        log.info("unloaded", extra=self._about(state, engine, served))
        self._world.ask_served(state, served, SOON)
        self._world.ask_waiting(state)

    def _failed(self, state: FleetState, engine: Engine, error: EngineError) -> None:
        usable = engine.usable
        engine.failing = True
        self._diagnose(state, engine, error)
        if usable:
            self._world.ask_adapters(state, SOON)
        if error.reason is Reason.API_KEY_REJECTED:
            self._clients.refused()
        self._world.ask_routing(state)

    def _diagnose(self, state: FleetState, engine: Engine, error: EngineError | None = None) -> None:
        if state.fleet is None or state.fleet.spec is None:
            return
        spec = state.fleet.spec
        claims = self._world.claims(engine.facts)
        mine = not claims or claims[0].uid == state.fleet.uid
        expectations = Expectations(
            base_names=spec.base_model.names,
            mount_path=spec.storage.mount_path,
            engine_model=state.fleet.status.engine_model,
            other_fleets=() if mine else tuple(fleet.name for fleet in claims if fleet.uid != state.fleet.uid),
            expects_api_key=spec.engines.api_key is not None,
        )
        engine.diagnoses = diagnose(
            engine.facts,
            bases=engine.bases or None,
            version=engine.version,
            error=error,
            runtime_updating=engine.updating,
            expectations=expectations,
        )

    @staticmethod
    def _about(state: FleetState, engine: Engine, served: str) -> dict[str, object]:
        return {"namespace": state.ref[0], "fleet": state.ref[1], "engine": engine.name, "servedName": served}
