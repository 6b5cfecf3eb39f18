"""What Prometheus answers, and what becomes of it: one value, or a sentence about why there is none."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from lorafleet.controller import prometheus as module
from lorafleet.controller.prometheus import Prometheus
from lorafleet.controller.secrets import Secrets
from lorafleet.controller.state import FleetState
from lorafleet.rollout.observed import Query, QueryResult
from tests.controller.fakes import FakeKube, world_of
from tests.controller.fleets import state_of

URL = "http://prometheus:9090/"
QUERY = Query("errors", 'sum(rate(x{served_name="python/1"}[1m]))')
Handler = Callable[[httpx.Request], httpx.Response]


def answer(kind: str, result: Any, status: int = 200) -> Handler:
    body = {"status": "success", "data": {"resultType": kind, "result": result}}
    return lambda _: httpx.Response(status, json=body)


def one_of(value: str) -> list[dict[str, Any]]:
    return [{"metric": {}, "value": [1.0, value]}]


class SecretKube(FakeKube):
    """Has one Secret, or none."""

    def __init__(self, token: str | None) -> None:
        super().__init__()
        self.token = token

    async def get(self, where: str) -> dict[str, Any]:
        data = {"token": base64.b64encode(self.token.encode()).decode()} if self.token else {}
        return {"data": data}


async def asked(
    handler: Handler, spec: dict[str, Any] | None = None, token: str | None = None, state: FleetState | None = None
) -> QueryResult:
    state = state or state_of({"prometheus": {"url": URL} if spec is None else spec} if spec != {} else None)
    world, keys = world_of(state)
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
        one = Prometheus(world, Secrets(SecretKube(token)), http)
        one.ask(state, state.adapters["python"], [QUERY, QUERY])
        assert len(one._running) == 1, "each query runs once at a time"
        await asyncio.gather(*one._running.values())
    assert [key.kind for key in keys.keys] == ["adapter"]
    return state.queries["python"]["errors"]


@pytest.mark.parametrize(("kind", "result"), [("scalar", [1.0, "0.25"]), ("vector", one_of("0.25"))])
async def test_a_scalar_or_one_series_is_a_value(kind: str, result: Any) -> None:
    found = await asked(answer(kind, result))
    assert (found.value, found.error) == (0.25, "")


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (answer("vector", []), "finds no series"),
        (answer("vector", one_of("1") + one_of("2")), "finds 2 series and not one"),
        (answer("vector", one_of("NaN")), "gives NaN"),
        (answer("scalar", [1.0, "+Inf"]), "gives +Inf"),
        (answer("matrix", []), "gives a matrix"),
        (lambda _: httpx.Response(400, json={"status": "error", "error": "parse\nerror"}), "says parse error"),
        (lambda _: httpx.Response(503, text="no"), "with 503 is not Prometheus' API"),
        (lambda _: httpx.Response(200, text='{"status": "success"}'), "is not Prometheus' API"),
        (lambda _: httpx.Response(200, text="[1]"), "is not Prometheus' API"),
        (lambda _: httpx.Response(401), "refused with 401; see spec.prometheus.bearerToken"),
        (lambda _: httpx.Response(200, content=b"x" * (module.MAX_ANSWER_BYTES + 1)), "far too long"),
        (lambda _: httpx.Response(302, headers={"location": "http://elsewhere"}), "with 302"),
    ],
)
async def test_what_is_no_value_is_said(handler: Handler, says: str) -> None:
    found = await asked(handler)
    assert found.value is None
    assert says in found.error and "\n" not in found.error


async def test_a_fleet_that_does_not_say_where_prometheus_is_hears_what_to_set() -> None:
    found = await asked(answer("scalar", [1, "1"]), spec={})
    assert found.value is None and "set spec.prometheus.url on the fleet" in found.error


async def test_a_server_that_is_not_there_or_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert "was not reached (ConnectError)" in (await asked(gone)).error
    monkeypatch.setattr(module, "DEADLINE", 0.0)
    assert "did not answer within 0 s" in (await asked(answer("scalar", [1, "1"]))).error


async def test_the_token_goes_to_prometheus_and_nowhere_else() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(403, text=request.headers["authorization"])

    spec = {"url": URL, "bearerToken": {"secretKeyRef": {"name": "metrics", "key": "token"}}}
    found = await asked(handler, spec, token="very-secret")
    assert seen[0].headers["authorization"] == "Bearer very-secret"
    assert str(seen[0].url) == "http://prometheus:9090/api/v1/query"
    assert httpx.QueryParams(seen[0].content.decode())["query"] == QUERY.promql
    assert "very-secret" not in found.error
    found = await asked(handler, spec, token=None)
    assert "Secret metrics has no usable token at token" in found.error
    assert len(seen) == 1


async def test_a_query_does_not_run_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of({"prometheus": {"url": URL}})
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await asked(answer("scalar", [1, "1"]), state=state)
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    await asked(answer("scalar", [1, "2"]), state=state)
    assert 0.5 < slept[0] <= module.LEAST
    assert json.dumps(state.queries["python"]["errors"].value) == "2.0"
