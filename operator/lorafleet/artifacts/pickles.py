"""Tensors of a torch ``.bin`` or ``.pt`` as a safetensors file, without torch and without unpickling.

``torch.save`` writes a zip with a pickle that says which bytes of which member are which tensor; see
``pickle_machine`` for how the pickle is read. Memory is the pickle, at most 16 MiB of it, and one tensor that is not
contiguous; all others are copied chunk by chunk.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from lorafleet.artifacts.files import WEIGHTS_FILE, Limits, check_sizes
from lorafleet.artifacts.members import CHUNK_BYTES, Chunk, Kind
from lorafleet.artifacts.pickle_machine import Tensor, damaged, read_tensors, refused
from lorafleet.artifacts.zip_archive import ZipMembers

_MAX_PICKLE_BYTES = 16 * 1024**2
_MAX_TENSORS = 50_000

_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
"""As the safetensors library orders tensors: wide ones first, so that all are aligned."""


def convert(path: Path, limits: Limits) -> Iterator[Chunk]:
    """The bytes of a safetensors file with the tensors of the file that ``torch.save`` wrote at ``path``.

    All is checked before the first chunk. Raises ArtifactError: PickleRefused for anything but a dict of tensors,
    WeightsInvalid for a damaged file, SizeLimitExceeded; and OSError of the file itself.
    """
    where = path.name
    with path.open("rb") as file:
        head = file.read(4)
    if not head.startswith(b"PK"):
        raise refused(where, "is not the zip that torch.save writes since torch 1.6")
    archive = ZipMembers(path, replace(limits, max_entries=_MAX_TENSORS), where, damaged)
    sizes = {member.path: member.size for member in archive.listing() if member.kind is Kind.FILE}
    prefix = _prefix(sizes, where)
    if _small(archive, f"{prefix}byteorder", sizes, where) not in (b"", b"little"):
        raise refused(where, "was written by a big-endian machine")
    tensors = read_tensors(_small(archive, f"{prefix}data.pkl", sizes, where), where)
    ordered = sorted(tensors.items(), key=lambda item: (_ORDER.index(item[1].dtype), item[0]))
    check_sizes([(WEIGHTS_FILE, sum(tensor.size for tensor in tensors.values()))], limits)
    extents = archive.extents()
    for name, tensor in ordered:
        _check_extent(name, tensor, extents.get(f"{prefix}data/{tensor.storage.key}"), where)
    for _, chunks in archive.contents({f"{prefix}data/{tensor.storage.key}" for _, tensor in ordered}):
        for _ in chunks:
            pass  # Its checksum.
    yield _header(ordered)
    for _, tensor in ordered:
        yield from _content(path, tensor, extents[f"{prefix}data/{tensor.storage.key}"][0], where)


def _prefix(sizes: Mapping[str, int], where: str) -> str:
    found = [name for name in sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        raise refused(where, f"has {len(found)} files data.pkl in it; expected the one that torch.save writes")
    return found[0].removesuffix("data.pkl")


def _small(archive: ZipMembers, name: str, sizes: Mapping[str, int], where: str) -> bytes:
    if sizes.get(name, 0) > _MAX_PICKLE_BYTES:
        raise refused(where, f"has {sizes[name]} bytes in {name[:80]!r}; expected at most {_MAX_PICKLE_BYTES}")
    return b"".join(bytes(chunk) for _, chunks in archive.contents({name}) for chunk in chunks)


def _check_extent(name: str, tensor: Tensor, extent: tuple[int, int] | None, where: str) -> None:
    count = tensor.storage.count
    if extent is None or extent[1] != count * tensor.item_bytes:
        raise damaged(where, f"has no {count * tensor.item_bytes} bytes for tensor {name[:200]!r}")
    if not all(tensor.shape) or tensor.offset + tensor.span > count:
        raise damaged(where, f"has a tensor {name[:200]!r} that is empty, or reaches behind its bytes")
    if prod(tensor.shape) > count:
        raise refused(where, f"has a tensor {name[:200]!r} of more elements than there are bytes for")


def _header(tensors: list[tuple[str, Tensor]]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.size
        entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _content(path: Path, tensor: Tensor, start: int, where: str) -> Iterator[Chunk]:
    start += tensor.offset * tensor.item_bytes
    if not tensor.contiguous:
        gathered = memoryview(_gathered(path, tensor, start))
        for at in range(0, len(gathered), CHUNK_BYTES):
            yield gathered[at : at + CHUNK_BYTES]
        return
    with path.open("rb") as file:
        file.seek(start)
        left = tensor.size
        while left:
            data = file.read(min(left, CHUNK_BYTES))
            if not data:
                raise damaged(where, "got shorter while it was read")
            left -= len(data)
            yield data


def _gathered(path: Path, tensor: Tensor, start: int) -> bytes:
    import numpy as np

    width = tensor.item_bytes
    mapped = np.memmap(path, dtype=f"<u{width}", mode="r", offset=start, shape=(tensor.span,))
    strides = tuple(stride * width for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(mapped, tensor.shape, strides, writeable=False).tobytes()
