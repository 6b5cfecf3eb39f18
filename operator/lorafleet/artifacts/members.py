"""What archives of every kind have in common: members by name, and the refusal of what none may hold.

Nothing here or in the readers of tar and zip writes to a file system. A name is only compared, never opened.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError

Chunk = bytes | memoryview
"""Bytes of a file; a memoryview is valid until the next chunk is asked for."""

CHUNK_BYTES = 1024 * 1024
MAX_NAME_BYTES = 4096


class Kind(Enum):
    """What a member is. Devices and pipes are no kind: an archive that has one is refused."""

    FILE = auto()
    FOLDER = auto()
    LINK = auto()


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its path below the archive's root without ``.`` and empty parts, and its size in bytes."""

    path: str
    kind: Kind
    size: int


class Members(Protocol):
    """An archive that can be read as often as asked for."""

    def listing(self) -> Iterator[Member]:
        """All members; the end is reached only by an archive that is whole."""
        ...

    def contents(self, paths: Set[str]) -> Iterator[tuple[Member, Iterator[Chunk]]]:
        """These files in the archive's own order; the chunks of one are read before the next is asked for."""
        ...


def member(where: str, name: bytes, kind: Kind, size: int) -> Member:
    """A member by the name that the archive gives it. Raises ArtifactError (UnsafePath, ArchiveInvalid)."""
    if len(name) > MAX_NAME_BYTES or b"\0" in name:
        raise invalid(where, f"has a name of {len(name)} bytes, or one with a NUL in it: {name[:80]!r}")
    text = name.decode("utf-8", "surrogateescape")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts:
        raise unsafe(where, name, "is a path that leaves the archive's own folder")
    return Member("/".join(parts), kind, size)


def unsafe(where: str, name: bytes | str, what: str) -> ArtifactError:
    """The refusal of a member that could do harm when it is unpacked by another tool than this one."""
    return ArtifactError(
        Reason.UNSAFE_PATH,
        f"{where} holds {name[:200]!r}, which {what}; expected regular files below one folder: make the archive of the"
        " adapter's folder alone and publish it as a new version",
    )


def invalid(where: str, what: str) -> ArtifactError:
    """The refusal of an archive that is damaged, or that two tools may read in two ways."""
    return ArtifactError(
        Reason.ARCHIVE_INVALID,
        f"{where} {what}; make the archive again with tar or zip and publish it as a new version",
    )


def too_large(where: str, what: str) -> ArtifactError:
    """The refusal of an archive that unpacks to more than an adapter is."""
    return ArtifactError(Reason.SIZE_LIMIT_EXCEEDED, f"{where} {what}: make the archive of the adapter's folder alone")
