"""The numbers of ``adapter_model.safetensors``: is each one finite, and does the adapter change anything?

Looks at the file once, from its start to its end and half a MiB at a time, so that memory does not grow with the file:
while it arrives, or when it is there. One NaN in a matrix makes every answer of an engine that applies it nonsense,
and nothing else in vLLM finds it. Numbers are looked at as bit masks: the exponent says all that is needed, and numpy
has no bfloat16. Writes nothing.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import WEIGHTS_FILE
from lorafleet.artifacts.safetensors_header import MAX_HEADER_BYTES, Header, Tensor, Weights, parse_header

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 512 * 1024
"""Bytes; what a core's cache holds twice is scanned twice as fast as more."""

_FEW = 256 * 1024
"""So many bytes in all are looked at without numpy, whose import takes as long as publishing dozens of them."""


@dataclass(frozen=True, slots=True)
class _Bits:
    """How a dtype's numbers look. One whose exponent reaches ``limit`` is infinite, or no number at all."""

    item: str
    exponent: int
    limit: int
    sign: int


_BITS = {
    "BF16": _Bits("<u2", 0x7F80, 0x7F80, 0x8000),
    "F16": _Bits("<u2", 0x7C00, 0x7C00, 0x8000),
    "F32": _Bits("<u4", 0x7F80_0000, 0x7F80_0000, 0x8000_0000),
    # From 2^128 up a number is infinite in every dtype that an engine casts it to.
    "F64": _Bits("<u8", 0x7FF << 52, (1023 + 128) << 52, 1 << 63),
}


_ZERO_TOPS = bytes((0x00, 0x80))


def _finite_tops(bits: _Bits) -> bytes:
    """Most significant bytes that only finite numbers have."""
    top = bits.limit >> (8 * int(bits.item[-1]) - 8)
    return bytes(byte for byte in range(256) if byte & 0x7F < top)


_FINITE_TOPS = {dtype: _finite_tops(bits) for dtype, bits in _BITS.items()}


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is in the tensors of a file: the names of those that are all zero, and of each that has one, the refusal of
    its first number that is not finite, in the order of their bytes."""

    header: Header
    zero: frozenset[str]
    not_finite: tuple[tuple[str, ArtifactError], ...]


class Arriving:
    """The numbers of a file of ``size`` bytes that arrives from its start on; one that is damaged has none."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._head: bytearray | None = bytearray()
        self._header: Header | None = None
        self._left: Iterator[Tensor] = iter(())
        self._look: _Look | None = None
        self._looks: list[_Look] = []

    def add(self, chunk: bytes | memoryview) -> None:
        """The next bytes. Raises nothing: what is wrong with the file is said by whoever checks it."""
        data = memoryview(chunk)
        if self._head is not None:
            self._head += data
            data = self._begin()
        while data:
            if self._look is None or not self._look.left:
                tensor = next(self._left, None)
                if tensor is None:
                    return
                self._look = _Look(tensor)
                self._looks.append(self._look)
            size = min(len(data), self._look.left)
            self._look.add(data[:size])
            data = data[size:]

    def numbers(self) -> Numbers | None:
        """What was found; None when the file has no sound header, or did not arrive whole."""
        if self._header is None or len(self._looks) < len(self._header.tensors) or any(one.left for one in self._looks):
            return None
        zero = frozenset(one.tensor.name for one in self._looks if one.zero)
        errors = [(one.tensor.name, one.error) for one in self._looks if one.error is not None]
        return Numbers(self._header, zero, tuple(errors))

    def _begin(self) -> memoryview:
        """Read the header once it is there; what follows it."""
        assert self._head is not None
        length = int.from_bytes(self._head[:8], "little")
        if length <= MAX_HEADER_BYTES and len(self._head) < 8 + length:
            return memoryview(b"")
        if len(self._head) < 8:
            return memoryview(b"")
        head, self._head = bytes(self._head), None
        if length > MAX_HEADER_BYTES:
            return memoryview(b"")
        try:
            self._header = replace(parse_header(head[8 : 8 + length], self._size - 8 - length), start=8 + length)
        except ArtifactError:
            return memoryview(b"")
        self._left = iter(self._header.tensors)
        return memoryview(head)[8 + length :]


def scan(path: Path, header: Header, weights: Weights, numbers: Numbers | None = None) -> tuple[str, ...]:
    """Look at all matrices; the answer are the modules that change nothing, because A or B is all zero.

    ``numbers``: what was found while this very file arrived, so that it need not be read again. Raises ArtifactError
    (WeightsNotFinite; WeightsInvalid when the file became shorter) and OSError.
    """
    matrices = {tensor.name for pair in weights.pairs for tensor in (pair.a, pair.b)}
    if numbers is not None and numbers.header == header:
        for name, error in numbers.not_finite:
            if name in matrices:
                raise error
        zero = numbers.zero & matrices
    else:
        zero = frozenset(_read(path, header, matrices))
    return tuple(pair.module for pair in weights.pairs if not zero.isdisjoint((pair.a.name, pair.b.name)))


