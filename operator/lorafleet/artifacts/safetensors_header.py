"""The header of ``adapter_model.safetensors``: is it a complete set of LoRA matrices, and nothing else?

Read in plain Python because the safetensors library accepts what must be refused here: duplicate names, names that
are paths, headers of 99 MB. Only the header is read, so an adapter of any size costs the same; the numbers themselves
are not looked at. Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors without gaps.
"""

import re
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import WEIGHTS_FILE
from lorafleet.artifacts.peft_config import PeftConfig
from lorafleet.artifacts.strict_json import parse_object

MAX_HEADER_BYTES = 25 * 1000 * 1000
MAX_TENSORS = 200_000
PREFIX = "base_model.model."

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
LORA_DTYPES = frozenset({"F16", "BF16", "F32", "F64"})
"""What PEFT trains in and vLLM casts to the dtype of its LoRA slots without a scale."""

_NAME = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")
_MAX_NAME = 512
_LORA = re.compile(r"(?P<module>.+)\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<embedding>[AB]))")
# PEFT saves these beside a LoRA on embeddings; vLLM (is_base_embedding_weights) does not look at them.
BASE_EMBEDDINGS = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its name in the file, dtype as safetensors writes it, and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors in the order of their bytes; they fill the file from byte ``start`` to its end."""

    tensors: tuple[Tensor, ...]
    start: int = 8

    @property
    def dtypes(self) -> frozenset[str]:
        """The dtypes in use, as safetensors writes them."""
        return frozenset(tensor.dtype for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of a module, whose name is without ``base_model.model.``: A is (rank, in), B is (out, rank)."""

    module: str
    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        """The rank, of all experts together if their matrices are stacked."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class Weights:
    """The matrices, and what else belongs to embeddings (``others``), which vLLM does not look at."""

    pairs: tuple[Pair, ...]
    others: tuple[Tensor, ...] = ()

    @property
    def target_modules(self) -> tuple[str, ...]:
        """The modules that are adapted, by the last part of their names, sorted."""
        return tuple(sorted({_target(pair.module) for pair in self.pairs}))

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of the matrices, sorted."""
        return tuple(sorted({tensor.dtype for pair in self.pairs for tensor in (pair.a, pair.b)}))

    @property
    def items(self) -> int:
        """How many numbers the matrices hold."""
        return sum(prod(tensor.shape) for pair in self.pairs for tensor in (pair.a, pair.b))


def read_header(path: Path) -> Header:
    """Read and check the layout of a safetensors file. Raises ArtifactError (WeightsInvalid) and OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _invalid(f"has {size} bytes; expected at least the 8 bytes of a header's length")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise _invalid(f"says that its header has {length} bytes; expected at most {MAX_HEADER_BYTES}")
        if length > size - 8:
            raise _invalid(f"has {size} bytes but a header of {length}: it is cut off")
        data = file.read(length)
    if len(data) < length:
        raise _invalid("is shorter than its size says: it is cut off")
    return replace(parse_header(data, size - 8 - length), start=8 + length)


def parse_header(data: bytes, body_bytes: int) -> Header:
    """The tensors of a header of ``data`` (JSON) before ``body_bytes`` bytes of tensors.

    Raises ArtifactError (WeightsInvalid) unless they fill the body exactly, one after another.
    """
    if not data.startswith(b"{"):
        raise _invalid("has a header that does not start with {")
    try:
        entries = parse_object(data)
    except ValueError as error:
        raise _invalid(f"has a header that is no valid JSON object: {error}") from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("has a __metadata__ that is no object of texts")
    if not 0 < len(entries) <= MAX_TENSORS:
        raise _invalid(f"has {len(entries)} tensors; expected 1 to {MAX_TENSORS}")
    spans = sorted((_span(name, entry) for name, entry in entries.items()), key=lambda span: span[:2])
    end = 0
    for start, stop, tensor in spans:
        if start != end:
            what = "overlaps the tensor before it" if start < end else "leaves a hole before it"
            raise _invalid(f"has a tensor {tensor.name!r} from byte {start} that {what} (expected byte {end})")
        end = stop
    if end != body_bytes:
        what = "it is cut off" if end > body_bytes else "bytes that belong to no tensor follow"
        raise _invalid(f"has tensors of {end} bytes but {body_bytes} bytes behind its header: {what}")
    return Header(tuple(tensor for _, _, tensor in spans))


def check_lora(header: Header, config: PeftConfig) -> Weights:
    """Check that the tensors are complete pairs of LoRA matrices of the ranks that ``config`` says.

    A is (rank, in) and B is (out, rank); for fused experts, which PEFT names ``…experts`` and ``…experts.base_layer``,
    the ranks of all experts are stacked. Raises ArtifactError (WeightsInvalid, FeatureNotSupported for DoRA).
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    others = []
    for tensor in header.tensors:
        if tensor.name.endswith(BASE_EMBEDDINGS):
            others.append(tensor)
            continue
        module, side = _side(tensor)
        if side in pairs.setdefault(module, {}):
            raise _invalid(
                f"has two {side} matrices for module {module!r}: {pairs[module][side].name!r} and {tensor.name!r}"
            )
        pairs[module][side] = tensor
    if not pairs:
        raise _invalid("has no LoRA matrices: the adapter changes nothing")
    for module, sides in pairs.items():
        if len(sides) == 1:
            (found,) = sides
            raise _invalid(f"has only the {found} matrix of module {module!r}; expected A and B")
        _check_rank(module, sides["A"].shape[0], sides["B"].shape[1], config)
    return Weights(tuple(Pair(module, sides["A"], sides["B"]) for module, sides in pairs.items()), tuple(others))


