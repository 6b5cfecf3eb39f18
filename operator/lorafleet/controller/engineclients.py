"""One client an engine, made anew when its address, its key or its load timeout change."""

import aiohttp

from lorafleet.api.model import seconds
from lorafleet.controller.progress import address
from lorafleet.controller.secrets import Secrets
from lorafleet.controller.state import Engine, FleetState
from lorafleet.engines.client import EngineClient

MAX_LOAD_TIMEOUT = 900.0


class EngineClients:
    """Clients by fleet and pod."""

    def __init__(self, secrets: Secrets, http: aiohttp.ClientSession) -> None:
        self._secrets = secrets
        self._http = http
        self._known: dict[tuple[str, str], tuple[object, EngineClient]] = {}

    async def of(self, state: FleetState, engine: Engine) -> EngineClient:
        """The client of an engine."""
        assert state.fleet and state.fleet.spec
        spec = state.fleet.spec.engines
        api_key = await self._secrets.value(state.ref[0], spec.api_key.secret_key_ref) if spec.api_key else None
        load_timeout = min(seconds(spec.load_timeout), MAX_LOAD_TIMEOUT)
        mark = (engine.facts.pod_ip, engine.facts.port, api_key, load_timeout)
        key = (state.ref[0], f"{state.ref[1]}/{engine.name}")
        known = self._known.get(key)
        if known is not None and known[0] == mark:
            return known[1]
        client = EngineClient(
            self._http,
            f"http://{address(str(engine.facts.pod_ip), engine.facts.port or 0)}",
            api_key=api_key,
            name=engine.name,
            load_timeout=load_timeout,
        )
        self._known[key] = (mark, client)
        return client

    def forget(self, namespace: str, name: str) -> None:
        """An engine is gone; ``name`` is fleet/pod."""
        self._known.pop((namespace, name), None)

    def refused(self) -> None:
        """An engine refused its key: Secrets are read again."""
        self._secrets.forget()
