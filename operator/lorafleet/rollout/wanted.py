"""Which served names engines of a fleet shall have, and what to do about one name on one engine. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lorafleet.api.adapter import LoRAAdapterStatus, VersionPhase, VersionStatus
from lorafleet.api.names import engine_path
from lorafleet.rollout.versions import ON_ENGINES, waits_for_room

_SERVED = re.compile(r"[^/]+/[^/]+-[0-9a-f]{12}")


@dataclass(frozen=True)
class Wanted:
    """What one adapter wants on each engine.

    ``load`` maps served names to the paths engines shall load them from; ``oldest`` says which need an engine of at
    least a version; ``keep`` are names that are neither loaded nor
    unloaded, because running requests may use them; ``carrying`` are names with traffic, which come first; ``waits``
    are names that engines have no place for.
    """

    load: Mapping[str, str]
    keep: frozenset[str]
    carrying: frozenset[str]
    oldest: Mapping[str, str] = field(default_factory=dict)
    waits: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All names this is about."""
        return self.keep | self.load.keys()


NOTHING = Wanted({}, frozenset(), frozenset())


def wanted(status: LoRAAdapterStatus, mount_path: str) -> Wanted:
    """What an adapter wants, from its status alone, so that a restart of the operator changes nothing."""
    named = [version for version in status.versions if version.served_name is not None]
    return Wanted(
        load={
            version.served_name: engine_path(mount_path, version.served_name)
            for version in named
            if version.served_name and version.phase in ON_ENGINES
        },
        keep=frozenset(version.served_name for version in named if version.served_name and _left_alone(version)),
        carrying=frozenset(target.served_name for target in status.traffic if target.weight),
        oldest={
            version.served_name: version.min_engine for version in named if version.served_name and version.min_engine
        },
        waits=frozenset(version.served_name for version in named if version.served_name and waits_for_room(version)),
    )


def _left_alone(version: VersionStatus) -> bool:
    """Neither loaded nor unloaded: requests may use it, or nothing but its name is known since a loss."""
    return version.phase is VersionPhase.DRAINING or version.digest is None


class Action(StrEnum):
    """What to do about one name on one engine."""

    NOTHING = "nothing"
    LOAD = "load"
    REPLACE = "replace"
    UNLOAD = "unload"


def ours(served: str, root: str) -> bool:
    """Whether an engine's adapter is a version that a fleet of ours published: by its name and its path.

    The path may lie below another mount path than the fleet has now: a served name stands for the same bytes anywhere.
    """
    return _SERVED.fullmatch(served) is not None and root.endswith(f"/{served}")


def action(served: str, path: str | None, kept: bool, root: str | None) -> Action:
    """What to do about a name that is wanted at ``path`` (None: not wanted) and listed at ``root`` (None: not listed).

    The reconcile key is the pair of name and root (vLLM contract, Observing). What is not ours is left alone.
    """
    if path is not None:
        if root is None:
            return Action.LOAD
        return Action.NOTHING if root == path or ours(served, root) else Action.REPLACE
    if root is None or kept or not ours(served, root):
        return Action.NOTHING
    return Action.UNLOAD
