"""Whether engines have a place for one more adapter. Pure.

vLLM keeps ``--max-cpu-loras`` adapters; one more would make it read others from the volume again and again, inside the
engine's own step (vLLM contract, Capacity). So a version waits for a place before it is loaded anywhere. Whatever has a
place keeps it: the version that a new one replaces, until it is unloaded, as well.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """The places on a fleet's engines, as one adapter sees them.

    ``limit``: the smallest ``--max-cpu-loras``. ``held``: served names that have a place on some engine or are promised
    one. ``waiting``: how many versions wait, and ``ahead``: how many of them are of older adapters, which come first.
    ``wanted_back``: how many of this adapter's kept versions (``versions[].kept``) must go, because versions of others
    wait for a place; it is also given to an adapter that needs no place itself.
    """

    limit: int
    held: frozenset[str]
    waiting: int = 0
    ahead: int = 0
    wanted_back: int = 0

    def refusal(self, served: str, taken: frozenset[str] = frozenset()) -> str | None:
        """Why a version gets no place, in a sentence; None when it gets one. ``taken``: given in this very decision."""
        held = self.held | taken
        if served in held or self.limit - len(held) > self.ahead:
            return None
        adapter = served.partition("/")[0]
        own = sum(name.partition("/")[0] == adapter for name in held)
        both = "; a switch needs room for the old and the new version at once" if own else ""
        first = f", {self.ahead} of them by older adapters, which come first" if self.ahead else ""
        return (
            f"engines hold {len(held)} adapters (--max-cpu-loras {self.limit}) and {max(self.waiting, 1)} more wait for"
            f" a place{first}: raise --max-cpu-loras on the engines, or retire an adapter of the fleet{both}"
        )
