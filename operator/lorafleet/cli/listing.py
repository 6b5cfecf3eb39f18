"""``lorafleet get``: tables of adapters and fleets. Pure."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from lorafleet.cli import summary
from lorafleet.cli.durations import age, percent
from lorafleet.cli.seen import Adapter, Fleet
from lorafleet.cli.terminal import printable, size, table

_NEUTRAL = ("Unknown", "Suspended", "Publishing", "Loading", "RolloutProgressing", "WaitingForTurn", "Probing")


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
            coloured(summary.ready(one), one.identity.deleting),
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
            coloured(summary.ready(one), one.identity.deleting),
            age(one.identity.created, now),
        )
    return made


def coloured(ready: str, deleting: bool = False) -> Text:
    """What ``ready`` says, green for True, red for what needs a person, yellow for what is on its way."""
    if deleting:
        return Text("Deleting", style="yellow")
    return Text(printable(ready), style="green" if ready == "True" else "yellow" if ready in _NEUTRAL else "red")
