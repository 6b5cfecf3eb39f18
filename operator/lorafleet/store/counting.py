"""Size and hashes of one file as its bytes go by: those that were received, and those of them that are written.

What is received is hashed before it is written, perhaps by another thread, so each piece carries the state of the hash
after it: a mark says the hash of what is written, and no more.
"""

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import CHUNK_BYTES, FileDigest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, check_sizes
from lorafleet.sources.base import Checksum, Chunk, SourceFile
from lorafleet.store.attempts import Head
from lorafleet.store.reading import Chunks


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file. ``done``: how many there are with it, and ``hash``: the sha256 of all these, as a state."""

    chunk: Chunk
    done: int
    hash: "hashlib._Hash"


Pieces = Generator[Piece, None, None]


class BadHead(Exception):
    """What a former attempt left is not what it marked."""


class Counted:
    """What was received of a file. ``look`` sees all of it, too."""

    def __init__(self, file: SourceFile, limits: Limits, look: Callable[[Chunk], None] | None) -> None:
        self._file = file
        self._limits = limits
        self._look = look
        self._hash = hashlib.sha256()
        self._other = None if file.checksum is None else _other_hash(file.checksum, file.size)
        self.done = 0

    def of(self, chunks: Chunks) -> Pieces:
        """The next chunks, each counted. Raises as ``add`` does."""
        with closing(chunks):
            for chunk in chunks:
                yield self.add(chunk)

    def add(self, chunk: Chunk) -> Piece:
        """Count and hash. Raises ArtifactError (SourceChanged, SizeLimitExceeded)."""
        self.done += len(chunk)
        if self._file.size is None:
            check_sizes([(self._file.path, self.done)], self._limits)
        elif self.done > self._file.size:
            raise self._changed("more")
        self._hash.update(chunk)
        if self._other is not None:
            self._other.update(chunk)
        if self._look is not None:
            self._look(chunk)
        return Piece(chunk, self.done, self._hash.copy())

    def finish(self) -> FileDigest:
        """The file as digests are made of. Raises ArtifactError (SourceChanged, SourceCorrupt) unless it is as said."""
        if self._file.size is not None and self.done != self._file.size:
            raise self._changed("fewer")
        said = self._file.checksum
        found = (self._other or self._hash).hexdigest()
        if said is not None and found != said.value:
            raise ArtifactError(
                Reason.SOURCE_CORRUPT,
                f"{self._file.path} has {said.algorithm} {found}; its source says {said.value}: the bytes were damaged"
                " at the source or on the way, twice; restore the file, and it is tried again",
            )
        return FileDigest(self._file.path, self.done, self.sha256)

    @property
    def sha256(self) -> str:
        """Of what was received so far."""
        return self._hash.hexdigest()

    def _changed(self, how: str) -> ArtifactError:
        return ArtifactError(
            Reason.SOURCE_CHANGED,
            f"{self._file.path} has {how} bytes than the {self._file.size} it had at first; expected a source that"
            " nobody writes to: finish writing and it is tried again",
        )


class Written:
    """How much of a file is written."""

    def __init__(self) -> None:
        self.done = 0
        self._hash = hashlib.sha256()

    def add(self, piece: Piece) -> None:
        """This piece is written."""
        self.done, self._hash = piece.done, piece.hash

    @property
    def sha256(self) -> str:
        """Of these bytes."""
        return self._hash.hexdigest()


def head_of(head: Head, counted: Counted) -> Iterator[Piece]:
    """The marked beginning of a file. Raises BadHead when it is not what was marked."""
    try:
        with head.path.open("rb", buffering=0) as file:
            while counted.done < head.size:
                chunk = file.read(min(CHUNK_BYTES, head.size - counted.done))
                if not chunk:
                    raise BadHead
                yield counted.add(chunk)
    except FileNotFoundError:
        raise BadHead from None
    if counted.sha256 != head.sha256:
        raise BadHead


def _other_hash(said: Checksum, size: int | None) -> "hashlib._Hash | None":
    if said.algorithm == "sha256":
        return None
    if said.algorithm == "git":
        # A blob's id is over this head and the content.
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hashlib.new(said.algorithm, usedforsecurity=False)
