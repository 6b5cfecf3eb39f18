"""What is wrong with an ``adapter_model.safetensors``: its layout, its tensors, their sizes, their numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.safetensors_header import MAX_HEADER_BYTES
from tests.corpus.base import PREFIX, WEIGHTS, Base, Case, Draft, Make, Q, V, framed, layout, number_bits, plain
from tests.corpus.good import every

_Header = dict[str, Any]


def _file(edit: Callable[[bytes], bytes]) -> Make:
    """``edit`` gets the bytes of a good file."""

    def make(folder: Path, base: Base) -> None:
        plain(base).write(folder)
        path = folder / WEIGHTS
        path.write_bytes(edit(path.read_bytes()))

    return make


def _header(edit: Callable[[_Header], Any], more: bytes = b"") -> Make:
    """``edit`` changes the header's entries, or gives the bytes of another one."""

    def make(folder: Path, base: Base) -> None:
        draft = plain(base)
        draft.write(folder)
        entries, body = layout(draft.tensors)
        changed = edit(entries)
        (folder / WEIGHTS).write_bytes(framed(changed if isinstance(changed, bytes) else entries, body + more))

    return make


def _first(entries: _Header) -> dict[str, Any]:
    return next(iter(entries.values()))


def _rename(entries: _Header, name: str) -> None:
    old = list(entries)[-1]
    entries[name] = entries.pop(old)


def _tensors(edit: Callable[[Draft], Any], **options: Any) -> Make:
    def make(folder: Path, base: Base) -> None:
        draft = plain(base, **options)
        edit(draft)
        draft.write(folder)

    return make


def _move(draft: Draft, old: str, new: str) -> None:
    draft.tensors = {name.replace(old, new): tensor for name, tensor in draft.tensors.items()}


def _twice(entries: _Header) -> bytes:
    name, entry = next(iter(entries.items()))
    return json.dumps(entries).encode()[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}".encode()


def _shift(entries: _Header, by: int) -> None:
    for entry in list(entries.values())[1:]:
        entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]


def _large(length: int) -> Make:
    def make(folder: Path, base: Base) -> None:
        draft = plain(base)
        draft.write(folder)
        entries, body = layout(draft.tensors)
        text = json.dumps(entries).encode()
        (folder / WEIGHTS).write_bytes(framed(text + b" " * (length - len(text)), body))

    return make


def _number(value: float, dtype: str = "F32", side: str = "B") -> Make:
    """One number of the last matrix, which is the last to be read."""

    def edit(draft: Draft) -> None:
        name = [name for name in draft.tensors if f".lora_{side}." in name][-1]
        numbers = np.full(draft.tensors[name][1].shape, 0.125)
        numbers[-1, -1] = value
        draft.tensors[name] = number_bits(numbers, dtype)

    return _tensors(edit, dtype=dtype)


def _sizes(module: str, change: Callable[[int, int], tuple[int, int]], **options: Any) -> Make:
    """A module with other sizes than the base model's."""
    return _tensors(
        lambda draft: draft.pair(draft.base.module(module), sizes=change(*draft.base.sizes[module])), **options
    )


def _embedding(rows: int) -> Make:
    def edit(draft: Draft) -> None:
        base, module = draft.base, f"{PREFIX}model.embed_tokens"
        draft.tensors[f"{module}.lora_embedding_A"] = number_bits(np.ones((8, base.vocabulary + rows)), "F32")
        draft.tensors[f"{module}.lora_embedding_B"] = number_bits(np.ones((base.hidden, 8)), "F32")

    return _tensors(edit)


def _base_embedding(draft: Draft) -> None:
    name = f"{PREFIX}model.embed_tokens.base_layer.weight"
    draft.tensors[name] = number_bits(np.ones((draft.base.vocabulary + 8, draft.base.hidden)), "F32")


def _add(name: str, *shape: int, dtype: str = "F32") -> Make:
    """One more tensor."""
    return _tensors(lambda draft: draft.tensors.update({f"{PREFIX}{name}": number_bits(np.ones(shape), dtype)}))


def _half_of_b(draft: Draft) -> None:
    name = f"{draft.base.module(Q)}.lora_B.weight"
    dtype, array = draft.tensors[name]
    draft.tensors[name] = (dtype, array[:, ::2].copy())


def _pair(module: str, wide_in: int, wide_out: int) -> Make:
    """The matrices of one more module of the first layer."""
    return _tensors(lambda draft: draft.pair(draft.base.module(module), sizes=(wide_in, wide_out)))


def _moved(old: str, new: str) -> Make:
    """Tensors under other names."""
    return _tensors(lambda draft: _move(draft, old, new))


