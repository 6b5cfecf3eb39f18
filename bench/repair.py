"""An engine's container restarts: how soon it has its adapter again.

Twenty engines, one adapter, loads of 0.2 s. The container of one engine, another each time, ends and comes back empty;
a second later its pod is Ready. The wall goes from there (the write of the pod's status has returned) to the end of the
load on this engine; the figure is the median.
"""

import asyncio
import time

from bench.fanout import LOAD
from bench.figure import Figure, median, rounded, say
from bench.stage import Stage, ground, stage

BOUND = 0.5 + LOAD
AWAY = 1.0


async def _repair(one: Stage, number: int) -> float:
    await one.container_ends(number)
    # Long enough for the operator to have noticed, as a real engine takes longer to start.
    await asyncio.sleep(AWAY)
    before = time.monotonic()
    await one.container_ready(number)
    is_ready = time.monotonic()
    await one.engines.hold(1, on=[number])
    loads = await one.engines.loads(number, before)
    assert len(loads) == 1, f"{len(loads)} loads after one restart"
    say(f"  engine {number}: loaded {loads[0].ended - is_ready:.3f} s after it was Ready")
    return loads[0].ended - is_ready


async def measure(quick: bool) -> Figure:
    """Runs it."""
    count, repeats = (3, 1) if quick else (20, 15)
    async with ground() as base, stage(base, "repair", count, load_seconds=LOAD) as one, one.operator():
        await one.adapters(["python"])
        await one.serving(1)
        walls = [await _repair(one, number % count) for number in range(repeats)]
        await one.serving(1)
        counts = [report["counts"]["/v1/load_lora_adapter"] for report in await one.engines.reports()]
    raw = {
        "engines": count,
        "load_s": LOAD,
        "ready_to_loaded_s": rounded(walls),
        "slowest_s": round(max(walls), 4),
        "loads": sum(counts),
    }
    return Figure(median(walls), BOUND, "s", raw, {"no_load_too_many": sum(counts) == count + repeats})
