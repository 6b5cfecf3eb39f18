"""A bad version under load is taken back: how long until no new request reaches it.

Four engines, two routers (Envoy and `lorafleet router` each), clients that ask some hundred times a second. One adapter
has its second version at 100 percent and is told `rollback`; its first version was kept loaded. Another has its second
version at 50 percent of a rollout and is told `abort`. The wall goes from just before the annotation is written to the
moment at which the last request for the second version came to an engine, by the engines' clocks; the figure is the
slowest of all. No request may fail. Before each repeat the verb `retry` brings the version back.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from bench.canary import Canary, routers
from bench.clients import clients
from bench.figure import Figure, median, rounded, say
from bench.stage import ground, stage
from tests.fake_vllm.engine import Event

BOUND = 0.2
USERS, PAUSE = 16, 0.02
SETTLE = 0.5


async def _last(canary: Canary, served: str) -> float:
    """When the last request for a version came to any engine."""
    times = [0.0]
    for number in range(len(canary.one.engines)):
        events: Sequence[Event] = await canary.one.engines.events(number)
        times += [event.began for event in events if event.model == served and "completions" in event.route]
    return max(times)


async def _taken_back(canary: Canary, verb: str, back: dict[str, int], served: str) -> float:
    asked = await canary.verb(verb)
    await canary.serving(back)
    # Requests that a router had sent before are on their way for milliseconds, not for this long.
    await asyncio.sleep(SETTLE)
    last = await _last(canary, served)
    say(f"  {canary.name}: the last request came {last - asked:+.3f} s from the annotation {verb}")
    return max(last - asked, 0.0)


async def measure(quick: bool) -> Figure:
    """Runs it."""
    repeats = 1 if quick else 15
    first, whole, half = {"1": 100}, {"2": 100}, {"1": 50, "2": 50}
    async with contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(ground())
        one = await stack.enter_async_context(stage(base, "rollback", 4))
        await stack.enter_async_context(one.operator())
        urls = [router.url for router in await stack.enter_async_context(routers(one))]
        walls: dict[str, list[float]] = {}
        counts: dict[str, dict[str, int]] = {}
        failures: dict[str, int] = {}
        cases = (
            ("rollback", Canary(one, "whole", keepLoaded=1), whole),
            ("abort", Canary(one, "half", steps=[{"weight": 50, "pause": {}}], keepLoaded=1), half),
        )
        for verb, canary, before in cases:
            await canary.versions("1")
            await canary.serving(first)
            await canary.versions("1", "2")
            served = await canary.serving(before)
            asking = await stack.enter_async_context(clients(urls, canary.name, list(served.values())))
            async with asking.traffic(USERS, PAUSE) as answered:
                walls[verb] = []
                for number in range(repeats):
                    if number:
                        await canary.verb("retry")
                        await canary.serving(before)
                        await asyncio.sleep(SETTLE)
                    walls[verb].append(await _taken_back(canary, verb, first, served["2"]))
            counts[verb] = dict(answered)
            failures |= asking.failures
    slowest = max(max(each) for each in walls.values())
    raw = {
        "engines": 4,
        "routers": len(urls),
        **{f"{verb}_s": rounded(each) for verb, each in walls.items()},
        **{f"{verb}_median_s": round(median(each), 4) for verb, each in walls.items()},
        "requests": counts,
        "failures": failures,
    }
    return Figure(slowest, BOUND, "s", raw, {"no_request_failed": not failures})
