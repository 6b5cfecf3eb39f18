"""Routing tables of 10, 1,000 and 10,000 adapters, two versions each, on 200 engine addresses: all in one run.

Requests a second: wrk over 64 connections, 1,000 different chat requests in turn for as many of the adapters as there
are, an Envoy per size, all of them warm, in rounds, each of which begins with another size. The figure is the median,
over the rounds, of what the smallest size did over what the largest did in the same round: from round to round a
machine's pace changes by a fifth.

A change of weights: one adapter goes from one version to the other and back while 16 clients ask for it; from just
before the files are made of the table to the end of the last answer by the old version. Beside it: requests for
versions that some engine lacks, which go by lists of engines, and a change that also takes ten engines away.
"""

import asyncio
import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from bench.envoys import Envoy, envoy
from bench.figure import Figure, median, rounded, say
from bench.router import CONNECTIONS, body
from bench.wrk import backend, wrk
from lorafleet.router.settings import Settings
from lorafleet.router.table import EngineAddress, Route, RoutingTable, Target
from tests.fake_vllm.fleet import address
from tests.harness.replica import free_port

BOUND = 1 / 0.9
IN_FORCE = {10: 0.2, 100: 0.2, 1_000: 0.2, 10_000: 1.0}
ENGINES = 200
ASKERS = 16
BODIES = 1_000


def _asked(number: int, adapters: int) -> str:
    """One of the requests: as many different ones at each size, so that the client has the same work."""
    return body(f"adapter-{number % adapters:05d}").replace("x * 2", f"x * {number:04d}")


def served(number: int, version: str) -> str:
    """What engines call a version."""
    digest = hashlib.sha256(f"{number} {version}".encode()).hexdigest()[:12]
    return f"adapter-{number:05d}/{version}-{digest}"


def table(adapters: int, hosts: Sequence[str], port: int, first: str = "1.0.0", lacking: int = 0) -> RoutingTable:
    """Adapter 0 has all its requests at ``first``, the others split theirs; one engine lacks ``lacking`` versions."""
    routes = {}
    for number in range(adapters):
        name = f"adapter-{number:05d}"
        pinned = {version: served(number, version) for version in ("1.0.0", "1.1.0")}
        split = (Target(pinned["1.0.0"], 90), Target(pinned["1.1.0"], 10))
        routes[name] = Route(name, split if number else (Target(pinned[first], 100),), pinned)
    missing = frozenset(served(number, "1.0.0") for number in range(1, 1 + lacking))
    engines = {
        f"e{number}": EngineAddress(f"e{number}", host, port, missing=frozenset() if number else missing)
        for number, host in enumerate(hosts)
    }
    return RoutingTable(routes, engines, ("acme/base",))


async def in_force(one: Envoy, before: RoutingTable, after: RoutingTable, old: str) -> float:
    """Seconds until the last answer by ``old``. The table ``before`` is in force."""
    over = asyncio.Event()
    last = 0.0
    new = asyncio.Event()

    async def asking(http: httpx.AsyncClient) -> None:
        nonlocal last
        content = body("adapter-00000").encode()
        since = 0
        while not (over.is_set() and since >= 20):
            answer = await http.post(f"{one.url}/v1/chat/completions", content=content)
            if json.loads(answer.content)["model"] == old:
                last, since = time.monotonic(), 0
            else:
                since += 1
                new.set()

    limits = httpx.Limits(max_connections=1)
    async with contextlib.AsyncExitStack() as stack:
        # A connection each, so that every worker of Envoy is asked.
        clients = [await stack.enter_async_context(httpx.AsyncClient(limits=limits)) for _ in range(ASKERS)]
        tasks = [asyncio.create_task(asking(client)) for client in clients]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(one.update, after)
        await new.wait()
        over.set()
        await asyncio.gather(*tasks)
    return last - began


async def _changes(
    one: Envoy, size: int, hosts: Sequence[str], port: int, repeats: int
) -> tuple[list[float], list[float]]:
    walls: list[float] = []
    moving: list[float] = []
    now = table(size, hosts, port)
    for number in range(2 * repeats):
        old, new = ("1.0.0", "1.1.0") if number % 2 == 0 else ("1.1.0", "1.0.0")
        then = table(size, hosts, port, new)
        walls.append(await in_force(one, now, then, served(0, old)))
        now = then
    for number in range(2):
        old, new = ("1.0.0", "1.1.0") if number % 2 == 0 else ("1.1.0", "1.0.0")
        then = table(size, hosts[10:] if number == 0 else hosts, port, new)
        moving.append(await in_force(one, now, then, served(0, old)))
        now = then
    return walls, moving


async def measure(quick: bool) -> Figure:
    """Runs it."""
    sizes = (10, 100) if quick else (10, 1_000, 10_000)
    rounds, seconds, repeats = (1, 1, 1) if quick else (15, 2, 4)
    hosts, port = [address(number) for number in range(ENGINES)], free_port()
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as made:
        folder = Path(made)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(backend(hosts, port))
            running: dict[int, Envoy] = {}
            for size in sizes:
                settings = Settings(address="127.0.0.1", port=free_port(), admin_port=free_port(), restore_model=False)
                first = table(size, hosts, port)
                running[size] = await stack.enter_async_context(envoy(first, folder / str(size), settings))
            rates: dict[int, list[float]] = {size: [] for size in sizes}
            asked = {size: [_asked(number, size) for number in range(BODIES)] for size in sizes}
            failed = 0
            for number in range(rounds + 1):
                for turn in range(len(sizes)):
                    size = sizes[(turn + number) % len(sizes)]
                    load = await wrk(
                        f"{running[size].url}/v1/chat/completions", asked[size], CONNECTIONS, seconds, folder
                    )
                    failed += load.failed
                    # The first round only makes connections and entries.
                    if number:
                        rates[size].append(load.rate)
                        say(f"  {size} adapters: {load.rate:.0f}/s")
            memory = {size: round(one.memory()) for size, one in running.items()}
            walls: dict[int, list[float]] = {}
            moving: dict[int, list[float]] = {}
            for size, one in running.items():
                walls[size], moving[size] = await _changes(one, size, hosts, port, repeats)
                say(f"  {size} adapters: in force after {median(walls[size]):.3f} s")
            largest = running[sizes[-1]]
            await asyncio.to_thread(largest.update, table(sizes[-1], hosts, port, lacking=sizes[-1] // 10))
            bodies = [body(f"adapter-{name:05d}@1.0.0") for name in range(1, 1 + sizes[-1] // 10)]
            listed = await wrk(f"{largest.url}/v1/chat/completions", bodies, CONNECTIONS, seconds, folder)
            failed += listed.failed
    ratios = [few / many for few, many in zip(rates[sizes[0]], rates[sizes[-1]], strict=True)]
    raw = {
        "engines": ENGINES,
        "requests_per_s": {size: rounded(values) for size, values in rates.items()},
        "in_force_s": {size: rounded(values) for size, values in walls.items()},
        "in_force_with_engines_that_move_s": {size: rounded(values) for size, values in moving.items()},
        "requests_per_s_by_lists_of_engines": round(listed.rate),
        "memory_mib": memory,
        "failed": failed,
    }
    also = {f"in_force_at_{size}": median(values) <= IN_FORCE[size] for size, values in walls.items()}
    also["no_request_failed"] = failed == 0
    return Figure(median(ratios), BOUND, "times the requests a second at 10,000", raw, also)
