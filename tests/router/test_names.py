"""Which names clients may ask for, and what each becomes."""

import time
from pathlib import Path
from typing import Any

from lorafleet.router.settings import Settings
from lorafleet.router.table import EngineAddress, Route, RoutingTable, Target
from tests.router.engines import engines
from tests.router.running import BASE, Router, route, router, served, table


async def test_a_name_a_pinned_name_and_the_base_model_reach_an_engine(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100, v2=0)), tmp_path) as one:
        for asked in ("python", "python@v2", BASE):
            status, _ = await one.post({"model": asked})
            assert status == 200
    assert [request.model for request in engine.asked] == [served("python", "v1"), served("python", "v2"), BASE]


async def test_an_unknown_model_is_told_from_near_names_in_openais_shape(tmp_path: Path) -> None:
    routes = [route(name, v1=100) for name in ("python", "python-long", "rust", "sql", "pythom")]
    async with engines(1) as (engine,), router(table([engine], *routes), tmp_path) as one:
        status, answer = await one.post({"model": "pythno"})
        other, far = await one.post({"model": "nothing-like-it"})
    assert (status, other) == (404, 404)
    assert answer["error"]["code"] == "model_not_found"
    assert answer["error"]["param"] == "model"
    assert answer["error"]["message"] == "The model `pythno` does not exist. Did you mean `pythom`, `python`?"
    assert "GET /v1/models" in far["error"]["message"]
    assert engine.asked == []


async def test_near_names_are_three_at_most_and_a_prefix_is_near(tmp_path: Path) -> None:
    routes = [route(f"sql-{letter}", v1=100) for letter in "abcdef"]
    async with engines(1) as (engine,), router(table([engine], *routes), tmp_path) as one:
        _, answer = await one.post({"model": "sql"})
    assert answer["error"]["message"].endswith("Did you mean `sql-a`, `sql-b`, `sql-c`?")


async def timed(one: Router, model: str) -> tuple[float, tuple[int, Any]]:
    """How long an answer took, and the answer."""
    begin = time.monotonic()
    answer = await one.post({"model": model})
    return time.monotonic() - begin, answer


async def test_who_goes_on_asking_for_a_name_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    routes = [route(f"adapter-{number:05d}", v1=100) for number in range(10_000)]
    async with router(table([], *routes), tmp_path) as one:
        # The first makes the list of names.
        (_, _), (once, first), *again = [await timed(one, name) for name in ("x", *["adapter-0234x"] * 12)]
        assert all(answer == first for _, answer in again)
        assert min(seconds for seconds, _ in again) < once / 4
    assert "Did you mean `adapter-02340`, `adapter-02341`, `adapter-02342`?" in first[1]["error"]["message"]


async def test_a_list_of_models_needs_no_choice_of_engines(tmp_path: Path) -> None:
    routes = [route(f"adapter-{number:05d}", v1=90, v2=10) for number in range(5_000)]
    found = RoutingTable(
        {one.adapter: one for one in routes},
        {f"e{number}": EngineAddress(f"e{number}", f"127.1.1.{number}", 8000) for number in range(1, 101)},
        (BASE,),
    )
    seconds = []
    for affinity in (0, 2):
        async with router(found, tmp_path / str(affinity), affinity=affinity) as one:
            begin = time.monotonic()
            assert len((await one.get("/v1/models"))[1]["data"]) == 5_001
            seconds.append(time.monotonic() - begin)
    assert seconds[1] < 4 * seconds[0]


async def test_a_served_name_is_no_name_of_a_client(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100)), tmp_path) as one:
        status, answer = await one.post({"model": served("python", "v1")})
    assert status == 404
    assert served("python", "v1") in answer["error"]["message"]
    assert engine.asked == []


async def test_an_unknown_version_is_told_from_those_that_are_loaded(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100, v2=0)), tmp_path) as one:
        status, answer = await one.post({"model": "python@v3"})
    assert status == 404
    assert "`python@v2`, `python@v1`" in answer["error"]["message"]


async def test_an_adapter_that_does_not_serve_yet_is_told_to_come_back(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], Route("python")), tmp_path) as one:
        async with one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}') as answer:
            body = await answer.json()
        _, listed = await one.get("/v1/models")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert body["error"]["code"] == "model_not_ready"
    assert [card["id"] for card in listed["data"]] == [BASE]


async def test_models_lists_logical_names_only(tmp_path: Path) -> None:
    routes = (route("python", v1=90, v2=10), route("rust", v1=100), Route("new"))
    async with engines(1) as (engine,), router(table([engine], *routes), tmp_path) as one:
        status, answer = await one.get("/v1/models")
        found, card = await one.get("/v1/models/python@v2")
        lost, _ = await one.get(f"/v1/models/{served('python', 'v1')}")
    assert status == 200
    assert answer["object"] == "list"
    assert [(card["id"], card["root"], card["parent"]) for card in answer["data"]] == [
        (BASE, BASE, None),
        ("python", "python", BASE),
        ("rust", "rust", BASE),
    ]
    assert (found, card["id"], lost) == (200, "python@v2", 404)
    assert engine.asked == []


async def test_models_lists_pinned_names_when_told_to(tmp_path: Path) -> None:
    first = table([], route("python", v1=90, v2=10))
    async with router(first, tmp_path, list_pinned=True) as one:
        _, answer = await one.get("/v1/models")
    assert [card["id"] for card in answer["data"]] == [BASE, "python", "python@v1", "python@v2"]


async def test_a_name_with_letters_that_json_escapes_is_not_in_the_way(tmp_path: Path) -> None:
    odd = 'we"ird\\base'
    first = RoutingTable({}, {}, (odd,))
    async with router(first, tmp_path) as one:
        _, answer = await one.get("/v1/models")
    assert answer["data"][0]["id"] == odd


def test_a_name_that_would_break_the_table_is_refused() -> None:
    from lorafleet.router.script import script

    broken = RoutingTable({"a": Route("a", (Target("a\tb", 100),))})
    try:
        script(broken, Settings())
    except ValueError as error:
        assert "rename" in str(error)
    else:
        raise AssertionError("a tab went into the table")
