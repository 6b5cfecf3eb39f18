"""What adapters take in an engine's memory, from the true sizes of the modules that they adapt.

Pure. An engine sets aside ``max_loras`` slots on each GPU when it starts, each with room for every module that vLLM
applies LoRA to at ``max_lora_rank``; `fleet_slot_bytes` is one of them, for the fleet's status. `version_slot_bytes` is
what a version's own matrices fill of it. Both follow vLLM's layers (``vllm/lora/layers``) without
``--fully-sharded-loras``: of a module that tensor parallelism cuts by its outputs, every GPU has all of A and its rows
of B; of one that is cut by its inputs, its columns of A and all of B; embeddings and routers are not cut.
"""

from collections.abc import Mapping
from typing import Any

from lorafleet.artifacts.architecture import Architecture, Cut, Linear, architecture

_DTYPE_BYTES = {"float32": 4, "float": 4}


def dtype_bytes(dtype: str | None) -> int:
    """The bytes of a number in a slot by the engines' ``--dtype``; None is ``auto``, which takes 16 bits at most."""
    return _DTYPE_BYTES.get(dtype or "", 2)


def pair_items(linear: Linear, rank: int, tensor_parallel_size: int = 1) -> int:
    """How many numbers A and B of a module have on each GPU."""
    gpus = tensor_parallel_size
    inputs, outputs = linear.inputs, linear.outputs
    if linear.cut is Cut.INPUTS:
        inputs = -(-inputs // gpus)
    elif linear.cut is Cut.OUTPUTS:
        # A key or value head is on several GPUs when there are fewer heads than GPUs.
        plain = linear.outputs - linear.kv_outputs
        outputs = -(-plain // gpus) + -(-linear.kv_outputs // min(gpus, linear.kv_heads))
    return rank * linear.experts * (inputs + outputs)


def slot_bytes(model: Architecture, rank: int, tensor_parallel_size: int = 1, item_bytes: int = 2) -> int:
    """What a slot with room for ``rank`` takes on each GPU; an engine has ``max_loras`` of them."""
    linears = [linear for layer in model.layers for linear in layer.modules.values()] + [*model.outside.values()]
    return item_bytes * sum(pair_items(linear, rank, tensor_parallel_size) for linear in linears)


def fleet_slot_bytes(
    base_config: Mapping[str, Any] | None,
    max_lora_rank: int | None,
    tensor_parallel_size: int = 1,
    dtype: str | None = None,
) -> int | None:
    """What one of an engine's ``max_loras`` slots takes on each GPU, from the base model's ``config.json``.

    ``dtype``: the engines' ``--dtype``, None for ``auto``. None when the model's sizes or the rank are not known.
    """
    model = None if base_config is None else architecture(base_config)
    if model is None or max_lora_rank is None:
        return None
    return slot_bytes(model, max_lora_rank, tensor_parallel_size, dtype_bytes(dtype))


def version_slot_bytes(
    model: Architecture, ranks: Mapping[str, int], tensor_parallel_size: int = 1, item_bytes: int = 2
) -> int:
    """What a version's matrices fill of a slot on each GPU.

    ``ranks``: those of its modules, by the names that `Architecture.locate` gives.
    """
    found = ((model.find(name), rank) for name, rank in ranks.items())
    return item_bytes * sum(
        pair_items(linear, rank, tensor_parallel_size) for linear, rank in found if linear is not None
    )


def cpu_bytes(items: int, item_bytes: int = 2) -> int:
    """What a version of so many numbers takes in each of an engine's worker processes, one per GPU.

    Every worker keeps whole matrices, cast to the engine's dtype, for up to ``max_cpu_loras`` versions.
    """
    return items * item_bytes
