"""Weights are what they say, and users stay where they are.

Two engines, two routers (Envoy and `lorafleet router` each), a rollout with steps of 5, 25 and 50 percent that wait for
`promote`. At each step 100,000 requests without a user are sent; the number that the canary answered is held against
the binomial distribution: the figure is the largest distance from the expected number, in half widths of the interval
that holds 99.9 percent of all outcomes. At each step 10,000 users ask once as well, by `user`: their number on the
canary is held against the same interval, and from step to step nobody may go back to the stable version.
"""

import contextlib
import math

from bench.canary import Canary, routers
from bench.clients import clients
from bench.figure import Figure, say
from bench.stage import ground, stage

BOUND = 1.0
STEPS = (5, 25, 50)
Z = 3.2905
"""Standard deviations to either side that hold 99.9 percent of a normal distribution."""


def off(found: int, asked: int, percent: int) -> float:
    """The distance from the expected number, in half widths of the 99.9 percent interval."""
    share = percent / 100
    return abs(found - asked * share) / (Z * math.sqrt(asked * share * (1 - share)))


async def measure(quick: bool) -> Figure:
    """Runs it."""
    requests, people = (600, 200) if quick else (100_000, 10_000)
    users = [f"user-{number}" for number in range(people)]
    async with contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(ground())
        one = await stack.enter_async_context(stage(base, "split", 2))
        await stack.enter_async_context(one.operator())
        opened = await stack.enter_async_context(routers(one))
        canary = Canary(one, "python", steps=[{"weight": percent, "pause": {}} for percent in STEPS])
        await canary.versions("1")
        await canary.serving({"1": 100})
        await canary.versions("1", "2")
        raw: dict[str, dict[str, float]] = {}
        moved = dict.fromkeys(users, 0)
        before: list[str] = []
        back = 0
        for number, percent in enumerate(STEPS):
            if number:
                await canary.verb("promote")
            served = await canary.serving({"1": 100 - percent, "2": percent})
            version = (await one.plane.get_adapter(one.namespace, "python"))["metadata"]["resourceVersion"]
            for each in opened:
                await each.applies(version)
            asking = await stack.enter_async_context(
                clients([each.url for each in opened], "python", list(served.values()))
            )
            found = (await asking.spread([None] * requests)).count(served["2"])
            where = await asking.spread(users)
            if before:
                for user, old, new in zip(users, before, where, strict=True):
                    moved[user] += old != new
                    back += old != new and new == served["1"]
            before = where
            sticky = where.count(served["2"])
            raw[f"at_{percent}"] = {
                "requests": requests,
                "canary": found,
                "off": round(off(found, requests, percent), 4),
                "users": people,
                "canary_users": sticky,
                "users_off": round(off(sticky, people, percent), 4),
                "failures": sum(asking.failures.values()),
            }
            say(f"  {percent} %: {found} of {requests} requests, {sticky} of {people} users")
    steps = raw.values()
    also = {
        "no_request_failed": not any(step["failures"] for step in steps),
        "users_within": max(step["users_off"] for step in steps) <= BOUND,
        "users_move_at_most_once": max(moved.values()) <= 1 and back == 0,
    }
    return Figure(max(step["off"] for step in steps), BOUND, "half widths of the 99.9 % interval", raw, also)
