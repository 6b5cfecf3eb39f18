"""Which served names engines of a fleet shall have, and what to do about one name on one engine. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lorafleet.api.adapter import LoRAAdapterStatus, VersionPhase
from lorafleet.api.names import engine_path
from lorafleet.rollout.versions import ON_ENGINES


@dataclass(frozen=True)
class Wanted:
    """What one adapter wants on each engine.

    ``load`` maps served names to the paths engines shall load them from; ``keep`` are names that are neither loaded nor
    unloaded, because running requests may use them; ``carrying`` are names with traffic, which come first.
    """

    load: Mapping[str, str]
    keep: frozenset[str]
    carrying: frozenset[str]

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
        keep=frozenset(
            version.served_name for version in named if version.served_name and version.phase is VersionPhase.DRAINING
        ),
        carrying=frozenset(target.served_name for target in status.traffic if target.weight),
    )


class Action(StrEnum):
    """What to do about one name on one engine."""

    NOTHING = "nothing"
    LOAD = "load"
    REPLACE = "replace"
    UNLOAD = "unload"


def action(path: str | None, kept: bool, root: str | None, mount_path: str) -> Action:
    """What to do about a name that is wanted at ``path`` (None: not wanted) and listed at ``root`` (None: not listed).

    The reconcile key is the pair of name and root (vLLM contract, Observing). A name whose root is
    not below the fleet's mount path is somebody else's and left alone.
    """
    if path is not None:
        if root is None:
            return Action.LOAD
        return Action.NOTHING if root == path else Action.REPLACE
    if root is None or kept or not root.startswith(mount_path.rstrip("/") + "/"):
        return Action.NOTHING
    return Action.UNLOAD