def _cast(dtype: str) -> Make:
    return _tensors(
        lambda draft: draft.tensors.update(
            {n: number_bits(np.ones(t[1].shape), dtype) for n, t in draft.tensors.items()}
        )
    )


def _invalid(name: str, make: Make, not_offered: str | None = None) -> Case:
    return Case(name, make, Reason.WEIGHTS_INVALID, not_offered=not_offered)


def _misfit(name: str, make: Make) -> Case:
    return Case(name, make, Reason.SHAPE_MISMATCH)


LAYOUT = (
    _invalid("weights empty", _file(lambda data: b"")),
    _invalid("weights of 7 bytes", _file(lambda data: data[:7])),
    _invalid("weights that are no safetensors", _file(lambda data: b"PK\3\4" + bytes(64))),
    _invalid("header longer than the file", _file(lambda data: (2**20).to_bytes(8, "little") + data[8:])),
    _invalid("header of 2^63 bytes", _file(lambda data: (2**63).to_bytes(8, "little") + data[8:])),
    _invalid("header of 0 bytes", _file(lambda data: bytes(8) + data[8:])),
    _invalid("header of 30 MB", _large(MAX_HEADER_BYTES + 5_000_000)),
    _invalid("header cut in the middle", _file(lambda data: (100).to_bytes(8, "little") + data[8:])),
    _invalid("header that starts with a space", _header(lambda entries: b" " + json.dumps(entries).encode())),
    _invalid(
        "header with invalid UTF-8",
        _header(lambda entries: json.dumps(entries).encode().replace(b"lora_A", b"lora_\xff", 1)),
    ),
    _invalid("header that is a list", _header(lambda entries: json.dumps([entries]).encode())),
    _invalid("header nested 100,000 deep", _header(lambda entries: b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    _invalid("header with a tensor twice", _header(_twice)),
    _invalid("header without tensors", _header(lambda entries: b"{}")),
    _invalid("metadata of numbers", _header(lambda entries: entries.update(__metadata__={"a": 1}))),
    _invalid("metadata with half a character", _header(lambda entries: entries.update(__metadata__={"a": "\ud800"}))),
    _invalid("body cut off", _file(lambda data: data[:-100])),
    _invalid("trailing bytes", _file(lambda data: data + b"#!/bin/sh")),
    _invalid("a hole between tensors", _header(lambda entries: _shift(entries, 8), bytes(8))),
    _invalid("tensors that overlap", _header(lambda entries: _shift(entries, -8))),
    _invalid(
        "two tensors in the same bytes",
        _header(lambda entries: list(entries.values())[2].update(data_offsets=_first(entries)["data_offsets"])),
    ),
    _invalid(
        "offsets beyond the file", _header(lambda entries: list(entries.values())[-1].update(data_offsets=[0, 2**60]))
    ),
    _invalid("offsets the wrong way round", _header(lambda entries: _first(entries)["data_offsets"].reverse())),
    _invalid("shape that needs more bytes", _header(lambda entries: _first(entries).update(shape=[8, 65]))),
    _invalid("shape beyond all bounds", _header(lambda entries: _first(entries).update(shape=[2**40, 2**40]))),
    _invalid("shape of -0", _header(lambda entries: json.dumps(entries).encode().replace(b"[0, ", b"[-0, ", 1))),
    _invalid("unknown dtype", _header(lambda entries: _first(entries).update(dtype="F17"))),
    _invalid("a field more for a tensor", _header(lambda entries: _first(entries).update(owner="me"))),
    _invalid("a tensor without a name", _header(lambda entries: _rename(entries, ""))),
    _invalid("a tensor named ../../x", _header(lambda entries: _rename(entries, "../../x"))),
    _invalid(
        "a tensor with NUL in its name", _header(lambda entries: _rename(entries, f"{PREFIX}model\0.lora_B.weight"))
    ),
    _invalid("a tensor with a long name", _header(lambda entries: _rename(entries, "a" * 600 + ".lora_B.weight"))),
)

TENSORS = (
    _invalid("a lora_B is missing", _tensors(lambda draft: draft.tensors.pop(list(draft.tensors)[-1]))),
    _invalid("a lora_A is missing", _tensors(lambda draft: draft.tensors.pop(next(iter(draft.tensors))))),
    _invalid(
        "one module under two names",
        _tensors(lambda draft: draft.pair("model.layers.0.self_attn.q_proj", sizes=draft.base.sizes[Q])),
    ),
    _invalid(
        "one module under a name with the prefix twice",
        _tensors(lambda draft: draft.pair(f"{PREFIX}{draft.base.module(Q)}", sizes=draft.base.sizes[Q])),
    ),
    _invalid("the name of an adapter in the tensors", _moved(".weight", ".default.weight")),
    _invalid("a whole module", _add("lm_head.weight", 4, 4)),
    _invalid("a tensor of a trained bias", _add("model.layers.0.self_attn.q_proj.bias", 64)),
    Case(
        "a DoRA tensor", _add("model.layers.0.self_attn.q_proj.lora_magnitude_vector", 64), Reason.FEATURE_NOT_SUPPORTED
    ),
    _invalid("a number instead of a matrix", _add("model.layers.0.self_attn.k_proj.lora_A.weight")),
    _invalid("a tensor with a size of 0", _add("model.layers.0.self_attn.k_proj.lora_A.weight", 0, 64)),
    _invalid("a convolution", _add("model.layers.0.self_attn.k_proj.lora_A.weight", 8, 64, 1)),
    _invalid("integers", _cast("I8")),
    _invalid("float8", _cast("F8_E4M3")),
    _invalid("rank of the tensors below r", _tensors(lambda draft: draft.config.update(r=16))),
    _invalid("rank of the tensors above r", _tensors(lambda draft: draft.config.update(r=4))),
    _invalid(
        "ranks of A and B differ",
        _tensors(_half_of_b),
    ),
    _invalid(
        "rank that rank_pattern does not say", _tensors(lambda draft: draft.config.update(rank_pattern={"v_proj": 4}))
    ),
)

SHAPES = (
    _misfit("narrower than the base model", _sizes(Q, lambda wide_in, wide_out: (wide_in // 2, wide_out // 2))),
    _misfit("A wider than the base model", _sizes(Q, lambda wide_in, wide_out: (2 * wide_in, wide_out))),
    _misfit("A narrower by one", _sizes(V, lambda wide_in, wide_out: (wide_in - 1, wide_out))),
    _misfit("B narrower by one", _sizes(V, lambda wide_in, wide_out: (wide_in, wide_out - 1))),
    _misfit("B longer by one", _sizes(V, lambda wide_in, wide_out: (wide_in, wide_out + 1))),
    _misfit(
        "sizes of down_proj the wrong way round", _sizes("mlp.down_proj", lambda wide_in, wide_out: (wide_out, wide_in))
    ),
    _misfit(
        "a layer that the model does not have",
        _tensors(lambda draft: draft.pair(draft.base.module(Q, draft.base.layers))),
    ),
    _misfit(
        "only layers that the model does not have",
        _tensors(lambda draft: [_move(draft, f"layers.{n}.", f"layers.{n + 70}.") for n in range(draft.base.layers)]),
    ),
    _misfit("layer 01", _moved("layers.1.", "layers.01.")),
    _misfit("another name before the layers", _moved("model.layers.", "model.language_model.layers.")),
    _misfit("attention instead of self_attn", _moved(".self_attn.", ".attention.")),
    _misfit("a module that the model does not have", _pair("mlp.fc1", 64, 64)),
    _misfit("the packed name of q, k and v", _pair("self_attn.qkv_proj", 64, 192)),
    _misfit("experts of a model without experts", _pair("mlp.experts.0.up_proj", 64, 128)),
    _misfit(
        "stacked experts of a model without experts",
        _tensors(
            lambda draft: [
                draft.pair(draft.base.module(f"mlp.experts{more}"), sizes=(64, 64)) for more in ("", ".base_layer")
            ]
        ),
    ),
    _misfit("LoRA on a norm", _pair("input_layernorm", 64, 64)),
    _misfit("embeddings of a larger vocabulary", _embedding(8)),
    _misfit("embeddings of a smaller vocabulary", _embedding(-8)),
    _misfit(
        "lm_head of a smaller vocabulary",
        _tensors(lambda draft: draft.pair(f"{PREFIX}lm_head", sizes=(draft.base.hidden, draft.base.vocabulary - 12))),
    ),
    _misfit("the base model's embeddings with more tokens", _tensors(_base_embedding)),
)

NUMBERS = tuple(
    Case(name, make, Reason.WEIGHTS_NOT_FINITE)
    for name, make in (
        ("one NaN in float32", _number(np.nan)),
        ("one NaN in a lora_A", _number(np.nan, side="A")),
        ("one infinity in float32", _number(np.inf)),
        ("one -infinity in float16", _number(-np.inf, "F16")),
        ("one NaN in float16", _number(np.nan, "F16")),
        ("one NaN in bfloat16", _number(np.nan, "BF16")),
        ("one infinity in bfloat16", _number(np.inf, "BF16")),
        ("one NaN in float64", _number(np.nan, "F64")),
        ("one float64 that is infinite in float32", _number(1e39, "F64")),
        ("every number NaN", _tensors(lambda draft: every(draft, "A", lambda array: np.full_like(array, np.nan)))),
    )
)

BAD_WEIGHTS = (*LAYOUT, *TENSORS, *SHAPES, *NUMBERS)
