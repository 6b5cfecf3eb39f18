"""How memory and time grow with the number of adapters: 500, 1,000 and 2,000 on twenty engines with loads of 0 ms.

For each size, in a namespace of its own, all adapters are created first; then an operator starts and publishes, loads
and writes their statuses (converge: from leading to the moment that the last adapter's Ready condition gives); its
memory is read. It is stopped and others start, three after another (resync: from leading until one has listed every
engine, reconciled every adapter and has nothing in its queue, by its own metrics; the median, because it is short); no
engine may get a load again. Memory is above that of an operator with the same engines and no adapter. Each of the three
gives the exponent of a power law over the sizes; the figure is the largest of them. The exponent of the operator's
processor time is reported too: on a machine with neighbours it moves less than that of the wall.
"""

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import datetime

from bench.figure import Figure, exponent, median, rounded, say
from bench.process import cpu_seconds, resident_mib
from bench.stage import Ground, Stage, ground, ready, stage
from tests.harness.plane import until
from tests.harness.replica import Replica

BOUND = 1.1
SYNC_JOBS = 16
RESTARTS = 3


@dataclass(frozen=True)
class Size:
    """What one size costs."""

    adapters: int
    converge_s: float
    converge_cpu_s: float
    resync_s: float
    resync_all_s: list[float]
    resync_cpu_s: float
    base_mib: float
    resident_mib: float
    resynced_mib: float
    reconciles: float
    status_writes: float
    loads: int
    loads_after_restart: int


def _sum(metrics: dict[str, float], name: str, about: str = "") -> float:
    return sum(value for key, value in metrics.items() if key.startswith(name) and about in key)


async def _baseline(one: Stage) -> float:
    """MiB of an operator that knows the engines and no adapter."""
    async with one.operator() as replica:
        await _settled(replica, 0, len(one.engines))
        return resident_mib(replica.process.pid)


async def _settled(replica: Replica, adapters: int, engines: int) -> dict[str, float]:
    """Waits until everything was looked at and nothing waits; the operator's metrics then."""

    async def settled() -> dict[str, float]:
        found = await replica.metrics()
        listed = _sum(found, "lorafleet_engine_lists_total", '"ok"') >= engines
        reconciled = _sum(found, "lorafleet_reconciles_total", '"adapter"') >= adapters
        if listed and reconciled and _sum(found, "lorafleet_queue_depth") == 0:
            return found
        await asyncio.sleep(0.05)
        return {}

    found: dict[str, float] = await until("the operator has looked at everything", settled, 300)
    return found


@dataclass(frozen=True)
class Restart:
    """What a new leader costs that finds everything done."""

    seconds: float
    cpu_s: float
    mib: float


async def _restart(one: Stage, adapters: int) -> Restart:
    async with one.operator(sync_jobs_per_fleet=SYNC_JOBS) as replica:
        leading = time.monotonic()
        await _settled(replica, adapters, len(one.engines))
        taken, pid = time.monotonic() - leading, replica.process.pid
        found = Restart(taken, cpu_seconds(pid), resident_mib(pid))
        # For loads that would come late.
        await asyncio.sleep(2.0)
    return found


async def _size(base: Ground, adapters: int, engines: int, times: int) -> Size:
    async with stage(base, f"objects-{adapters}", engines) as one:
        empty = await _baseline(one)
        await one.adapters(f"a{number:04d}" for number in range(adapters))
        say(f"  {adapters} adapters created")
        async with one.operator(sync_jobs_per_fleet=SYNC_JOBS) as replica:
            leading = time.monotonic()
            await one.engines.hold(adapters, deadline=900)
            found = await one.serving(adapters, 300)
            last = max(datetime.fromisoformat(ready(adapter) or "").timestamp() for adapter in found)
            converge = one.monotonic(last) - leading
            metrics = await _settled(replica, adapters, engines)
            pid = replica.process.pid
            converge_cpu, resident = cpu_seconds(pid), resident_mib(pid)
        loads = sum(report["counts"]["/v1/load_lora_adapter"] for report in await one.engines.reports())
        restarts = [await _restart(one, adapters) for _ in range(times)]
        again = sum(report["counts"]["/v1/load_lora_adapter"] for report in await one.engines.reports()) - loads
    size = Size(
        adapters=adapters,
        converge_s=round(converge, 3),
        converge_cpu_s=round(converge_cpu, 2),
        resync_s=round(median([restart.seconds for restart in restarts]), 3),
        resync_all_s=rounded([restart.seconds for restart in restarts]),
        resync_cpu_s=round(median([restart.cpu_s for restart in restarts]), 2),
        base_mib=round(empty, 1),
        resident_mib=round(resident, 1),
        resynced_mib=round(median([restart.mib for restart in restarts]), 1),
        reconciles=_sum(metrics, "lorafleet_reconciles_total", '"adapter"'),
        status_writes=_sum(metrics, "lorafleet_status_writes_total", "LoRAAdapter"),
        loads=loads,
        loads_after_restart=again,
    )
    say(f"  {size}")
    return size


async def measure(quick: bool) -> Figure:
    """Runs it."""
    counts, engines, times = ((5, 10, 20), 2, 1) if quick else ((500, 1000, 2000), 20, RESTARTS)
    async with ground() as base:
        sizes = [await _size(base, count, engines, times) for count in counts]
    exponents = {
        "memory": exponent(counts, [size.resident_mib - size.base_mib for size in sizes]),
        "converge": exponent(counts, [size.converge_s for size in sizes]),
        "resync": exponent(counts, [size.resync_s for size in sizes]),
    }
    raw = {
        "engines": engines,
        "loads": sum(size.loads for size in sizes),
        "exponents": {name: round(value, 3) for name, value in exponents.items()},
        "exponent_of_converge_cpu": round(exponent(counts, [size.converge_cpu_s for size in sizes]), 3),
        "sizes": [asdict(size) for size in sizes],
    }
    right = {
        "every_load_once": all(size.loads == size.adapters * engines for size in sizes),
        "no_load_after_restart": not any(size.loads_after_restart for size in sizes),
    }
    return Figure(max(exponents.values()), BOUND, "exponent", raw, right)
