"""Adapters for the contract suite: good ones, and the same with one fault each.

For the fake they are written here with safetensors; for a real vLLM peft makes them. Faults are edits of a good one, so
both servers see the same fault.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN, LAYERS = 64, 2
WIDTHS = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (HIDDEN, HIDDEN))
Header = dict[str, dict[str, Any]]


def write_adapter(folder: Path, *, base_name: str, rank: int = 8, seed: int = 0) -> None:
    """An adapter as peft lays it out, for a model of the tiny model's sizes."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module, (wide_in, wide_out) in WIDTHS.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = random.normal(size=(rank, wide_in)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = random.normal(size=(wide_out, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted(WIDTHS),
        "bias": "none",
        "init_lora_weights": True,
        "use_dora": False,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def configured(folder: Path, **changes: object) -> None:
    """Changes fields of ``adapter_config.json``."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _edit_header(folder: Path, edit: Callable[[Header], Header]) -> None:
    path = folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.dumps(edit(json.loads(raw[8 : 8 + length]))).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])


def _renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: _edit_header(folder, lambda header: {k.replace(old, new): v for k, v in header.items()})


def _reshaped(up: int) -> Callable[[Path], None]:
    """A's of the same bytes with ``up`` times the columns, or 1/-up of them."""

    def shape(sizes: list[int]) -> list[int]:
        return [sizes[0] // up, sizes[1] * up] if up > 0 else [sizes[0] * -up, sizes[1] // -up]

    def edit(header: Header) -> Header:
        return {k: {**v, "shape": shape(v["shape"])} if ".lora_A." in k else v for k, v in header.items()}

    return lambda folder: _edit_header(folder, edit)


def _weights(content: bytes | None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)

    return write


def _written(config: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(config)

    return write


def _cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


FAULTS: dict[str, Callable[[Path], None]] = {
    "dora": lambda folder: configured(folder, use_dora=True),
    "bias": lambda folder: configured(folder, bias="all"),
    "modules to save": lambda folder: configured(folder, modules_to_save=["lm_head"]),
    "pissa": lambda folder: configured(folder, init_lora_weights="pissa"),
    "lora bias": lambda folder: configured(folder, lora_bias=True),
    "layer replication": lambda folder: configured(folder, layer_replication=[[0, 1]]),
    "alora": lambda folder: configured(folder, alora_invocation_tokens=[1]),
    "rank pattern": lambda folder: configured(folder, rank_pattern={"q_proj": 64}),
    "no rank": _written('{"peft_type": "LORA"}'),
    "broken config": _written("{"),
    "no config": lambda folder: (folder / "adapter_config.json").unlink(),
    "corrupt": _weights(b"\xff" * 5000),
    "truncated": _cut,
    "empty file": _weights(b""),
    "no weights": _weights(None),
    "other modules": _renamed("q_proj", "wrong_proj"),
    "too wide": _reshaped(2),
    "too narrow": _reshaped(-2),
    "layers the model lacks": _renamed("layers.1", "layers.7"),
    "other base": lambda folder: configured(folder, base_model_name_or_path="acme/other"),
}


def copy_with(template: Path, folder: Path, fault: str | None) -> None:
    """A copy of an adapter, with a fault."""
    shutil.copytree(template, folder)
    if fault is not None:
        FAULTS[fault](folder)
