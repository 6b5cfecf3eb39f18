"""The seam between where bytes come from and where they go.

A source lists an adapter's files and pushes their bytes into a sink; it never knows where they end up and never
writes to the volume itself. The sink writes, hashes, counts progress and may end the transfer by raising.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from lorafleet.artifacts.digest import FileDigest


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One of the adapter's files at its source: path relative to the adapter's folder, and size in bytes."""

    path: str
    size: int


class Sink(Protocol):
    """Takes the bytes of one file after another."""

    def receive(self, path: str, size: int, chunks: Iterable[memoryview]) -> FileDigest:
        """Take a file of ``size`` bytes; a chunk is valid until the next is asked for.

        Raises ArtifactError (SourceChanged) when there are more or fewer bytes, and OSError.
        """
        ...


class Source(Protocol):
    """An adapter's files somewhere."""

    def describe(self) -> Mapping[str, str]:
        """Where this is, for people: kept in the published manifest, without secrets."""
        ...

    def list_files(self) -> tuple[SourceFile, ...]:
        """The adapter's files (``artifacts.files``), sorted by path. Raises ArtifactError."""
        ...

    def fetch(self, sink: Sink) -> tuple[FileDigest, ...]:
        """Push all files into ``sink``; the answers are those of the sink.

        Raises ArtifactError: SourceNotFound, SourceChanged when the files changed meanwhile, or what the folder is
        refused for. What the sink raises passes through.
        """
        ...