def _span(name: str, entry: Any) -> tuple[int, int, Tensor]:
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise _invalid(f"has a tensor named {name[:80]!r}; expected the dotted name of a module")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"describes tensor {name!r} by other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _invalid(f"has a tensor {name!r} of the unknown dtype {str(dtype)[:20]!r}")
    if not _counts(shape) or len(shape) > 8 or not all(shape):
        raise _invalid(f"has a tensor {name!r} of the shape {str(shape)[:80]}; expected positive sizes")
    if not _counts(offsets) or len(offsets) != 2:
        raise _invalid(f"has a tensor {name!r} at {str(offsets)[:80]}; expected [start, end]")
    start, stop = offsets
    expected = prod(shape) * _ITEM_BYTES[dtype]
    if stop - start != expected:
        raise _invalid(f"has {stop - start} bytes for tensor {name!r}; its shape and dtype need {expected}")
    return start, stop, Tensor(name, dtype, tuple(shape))


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _side(tensor: Tensor) -> tuple[str, str]:
    if "lora_magnitude_vector" in tensor.name:
        raise ArtifactError(
            Reason.FEATURE_NOT_SUPPORTED,
            f"{WEIGHTS_FILE} has the DoRA tensor {tensor.name!r}; vLLM does not apply DoRA: train without use_dora",
        )
    # vLLM drops this prefix, and then everywhere in the name, so that a module with and without it would be one.
    name = tensor.name.replace(PREFIX, "") if tensor.name.startswith(PREFIX) else tensor.name
    match = _LORA.fullmatch(name)
    if match is None:
        raise _invalid(f"has a tensor {tensor.name!r}; expected only names that end in lora_A.weight or lora_B.weight")
    if len(tensor.shape) != 2 or tensor.dtype not in LORA_DTYPES:
        raise _invalid(
            f"has a tensor {tensor.name!r} of dtype {tensor.dtype} and shape {list(tensor.shape)}; expected a matrix of"
            f" {', '.join(sorted(LORA_DTYPES))}"
        )
    return match["module"], match["linear"] or match["embedding"]


def _check_rank(module: str, of_a: int, of_b: int, config: PeftConfig) -> None:
    if module.endswith(".experts.base_layer"):
        expected, stacked = config.rank_of(module.removesuffix(".base_layer") + ".gate_up_proj"), True
    elif module.endswith(".experts"):
        expected, stacked = config.rank_of(module + ".down_proj"), True
    else:
        expected, stacked = config.rank_of(module), False
    if of_a != of_b or (of_a % expected if stacked else of_a != expected):
        raise _invalid(
            f"has rank {of_a} in A and {of_b} in B of module {module!r}; its adapter_config.json says {expected}"
        )


def _target(module: str) -> str:
    return module.removesuffix(".base_layer").rsplit(".", 1)[-1]


def _invalid(what: str) -> ArtifactError:
    return ArtifactError(
        Reason.WEIGHTS_INVALID,
        f"{WEIGHTS_FILE} {what}; save the adapter again with PEFT and publish it as a new version",
    )
