"""A hundred adapters on fifty empty engines, against a bare httpx client that makes the same calls.

The adapters are published and their statuses say so; the engines restart and know nothing; then the operator starts, or
the bare client (`bench.bare`), in turn, against the same fakes. For both the wall goes from the begin of the first load
to the end of the last, by the engines' clocks, so that the operator's start-up is in neither, but everything that it
does meanwhile (reconciles, status writes, events, watches) is. One load keeps an engine busy for 10 ms, as the contract
measured for a real vLLM; the figure is the ratio of the medians. The bare client has an HTTP pool for each engine,
which is the fastest that httpx can do; the ratio to one with a single pool, as one writes it first, is reported too.
With loads of 0 ms, where only the caller's own speed is left, the ratio is reported and not held against the bound; so
is the wall from the start of the operator's process.
"""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from bench.figure import Figure, median, rounded, say
from bench.process import cpu_seconds
from bench.stage import MOUNT, Stage, ground, stage
from lorafleet.api.names import engine_path
from tests.harness.plane import ROOT

BOUND = 1.3
LOADS = (0.01, 0.0)


async def _wall(one: Stage, since: float, expected: int) -> tuple[float, float]:
    """Seconds from the first load to the last, and from ``since`` to the last."""
    loads = await one.engines.all_loads(since)
    # Each exactly once, by whoever.
    assert len(loads) == expected, f"{len(loads)} loads, expected {expected}"
    last = max(load.ended for load in loads)
    return last - min(load.began for load in loads), last - since


async def _operator(one: Stage, adapters: int) -> tuple[float, float, float]:
    """The walls of `_wall` for the operator, and its processor seconds in all."""
    await one.engines.restart_all()
    since = time.monotonic()
    async with one.operator() as replica:
        await one.engines.hold(adapters)
        cpu = cpu_seconds(replica.process.pid)
        await one.serving(adapters)
        return *await _wall(one, since, adapters * len(one.engines)), cpu


async def _bare(one: Stage, served: list[str], shared: bool) -> float:
    await one.engines.restart_all()
    adapters = {name: engine_path(MOUNT, name) for name in served}
    wanted = {"urls": one.engines.urls, "adapters": adapters, "shared": shared}
    since = time.monotonic()
    argv = [sys.executable, "-m", "bench.bare"]
    await asyncio.to_thread(subprocess.run, argv, cwd=ROOT, input=json.dumps(wanted).encode(), check=True)
    return (await _wall(one, since, len(served) * len(one.engines)))[0]


async def _rounds(one: Stage, served: list[str], repeats: int, load: float) -> dict[str, Any]:
    await one.engines.change_all(load_seconds=load)
    operator, start, cpu, bare, pooled = [], [], [], [], []
    for _ in range(repeats):
        wall, from_start, spent = await _operator(one, len(served))
        operator.append(wall)
        start.append(from_start)
        cpu.append(spent)
        bare.append(await _bare(one, served, shared=False))
        pooled.append(await _bare(one, served, shared=True))
        say(f"  loads of {load * 1000:g} ms: operator {wall:.2f} s, bare {bare[-1]:.2f} s, one pool {pooled[-1]:.2f} s")
    return {
        "ratio": round(median(operator) / median(bare), 4),
        "ratio_to_one_pool": round(median(operator) / median(pooled), 4),
        "operator_s": rounded(operator),
        "bare_s": rounded(bare),
        "one_pool_s": rounded(pooled),
        "from_process_start_s": rounded(start),
        "operator_cpu_s": rounded(cpu),
        "loads": 3 * repeats * len(served) * len(one.engines),
    }


async def measure(quick: bool) -> Figure:
    """Runs it."""
    engines, adapters, repeats = (4, 5, 1) if quick else (50, 100, 5)
    async with ground() as base, stage(base, "converge", engines) as one:
        async with one.operator():
            await one.adapters(f"a{number:03d}" for number in range(adapters))
            found = await one.serving(adapters, 120)
        served = [adapter["status"]["versions"][0]["servedName"] for adapter in found]
        raw = {f"loads_of_{load * 1000:g}_ms": await _rounds(one, served, repeats, load) for load in LOADS}
    value = float(raw["loads_of_10_ms"]["ratio"])
    return Figure(value, BOUND, "times a bare client", {"engines": engines, "adapters": adapters, **raw})
