"""Adapters that have to be published, and that vLLM has to load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lorafleet.api.reasons import Reason
from tests.corpus.base import PREFIX, WEIGHTS, Base, Case, Draft, Q, V, number_bits, plain

_Edit = Callable[[Draft], object]


def good(name: str, edit: _Edit, notice: Reason | None = None, **options: Any) -> Case:
    """A good adapter with a harmless change."""

    def make(folder: Any, base: Base) -> None:
        draft = plain(base, **options)
        edit(draft)
        draft.write(folder)

    return Case(name, make, None, notice)


def every(draft: Draft, side: str, change: Callable[[Any], Any], but: int = 0) -> None:
    """Change the numbers of all matrices of a side, but for the first ``but`` of them."""
    names = [name for name in draft.tensors if f".lora_{side}." in name]
    for name in names[but:]:
        dtype, array = draft.tensors[name]
        draft.tensors[name] = (dtype, change(array))


def _embeddings(draft: Draft) -> None:
    base = draft.base
    random = np.random.default_rng(7)
    module = f"{PREFIX}model.embed_tokens"
    draft.tensors[f"{module}.lora_embedding_A"] = number_bits(random.normal(size=(8, base.vocabulary)), "F32")
    draft.tensors[f"{module}.lora_embedding_B"] = number_bits(random.normal(size=(base.hidden, 8)), "F32")
    draft.tensors[f"{module}.base_layer.weight"] = number_bits(np.ones((base.vocabulary, base.hidden)), "F32")
    draft.pair(f"{PREFIX}lm_head", sizes=(base.hidden, base.vocabulary))
    draft.config["target_modules"] += ["embed_tokens", "lm_head"]


def _ranks(draft: Draft) -> None:
    draft.config["rank_pattern"] = {"q_proj": 4, r"layers\.1\.self_attn\.v_proj": 16}
    for layer in range(draft.base.layers):
        draft.pair(draft.base.module(Q, layer), 4)
    draft.pair(draft.base.module(V, 1), 16)


def _without_prefix(draft: Draft) -> None:
    draft.tensors = {name.removeprefix(PREFIX): tensor for name, tensor in draft.tensors.items()}


def _extremes(draft: Draft) -> None:
    def change(array: Any) -> Any:
        array.flat[0], array.flat[1], array.flat[2] = np.finfo("f2").max, np.finfo("f4").smallest_subnormal, -0.0
        return array

    every(draft, "A", change)


def _trainer(draft: Draft) -> None:
    draft.files |= {
        "optimizer.pt": b"x",
        "adapter_model.bin": b"not read",
        "tokenizer.json": b"{}",
        ".gitattributes": b"",
    }
    draft.files |= {"README.md": b"# An adapter"}


def _linked(folder: Path, base: Base) -> None:
    """As the cache of the hub's library lays a model out."""
    plain(base).write(folder)
    blob = (folder / WEIGHTS).rename(folder.with_name(f"{folder.name}-blob"))
    (folder / WEIGHTS).symlink_to(f"../{blob.name}")


ALL_LINEAR = tuple(Base().sizes)
GOOD = (
    good("plain LoRA of q_proj and v_proj", lambda draft: None),
    good("all linear layers in bfloat16", lambda draft: None, modules=ALL_LINEAR, dtype="BF16"),
    good("float16", lambda draft: None, dtype="F16"),
    good("float64", lambda draft: None, dtype="F64"),
    good("rank 1", lambda draft: None, rank=1),
    good("the highest rank of the engines", lambda draft: None, rank=16),
    good("rsLoRA", lambda draft: draft.config.update(use_rslora=True)),
    good("rank_pattern", _ranks),
    good("alpha_pattern", lambda draft: draft.config.update(alpha_pattern={"v_proj": 64})),
    good("embeddings and lm_head", _embeddings),
    good("names without base_model.model.", _without_prefix),
    good(
        "only the second layer",
        lambda draft: [draft.tensors.pop(name) for name in list(draft.tensors) if ".0." in name],
    ),
    good("target_modules as an expression", lambda draft: draft.config.update(target_modules=r".*\.(q|v)_proj")),
    good("fields of a newer PEFT", lambda draft: draft.config.update(new_option=None, peft_version="9.9.9")),
    good("a trainer's other files beside it", _trainer),
    Case("weights behind a link that stays in the claim", _linked, None),
    good("the largest and smallest numbers, and -0", _extremes),
    good("some B all zero", lambda draft: every(draft, "B", np.zeros_like, but=1)),
    good("every B all zero", lambda draft: every(draft, "B", np.zeros_like), Reason.HAS_NO_EFFECT),
    good("every B -0", lambda draft: every(draft, "B", lambda b: np.zeros_like(b) * -1.0), Reason.HAS_NO_EFFECT),
    good("every A all zero", lambda draft: every(draft, "A", np.zeros_like), Reason.HAS_NO_EFFECT),
    good("lora_alpha 0", lambda draft: draft.config.update(lora_alpha=0), Reason.HAS_NO_EFFECT),
)
