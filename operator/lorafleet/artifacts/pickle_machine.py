"""The pickle in a file of ``torch.save``, read as the list of instructions that it is.

A machine that knows the few instructions that build a dict of tensors: a global is a name that is compared and never
looked up, and a call is one of three that are known by name. So there is nothing that could be executed; this is
torch's ``weights_only``, narrower. ``pickle`` itself is not used: its ``find_class`` can be narrowed, but not what a
pickle does to the objects that it gets, nor how much memory it asks for.
"""

import pickletools
import struct
from dataclasses import dataclass
from math import prod
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError

_MAX_INSTRUCTIONS = 2_000_000
"""torch writes some 50 for a tensor."""
_MAX_DIMENSIONS = 8

_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_STORAGES = {
    "torch.DoubleStorage": ("F64", 8),
    "torch.LongStorage": ("I64", 8),
    "torch.FloatStorage": ("F32", 4),
    "torch.IntStorage": ("I32", 4),
    "torch.BFloat16Storage": ("BF16", 2),
    "torch.HalfStorage": ("F16", 2),
    "torch.ShortStorage": ("I16", 2),
    "torch.CharStorage": ("I8", 1),
    "torch.ByteStorage": ("U8", 1),
    "torch.BoolStorage": ("BOOL", 1),
}


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A member of the zip: elements one after another."""

    kind: _Global
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """Elements of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """As safetensors calls it."""
        return _STORAGES[self.storage.kind.name][0]

    @property
    def item_bytes(self) -> int:
        """The bytes of one element."""
        return _STORAGES[self.storage.kind.name][1]

    @property
    def size(self) -> int:
        """The bytes of all elements."""
        return prod(self.shape) * self.item_bytes

    @property
    def span(self) -> int:
        """From its first to behind its last element, in elements; of a tensor that is not empty."""
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))

    @property
    def contiguous(self) -> bool:
        """Whether the elements follow each other."""
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


def read_tensors(pickle: bytes, where: str) -> dict[str, Tensor]:
    """What the pickle builds, which must be names and tensors."""
    try:
        result = _Machine(where).run(pickle)
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        raise damaged(where, f"has a damaged pickle ({type(error).__name__})") from None
    if not isinstance(result, dict) or not result:
        raise refused(where, "is no dict of tensors")
    for name, value in result.items():
        if not isinstance(value, Tensor) or name == "__metadata__":
            raise refused(where, f"has something else than a tensor under the name {name[:200]!r}")
    return result


class _Machine:
    """The pickle machine, with the instructions that a dict of tensors takes. It knows no objects but its own."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        """The object that the instructions leave. Raises ArtifactError, and others when they make no sense."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if number > _MAX_INSTRUCTIONS:
                raise refused(self.where, f"has a pickle of more than {_MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("no end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(self._last(count))]
            case "TUPLE":
                self._push(tuple(self._to_mark()))
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._to_mark())
            case "GLOBAL":
                stack.append(self._global(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                parts = self._pop(2)
                if not all(isinstance(part, str) for part in parts):
                    raise ValueError("a name that is no text")
                stack.append(self._global(".".join(parts)))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                function, arguments = self._pop(2)
                stack.append(self._call(function, arguments))
            case "BUILD":
                # The version numbers that a module's state_dict has beside its tensors; nobody needs them.
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise refused(self.where, "sets attributes of something else than a dict")
            case _:
                raise refused(self.where, f"uses the pickle instruction {name}, which tensors do not need")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        return self.stack[-count:]

    def _pop(self, count: int) -> list[Any]:
        found = self._last(count)
        del self.stack[-count:]
        return found

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _to_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def _set(self, items: list[Any]) -> None:
        target, names = self.stack[-1], items[::2]
        if not isinstance(target, dict) or not all(isinstance(name, str) for name in names):
            raise refused(self.where, "has something else than a dict by names")
        target.update(zip(names, items[1::2], strict=True))

    def _global(self, name: str) -> _Global:
        if name not in (_DICT, _TENSOR, _PARAMETER) and name not in _STORAGES:
            raise refused(self.where, f"asks for {name[:200]!r}, which could run code and no tensor needs")
        return _Global(name)

    def _storage(self, found: Any) -> Storage:
        match found:
            case ("storage", _Global(name) as kind, str(key), str(), int(count)) if name in _STORAGES and _whole(count):
                return Storage(kind, key, count)
        raise refused(self.where, "refers to something else than the bytes of a tensor")

    def _call(self, function: Any, arguments: Any) -> Any:
        match function, arguments:
            case _Global(name=name), () if name == _DICT:
                return {}
            case _Global(name=name), (Tensor() as tensor, bool(), hooks) if name == _PARAMETER and hooks == {}:
                return tensor
            case _Global(name=name), (
                Storage() as storage,
                offset,
                tuple(shape),
                tuple(strides),
                bool(),
                hooks,
                *more,
            ):
                numbers = (offset, *shape, *strides)
                if (
                    name == _TENSOR
                    and len(shape) == len(strides) <= _MAX_DIMENSIONS
                    and all(map(_whole, numbers))
                    and hooks == {}
                    and more in ([], [None], [{}])
                ):
                    return Tensor(storage, offset, shape, strides)
        raise refused(self.where, "has a tensor that is made in a way which lorafleet does not know")


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def refused(where: str, what: str) -> ArtifactError:
    return ArtifactError(
        Reason.PICKLE_REFUSED,
        f"{where} {what}; expected a dict of names and tensors as PEFT saves it: load it where you trust it, save it"
        " with save_pretrained(..., safe_serialization=True) and publish that as a new version",
    )


def damaged(where: str, what: str) -> ArtifactError:
    return ArtifactError(
        Reason.WEIGHTS_INVALID, f"{where} {what}; save the adapter again with PEFT and publish it as a new version"
    )
