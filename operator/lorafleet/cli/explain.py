"""``lorafleet explain``: why an adapter is where it is, in words, and what to do next. Pure.

The words are those of ``sentences``; here is only which of them are true of an adapter, and in which order.
"""

from collections.abc import Iterator
from datetime import datetime

from lorafleet.api.conditions import ConditionType
from lorafleet.cli.durations import length, percent, since
from lorafleet.cli.explanation import Explanation, alone, explanation, stale, unchecked, words_of
from lorafleet.cli.picture import over
from lorafleet.cli.seen import Adapter, condition


def explain(found: Adapter, now: datetime, lorafleet: str, n: str) -> Explanation:
    """The adapter in words. ``lorafleet``: how the user calls the command; ``n``: the option for the namespace."""
    reasons = _reasons(found)
    return explanation(
        "adapter",
        found,
        reasons=reasons,
        where=(_serving(found), *_way(found, now)),
        words=[*map(words_of, reasons), *stale(found)],
        said=_said(found),
        names={"adapter": found.name, "fleet": found.fleet, "lorafleet": lorafleet, "n": n},
    )


def _reasons(found: Adapter) -> tuple[str, ...]:
    """The reasons that say why it is where it is, the most telling first."""
    rollout, active = found.status.rollout, found.active
    ready = condition(found, ConditionType.READY)
    taken_back = found.aborted(active) if active is not None else None
    about = [rollout.held if rollout else None, taken_back, ready.reason if ready else None]
    told = list(dict.fromkeys(reason for reason in about if reason))
    if len(told) > 1 and told[-1] in ("RolloutProgressing", "Serving"):
        told.pop()
    return (*told, *(one.reason for one in unchecked(found) if one.reason not in told))


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
    return alone([*texts, *(one.message for one in unchecked(found))])
