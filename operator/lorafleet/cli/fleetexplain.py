"""``lorafleet explain fleet/NAME``: why a fleet is as it is, in words, and what to do next. Pure."""

from collections.abc import Iterator

from lorafleet.api.conditions import ConditionType
from lorafleet.api.reasons import Reason
from lorafleet.cli.explanation import Explanation, alone, explanation, stale, unchecked, words_of
from lorafleet.cli.seen import Fleet, condition
from lorafleet.cli.sentences import EDIT, EDIT_FLEET, FLEET, STATUS, Words

_INSTEAD = {STATUS: FLEET.replace("{n}", " -w{n}"), EDIT: EDIT_FLEET}
"""The commands about a fleet in the place of those about an adapter."""


def explain(found: Fleet, lorafleet: str, n: str) -> Explanation:
    """The fleet in words. ``lorafleet``: how the user calls the command; ``n``: the option for the namespace."""
    reasons = _reasons(found)
    return explanation(
        "fleet",
        found,
        reasons=reasons,
        where=_where(found),
        words=[_of_fleet(words) for words in (*map(words_of, reasons), *stale(found))],
        said=_said(found),
        names={"fleet": found.name, "lorafleet": lorafleet, "n": n},
    )


def _of_fleet(words: Words) -> Words:
    commands = ((_INSTEAD.get(command, command), why) for command, why in words.commands)
    return Words(words.sentence, tuple(one for one in commands if "{adapter}" not in one[0]))


def _reasons(found: Fleet) -> tuple[str, ...]:
    """The reasons that say why it is as it is; of several ill engines those of each."""
    ready = condition(found, ConditionType.READY)
    told = [ready.reason] if ready else []
    if told == [Reason.ENGINES_UNHEALTHY]:
        told += [one.reason for one in found.status.engines if one.reason and not one.ready]
    return tuple(dict.fromkeys((*told, *(one.reason for one in unchecked(found)))))


def _where(found: Fleet) -> Iterator[str]:
    status = found.status
    adapters = _of(status.adapters, "adapter")
    rolling = "one rolls" if status.rolling_out == 1 else f"{status.rolling_out} roll"
    moving = f", of which {rolling} out now" if status.rolling_out else ""
    engines = f"{status.ready_engines} of {_of(status.total_engines, 'engine')}"
    yield f"{engines} of {found.name} can be used for its {adapters}{moving}."
    behind = [one for one in status.engines if one.ready and (one.catching_up or one.missing)]
    for one in behind[:3]:
        rest = "gets no request until then" if one.catching_up else "gets no request for what it lacks"
        yield f"{one.name} is still loading ({one.loaded} of {one.wanted}) and {rest}."
    if len(behind) > 3:
        yield f"{len(behind) - 3} more engines are still loading."
    memory = status.memory
    if memory and memory.max_cpu_loras is not None and memory.wanted >= memory.max_cpu_loras:
        yield f"All {memory.max_cpu_loras} places of an engine are taken (--max-cpu-loras), so new versions wait."
    if status.adapters and not status.routers:
        yield "No router answered when they were last asked, so there are no numbers of what clients see."
    if gone := len(status.pending_removals):
        yield f"{_of(gone, 'version')} of adapters that are gone will be removed when no engine lists them any more."


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _said(found: Fleet) -> tuple[str, ...]:
    """The operator's own messages; none where all is well."""
    ready = condition(found, ConditionType.READY)
    texts = [ready.message] if ready and ready.reason != Reason.ENGINES_HEALTHY else []
    known = "".join(texts)
    texts += [f"{one.name}: {one.message}" for one in found.status.engines if one.message and one.message not in known]
    return alone([*texts, *(one.message for one in unchecked(found))])
