"""The members of a zip: stored or deflated, zip64 too.

The directory is read here rather than by ``zipfile``, which takes it into memory whatever its size, accepts bytes
before, between and behind the members, members that share bytes, and a local header that says something else than
the directory, so that another tool would unpack other files from the same zip. All of these are refused.
"""

import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, check_entries
from lorafleet.artifacts.members import CHUNK_BYTES, Chunk, Kind, Member, invalid, member, too_large, unsafe

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_BYTES_PER_ENTRY = 1024
"""A name, extra fields and 46 bytes: what a directory may have for each entry that is allowed, on average."""

_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PATCHED = 0x20
_DESCRIPTOR = 0x8
_DESCRIPTOR_BYTES = 24
_UTF8 = 0x800
_SAME = _ENCRYPTED | _PATCHED | _DESCRIPTOR | _UTF8
_UNIX, _MAC = 3, 19
_ZIP64 = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the directory; ``start`` is the offset of its local header."""

    name: bytes
    member: Member
    flags: int
    method: int
    crc: int
    packed: int
    start: int


@dataclass(frozen=True, slots=True)
class ZipMembers:
    """A zip that is read anew for each pass. ``refuse`` makes the error of one that is damaged."""

    path: Path
    limits: Limits
    where: str
    refuse: Callable[[str, str], ArtifactError] = invalid

    def listing(self) -> Iterator[Member]:
        """All members, when the zip is as its directory says. Raises ArtifactError and OSError."""
        with self.path.open("rb") as file:
            entries, end = self._directory(file)
            self._check_places(file, entries, end)
        for entry in entries:
            yield entry.member

    def contents(self, paths: Set[str]) -> Iterator[tuple[Member, Iterator[Chunk]]]:
        """These files. Raises ArtifactError and OSError."""
        with self.path.open("rb") as file:
            entries, _ = self._directory(file)
            for entry in entries:
                if entry.member.path in paths and entry.member.kind is Kind.FILE:
                    yield entry.member, self._content(file, entry)

    def extents(self) -> dict[str, tuple[int, int]]:
        """Where each file that is stored as it is begins in the zip, and its bytes; call ``listing`` before."""
        with self.path.open("rb") as file:
            entries, _ = self._directory(file)
            plain = [entry for entry in entries if (entry.method, entry.member.kind) == (_STORED, Kind.FILE)]
            return {entry.member.path: (self._begin(file, entry), entry.packed) for entry in plain}

    def _directory(self, file: BinaryIO) -> tuple[list[_Entry], int]:
        """All entries in the order of their bytes, and where the directory begins."""
        count, size, start, end = self._end(file)
        if start + size != end:
            raise self._invalid("has other bytes between, before or behind its members and its directory")
        check_entries(count, self.limits)
        if size > self.limits.max_entries * _BYTES_PER_ENTRY:
            raise too_large(self.where, f"has a directory of {size} bytes for {count} entries")
        data = _at(file, start, size)
        entries, position = [], 0
        for _ in range(count):
            entry, position = self._entry(data, position)
            entries.append(entry)
        if position != size:
            raise self._invalid("has a directory with more entries than it says")
        return sorted(entries, key=lambda entry: entry.start), start

    def _end(self, file: BinaryIO) -> tuple[int, int, int, int]:
        """The directory's count of entries, its size and start, and where it must end."""
        length = file.seek(0, 2)
        first = max(0, length - _END.size - _MAX_COMMENT)
        tail = _at(file, first, length - first)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise self._invalid("has no directory at its end: it is cut off, or other bytes follow")
        _, disk, disks, here, count, size, start, comment = _END.unpack_from(tail, at)
        if at + _END.size + comment != len(tail):
            raise self._invalid("has other bytes behind its end")
        end = first + at
        # Some tools write the 64-bit fields beside 32-bit ones that would do; those win that are there.
        if end >= _LOCATOR64.size and (locator := _at(file, end - _LOCATOR64.size, _LOCATOR64.size))[:4] == b"PK\6\7":
            _, _, end64, _ = _LOCATOR64.unpack(locator)
            if end64 + _END64.size != end - _LOCATOR64.size:
                raise self._invalid("has a zip64 directory that is not where it should be")
            magic, _, _, _, disk, disks, here, count, size, start = _END64.unpack(_at(file, end64, _END64.size))
            if magic != b"PK\6\6":
                raise self._invalid("has a damaged zip64 directory")
            end = end64
        if disk or disks or here != count:
            raise self._invalid("is one part of several")
        return count, size, start, end

    def _entry(self, data: bytes, at: int) -> tuple[_Entry, int]:
        if len(data) - at < _CENTRAL.size:
            raise self._invalid("has a directory that is cut off")
        (magic, made, _, flags, method, _, _, crc, packed, size, names, extras, comments, _, _, mode, start) = (
            _CENTRAL.unpack_from(data, at)
        )
        at += _CENTRAL.size
        name, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comments
        if magic != b"PK\1\2" or at > len(data):
            raise self._invalid("has a damaged directory")
        size, packed, start = self._wide(extra, [size, packed, start])
        if flags & (_ENCRYPTED | _PATCHED):
            raise self._invalid(f"holds {name[:200]!r} encrypted")
        if method == _STORED and size != packed:
            raise self._invalid(f"holds {name[:200]!r} with two sizes")
        kind = self._kind(name, mode >> 16 if made >> 8 in (_UNIX, _MAC) else 0)
        if kind is Kind.FOLDER and size:
            raise self._invalid(f"holds {name[:200]!r}, a folder with content of its own")
        found = member(self.where, name if flags & _UTF8 else _from_cp437(name), kind, size)
        return _Entry(name, found, flags, method, crc, packed, start), at

    def _kind(self, name: bytes, mode: int) -> Kind:
        form = stat.S_IFMT(mode)
        if name.endswith(b"/") or form == stat.S_IFDIR:
            return Kind.FOLDER
        if form == stat.S_IFLNK:
            return Kind.LINK
        if form not in (0, stat.S_IFREG):
            raise unsafe(self.where, name, "is a device or a pipe")
        return Kind.FILE

    def _wide(self, extra: bytes, values: list[int]) -> list[int]:
        """32-bit values, those of them replaced that are all ones and stand in the zip64 field instead."""
        field = self._extra_fields(extra).get(_ZIP64, b"")
        for number, value in enumerate(values):
            if value == 0xFFFFFFFF:
                if len(field) < 8:
                    raise self._invalid("has a zip64 field that is too short")
                values[number], field = int.from_bytes(field[:8], "little"), field[8:]
        return values

    def _extra_fields(self, extra: bytes) -> dict[int, bytes]:
        fields: dict[int, bytes] = {}
        while len(extra) >= 4:
            tag, length = struct.unpack_from("<2H", extra)
            if length > len(extra) - 4 or (tag == _ZIP64 and tag in fields):
                raise self._invalid("has a damaged extra field")
            fields[tag], extra = extra[4 : 4 + length], extra[4 + length :]
        return fields

    def _check_places(self, file: BinaryIO, entries: list[_Entry], end: int) -> None:
        """Refuse members that share bytes or leave some to none, or that their own headers call otherwise."""
        free, slack = 0, 0
        for entry in entries:
            if not free <= entry.start <= free + slack:
                raise self._invalid(f"has {entry.member.path[:200]!r} not right behind the member before it")
            free = self._begin(file, entry) + entry.packed
            slack = _DESCRIPTOR_BYTES if entry.flags & _DESCRIPTOR else 0
        if not free <= end <= free + slack:
            raise self._invalid("has its directory not right behind its last member")

    def _begin(self, file: BinaryIO, entry: _Entry) -> int:
        """Where a member's content begins: behind its local header, which must say what the directory says."""
        header = _at(file, entry.start, _LOCAL.size)
        if len(header) < _LOCAL.size:
            raise self._invalid(f"has no member where {entry.member.path[:200]!r} should be")
        magic, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(header)
        rest = _at(file, entry.start + _LOCAL.size, names + extras)
        if magic != b"PK\3\4" or len(rest) != names + extras:
            raise self._invalid(f"has no member where {entry.member.path[:200]!r} should be")
        size, packed = self._wide(rest[names:], [size, packed])
        said = (entry.crc, entry.packed, entry.member.size)
        # With a descriptor behind the content, the header itself was written before these were known.
        later = flags & _DESCRIPTOR and not any((crc, packed, size))
        same = (rest[:names], method, flags & _SAME) == (entry.name, entry.method, entry.flags & _SAME)
        if not same or not (later or (crc, packed, size) == said):
            raise self._invalid(f"says of {entry.member.path[:200]!r} other things in its directory than in its header")
        return entry.start + _LOCAL.size + len(rest)

    def _content(self, file: BinaryIO, entry: _Entry) -> Iterator[Chunk]:
        if entry.method not in (_STORED, _DEFLATED):
            raise self._invalid(f"holds {entry.member.path[:200]!r} by compression method {entry.method}, not deflated")
        file.seek(self._begin(file, entry))
        crc = size = 0
        for chunk in (self._stored if entry.method == _STORED else self._inflated)(file, entry):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            if size > entry.member.size:
                break
            yield chunk
        if (crc, size) != (entry.crc, entry.member.size):
            raise self._invalid(f"holds {entry.member.path[:200]!r} damaged: its size or checksum is another")

    def _stored(self, file: BinaryIO, entry: _Entry) -> Iterator[bytes]:
        left = entry.packed
        while left:
            data = file.read(min(left, CHUNK_BYTES))
            if not data:
                raise self._invalid(f"is cut off in {entry.member.path[:200]!r}")
            left -= len(data)
            yield data

    def _inflated(self, file: BinaryIO, entry: _Entry) -> Iterator[bytes]:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        packed = self._stored(file, entry)
        data = next(packed, b"")
        while not stream.eof:
            try:
                out = stream.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise self._invalid(f"holds {entry.member.path[:200]!r} damaged ({error})") from None
            if out:
                yield out
            elif not data:
                break
            data = stream.unconsumed_tail or next(packed, b"")
        if not stream.eof or stream.unused_data or data:
            raise self._invalid(f"holds {entry.member.path[:200]!r} damaged: it ends before or behind its end")

    def _invalid(self, what: str) -> ArtifactError:
        return self.refuse(self.where, what)


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(min(start, 2**62))
    return file.read(size)


def _from_cp437(name: bytes) -> bytes:
    """A name of the time before UTF-8, unless it is UTF-8 after all, as of tools that do not say so."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437").encode()
    return name
