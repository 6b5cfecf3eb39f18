"""The seam between where bytes come from and where they go.

A source lists an adapter's files and reads one of them from a given byte on. It never writes, never retries for long
and keeps nothing between calls: whoever fetches (``store.transfer``) resumes, tries again, fetches files side by side,
hashes, counts progress and ends the transfer. Several threads may read different files of one source at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Chunk = bytes | memoryview
"""Bytes of a file; a memoryview is valid until the next chunk is asked for."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a source says of a file's content. ``algorithm``: ``sha256``, ``git`` (blob id, SHA-1) or ``md5``; hex."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file at its source.

    ``path``: its name in the adapter's folder, or, for an archive, a name for people. ``size`` in bytes, None when the
    source does not say. ``identity``: text that is the same only for the same bytes (an ETag, a version id, a digest,
    the times of a file); a transfer that was broken off goes on only under the same one. ``locator``: where the source
    finds it, for the source alone. ``archive``: the adapter's files are in it, see ``artifacts.archive``; of several
    archives in a listing (layers of an image), which then holds nothing else, a later one's files replace an earlier's.
    """

    path: str
    size: int | None
    identity: str
    locator: str = ""
    checksum: Checksum | None = None
    archive: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds now.

    ``pin``: what its moving name stands for (a commit, a manifest's digest, versions of objects), empty when the source
    has none. A source that was opened with a pin answers for that pin alone. ``files`` are those that
    ``artifacts.files.select`` chose, sorted by path; archives are chosen from later, when they are unpacked.
    """

    pin: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Job has what a source needs: the root of its claim, and the folder of its Secret's keys as files."""

    claim: Path | None = None
    secret: Path | None = None


class Source(Protocol):
    """An adapter's files somewhere."""

    def describe(self) -> Mapping[str, str]:
        """Where this is, for people: kept in the published manifest, without secrets."""
        ...

    def listing(self) -> Listing:
        """The adapter's files. Raises ArtifactError; retryable where asking again may help."""
        ...

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of a file from byte ``start`` to its end; a generator, closed by whoever stops early.

        Raises ArtifactError: SourceUnreachable for what asking again soon may cure (a cut connection, 5xx, 429),
        SourceChanged when the file is not that of the listing, and others for what is final or a person must mend.
        """
        ...

    def confirm(self, listing: Listing) -> None:
        """Called after the last byte: raises ArtifactError (SourceChanged) when the files changed meanwhile."""
        ...
