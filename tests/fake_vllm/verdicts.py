"""What vLLM says of an adapter's folder when it loads it: nothing, or one of its error messages, by version.

It reads ``adapter_config.json`` and the header of the weights file, as vLLM's `peft_helper` and `lora_model` do, so
that a test with real files gets the real words. It knows the modules of Llama-like models only, and no layers: like
vLLM it takes tensors of layers that the model does not have.
"""

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

Version = tuple[int, ...]
NEW_VALIDATION: Version = (0, 32)
"""From here on patterns of rank count, and features that would be served wrongly are refused."""

LLAMA_MODULES = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_HARMLESS_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_FILES = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")


class Missing(Exception):
    """The folder, its configuration, or the right to read a file is missing: vLLM says 404 to all three."""


class Refused(Exception):
    """vLLM raised this message while it loaded the adapter."""


def check(folder: Path, *, max_lora_rank: int, version: Version, widths: dict[str, tuple[int, int]]) -> None:
    """Raises `Missing` or `Refused` as that version of vLLM would.

    ``widths`` are (in, out) of the model's modules; tensors of modules that are not in it are not compared.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing from error
    except ValueError as error:
        raise Refused(str(error)) from error
    lacking = {"r", "lora_alpha", "target_modules"} - config.keys()
    if lacking:
        raise Refused(f"Missing required configuration fields: {lacking}")
    complaints = _complaints(config, max_lora_rank, version)
    if complaints:
        raise Refused(" ".join(complaints))
    _check_weights(folder, config, widths)


def _complaints(config: dict[str, Any], max_lora_rank: int, version: Version) -> list[str]:
    new = version >= NEW_VALIDATION
    found = []
    saved = config.get("modules_to_save")
    if new:
        saved = [module for module in saved or () if module not in ("classifier", "score")]
    if saved:
        found.append(
            "vLLM only supports modules_to_save being either None or "
            f'["classifier", "score"] for classification models. Unsupported modules_to_save: {saved}'
            if new
            else "vLLM only supports modules_to_save being None."
        )
    if config.get("use_dora"):
        found.append("vLLM does not yet support DoRA.")
    rank = config["r"]
    if new:
        if config.get("lora_bias"):
            found.append("vLLM does not support LoRA bias (lora_bias).")
        init = config.get("init_lora_weights", True)
        if isinstance(init, str) and init.lower() not in _HARMLESS_INITS:
            found.append(
                f"vLLM does not support init_lora_weights={init!r}. Inits such as PiSSA, OLoRA, CorDA and LoftQ"
            )
        if config.get("alora_invocation_tokens"):
            found.append("vLLM does not support Activated LoRA (aLoRA).")
        if config.get("layer_replication"):
            found.append("vLLM does not support layer_replication.")
        rank = max([rank, *(config.get("rank_pattern") or {}).values()])
    if rank > max_lora_rank:
        found.append(f"LoRA rank {rank} is greater than max_lora_rank {max_lora_rank}.")
    if config.get("bias", "none") != "none":
        found.append("Adapter bias is not supported.")
    return found


def _check_weights(folder: Path, config: dict[str, Any], widths: dict[str, tuple[int, int]]) -> None:
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        raise Refused(f"{folder} doesn't contain tensors")
    if not _readable(path):
        raise Missing
    if path.suffix != ".safetensors":
        return
    tensors = _header(path)
    unexpected = []
    for name in tensors:
        module = _module(name)
        if module.rsplit(".", 1)[-1] not in LLAMA_MODULES:
            unexpected.append(module)
    if unexpected:
        raise Refused(
            f"While loading {folder}, expected target modules in {set(LLAMA_MODULES)} but received {unexpected}."
            " Please verify that the loaded LoRA module is correct"
        )
    for name, tensor in tensors.items():
        width = widths.get(_module(name).rsplit(".", 1)[-1])
        shape = tensor.get("shape") or [0, 0]
        at = 1 if ".lora_A." in name else 0
        most = width[1 - at] if width else shape[at]
        # Smaller tensors are copied into a corner of the engine's and served, wrongly and without a word.
        if shape[at] > most:
            raise Refused(
                f"The size of tensor a ({most}) must match the size of tensor b ({shape[at]}) at non-singleton"
                f" dimension {at}"
            )


def _module(name: str) -> str:
    for end in (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B", ".weight"):
        name = name.removesuffix(end)
    return name.removeprefix("base_model.model.")


def _readable(path: Path) -> bool:
    return os.geteuid() == 0 or bool(path.stat().st_mode & stat.S_IROTH) or os.access(path, os.R_OK)


def _header(path: Path) -> dict[str, dict[str, Any]]:
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise Refused("Error while deserializing header: header too small")
        (length,) = struct.unpack("<Q", start)
        if length > 100_000_000:
            raise Refused("Error while deserializing header: header too large")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise Refused("Error while deserializing header: invalid JSON in header") from error
    if not isinstance(header, dict):
        raise Refused("Error while deserializing header: invalid JSON in header")
    header.pop("__metadata__", None)
    end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if path.stat().st_size != 8 + length + end:
        raise Refused("Error while deserializing header: incomplete metadata, file not fully covered")
    return header
