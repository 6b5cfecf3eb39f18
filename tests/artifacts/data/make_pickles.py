"""Makes the .bin files beside it, and what torch and safetensors make of them; needs both, as a vLLM has them.

Run once by a python of vLLM's environment: ``python tests/artifacts/data/make_pickles.py``.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import Module, Parameter

HERE = Path(__file__).parent
PREFIX = "base_model.model.model.layers.0.self_attn"


def filled(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (values * 100).to(dtype)


def pairs(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        f"{PREFIX}.{module}.lora_{side}.weight": filled(*shape, dtype=dtype, seed=number)
        for number, (module, side, shape) in enumerate(
            (module, side, shape) for module in ("v_proj", "q_proj") for side, shape in (("A", (8, 16)), ("B", (16, 8)))
        )
    }


def state_dict() -> OrderedDict[str, torch.Tensor]:
    class Small(Module):
        def __init__(self) -> None:
            super().__init__()
            self.lora_A = torch.nn.Linear(4, 2, bias=False)
            self.lora_B = torch.nn.Linear(2, 4, bias=False)

    torch.manual_seed(7)
    return Small().state_dict()  # An OrderedDict with the attribute _metadata.


def views() -> dict[str, torch.Tensor]:
    flat = filled(64, seed=3)
    return {"first": flat[:24].view(4, 6), "second": flat[20:60].view(5, 8), "whole": flat}


def all_dtypes() -> dict[str, torch.Tensor]:
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return {f"{name}.x": filled(3, 2, dtype=getattr(torch, name), seed=5) for name in names}


CASES = {
    "bf16": pairs(torch.bfloat16),
    "fp16": pairs(torch.float16),
    "fp32": pairs(torch.float32),
    "parameters": {name: Parameter(value) for name, value in pairs(torch.float32).items()},
    "state_dict": state_dict(),
    "not_contiguous": {
        "transposed": filled(6, 4).t(),
        "permuted": filled(2, 3, 4, seed=1).permute(2, 0, 1),
        "every_other": filled(8, 6, seed=2)[::2, 1::3],
        "column": filled(5, 4, seed=3)[:, 2],
        "one_row": filled(5, 4, seed=4)[3:4],
        "half": filled(6, 4, dtype=torch.float16, seed=5).t(),
    },
    "shared_storage": views(),
    "dtypes": all_dtypes(),
}

for case, tensors in CASES.items():
    torch.save(tensors, HERE / f"{case}.bin")
    plain = torch.load(HERE / f"{case}.bin", weights_only=True)
    save_file(
        {n: t.detach().clone().contiguous() for n, t in plain.items()}, HERE / f"{case}.safetensors", {"format": "pt"}
    )

torch.save(pairs(torch.float16), HERE / "protocol_4.bin", pickle_protocol=4)
torch.save(pairs(torch.float16), HERE / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"step": 3, "state_dict": pairs(torch.float16)}, HERE / "checkpoint.bin")
torch.save(torch.nn.Linear(2, 2), HERE / "module.bin")
torch.save({"x": filled(2, 2).expand(3, 2, 2)}, HERE / "expanded.bin")
torch.save({"x": filled(2, 2).to_sparse()}, HERE / "sparse.bin")
torch.save({"x": torch.zeros(2, dtype=torch.complex64).conj()}, HERE / "conjugate.bin")