def _read(path: Path, header: Header, wanted: set[str]) -> Iterator[str]:
    """The names of those of the ``wanted`` tensors that are all zero."""
    total = sum(tensor.size for tensor in header.tensors)
    few = total <= _FEW
    buffer = memoryview(bytearray(min(total, _CHUNK)))
    at = header.start
    with path.open("rb", buffering=0) as file:
        for tensor in header.tensors:
            file.seek(at)
            at += tensor.size
            if tensor.name not in wanted:
                continue
            look = _Look(tensor, plainly=few)
            while look.left:
                piece = buffer[: min(look.left, len(buffer))]
                _fill(file, piece)
                look.add(piece)
                if look.error is not None:
                    raise look.error
            if look.zero:
                yield tensor.name


class _Look:
    """One tensor, whose ``left`` bytes come in pieces of any size. One of another dtype is passed over.

    ``plainly``: numpy is left out as long as the most significant bytes say all.
    """

    def __init__(self, tensor: Tensor, *, plainly: bool = False) -> None:
        self.tensor = tensor
        self._plainly = plainly
        self.left = tensor.size
        self.error: ArtifactError | None = None
        self._bits = _BITS.get(tensor.dtype)
        self.zero = self._bits is not None
        self._before = 0
        self._part = b""

    def add(self, data: memoryview) -> None:
        """The next bytes, at most as many as are left."""
        self.left -= len(data)
        if self._bits is None or self.error is not None:
            return
        item = int(self._bits.item[-1])
        if self._part:
            # A number that two pieces share.
            missing = item - len(self._part)
            self._part, data = self._part + bytes(data[:missing]), data[missing:]
            if len(self._part) < item:
                return
            self._items(memoryview(self._part), self._bits)
        whole = len(data) // item * item
        self._part = bytes(data[whole:])
        if self._plainly and self._is_plain(bytes(data[:whole]), item):
            return
        for start in range(0, whole, _CHUNK):
            self._items(data[start : min(start + _CHUNK, whole)], self._bits)

    def _is_plain(self, data: bytes, item: int) -> bool:
        """Whether the most significant bytes say all: each number is finite, and one of them is not zero."""
        tops = data[item - 1 :: item]
        if tops.translate(None, _FINITE_TOPS[self.tensor.dtype]) or not tops.translate(None, _ZERO_TOPS):
            return False
        self.zero = False
        self._before += len(tops)
        return True

    def _items(self, data: memoryview, bits: _Bits) -> None:
        # Late, for what it costs.
        import numpy as np

        items = np.frombuffer(data, bits.item)
        masked = np.frombuffer(_scratch(), bits.item, len(items))
        largest = np.bitwise_and(items, items.dtype.type(bits.exponent), out=masked).max()
        if self.error is None and largest >= bits.limit:
            self.error = _not_finite(self.tensor, items, bits, self._before)
        if self.zero:
            # -0 is zero, too. Without an exponent a number may still be one of the smallest.
            self.zero = not largest and not np.bitwise_and(items, items.dtype.type(bits.sign - 1), out=masked).any()
        self._before += len(items)


_memory = threading.local()


def _scratch() -> bytearray:
    """What a thread works in: made once, because memory that is new costs more than the work."""
    found: bytearray | None = getattr(_memory, "scratch", None)
    if found is None:
        found = _memory.scratch = bytearray(_CHUNK)
    return found


def _fill(file: Any, view: memoryview) -> None:
    """Fill ``view`` from an unbuffered file, which may give less than asked for."""
    while view:
        got = file.readinto(view)
        if not got:
            raise ArtifactError(
                Reason.WEIGHTS_INVALID,
                f"{WEIGHTS_FILE} became shorter while it was read; publish it again when it is whole",
            )
        view = view[got:]


def _not_finite(tensor: Tensor, items: "np.ndarray[Any, Any]", bits: _Bits, before: int) -> ArtifactError:
    """Name the first number: its place, and what it is."""
    masked = items & items.dtype.type(bits.exponent)
    first = int((masked >= bits.limit).argmax())
    number = int(items[first])
    full = number & bits.exponent == bits.exponent
    if not full:
        what = "a number that is infinite in any dtype of an engine"
    elif number & (bits.sign - 1) & ~bits.exponent:
        what = "NaN"
    else:
        what = "infinity"
    row, column = divmod(before + first, tensor.shape[1])
    return ArtifactError(
        Reason.WEIGHTS_NOT_FINITE,
        f"{WEIGHTS_FILE} has {what} in tensor {tensor.name!r} at row {row}, column {column}; expected finite numbers:"
        " the training diverged or the file was damaged, publish a sound checkpoint as a new version",
    )
