"""``lorafleet history``: what happened to which version of an adapter serves. Pure."""

from datetime import datetime

from rich.table import Table
from rich.text import Text

from lorafleet.cli.durations import age, clock
from lorafleet.cli.seen import Adapter
from lorafleet.cli.terminal import printable, table

_STYLES = {"Served": "green", "Promoted": "green", "Aborted": "red", "RolledBack": "red"}


def history(found: Adapter, now: datetime) -> Table:
    """A row for each entry, the newest last."""
    made = table("AT", "AGE", "VERSION", "WHAT", "MESSAGE", right=("AGE",), fold=("MESSAGE",))
    for entry in found.status.history:
        made.add_row(
            clock(entry.at),
            age(entry.at, now),
            entry.version,
            Text(entry.what, style=_STYLES.get(entry.what, "")),
            Text(printable(entry.message)),
        )
    return made
