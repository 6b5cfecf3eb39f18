"""One adapter on twenty engines takes the time of one load.

Every load keeps its engine busy for 0.2 s. The wall goes from the moment the sync result is on the API server (the
kubelet's write of the pod's status has returned) to the end of the last engine's load; the figure is the median wall
over some adapters, one after another, divided by one load. Also reported: from creating the adapter to the last load,
and to Ready.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figure import Figure, median, rounded, say
from bench.stage import Stage, ground, stage

LOAD = 0.2
BOUND = 1.5


@dataclass(frozen=True)
class Pass:
    """Seconds of one adapter from sync result to last load, creation to last load and to Ready; number of loads."""

    wall: float
    loaded: float
    ready: float
    loads: int


async def fan_out(one: Stage, name: str, on: Sequence[int], *, wait_ready: bool = True) -> Pass:
    """Creates an adapter and waits until these engines have loaded it; ``ready`` means nothing if not waited for."""
    synced = set(one.ground.kubelet.ended)
    applied = time.monotonic()
    await one.plane.adapter(one.namespace, name, "1")
    await one.engines.hold(1, f"{name}/", on)
    loads = [load for number in on for load in await one.engines.loads(number, applied, f"{name}/")]
    assert len(loads) == len(on), f"{len(loads)} loads on {len(on)} engines"
    result = max(at for pod, at in one.ground.kubelet.ended.items() if pod not in synced)
    last = max(load.ended for load in loads)
    if wait_ready:
        await one.plane.condition(one.namespace, name, "Ready", "Serving")
    say(f"  {name}: {last - result:.3f} s from the sync result to the last of {len(loads)} loads")
    return Pass(last - result, last - applied, time.monotonic() - applied, len(loads))


async def measure(quick: bool) -> Figure:
    """Runs it."""
    count, repeats = (3, 1) if quick else (20, 9)
    async with ground() as base, stage(base, "fanout", count, load_seconds=LOAD) as one, one.operator():
        everywhere = range(count)
        warm = await fan_out(one, "warm", everywhere)
        passes = [await fan_out(one, f"run{number}", everywhere) for number in range(repeats)]
        repeated = [report["double_loads"] for report in await one.engines.reports()]
    walls = [each.wall for each in passes]
    raw = {
        "engines": count,
        "load_s": LOAD,
        "wall_s": rounded(walls),
        "apply_to_loaded_s": rounded([each.loaded for each in passes]),
        "apply_to_ready_s": rounded([each.ready for each in passes]),
        "loads": sum(each.loads for each in (warm, *passes)),
        "repeated_loads": sum(repeated),
    }
    return Figure(median(walls) / LOAD, BOUND, "loads", raw, {"no_load_repeated": not any(repeated)})
