"""``lorafleet get``: tables of adapters and fleets. Pure."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from lorafleet.api.conditions import ConditionType
from lorafleet.cli import summary
from lorafleet.cli.durations import age, percent
from lorafleet.cli.seen import Adapter, Fleet, HasConditions, holds
from lorafleet.cli.terminal import printable, size, table


def adapters(found: Sequence[Adapter], now: datetime, everywhere: bool = False) -> Table:
    """A row for each adapter."""
    headings = ("ADAPTER", "FLEET", "STABLE", "TARGET", "TRAFFIC", "ROLLOUT", "ENGINES", "ERRORS", "READY", "AGE")
    made = table(*(("NAMESPACE",) if everywhere else ()), *headings, right=("ERRORS", "ENGINES"))
    for one in found:
        made.add_row(
            *((one.identity.namespace,) if everywhere else ()),
            one.name,
            one.fleet,
            one.status.stable_version or summary.NONE,
            one.target or summary.NONE,
            summary.traffic(one),
            printable(summary.rollout(one)),
            summary.engines(one),
            percent(summary.error_rate(one)) or summary.NONE,
            coloured(one),
            age(one.identity.created, now),
        )
    return made


def fleets(found: Sequence[Fleet], now: datetime, everywhere: bool = False) -> Table:
    """A row for each fleet."""
    headings = ("FLEET", "ENGINES", "ADAPTERS", "ROLLING OUT", "ROUTERS", "USED", "READY", "AGE")
    made = table(*(("NAMESPACE",) if everywhere else ()), *headings, right=headings[1:6])
    for one in found:
        status = one.status
        used = status.storage.used_bytes if status.storage else None
        made.add_row(
            *((one.identity.namespace,) if everywhere else ()),
            one.name,
            f"{status.ready_engines}/{status.total_engines}",
            str(status.adapters),
            str(status.rolling_out),
            str(status.routers),
            summary.NONE if used is None else size(used),
            coloured(one),
            age(one.identity.created, now),
        )
    return made


def coloured(found: HasConditions) -> Text:
    """Whether it is ready: green when it is, red for what needs a person, yellow for what is on its way."""
    if found.identity.deleting:
        return Text("Deleting", style="yellow")
    ready, stalled = summary.ready(found), holds(found, ConditionType.STALLED)
    return Text(printable(ready), style="green" if ready == "True" else "red" if stalled else "yellow")
