"""An explanation of an adapter or a fleet: what it has, its page and its document. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from lorafleet.api.conditions import Condition, ConditionType
from lorafleet.cli.seen import Adapter, Fleet, condition
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
    """An object in words. ``kind``: adapter or fleet; ``said``: what the operator says, in its own words."""

    kind: str
    name: str
    namespace: str
    reasons: tuple[str, ...]
    sentences: tuple[str, ...]
    said: tuple[str, ...]
    moves: tuple[Move, ...]


def explanation(
    kind: str,
    found: Adapter | Fleet,
    *,
    reasons: Sequence[str],
    where: Iterable[str],
    words: Sequence[Words],
    said: Sequence[str],
    names: Mapping[str, str],
) -> Explanation:
    """Put together: ``where`` the object is, then ``words``; ``names``: what stands for what in their commands."""
    commands = [one for each in words for one in each.commands]
    moves = {command.format_map(names): why for command, why in reversed(commands)}
    return Explanation(
        kind=kind,
        name=found.name,
        namespace=found.identity.namespace,
        reasons=tuple(reasons),
        sentences=tuple(dict.fromkeys((*where, *(one.sentence for one in words)))),
        said=tuple(said),
        moves=tuple(Move(command, why) for command, why in reversed(moves.items()))[:_MOVES],
    )


def words_of(reason: str) -> Words:
    """What a reason means, also one of a later release."""
    return WORDS.get(reason, Words(f"This release of the command does not know the reason {reason}."))


def unchecked(found: Adapter | Fleet) -> Iterator[Condition]:
    """What a person should look at though it serves."""
    one = condition(found, ConditionType.CHECKED)
    if one is not None and one.status == "False":
        yield one


def stale(found: Adapter | Fleet) -> Iterator[Words]:
    """Why what is known may be old or not all there is."""
    if found.trouble:
        yield Words(f"{found.trouble[0].upper()}{found.trouble[1:]}.")
    ready = condition(found, ConditionType.READY)
    if ready is None:
        yield Words("The operator has said nothing of it yet.", (OPERATOR, WATCH))
    elif ready.observed_generation < found.identity.generation:
        yield Words("The spec has changed since the operator last looked at it.", (OPERATOR, WATCH))


def alone(texts: Sequence[str]) -> tuple[str, ...]:
    """Those that are no part of another, each once."""
    return tuple(
        text for text in dict.fromkeys(texts) if text and not any(text in other for other in texts if other != text)
    )


def page(found: Explanation) -> Iterator[Text]:
    """The explanation for a terminal; lines with ``no_wrap`` are never broken."""
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
        longest = max(len(move.command) for move in found.moves)
        for move in found.moves:
            # Not folded: it is there to be copied.
            yield Text.assemble(
                "  ", (move.command, "cyan"), " " * (longest - len(move.command)), "  ", move.why, no_wrap=True
            )


def document(found: Explanation) -> dict[str, Any]:
    """The explanation for programs."""
    return {
        "schemaVersion": 1,
        found.kind: found.name,
        "namespace": found.namespace,
        "reasons": list(found.reasons),
        "sentences": list(found.sentences),
        "said": list(found.said),
        "next": [{"command": move.command, "why": move.why} for move in found.moves],
    }
