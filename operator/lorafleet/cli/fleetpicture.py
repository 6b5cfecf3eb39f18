"""``lorafleet status fleet/NAME``: the picture of a fleet and its engines. Pure."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lorafleet.cli import summary
from lorafleet.cli.durations import age
from lorafleet.cli.listing import coloured
from lorafleet.cli.picture import WIDE, conditions
from lorafleet.cli.seen import Fleet
from lorafleet.cli.terminal import printable, size, table


def fleet(found: Fleet, now: datetime, width: int = WIDE) -> Iterator[RenderableType]:
    """The parts of the page, which is the same however many columns a terminal has."""
    status = found.status
    yield Text.assemble(
        (found.name, "bold"), f"  {status.ready_engines} of {status.total_engines} engines  ",
        coloured(found), (f"  namespace {found.identity.namespace}", "dim"),
    )  # fmt: skip
    if found.trouble:
        yield Text(printable(found.trouble), style="red")
    yield Text()
    yield _facts(found, now)
    if status.engines:
        yield Text()
        yield engines(found)
    if found.conditions:
        yield Text()
        yield conditions(found.conditions, now)


def engines(found: Fleet, numbered: bool = False) -> Table:
    """A row for each engine; ``numbered``: by the numbers that a matrix calls them."""
    headings = ("ENGINE", "READY", "LOADED", "WANTED", "VLLM", "REASON", "MESSAGE")
    made = table(*(("#",) if numbered else ()), *headings, right=("#", "LOADED", "WANTED"), fold=("MESSAGE",))
    for number, one in enumerate(found.status.engines, 1):
        state = "catching up" if one.ready and one.catching_up else str(one.ready)
        made.add_row(
            *((str(number),) if numbered else ()),
            one.name,
            Text(state, style="green" if state == "True" else "yellow" if one.ready else "red"),
            str(one.loaded),
            str(one.wanted),
            printable(one.version or summary.NONE),
            one.reason or "",
            Text(printable(one.message or "")),
        )
    return made


def _facts(found: Fleet, now: datetime) -> Table:
    made = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(no_wrap=True)
    for name, text in _pairs(found, now):
        made.add_row(name, Text(printable(text)))
    return made


def _pairs(found: Fleet, now: datetime) -> Iterator[tuple[str, str]]:
    status = found.status
    if found.spec:
        yield "base model", found.spec.base_model.name
    yield "adapters", f"{status.adapters}, {status.rolling_out} rolling out"
    yield "routers", f"{status.routers} answered"
    memory = status.memory
    if memory and memory.max_cpu_loras is not None:
        yield "places", f"{memory.wanted} of {memory.max_cpu_loras} versions that an engine keeps"
    if memory and memory.preallocated_bytes is not None:
        yield "slots", f"{size(memory.preallocated_bytes)} per GPU for {memory.max_loras} slots"
    storage = status.storage
    if storage and storage.used_bytes is not None:
        free = f", {size(storage.free_bytes)} free" if storage.free_bytes is not None else ""
        yield "volume", f"{size(storage.used_bytes)} used{free}"
    if storage and storage.last_scrub:
        yield "last scrub", f"{age(storage.last_scrub, now)} ago, {len(storage.damaged)} damaged"
    if status.pending_removals:
        yield "to be removed", f"{len(status.pending_removals)} versions of adapters that are gone"
