"""A source behind a bad line: what it holds, where the line is cut, what was asked of it."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.base import Checksum, Chunk, Listing, SourceFile

CHUNK = 256


def unreachable() -> ArtifactError:
    """What a source raises for a line that is cut."""
    return ArtifactError(Reason.SOURCE_UNREACHABLE, "source cannot be read now; it is tried again")


@dataclass
class Remote:
    """``files`` by name. ``checksum``: how it announces their bytes, if at all. ``sized``: whether it says their sizes.

    ``meddle`` is called with name and offset before each chunk, and may raise or change things. ``sent`` changes what
    goes over the line. ``reads`` are name, first byte and bytes given of each read.
    """

    files: dict[str, bytes]
    checksum: str | None = None
    sized: bool = True
    pin: str = "pin-1"
    etag: str = "1"
    archive: bool = False
    chunk: int = CHUNK
    meddle: Callable[[str, int], object] = lambda name, at: None
    sent: Callable[[str, bytes], bytes] = lambda name, data: data
    reads: list[list[object]] = field(default_factory=list)
    listings: int = 0

    @classmethod
    def of(cls, folder: Path, **changes: object) -> "Remote":
        """The files of a folder."""
        return cls({path.name: path.read_bytes() for path in folder.iterdir()}, **changes)  # type: ignore[arg-type]

    def describe(self) -> Mapping[str, str]:
        return {"scheme": "remote", "url": "somewhere"}

    def listing(self) -> Listing:
        self.listings += 1
        return Listing(self.pin, tuple(self._file(name) for name in sorted(self.files)))

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        data = self.sent(file.path, self.files[file.path])
        record: list[object] = [file.path, start, 0]
        self.reads.append(record)
        for at in range(start, len(data), self.chunk):
            self.meddle(file.path, at)
            chunk = data[at : at + self.chunk]
            record[2] = int(str(record[2])) + len(chunk)
            # Such a view is worth nothing once the next chunk is asked for.
            buffer = bytearray(chunk)
            yield memoryview(buffer)
            buffer[:] = b"\xff" * len(buffer)

    def confirm(self, listing: Listing) -> None:
        pass

    def fetched(self, name: str) -> int:
        """How many bytes of a file went over the line."""
        return sum(int(str(count)) for path, _, count in self.reads if path == name)

    def _file(self, name: str) -> SourceFile:
        data = self.files[name]
        said = {
            None: None,
            "sha256": Checksum("sha256", hashlib.sha256(data).hexdigest()),
            "md5": Checksum("md5", hashlib.md5(data, usedforsecurity=False).hexdigest()),
            "git": Checksum("git", hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()),
        }[self.checksum]
        return SourceFile(name, len(data) if self.sized else None, self.etag, "", said, self.archive)


class Cuts:
    """Cuts the line once at each of some offsets of a file, or at every chunk."""

    def __init__(self, name: str, offsets: set[int] | None = None) -> None:
        self._name = name
        self._left = offsets
        self._cut: set[int] = set()

    def __call__(self, name: str, at: int) -> None:
        wanted = self._left is None or at in self._left
        if name == self._name and wanted and at not in self._cut:
            self._cut.add(at)
            raise unreachable()


def tarball(folder: Path) -> bytes:
    """The files of a folder, in a tar.gz: the same bytes for the same files, whenever it is made."""

    def timeless(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = 0
        return member

    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"./{path.name}", filter=timeless)
    return out.getvalue()
