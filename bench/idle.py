"""Twenty engines and fifty adapters at rest for two minutes: what the operator still asks for, and what it costs.

The figure is the requests of the engine that got most of them, a minute. LISTs are the API server's own count of all
LIST requests (``apiserver_request_total``) before and after: whoever made them, so that none of the operator's can be
missing; the benchmark itself makes none meanwhile. Processor time and resident memory are the operator's.
"""

import asyncio

from bench.figure import Figure, say
from bench.process import cpu_seconds, resident_mib
from bench.stage import Ground, ground, stage

BOUND = 1.0


def _requests(base: Ground) -> dict[tuple[str, str], float]:
    """The API server's requests so far by verb and resource."""
    found: dict[tuple[str, str], float] = {}
    for name, value in base.api_metrics().items():
        metric, _, rest = name.partition("{")
        if metric == "apiserver_request_total":
            labels = dict(pair.split("=", 1) for pair in rest.rstrip("}").replace('"', "").split(","))
            key = labels["verb"], labels["resource"]
            found[key] = found.get(key, 0.0) + value
    return found


async def measure(quick: bool) -> Figure:
    """Runs it."""
    engines, adapters, settle, rest = (2, 3, 1.0, 3.0) if quick else (20, 50, 10.0, 120.0)
    async with ground() as base, stage(base, "idle", engines) as one, one.operator() as replica:
        await one.adapters(f"a{number:02d}" for number in range(adapters))
        await one.serving(adapters, 120)
        await asyncio.sleep(settle)
        pid = replica.process.pid
        counts = [sum(report["counts"].values()) for report in await one.engines.reports()]
        loads = sum(len(report["adapters"]) for report in await one.engines.reports())
        before, cpu, reconciles = _requests(base), cpu_seconds(pid), await replica.metrics()
        say(f"  at rest for {rest:g} s")
        await asyncio.sleep(rest)
        after, spent = _requests(base), cpu_seconds(pid) - cpu
        done = await replica.metrics()
        asked = [
            sum(report["counts"].values()) - count
            for report, count in zip(await one.engines.reports(), counts, strict=True)
        ]
        memory = resident_mib(pid)
    grown = {key: after[key] - before.get(key, 0.0) for key in after if after[key] > before.get(key, 0.0)}
    lists = {resource: value for (verb, resource), value in grown.items() if verb == "LIST"}
    raw = {
        "engines": engines,
        "adapters": adapters,
        "seconds": rest,
        "loads": loads,
        "requests_per_engine": asked,
        "lists_to_the_api_server": sum(lists.values()),
        "lists_by_resource": lists,
        "operator_cpu_per_second": round(spent / rest, 5),
        "operator_resident_mib": round(memory, 1),
        "reconciles": {
            name.partition("{")[2].rstrip("}"): done[name] - reconciles.get(name, 0.0)
            for name in done
            if name.startswith("lorafleet_reconciles_total") and done[name] != reconciles.get(name, 0.0)
        },
    }
    per_minute = max(asked) / (rest / 60)
    return Figure(per_minute, BOUND, "requests per engine and minute", raw, {"no_list": not lists})
