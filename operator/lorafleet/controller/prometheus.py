"""Asks Prometheus what analyses want to know, one value a query. The bearer token is in no message.

An answer is a value or a sentence about why there is none; it never fails anything by itself. What a query is and what
its value means is decided elsewhere.
"""

import asyncio
import json
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx

from lorafleet.controller.answers import TooLong, bounded
from lorafleet.controller.metrics import QUERIES
from lorafleet.controller.objects import Adapter
from lorafleet.controller.queue import Retry
from lorafleet.controller.secrets import Secrets
from lorafleet.controller.state import FleetState
from lorafleet.controller.world import World
from lorafleet.rollout.observed import Query, QueryResult

log = logging.getLogger(__name__)

DEADLINE = 10.0
LEAST = 1.0
"""Seconds between two runs of one query."""
AT_ONCE = 16
MAX_ANSWER_BYTES = 256 * 1024
QUOTE = 200


class Prometheus:
    """Runs queries; results go into the fleet's memory, and the adapter looks again."""

    def __init__(self, world: World, secrets: Secrets, http: httpx.AsyncClient) -> None:
        self._world = world
        self._secrets = secrets
        self._http = http
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._running: dict[tuple[str, str, str], asyncio.Task[None]] = {}

    def ask(self, state: FleetState, adapter: Adapter, queries: Sequence[Query]) -> None:
        """Runs what does not run yet."""
        for query in queries:
            key = (*adapter.ref, query.name)
            if key not in self._running:
                task = asyncio.create_task(self._run(state, adapter, query))
                self._running[key] = task
                task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: tuple[str, str, str], task: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("a query was not run", extra={"adapter": key[1], "query": key[2]}, exc_info=task.exception())

    async def _run(self, state: FleetState, adapter: Adapter, query: Query) -> None:
        before = state.queries.get(adapter.name, {}).get(query.name)
        if before is not None:
            await asyncio.sleep(max(LEAST - (datetime.now(UTC) - before.at).total_seconds(), 0.0))
        async with self._gate:
            at = datetime.now(UTC)
            try:
                value, error = await asyncio.wait_for(self._value(state, query), DEADLINE), ""
            except TimeoutError:
                value, error = None, f"Prometheus did not answer within {DEADLINE:g} s"
            except httpx.HTTPError as failure:
                value, error = None, f"Prometheus was not reached ({type(failure).__name__}); see spec.prometheus.url"
            except (_NoValue, Retry) as failure:
                value, error = None, str(failure)
        QUERIES.labels(*state.ref, "value" if value is not None else "none").inc()
        if adapter.name in state.adapters:
            state.queries.setdefault(adapter.name, {})[query.name] = QueryResult(at, value, error)
            self._world.ask_named(state, adapter.name)

    async def _value(self, state: FleetState, query: Query) -> float:
        spec = state.fleet.spec.prometheus if state.fleet and state.fleet.spec else None
        if spec is None:
            raise _NoValue("the fleet does not say where Prometheus is; set spec.prometheus.url on the fleet")
        headers = {}
        if spec.bearer_token is not None:
            ref = spec.bearer_token.secret_key_ref
            token = await self._secrets.value(state.ref[0], ref)
            if not token or not (token.isascii() and token.isprintable()):
                raise _NoValue(f"Secret {ref.name} has no usable token at {ref.key}; see spec.prometheus.bearerToken")
            headers["Authorization"] = f"Bearer {token}"
        url = f"{spec.url.rstrip('/')}/api/v1/query"
        form = {"query": query.promql, "timeout": f"{DEADLINE:g}s"}
        async with self._http.stream("POST", url, data=form, headers=headers) as answer:
            try:
                body = await bounded(answer, MAX_ANSWER_BYTES)
            except TooLong:
                raise _NoValue("the answer is far too long for one value; aggregate the query, as by sum()") from None
            status = answer.status_code
        if status in (401, 403):
            self._secrets.forget()
            raise _NoValue(f"Prometheus refused with {status}; see spec.prometheus.bearerToken")
        return value_of(status, body)


class _NoValue(Exception):
    """An answer that is no value, in a sentence."""


def value_of(status: int, body: bytes) -> float:
    """The one value of an answer of ``/api/v1/query``."""
    try:
        said: Any = json.loads(body)
        if said.get("status") != "success":
            raise _NoValue(f"Prometheus says {_quote(said.get('error') or status)}")
        kind, result = said["data"]["resultType"], said["data"]["result"]
        if kind == "vector":
            if not result:
                raise _NoValue("the query finds no series")
            if len(result) > 1:
                raise _NoValue(f"the query finds {len(result)} series and not one; aggregate it, as by sum()")
            pair = result[0]["value"]
        elif kind == "scalar":
            pair = result
        else:
            raise _NoValue(f"the query gives a {_quote(kind)} and not one value")
        value = float(pair[1])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _NoValue(
            f"what answers at spec.prometheus.url with {status} is not Prometheus' API ({type(error).__name__})"
        ) from error
    if not math.isfinite(value):
        raise _NoValue(f"the query gives {pair[1]}, which is no number to judge by")
    return value


def _quote(text: object) -> str:
    line = " ".join(str(text)[: 4 * QUOTE].split())
    return line if len(line) <= QUOTE else line[: QUOTE - 1] + "…"
