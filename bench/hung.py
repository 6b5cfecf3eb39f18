"""The same as `fanout` with one of twenty engines hung: the nineteen others must not notice.

Adapters go out in turn without and with a hung engine, in the same run, on the same engines. The hung one, another each
time, accepts connections and answers nothing at all; after its turn its container restarts. The figure is the median
wall of the nineteen, from the sync result to the last of their loads, over the median wall of the twenty.
"""

from bench.fanout import LOAD, Pass, fan_out
from bench.figure import Figure, median, rounded
from bench.stage import Stage, ground, stage

BOUND = 1.1


async def _with_hung(one: Stage, name: str, hung: int, adapters: int) -> Pass:
    await one.engines.change(hung, hang=["*"])
    others = [number for number in range(len(one.engines)) if number != hung]
    found = await fan_out(one, name, others, wait_ready=False)
    assert len((await one.engines.report(hung))["adapters"]) == adapters, "the hung engine loaded something"
    await one.engines.change(hung, hang=[])
    await one.container_ends(hung)
    await one.container_ready(hung)
    await one.engines.hold(adapters + 1, on=[hung])
    await one.plane.condition(one.namespace, name, "Ready", "Serving")
    return found


async def measure(quick: bool) -> Figure:
    """Runs it."""
    count, repeats = (3, 1) if quick else (20, 9)
    whole: list[Pass] = []
    hung: list[Pass] = []
    async with ground() as base, stage(base, "hung", count, load_seconds=LOAD) as one, one.operator():
        warm = await fan_out(one, "warm", range(count))
        for number in range(repeats):
            whole.append(await fan_out(one, f"whole{number}", range(count)))
            hung.append(await _with_hung(one, f"hung{number}", number % count, 2 * number + 2))
    walls, others = [each.wall for each in whole], [each.wall for each in hung]
    raw = {
        "engines": count,
        "load_s": LOAD,
        "wall_of_all_s": rounded(walls),
        "wall_of_others_s": rounded(others),
        "apply_to_loaded_s": rounded([each.loaded for each in whole]),
        "apply_to_loaded_of_others_s": rounded([each.loaded for each in hung]),
        "loads": sum(each.loads for each in (warm, *whole, *hung)),
    }
    return Figure(median(others) / median(walls), BOUND, "times the wall of `fanout`", raw)
