"""The numbers of ``adapter_model.safetensors``: is each one finite, and does the adapter change anything?

Reads the file once from its start to its end, half a MiB at a time, so that memory does not grow with the file. One NaN
in a matrix makes every answer of an engine that applies it nonsense, and nothing else in vLLM finds it. Numbers are
looked at as bit masks: the exponent says all that is needed, and numpy has no bfloat16. Writes nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import WEIGHTS_FILE
from lorafleet.artifacts.safetensors_header import Header, Tensor, Weights

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 512 * 1024
"""Bytes; what a core's cache holds twice is scanned twice as fast as more."""


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


def scan(path: Path, header: Header, weights: Weights) -> tuple[str, ...]:
    """Read all matrices; the answer are the modules that change nothing, because A or B is all zero.

    Raises ArtifactError (WeightsNotFinite; WeightsInvalid when the file became shorter) and OSError.
    """
    matrices = {tensor.name for pair in weights.pairs for tensor in (pair.a, pair.b)}
    zero = _read(path, header, matrices)
    return tuple(pair.module for pair in weights.pairs if not zero.isdisjoint((pair.a.name, pair.b.name)))


def _read(path: Path, header: Header, wanted: Collection[str]) -> set[str]:
    """The names of those of the ``wanted`` tensors that are all zero."""
    import numpy as np

    buffer, scratch = np.empty(_CHUNK, np.uint8), np.empty(_CHUNK, np.uint8)
    zero = set()
    at = header.start
    with path.open("rb", buffering=0) as file:
        file.seek(at)
        for tensor in header.tensors:
            at += tensor.size
            if tensor.name not in wanted:
                file.seek(at)
                continue
            bits, left, is_zero = _BITS[tensor.dtype], tensor.size, True
            while left:
                size = min(left, _CHUNK)
                _fill(file, buffer.data[:size])
                left -= size
                items, masked = buffer[:size].view(bits.item), scratch[:size].view(bits.item)
                if np.bitwise_and(items, items.dtype.type(bits.exponent), out=masked).max() >= bits.limit:
                    raise _not_finite(tensor, items, bits, (tensor.size - left - size) // items.itemsize)
                if is_zero:
                    # -0 is zero, too.
                    is_zero = not np.bitwise_and(items, items.dtype.type(bits.sign - 1), out=masked).any()
            if is_zero:
                zero.add(tensor.name)
    return zero


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
