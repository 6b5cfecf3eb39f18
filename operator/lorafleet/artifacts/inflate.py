"""Decompressed bytes of a gzip or zstd file, chunk by chunk, never more than a bound.

The end is reached only by a file that is whole: no frame is cut off and no other bytes follow. One call to a
decompressor gives at most a chunk, whatever the input promises.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal

from lorafleet.artifacts.members import CHUNK_BYTES, Chunk, invalid, too_large

Compression = Literal["gzip", "zstd"]

MAX_RATIO = 100
"""Weights compress by 2 at most, half of a fresh adapter's are zeros; a bomb needs 1000 and more."""
FREE_BYTES = 256 * 1024**2
"""What may come out however little went in: small adapters of zeros, text."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_MAX_WINDOW = 128 * 1024**2
"""What ``zstd --ultra -22`` asks for; ``--long=31`` would ask for 2 GiB of memory."""
_BLOCK_BYTES = 128 * 1024


def of(head: bytes) -> Compression | None:
    """The compression of a file by its first bytes."""
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or int.from_bytes(head[:4], "little") in _SKIPPABLE:
        return "zstd"
    return None


def inflate(file: BinaryIO, compression: Compression, size: int, max_bytes: int, where: str) -> Iterator[Chunk]:
    """All bytes of a compressed file of ``size`` bytes.

    Raises ArtifactError: ArchiveInvalid, and SizeLimitExceeded above ``max_bytes`` or far more than went in.
    """
    total, bound = 0, FREE_BYTES + MAX_RATIO * size
    for chunk in _gunzip(file, where) if compression == "gzip" else _unzstd(file, where):
        total += len(chunk)
        if total > bound:
            raise too_large(
                where,
                f"has {size} bytes and unpacks to more than {bound}; expected at most {MAX_RATIO} times as much as it"
                " has itself",
            )
        if total > max_bytes:
            raise too_large(where, f"unpacks to more than {max_bytes} bytes; expected at most as many")
        yield chunk


def _gunzip(file: BinaryIO, where: str) -> Iterator[bytes]:
    data = file.read(CHUNK_BYTES)
    while data:
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not stream.eof:
            try:
                out = stream.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise invalid(where, f"is a damaged gzip file ({error})") from None
            if out:
                yield out
            elif not data:
                raise invalid(where, "is a gzip file that is cut off")
            data = b"" if stream.eof else stream.unconsumed_tail or file.read(CHUNK_BYTES)
        # Another member may follow, or zeros that pad the file to a tape's block.
        data = stream.unused_data or file.read(CHUNK_BYTES)
        if data.startswith(b"\0"):
            while data:
                if data.strip(b"\0"):
                    raise invalid(where, "is a gzip file with other bytes behind its end")
                data = file.read(CHUNK_BYTES)


def _unzstd(file: BinaryIO, where: str) -> Iterator[bytes]:
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    while magic := file.read(4):
        if int.from_bytes(magic, "little") in _SKIPPABLE:
            _skip(file, int.from_bytes(_take(file, 4, where), "little"), where)
            continue
        if magic != _ZSTD:
            raise invalid(where, "is a zstd file with other bytes behind its end, or is cut off")
        frame = context.decompressobj()
        try:
            for piece in _pieces(file, where):
                if out := frame.decompress(piece):
                    yield out
        except zstandard.ZstdError as error:
            raise invalid(where, f"is a damaged zstd file ({error})") from None
        if not frame.eof:
            raise invalid(where, "is a damaged zstd file (a frame does not end)")


def _pieces(file: BinaryIO, where: str) -> Iterator[bytes]:
    """A frame behind its magic, block by block: each gives at most 128 KiB (RFC 8878, 3.1.1)."""
    descriptor = _take(file, 1, where)
    flags = descriptor[0]
    single = flags >> 5 & 1
    rest = (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    yield _ZSTD + descriptor + _take(file, rest, where)
    last = False
    while not last:
        header = _take(file, 3, where)
        value = int.from_bytes(header, "little")
        last, kind, length = bool(value & 1), value >> 1 & 3, value >> 3
        if kind == 3 or length > _BLOCK_BYTES:
            raise invalid(where, "is a damaged zstd file (a block of no known kind or size)")
        yield header + _take(file, 1 if kind == 1 else length, where)
    if flags >> 2 & 1:
        yield _take(file, 4, where)


def _take(file: BinaryIO, count: int, where: str) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise invalid(where, "is a zstd file that is cut off")
    return data


def _skip(file: BinaryIO, count: int, where: str) -> None:
    while count:
        count -= len(_take(file, min(count, CHUNK_BYTES), where))
