"""``lorafleet status``: the picture of an adapter and its rollout. Pure: the clock is a parameter, nothing is decided.

A page is a list of parts that go one below the other, tables and lines; each is left out when there is nothing in it.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lorafleet.api.adapter import VersionStatus
from lorafleet.api.conditions import Condition
from lorafleet.api.rollout import RolloutStep
from lorafleet.api.rolloutstatus import AnalysisStatus, RolloutPhase, RolloutStatus
from lorafleet.cli import summary
from lorafleet.cli.durations import age, clock, length, milliseconds, percent, since
from lorafleet.cli.listing import coloured
from lorafleet.cli.seen import Adapter
from lorafleet.cli.terminal import printable, table

WIDE = 120
"""Columns of a terminal that has room for everything."""
_VERDICTS = {"Passed": "green", "Failed": "bold red", "Undecided": "yellow"}


class Mark(StrEnum):
    """Where a step is."""

    DONE = "✓"
    HERE = "▶"
    LATER = "·"


def adapter(found: Adapter, now: datetime, width: int = WIDE) -> Iterator[RenderableType]:
    """The parts of the page, for a terminal of so many columns."""
    yield _title(found)
    if found.trouble:
        yield Text(printable(found.trouble), style="red")
    if found.status.rollout is not None:
        at = found.status.rollout
        begun = f"{summary.standing(at)}, begun {age(at.started_at, now)} ago"
        yield Text()
        yield Text.assemble((f"rollout of {at.version}  ", "bold"), begun)
        yield _steps(found, at, now)
        yield from _held(at)
    if found.status.versions:
        yield Text()
        yield _versions(found, now, width >= WIDE)
    if found.status.rollout is not None and found.status.rollout.analysis is not None:
        yield Text()
        yield from _judgement(found, found.status.rollout.analysis, now)
    yield from _aborted(found)
    if found.status.action_message:
        yield Text()
        yield Text.assemble(("last verb  ", "bold"), _verb(found.status.last_handled_action))
        yield Text(f"  {printable(found.status.action_message)}")
    if found.conditions:
        yield Text()
        yield conditions(found.conditions, now)


def bar(weight: int, long: int) -> str:
    """A share of the requests as a bar; the smallest share is seen, and only all of them fill it."""
    full = round(weight * long / 100)
    if 0 < weight < 100:
        full = min(max(full, 1), long - 1)
    return "█" * full + "░" * (long - full)


def conditions(found: tuple[Condition, ...], now: datetime) -> Table:
    """What the operator says of the object; a message that comes again is not shown again."""
    made = table("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE", fold=("MESSAGE",))
    told: set[str] = set()
    for one in found:
        text = "" if one.message in told else printable(one.message)
        made.add_row(one.type, one.status, one.reason, age(one.last_transition_time, now), Text(text))
        told.add(one.message)
    return made


def over(step: RolloutStep, now_at: RolloutStatus, now: datetime) -> float:
    """Seconds of the present step's pause that are over."""
    running = since(now_at.step_since, now) or 0.0
    return min(max(0.0, now_at.step_done + running), step.pause_seconds)


def _title(found: Adapter) -> Text:
    identity = found.identity
    stable, target = found.status.stable_version, found.target
    way = f"{stable or 'nothing'} → {target}" if target != stable else f"{stable or 'nothing serves'}"
    return Text.assemble(
        (found.name, "bold"), f"  {way}  ", coloured(found),
        (f"  fleet {found.fleet}, namespace {identity.namespace}", "dim"),
    )  # fmt: skip


def _steps(found: Adapter, at: RolloutStatus, now: datetime) -> Table:
    """The steps with the present one, and the end, which is no step."""
    made = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    for _ in range(3):
        made.add_column(no_wrap=True)
    for number, step in enumerate(found.steps, 1):
        mark = Mark.HERE if number == at.step else Mark.DONE if number < at.step else Mark.LATER
        note = _pause(step)
        if mark is Mark.HERE:
            note = _present(step, at, now)
        elif mark is Mark.LATER and at.full:
            note = "skipped: all traffic was asked for"
        style = {Mark.DONE: "green", Mark.HERE: "bold cyan", Mark.LATER: "dim"}[mark]
        made.add_row(Text(mark, style=style), Text(f"{step.weight:>3}%", style=style), Text(note, style=style))
    here = at.step > len(found.steps)
    made.add_row(
        Text(Mark.HERE if here else Mark.LATER, style="dim"), Text("100%", style="dim"), Text("promoted", style="dim")
    )
    return made


