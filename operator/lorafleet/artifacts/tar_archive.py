"""The members of a tar, as POSIX, GNU and PAX write them.

The blocks are walked here rather than by ``tarfile``, which reads headers of any size into memory, searches them in
quadratic time, follows them recursively, takes unknown kinds for files and does not mind a missing end; its
``TarInfo.frombuf`` reads the single block. What two tools may read in two ways is refused: sparse files, links with
content, global names, bytes behind the end.
"""

import tarfile
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits
from lorafleet.artifacts.inflate import Compression, inflate
from lorafleet.artifacts.members import CHUNK_BYTES, Chunk, Kind, Member, invalid, member, unsafe

_BLOCK = 512
_MAX_HEADER_BYTES = 1024 * 1024
_MAX_HEADERS = 4
"""A long name, a long link name, a PAX header and a global one: no tool writes more before one member."""
_SLACK_BYTES = 1024**3
"""What else may be in the folder that was packed: it is read over, and left out."""

_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.LNKTYPE: Kind.LINK,
    tarfile.SYMTYPE: Kind.LINK,
}
_SPECIAL = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}


def is_tar(head: bytes) -> bool:
    """Whether the first block of a file is a header of a tar, by its checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class TarMembers:
    """A tar, perhaps compressed, that is read anew for each pass."""

    path: Path
    compression: Compression | None
    limits: Limits
    where: str

    def listing(self) -> Iterator[Member]:
        """All members, and the tar's end behind them. Raises ArtifactError and OSError."""
        with self.path.open("rb", buffering=CHUNK_BYTES) as file:
            stream = self._stream(file)
            for found in self._walk(stream):
                yield found
                stream.skip(_padded(found.size))
            stream.end()

    def contents(self, paths: Set[str]) -> Iterator[tuple[Member, Iterator[Chunk]]]:
        """These files; the pass ends with the last of them. Raises ArtifactError and OSError."""
        left = len(paths)
        if not left:
            return
        with self.path.open("rb", buffering=CHUNK_BYTES) as file:
            stream = self._stream(file)
            for found in self._walk(stream):
                if found.path not in paths or found.kind is not Kind.FILE:
                    stream.skip(_padded(found.size))
                    continue
                yield found, stream.pieces(found.size)
                stream.skip(_padded(found.size) - found.size)
                left -= 1
                if not left:
                    return

    def _stream(self, file: BinaryIO) -> "_File | _Inflated":
        size = self.path.stat().st_size
        if self.compression is None:
            return _File(file, size, self.where)
        most = self.limits.max_bytes + _SLACK_BYTES
        return _Inflated(inflate(file, self.compression, size, most, self.where), self.where)

    def _walk(self, stream: "_File | _Inflated") -> Iterator[Member]:
        """Each member, with the stream at its first byte; whoever asks for the next has read it, padding too."""
        while (block := stream.take(_BLOCK)).strip(b"\0"):
            names: dict[bytes, bytes] = {}
            headers = 0
            while (info := self._header(block)).type not in _KINDS:
                if headers == _MAX_HEADERS:
                    raise invalid(self.where, f"has more than {_MAX_HEADERS} headers before one member")
                names |= self._extension(info, stream)
                headers += 1
                block = stream.take(_BLOCK)
            yield self._member(info, names)

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise invalid(self.where, f"holds something else than a tar, or a damaged header ({error})") from None
        if info.type in _SPECIAL:
            raise unsafe(self.where, info.name, f"is {_SPECIAL[info.type]}")
        if info.size < 0:
            raise invalid(self.where, f"says that {info.name[:200]!r} has {info.size} bytes")
        return info

    def _extension(self, info: tarfile.TarInfo, stream: "_File | _Inflated") -> dict[bytes, bytes]:
        """What a header that is about the next one says of it."""
        if info.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            raise invalid(self.where, f"holds {info.name[:200]!r} of the kind {info.type!r}; expected plain files")
        if info.size > _MAX_HEADER_BYTES:
            raise invalid(self.where, f"has a header of {info.size} bytes; expected at most {_MAX_HEADER_BYTES}")
        data = stream.take(_padded(info.size))[: info.size]
        if info.type == tarfile.GNUTYPE_LONGNAME:
            return {b"path": data.partition(b"\0")[0]}
        if info.type == tarfile.GNUTYPE_LONGLINK:
            return {}
        records = self._records(data)
        if any(key.startswith(b"GNU.sparse.") for key in records):
            raise invalid(self.where, "holds a sparse file")
        if info.type == tarfile.XHDTYPE:
            return records
        if records.keys() & {b"path", b"size"}:
            raise invalid(self.where, "gives all its members one name or one size")
        return {}

    def _records(self, data: bytes) -> dict[bytes, bytes]:
        """The records of a PAX header, each ``<length> <key>=<value>`` and a newline."""
        records: dict[bytes, bytes] = {}
        start = 0
        while start < len(data):
            digits, blank, _ = data[start : start + 12].partition(b" ")
            length = int(digits) if blank and digits.isdigit() else 0
            record = data[start : start + length]
            key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
            if len(record) != length or not record.endswith(b"\n") or not equals or key in records:
                raise invalid(self.where, "has a damaged PAX header")
            records[key] = value
            start += length
        return records

    def _member(self, info: tarfile.TarInfo, names: dict[bytes, bytes]) -> Member:
        name = names.get(b"path", info.name.encode("utf-8", "surrogateescape"))
        size = info.size
        if b"size" in names:
            digits = names[b"size"]
            if not digits.isdigit() or len(digits) > 18:
                raise invalid(self.where, f"says that {name[:200]!r} has {digits[:40]!r} bytes")
            size = int(digits)
        kind = _KINDS[info.type]
        if kind is not Kind.FILE and size:
            raise invalid(self.where, f"holds {name[:200]!r}, a link or folder with content of its own")
        if kind is Kind.FILE and name.endswith(b"/"):
            raise invalid(self.where, f"holds {name[:200]!r}, a file with the name of a folder")
        return member(self.where, name, kind, size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


@dataclass(slots=True)
class _File:
    """A tar that is not compressed: what is not wanted is not read."""

    file: BinaryIO
    size: int
    where: str

    def take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = self.file.read(count)
        if len(data) < count:
            raise _cut(self.where)
        return data

    def pieces(self, count: int) -> Iterator[Chunk]:
        """So many bytes in chunks."""
        buffer = memoryview(bytearray(min(count, CHUNK_BYTES)))
        while count:
            got = self.file.readinto(buffer[: min(count, len(buffer))])  # type: ignore[attr-defined]
            if not got:
                raise _cut(self.where)
            count -= got
            yield buffer[:got]

    def skip(self, count: int) -> None:
        """Go on behind so many bytes."""
        if self.file.tell() + count > self.size:
            raise _cut(self.where)
        self.file.seek(count, 1)

    def end(self) -> None:
        """Refuse anything but zeros from here on."""
        while data := self.file.read(CHUNK_BYTES):
            _require_zeros(data, self.where)


@dataclass(slots=True)
class _Inflated:
    """A tar that is decompressed on the way."""

    chunks: Iterator[Chunk]
    where: str
    rest: memoryview = field(default_factory=lambda: memoryview(b""))

    def take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[Chunk]:
        """So many bytes in chunks."""
        while count:
            if not self.rest:
                self.rest = memoryview(next(self.chunks, b""))
                if not self.rest:
                    raise _cut(self.where)
            piece, self.rest = self.rest[:count], self.rest[count:]
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Go on behind so many bytes."""
        for _ in self.pieces(count):
            pass

    def end(self) -> None:
        """Refuse anything but zeros from here on."""
        _require_zeros(self.rest, self.where)
        for chunk in self.chunks:
            _require_zeros(chunk, self.where)


def _cut(where: str) -> ArtifactError:
    return invalid(where, "is cut off: the tar in it has no end")


def _require_zeros(data: Chunk, where: str) -> None:
    if bytes(data).strip(b"\0"):
        raise invalid(where, "has other bytes behind the end of its tar")
