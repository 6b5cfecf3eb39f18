"""The base model that the corpus is for, how its adapters are written, and what a case is.

Files are written byte by byte, not with safetensors, which refuses to write most of them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from e2e.engine import tiny_model
from lorafleet.api.reasons import Reason

Array = np.ndarray[Any, Any]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Base:
    """A Llama. The numbers are those of the tiny model of the end-to-end tests."""

    name: str = "acme/tiny"
    hidden: int = tiny_model.HIDDEN
    heads: int = tiny_model.HEADS
    kv_heads: int = tiny_model.HEADS
    head_dim: int = tiny_model.HIDDEN // tiny_model.HEADS
    intermediate: int = 2 * tiny_model.HIDDEN
    layers: int = tiny_model.LAYERS
    vocabulary: int = tiny_model.VOCABULARY

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocabulary,
        }

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each module of a layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (self.hidden, q),
            "self_attn.k_proj": (self.hidden, kv),
            "self_attn.v_proj": (self.hidden, kv),
            "self_attn.o_proj": (q, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }

    def module(self, name: str, layer: int = 0) -> str:
        """The full name of a module of a layer."""
        return f"{PREFIX}model.layers.{layer}.{name}"


Q, V = "self_attn.q_proj", "self_attn.v_proj"


@dataclass
class Draft:
    """An adapter before it is written: ``tensors`` by name, in order, as (dtype of safetensors, array of its bits)."""

    base: Base
    config: dict[str, Any]
    tensors: dict[str, tuple[str, Array]]
    files: dict[str, bytes] = field(default_factory=dict)

    def pair(self, module: str, rank: int = 8, sizes: tuple[int, int] | None = None, dtype: str = "F32") -> None:
        """Add the matrices of a module, by its full name; its sizes are those of the base model."""
        wide_in, wide_out = sizes or self.base.sizes[module.split(".", 5)[-1]]
        random = np.random.default_rng(len(self.tensors))
        for side, shape in (("A", (rank, wide_in)), ("B", (wide_out, rank))):
            self.tensors[f"{module}.lora_{side}.weight"] = number_bits(random.normal(size=shape) * 0.1, dtype)

    def write(self, folder: Path) -> None:
        """Write all files."""
        (folder / CONFIG).write_text(json.dumps(self.config, indent=2))
        (folder / WEIGHTS).write_bytes(safetensors(self.tensors))
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def number_bits(numbers: Array, dtype: str) -> tuple[str, Array]:
    """Numbers in a dtype of safetensors; numpy has no bfloat16, so these are 16 bits of a float32."""
    if dtype == "BF16":
        return dtype, (numbers.astype("<f4").view("<u4") >> 16).astype("<u2")
    return dtype, numbers.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "<i1", "F8_E4M3": "<u1"}[dtype])


def safetensors(tensors: Mapping[str, tuple[str, Array]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of these tensors."""
    header, body = layout(tensors)
    return framed({"__metadata__": metadata or {"format": "pt"}, **header}, body)


def layout(tensors: Mapping[str, tuple[str, Array]]) -> tuple[dict[str, Any], bytes]:
    """The entries of the header, and the body."""
    entries, parts, at = {}, [], 0
    for name, (dtype, array) in tensors.items():
        parts.append(array.tobytes())
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    return entries, b"".join(parts)


def framed(header: Any, body: bytes) -> bytes:
    """A header (bytes as they are, or what becomes JSON) before a body."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def plain(base: Base, modules: Iterable[str] = (Q, V), rank: int = 8, dtype: str = "F32") -> Draft:
    """A good adapter of some modules of all layers, as PEFT writes it."""
    modules = tuple(modules)
    config = {
        "alpha_pattern": {},
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "lora_alpha": 2 * rank,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": [module.rsplit(".", 1)[-1] for module in modules],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    draft = Draft(base, config, {})
    for layer in range(base.layers):
        for module in modules:
            draft.pair(base.module(module, layer), rank, dtype=dtype)
    return draft


Make = Callable[[Path, Base], None]


@dataclass(frozen=True)
class Case:
    """An adapter and what lorafleet says to it. ``make`` fills an empty folder.

    ``reason``: why it is refused; None when it is published, then with ``notice``, if any. ``engine``: the fleet's
    oldest vLLM. ``offer``: why it cannot be offered to a vLLM by itself, or is no different from another case there.
    """

    name: str
    make: Make
    reason: Reason | None
    notice: Reason | None = None
    engine: str = "0.32.0"
    not_offered: str | None = None

    @property
    def offer(self) -> bool:
        """Whether it makes sense to offer it to a vLLM."""
        return self.not_offered is None

    def __str__(self) -> str:
        return self.name
