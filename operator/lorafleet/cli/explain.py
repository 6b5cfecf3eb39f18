"""``lorafleet explain``: why an adapter is where it is, in words, and what to do next. Pure.

The words are those of ``sentences``; here is only which of them are true of an adapter, and in which order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lorafleet.api.conditions import ConditionType
from lorafleet.cli.durations import length, percent, since
from lorafleet.cli.picture import over
from lorafleet.cli.seen import Adapter, condition
from lorafleet.cli.sentences import OPERATOR, WATCH, WORDS, Words
from lorafleet.cli.terminal import printable

_MOVES = 4


@dataclass(frozen=True, slots=True)
class Move:
    """A command, and what it is for."""

    command: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """An adapter in words. ``said``: what the operator says of each reason, in its own words."""

    adapter: str
    namespace: str
    reasons: tuple[str, ...]
    sentences: tuple[str, ...]
    said: tuple[str, ...]
    moves: tuple[Move, ...]


def explain(found: Adapter, now: datetime, lorafleet: str, n: str) -> Explanation:
    """The adapter in words. ``lorafleet``: how the user calls the command; ``n``: the option for the namespace."""
    reasons = _reasons(found)
    words = [WORDS.get(reason, _strange(reason)) for reason in reasons]
    sentences = [_serving(found), *_way(found, now), *(one.sentence for one in (*words, *_stale(found)))]
    names = {"adapter": found.name, "fleet": found.fleet, "lorafleet": lorafleet, "n": n}
    commands = [one for each in (*words, *_stale(found)) for one in each.commands]
    moves = {command.format_map(names): why for command, why in reversed(commands)}
    return Explanation(
        adapter=found.name,
        namespace=found.identity.namespace,
        reasons=reasons,
        sentences=tuple(dict.fromkeys(sentences)),
        said=_said(found),
        moves=tuple(Move(command, why) for command, why in reversed(moves.items()))[:_MOVES],
    )


def page(found: Explanation) -> Iterator[RenderableType]:
    """The explanation for a terminal."""
    for sentence in found.sentences:
        yield Text(printable(sentence))
    if found.said:
        yield Text()
        yield Text("The operator says:", style="bold")
        for text in found.said:
            yield Text(f"  {printable(text)}")
    if found.moves:
        yield Text()
        yield Text("Next:", style="bold")
        made = Table(box=None, pad_edge=False, show_edge=False, show_header=False, padding=(0, 2, 0, 0))
        made.add_column(style="cyan", no_wrap=True)
        made.add_column(no_wrap=True)
        for move in found.moves:
            made.add_row(f"  {move.command}", move.why)
        yield made


def document(found: Explanation) -> dict[str, Any]:
    """The explanation for programs."""
    return {
        "schemaVersion": 1,
        "adapter": found.adapter,
        "namespace": found.namespace,
        "reasons": list(found.reasons),
        "sentences": list(found.sentences),
        "said": list(found.said),
        "next": [{"command": move.command, "why": move.why} for move in found.moves],
    }


def _reasons(found: Adapter) -> tuple[str, ...]:
    """The reasons that say why it is where it is, the most telling first."""
    rollout, active = found.status.rollout, found.active
    ready = condition(found, ConditionType.READY)
    taken_back = found.aborted(active) if active is not None else None
    about = [rollout.held if rollout else None, taken_back, ready.reason if ready else None]
    told = list(dict.fromkeys(reason for reason in about if reason))
    if len(told) > 1 and told[-1] in ("RolloutProgressing", "Serving"):
        told.pop()
    return tuple(told)


def _serving(found: Adapter) -> str:
    shares = [f"{target.version} with {target.weight}%" for target in found.status.traffic if target.weight]
    if not shares:
        return f"{found.name} of fleet {found.fleet} serves no version."
    if len(shares) == 1:
        only = next(target.version for target in found.status.traffic if target.weight)
        return f"{found.name} of fleet {found.fleet} serves {only} to all requests."
    return f"{found.name} of fleet {found.fleet} serves {', '.join(shares[:-1])} and {shares[-1]} of the requests."


def _way(found: Adapter, now: datetime) -> Iterator[str]:
    """Where its rollout is."""
    at = found.status.rollout
    if at is None:
        return
    begun = since(at.started_at, now) or 0.0
    head = f"{at.version} has been on its way to all requests for {length(begun)}"
    if not 0 < at.step <= len(found.steps):
        where = "it has not taken its first step" if at.step == 0 else "all its steps are done"
        yield f"{head}; {where}."
        return
    step = found.steps[at.step - 1]
    following = found.steps[at.step].weight if at.step < len(found.steps) else 100
    yield f"{head}; it is at step {at.step} of {len(found.steps)}, {step.weight}%, and {following}% comes next."
    if step.pause_seconds:
        left = step.pause_seconds - over(step, at, now)
        counts = "" if at.step_since and not at.paused else "; the clock stands now"
        yield f"Of the step's {step.pause}, {length(left)} are left{counts}."
    version = found.version(at.version)
    stats = version.statistics if version else None
    if stats and stats.success_rate is not None:
        errors = percent(1 - stats.success_rate)
        yield f"{at.version} had {stats.request_count:,} requests; {errors} of the latest failed."


def _said(found: Adapter) -> tuple[str, ...]:
    """The operator's own messages behind the reasons; none that is part of another."""
    rollout, active = found.status.rollout, found.active
    texts = [rollout.message or ""] if rollout else []
    if active is not None and found.aborted(active):
        texts += [one.message for one in found.status.aborted if one.version == active]
    ready = condition(found, ConditionType.READY)
    if ready and ready.status != "True":
        texts.append(ready.message)
    alone = dict.fromkeys(text for text in texts if not any(text in other for other in texts if other != text))
    return tuple(text for text in alone if text)


def _stale(found: Adapter) -> Iterator[Words]:
    """Why what is known may be old or not all there is."""
    if found.trouble:
        yield Words(f"{found.trouble[0].upper()}{found.trouble[1:]}.")
    ready = condition(found, ConditionType.READY)
    if ready is None:
        yield Words("The operator has said nothing of it yet.", (OPERATOR, WATCH))
    elif ready.observed_generation < found.identity.generation:
        yield Words("The spec has changed since the operator last looked at it.", (OPERATOR, WATCH))


def _strange(reason: str) -> Words:
    return Words(f"This release of the command does not know the reason {reason}.")
