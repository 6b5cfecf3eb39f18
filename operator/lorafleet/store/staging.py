"""Versions in the making: what fills a staging folder, and the sweep of what dead jobs left.

Nothing here is ever visible to an engine.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import FileDigest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.base import Chunk, Listing, Source, SourceFile
from lorafleet.store.fs import FileSystem, remove_tree
from lorafleet.store.layout import Layout

Progress = Callable[[str, int, int], None]
"""Called with a file's path, its bytes so far and its size, after each chunk; may raise to end the transfer."""


def no_progress(path: str, done: int, size: int) -> None:
    """Nobody watches."""


def hash_source(source: Source, listing: Listing, progress: Progress = no_progress) -> tuple[FileDigest, ...]:
    """Read and hash a source's files, and keep nothing. Raises ArtifactError."""
    return tuple(_receive(source, file, progress, _drop) for file in listing.files)


def fetch(
    source: Source, listing: Listing, folder: Path, fs: FileSystem, progress: Progress = no_progress
) -> tuple[FileDigest, ...]:
    """Write a source's files into a folder and hash them on the way; each is durable. Raises ArtifactError, OSError."""

    def keep(path: str, chunks: Iterable[Chunk]) -> None:
        fs.write_file(folder / path, chunks)

    return tuple(_receive(source, file, progress, keep) for file in listing.files)


def _drop(path: str, chunks: Iterable[Chunk]) -> None:
    for _ in chunks:
        pass


def _receive(
    source: Source, file: SourceFile, progress: Progress, into: Callable[[str, Iterable[Chunk]], None]
) -> FileDigest:
    if file.archive:
        raise ArtifactError(
            Reason.SOURCE_NOT_SUPPORTED,
            f"{file.path} is an archive, which this release does not unpack: publish the adapter's files one by one",
        )
    counted = _Counted(file, progress)
    with closing(source.read(file, 0)) as chunks:  # type: ignore[type-var]
        into(file.path, counted.through(chunks))
    return counted.digest()


class _Counted:
    def __init__(self, file: SourceFile, progress: Progress) -> None:
        self._path = file.path
        self._size = file.size or 0
        self._progress = progress
        self._hash = hashlib.sha256()
        self._said = file.checksum
        self._other = None
        if file.checksum is not None and file.checksum.algorithm != "sha256":
            # A git blob id is over this head and the content.
            git = file.checksum.algorithm == "git"
            self._other = hashlib.new("sha1" if git else file.checksum.algorithm, usedforsecurity=False)
            self._other.update(f"blob {self._size}\0".encode() if git else b"")
        self._done = 0

    def through(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._done += len(chunk)
            if self._done > self._size:
                raise self._changed()
            self._hash.update(chunk)
            if self._other is not None:
                self._other.update(chunk)
            yield chunk
            self._progress(self._path, self._done, self._size)
        if self._done != self._size:
            raise self._changed()
        found = (self._other or self._hash).hexdigest()
        if self._said is not None and found != self._said.value:
            raise ArtifactError(
                Reason.SOURCE_CORRUPT,
                f"{self._path} has {self._said.algorithm} {found}; its source says {self._said.value}: the bytes were"
                " damaged at the source or on the way; restore the file, and it is tried again",
            )

    def digest(self) -> FileDigest:
        return FileDigest(self._path, self._done, self._hash.hexdigest())

    def _changed(self) -> ArtifactError:
        return ArtifactError(
            Reason.SOURCE_CHANGED,
            f"{self._path} has {'more' if self._done > self._size else 'fewer'} bytes than the {self._size} it had at"
            " first; expected a source that nobody writes to: finish writing and it is tried again",
        )


def sweep_staging(layout: Layout, max_age: float, fs: FileSystem) -> int:
    """Remove staging folders in which nothing was written for ``max_age`` seconds; the answer is how many.

    Ages are differences of the volume's own times, by a file written now: a node's clock may be wrong by hours. A job
    that is alive writes all the time, so ``max_age`` has to exceed the longest stall of a source. Raises OSError.
    """
    probe = layout.new_staging("now")
    fs.write_file(probe, ())
    try:
        now = probe.stat().st_mtime
        old = [path for path in layout.staging.iterdir() if path != probe and now - _last_written(path, now) > max_age]
    finally:
        fs.remove_file(probe)
    for path in old:
        remove_tree(fs, path)
    return len(old)


def _last_written(path: Path, now: float) -> float:
    try:
        last = path.lstat().st_mtime
        if path.is_dir() and not path.is_symlink():
            last = max([last, *(child.lstat().st_mtime for child in path.iterdir())])
    except FileNotFoundError:
        return now
    return last
