"""Shares of an adapter's requests: by chance, or by a key that keeps a user where it is."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from tests.router.engines import Engine, engines
from tests.router.running import Router, route, router, served, table

V1, V2, V3 = (served("python", version) for version in ("v1", "v2", "v3"))


async def ask(one: Router, engine: Engine, user: str | None = None, session: str | None = None) -> str:
    """The served name that a request becomes."""
    body: dict[str, Any] = {"model": "python"} | ({"user": user} if user is not None else {})
    headers = {"x-session-id": session} if session is not None else {}
    status, _ = await one.post(body, **headers)
    assert status == 200
    return engine.asked[-1].model


def inside(found: int, of: int, share: float) -> bool:
    """Within five standard deviations of the binomial: a wrong split fails, chance does not."""
    return abs(found - of * share) < 5 * math.sqrt(of * share * (1 - share))


async def test_without_a_key_requests_follow_the_weights(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=75, v2=25)), tmp_path) as one:
        counts = Counter([await ask(one, engine) for _ in range(800)])
    assert set(counts) == {V1, V2}
    assert inside(counts[V2], 800, 0.25)


async def test_a_user_stays_and_moves_once_at_most_as_the_weight_rises(tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(200)]
    async with engines(1) as (engine,), router(table([engine], route("python", v1=95, v2=5)), tmp_path) as one:
        seen: dict[str, list[str]] = {user: [] for user in users}
        for weight in (5, 25, 50, 100):
            await one.update(table([engine], route("python", v1=100 - weight, v2=weight)))
            for user in users:
                seen[user].append(await ask(one, engine, user))
            on_canary = sum(versions[-1] == V2 for versions in seen.values())
            assert on_canary == 200 if weight == 100 else inside(on_canary, 200, weight / 100)
    for user, versions in seen.items():
        assert versions == sorted(versions), f"{user} came back from the canary: {versions}"


async def test_the_header_counts_more_than_the_user_field(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=50, v2=50)), tmp_path) as one:
        by_header = {await ask(one, engine, user=f"u{number}", session="same") for number in range(20)}
        by_user = {await ask(one, engine, user="same") for _ in range(20)}
        users = {await ask(one, engine, user=f"u{number}") for number in range(40)}
    assert (len(by_header), len(by_user), len(users)) == (1, 1, 2)


async def test_an_empty_key_is_none(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=50, v2=50)), tmp_path) as one:
        for key in ({"user": ""}, {"session": ""}, {"user": "", "session": ""}):
            assert {await ask(one, engine, **key) for _ in range(40)} == {V1, V2}, key
        assert len({await ask(one, engine, user="same", session="") for _ in range(20)}) == 1


async def test_the_header_has_a_name_of_ones_choice_and_the_user_field_may_be_left_out(tmp_path: Path) -> None:
    first = table([], route("python", v1=50, v2=50))
    async with (
        engines(1) as (engine,),
        router(first, tmp_path, session_header="x-tenant", sticky_user=False) as one,
    ):
        await one.update(table([engine], route("python", v1=50, v2=50)))
        tenants = set()
        for _ in range(20):
            await one.post({"model": "python"}, x_tenant="a")
            tenants.add(engine.asked[-1].model)
        users = {await ask(one, engine, user="same") for _ in range(40)}
    assert (len(tenants), len(users)) == (1, 2)


async def test_the_choices_of_two_adapters_are_independent(tmp_path: Path) -> None:
    routes = (route("python", v1=50, v2=50), route("rust", v1=50, v2=50))
    async with engines(1) as (engine,), router(table([engine], *routes), tmp_path) as one:
        both: Counter[tuple[bool, bool]] = Counter()
        for number in range(400):
            canary = []
            for adapter in ("python", "rust"):
                await one.post({"model": adapter, "user": f"user-{number}"})
                canary.append(engine.asked[-1].model == served(adapter, "v2"))
            both[canary[0], canary[1]] += 1
    assert all(inside(count, 400, 0.25) for count in both.values())
    assert len(both) == 4


async def test_a_third_version_takes_users_from_both_and_mixes_nobody_else(tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(150)]
    async with engines(1) as (engine,), router(table([engine], route("python", v1=50, v2=50)), tmp_path) as one:
        before = [await ask(one, engine, user) for user in users]
        await one.update(table([engine], route("python", v1=40, v2=40, v3=20)))
        after = [await ask(one, engine, user) for user in users]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert moved
    assert set(moved) == {V3}
