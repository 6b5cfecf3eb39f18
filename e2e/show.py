"""How the demo is shown: a line for each step with its time, tables, and a picture that moves with what it shows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from e2e.world import PROMPT, Failed, until
from lorafleet.cli import picture, seen, summary

T = TypeVar("T")


@dataclass
class Show:
    """The steps so far, and where they are shown."""

    console: Console
    steps: list[tuple[str, float, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, what: str, still: bool = True) -> Iterator[list[str]]:
        """A line that says what happens, then how long it took and what the block put into the list.

        ``still``: nothing else is shown meanwhile.
        """
        found: list[str] = []
        begun = time.monotonic()
        number = len(self.steps) + 1
        if still and self.console.is_terminal:
            with self.console.status(f"[bold]{number}[/] {what} …"):
                yield found
        else:
            self.console.print(f"{number:2d}. {what} …")
            yield found
        taken = time.monotonic() - begun
        result = "; ".join(found)
        self.steps.append((what, taken, result))
        words = (what, (f"  {taken:.1f} s", "dim"), f"  {result}" if result else "")
        self.console.print(Text.assemble((f"{number:2d}. ✓ ", "green"), *words))

    def waiting(self, what: str, probe: Callable[[], T], show: Callable[[], str], deadline: float) -> T:
        """Waits with a line about the progress every few seconds."""
        last = [time.monotonic()]

        def shown() -> T:
            found = probe()
            if not found and time.monotonic() - last[0] > 10:
                last[0] = time.monotonic()
                self.console.print(f"      {show()}", style="dim")
            return found

        return until(what, shown, deadline, pause=0.5)

    def moving(
        self,
        what: str,
        adapter: Callable[[], Any],
        users: Callable[[], str],
        ends: Callable[[Any], bool],
        deadline: float,
    ) -> None:
        """`lorafleet status` of an adapter, again and again until its status is as wanted, with a line of its users.

        Where nothing can be drawn over, each change is a line.
        """
        end, before = time.monotonic() + deadline, ""
        with contextlib.ExitStack() as stack:
            live = stack.enter_context(Live(console=self.console, transient=True)) if self.console.is_terminal else None
            while True:
                found = adapter()
                read = seen.adapter(found)
                if live:
                    parts = picture.adapter(read, datetime.now(UTC), self.console.width)
                    live.update(Group(*parts, Text(), Text(users(), style="bold")))
                elif (line := summary.line(read)) != before:
                    before = line
                    self.console.print(Text(f"      {line}; {users()}"), soft_wrap=True)
                if ends(found.get("status") or {}):
                    return
                if time.monotonic() > end:
                    raise Failed(f"not within {deadline:g} s: {what}; {summary.line(read)}")
                time.sleep(0.2)

    def answers(self, title: str, rows: list[tuple[str, str, str]]) -> None:
        """What was asked and answered, side by side."""
        table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
        for column in ("engine", "model", f"answer to {PROMPT!r}"):
            table.add_column(column)
        for engine, model, answer in rows:
            table.add_row(engine, model, Text(repr(answer)))
        self.console.print(table)

    def requests(self, counts: Mapping[str, int], failed: int) -> None:
        """All requests of the demo's users, by the version that answered."""
        table = Table(title="requests by version", title_justify="left", show_edge=False, pad_edge=False)
        table.add_column("version")
        table.add_column("answered", justify="right")
        for version, count in sorted(counts.items()):
            table.add_row(version, f"{count:,}")
        table.add_row(Text("failed", style="bold"), Text(f"{failed:,}", style="bold red" if failed else "bold green"))
        self.console.print(table)

    def finish(self) -> None:
        """What happened, once more."""
        table = Table(title="what you saw", title_justify="left")
        table.add_column("step", ratio=3)
        table.add_column("seconds", justify="right")
        table.add_column("result", ratio=2)
        for what, taken, result in self.steps:
            table.add_row(Text(what), f"{taken:.1f}", Text(result))
        self.console.print(table)
