"""Which of the written configurations Envoy runs by. Pure.

Envoy takes each file by itself, and while it takes one the next may be written already. So a configuration is in force
when Envoy has, of each of its files, that version or one that was written later.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

MOST = 100
"""Configurations that are followed at a time."""


@dataclass(frozen=True)
class Written:
    """A configuration: the version of each file, the resource version it is of, when its change was first seen."""

    files: Mapping[str, str]
    resource_version: int
    since: float
    at: float


class Pending:
    """The written configurations that are not known to be in force, the oldest first."""

    def __init__(self) -> None:
        self._written: list[Written] = []

    def __bool__(self) -> bool:
        return bool(self._written)

    @property
    def oldest(self) -> Written:
        """The one that waits longest."""
        return self._written[0]

    def add(self, one: Written) -> None:
        """A configuration was written."""
        self._written.append(one)
        if len(self._written) > MOST:
            # What came after it stands for it; the oldest says since when nothing is taken.
            del self._written[1]

    def settle(self, running: Set[str]) -> list[Written]:
        """Takes out what is in force when Envoy runs by these versions of files, the oldest first."""
        later: dict[str, set[str]] = {}
        for index in range(len(self._written) - 1, -1, -1):
            for name, version in self._written[index].files.items():
                later.setdefault(name, set()).add(version)
            if all(later[name] & running for name in self._written[index].files):
                settled, self._written = self._written[: index + 1], self._written[index + 1 :]
                return settled
        return []
