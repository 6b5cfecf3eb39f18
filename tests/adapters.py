"""Adapter folders for tests, valid and broken: real safetensors files without torch.

A test says only what is special about its adapter; everything else is a small valid LoRA of two modules.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

BASE = "acme/base-7b"
PREFIX = "base_model.model.model.layers.0.self_attn"

Tensors = Mapping[str, np.ndarray[Any, Any]]


def config(**changes: Any) -> dict[str, Any]:
    """``adapter_config.json`` as PEFT writes it, with changes; a change to ``...`` removes the field."""
    fields: dict[str, Any] = {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "base_model_name_or_path": BASE,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "layer_replication": None,
        "lora_alpha": 16,
        "lora_bias": False,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 8,
        "rank_pattern": {},
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def pair(module: str, rank: int = 8, width: int = 16, dtype: str = "float16", seed: int = 0) -> dict[str, Any]:
    """The two matrices of a module."""
    random = np.random.default_rng(seed)
    return {
        f"{module}.lora_A.weight": random.standard_normal((rank, width)).astype(dtype),
        f"{module}.lora_B.weight": random.standard_normal((width, rank)).astype(dtype),
    }


def tensors(rank: int = 8, seed: int = 0, width: int = 16) -> dict[str, Any]:
    """The matrices of ``q_proj`` and ``v_proj`` of one layer."""
    return pair(f"{PREFIX}.q_proj", rank, width, seed=seed) | pair(f"{PREFIX}.v_proj", rank, width, seed=seed + 1)


def adapter(
    folder: Path,
    *,
    weights: Tensors | None = None,
    seed: int = 0,
    width: int = 16,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Path:
    """Make an adapter's folder; ``changes`` go to its configuration, ``files`` are added as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config(**changes)))
    rank = changes.get("r", 8)
    save_file(dict(tensors(rank, seed, width) if weights is None else weights), folder / "adapter_model.safetensors")
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    return folder


def raw_header(entries: Any, body: bytes = b"") -> bytes:
    """A safetensors file with this header (JSON text, or what becomes one) before this body."""
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return len(text).to_bytes(8, "little") + text + body