def _pause(step: RolloutStep) -> str:
    if step.waits_for_a_person:
        return "waits for promote"
    return f"for {step.pause}" if step.pause else "until it has passed"


def _present(step: RolloutStep, at: RolloutStatus, now: datetime) -> str:
    if at.phase is RolloutPhase.PAUSED and not step.waits_for_a_person:
        return f"{_pause(step)}, paused after {length(over(step, at, now))}"
    if step.waits_for_a_person or not step.pause:
        return _pause(step)
    left = step.pause_seconds - over(step, at, now)
    if left <= 0:
        return f"{_pause(step)}, which are over"
    stands = "" if at.step_since else ", and does not count now"
    return f"{_pause(step)}, {length(left)} left{stands}"


def _held(at: RolloutStatus) -> Iterator[RenderableType]:
    if at.held or at.message:
        text = f": {printable(at.message)}" if at.message else ""
        yield Text.assemble(("held ", "bold yellow"), (printable(at.held or ""), "yellow"), text)


def _versions(found: Adapter, now: datetime, wide: bool) -> Table:
    """A row for each version; without what is least telling where there is no room."""
    more = ("PROBED", "FIRST TOKEN", "USED") if wide else ()
    numbers = ("ENGINES", "REQUESTS", "ERRORS", "LATENCY", *more)
    made = table("VERSION", "WEIGHT", "", *numbers, "PHASE", right=("", *numbers), fold=("PHASE",))
    for version in found.status.versions:
        weight = found.weight(version.name)
        stats = version.statistics
        rate = stats.success_rate if stats else None
        cells = [
            _count(version.loaded_engines, version.ready_engines),
            f"{stats.request_count:,}" if stats else "",
            percent(1 - rate) if rate is not None else "",
            milliseconds(stats.average_latency_ms if stats else None),
        ]
        if wide:
            cells.append(_count(version.probed_engines, version.ready_engines))
            cells.append(milliseconds(stats.average_first_token_ms if stats else None))
            cells.append(age(stats.last_used if stats else None, now))
        made.add_row(
            Text(version.name, style="bold" if weight else "dim"),
            Text(bar(weight, 20 if wide else 10), style=_colour(found, version)),
            f"{weight}%",
            *(cell or summary.NONE for cell in cells),
            _phase(found, version),
        )
    return made


def _colour(found: Adapter, version: VersionStatus) -> str:
    if version.name == found.status.stable_version:
        return "green"
    return "cyan" if found.weight(version.name) else "dim"


def _count(number: int | None, of: int | None) -> str:
    return "" if number is None else f"{number}/{of or 0}"


def _phase(found: Adapter, version: VersionStatus) -> Text:
    """How far it is, and what else is to know of it."""
    notes = [version.phase.value]
    reason = found.aborted(version.name)
    if version.name == found.status.stable_version:
        notes.append("stable")
    if version.kept:
        notes.append("kept for rollback")
    if reason:
        notes.append(f"taken back: {reason}")
    if version.reason and not reason:
        notes.append(version.reason)
    return Text(printable(", ".join(notes)), style="red" if reason or version.phase == "Failed" else "")


def _judgement(found: Adapter, last: AnalysisStatus, now: datetime) -> Iterator[RenderableType]:
    analysis = found.spec.rollout.analysis if found.spec and found.spec.rollout else None
    row = f", failure {last.failures} of {analysis.failure_limit} in a row" if analysis and last.failures else ""
    verdict = (last.verdict, _VERDICTS.get(last.verdict, ""))
    about = f" {age(last.at, now)} ago, of {last.requests:,} requests{row}"
    yield Text.assemble(("judgement ", "bold"), verdict, about)
    if last.measures:
        made = table("MEASURE", "VALUE", "PASSES", "VERDICT", "FOUND", right=("VALUE",), fold=("FOUND",))
        for one in last.measures:
            made.add_row(
                printable(one.name),
                summary.NONE if one.value is None else f"{one.value:.4g}",
                printable(one.bound),
                Text(one.verdict, style=_VERDICTS.get(one.verdict, "")),
                Text(printable(one.message)),
            )
        yield made


def _aborted(found: Adapter) -> Iterator[RenderableType]:
    for one in found.status.aborted:
        yield Text()
        head = f"{one.version} was taken back"
        yield Text.assemble((head, "bold red"), f" at {clock(one.at)}: {one.reason}")
        yield Text(f"  {printable(one.message)}")


def _verb(handled: str | None) -> str:
    return printable((handled or "").rpartition("@")[0] or handled or "")
