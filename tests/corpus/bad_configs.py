"""What is wrong with an ``adapter_config.json``."""

import json
from pathlib import Path
from typing import Any

from lorafleet.api.reasons import Reason
from tests.corpus.base import CONFIG, Base, Case, Make, plain

MISSING = object()
SAME = "the same to vLLM as the case above"


def _with(**changes: Any) -> Make:
    def make(folder: Path, base: Base) -> None:
        draft = plain(base)
        draft.config |= changes
        draft.config = {name: value for name, value in draft.config.items() if value is not MISSING}
        draft.write(folder)

    return make


def _bytes(edit: Any) -> Make:
    """``edit`` gets the text of a good configuration and gives the bytes that are written."""

    def make(folder: Path, base: Base) -> None:
        draft = plain(base)
        draft.write(folder)
        (folder / CONFIG).write_bytes(edit(json.dumps(draft.config)))

    return make


def _rank(rank: int, **changes: Any) -> Make:
    def make(folder: Path, base: Base) -> None:
        draft = plain(base, rank=rank)
        draft.config |= changes
        draft.write(folder)

    return make


def _invalid(name: str, make: Make, not_offered: str | None = None) -> Case:
    return Case(name, make, Reason.CONFIG_INVALID, not_offered=not_offered)


def _feature(name: str, not_offered: str | None = None, **changes: Any) -> Case:
    return Case(name, _with(**changes), Reason.FEATURE_NOT_SUPPORTED, not_offered=not_offered)


_OLD = "about engines older than the one that it would be offered to"

BAD_CONFIGS = (
    Case("peft_type IA3", _with(peft_type="IA3"), Reason.PEFT_TYPE_NOT_SUPPORTED),
    Case("peft_type in small letters", _with(peft_type="lora"), Reason.PEFT_TYPE_NOT_SUPPORTED),
    Case("no peft_type", _with(peft_type=MISSING), Reason.PEFT_TYPE_NOT_SUPPORTED),
    Case("another base model", _with(base_model_name_or_path="other/base"), Reason.BASE_MODEL_MISMATCH),
    Case("no base model", _with(base_model_name_or_path=None), Reason.BASE_MODEL_MISMATCH),
    _feature("DoRA", use_dora=True),
    _feature("a trained bias", bias="all"),
    _feature("lora_bias", lora_bias=True),
    _feature("modules_to_save", modules_to_save=["lm_head"]),
    _feature("modules_to_save of a classifier", modules_to_save=["score"]),
    _feature("PiSSA", init_lora_weights="pissa_niter_4"),
    _feature("OLoRA", init_lora_weights="olora"),
    _feature("LoftQ", init_lora_weights="loftq"),
    _feature("an initialisation that nobody knows", init_lora_weights="new"),
    _feature("layer_replication", layer_replication=[[0, 2], [1, 2]]),
    _feature("activated LoRA", alora_invocation_tokens=[1, 2]),
    _feature("QALoRA", use_qalora=True),
    _feature("block-diagonal LoRA", use_bdlora={"target_modules_bd_a": ["q_proj"]}),
    _feature("Arrow routing", arrow_config={"top_k": 2}),
    _feature("trained tokens", trainable_token_indices=[7]),
    _feature("tied embeddings", ensure_weight_tying=True),
    Case("rank above the engines'", _rank(32), Reason.RANK_TOO_HIGH),
    Case("rank above every vLLM's", _rank(513), Reason.RANK_TOO_HIGH),
    Case("rank_pattern above the engines'", _with(rank_pattern={"v_proj": 64}), Reason.RANK_TOO_HIGH),
    Case(
        "rank_pattern for engines that ignore it",
        _with(rank_pattern={"down_proj": 4}),
        Reason.FEATURE_NOT_SUPPORTED,
        engine="0.30.2",
        not_offered=_OLD,
    ),
    Case(
        "alpha_pattern for engines that ignore it",
        _with(alpha_pattern={"q_proj": 4}),
        Reason.FEATURE_NOT_SUPPORTED,
        engine="0.27.1",
        not_offered=_OLD,
    ),
    _invalid("r 0", _with(r=0)),
    _invalid("r negative", _with(r=-8)),
    _invalid("r as text", _with(r="8")),
    _invalid("r as true", _with(r=True)),
    _invalid("no r", _with(r=MISSING)),
    _invalid("lora_alpha as text", _with(lora_alpha="16")),
    _invalid("no lora_alpha", _with(lora_alpha=MISSING)),
    _invalid(
        "lora_alpha beyond all numbers",
        _bytes(lambda text: text.replace('"lora_alpha": 16', '"lora_alpha": 1e400').encode()),
    ),
    _invalid("lora_alpha of 400 digits", _with(lora_alpha=10**400)),
    _invalid("use_rslora as text", _with(use_rslora="false")),
    _invalid("target_modules empty", _with(target_modules=[])),
    _invalid("target_modules of numbers", _with(target_modules=[1, 2])),
    _invalid("no target_modules", _with(target_modules=MISSING)),
    _invalid("target_parameters as text", _with(target_parameters="experts")),
    _invalid("rank_pattern as a list", _with(rank_pattern=["q_proj"])),
    _invalid("rank_pattern of 0", _with(rank_pattern={"q_proj": 0})),
    _invalid("rank_pattern that is no expression", _with(rank_pattern={"q_proj(": 8})),
    _invalid("rank_pattern that runs away", _with(rank_pattern={"(([a-z_.])+)+!": 8})),
    _invalid("alpha_pattern of text", _with(alpha_pattern={"q_proj": "16"})),
    _invalid("configuration empty", _bytes(lambda text: b"")),
    _invalid("configuration cut off", _bytes(lambda text: text.encode()[:-20])),
    _invalid("configuration that is a list", _bytes(lambda text: f"[{text}]".encode())),
    _invalid("configuration in UTF-16", _bytes(lambda text: text.encode("utf-16"))),
    _invalid("configuration with a byte order mark", _bytes(lambda text: b"\xef\xbb\xbf" + text.encode())),
    _invalid(
        "configuration with NaN",
        _bytes(lambda text: text.replace('"lora_dropout": 0.0', '"lora_dropout": NaN').encode()),
    ),
    _invalid("configuration with r twice", _bytes(lambda text: text.replace('"r": 8', '"r": 8, "r": 4').encode())),
    _invalid(
        "configuration with half a character", _bytes(lambda text: text.replace('"CAUSAL_LM"', r'"\ud800"').encode())
    ),
    _invalid(
        "configuration nested 100 deep", _bytes(lambda text: text.replace("0.0", "[" * 100 + "]" * 100, 1).encode())
    ),
    _invalid(
        "configuration nested 100,000 deep",
        _bytes(lambda text: text.replace("0.0", "[" * 100_000 + "]" * 100_000, 1).encode()),
    ),
    Case("configuration of 2 MiB", _with(task_type="x" * 2**21), Reason.SIZE_LIMIT_EXCEEDED),
)
