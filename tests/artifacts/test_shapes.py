"""Which matrices fit which base model; vLLM's own answers are in the corpus."""

import json
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.architecture import Architecture, architecture
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.peft_config import PeftConfig, parse
from lorafleet.artifacts.safetensors_header import Pair, Tensor, Weights
from lorafleet.artifacts.shapes import check_shapes
from tests.adapters import config
from tests.artifacts.test_architecture import MODELS

RANK = 8


def _model(name: str) -> Architecture:
    found = architecture(MODELS[name]["config"])
    assert found is not None
    return found


def _config(**changes: Any) -> PeftConfig:
    return parse(json.dumps(config(**changes)).encode())


def _pair(module: str, wide_in: int, wide_out: int, rank: int = RANK) -> Pair:
    return Pair(
        module,
        Tensor(f"base_model.model.{module}.lora_A.weight", "F32", (rank, wide_in)),
        Tensor(f"base_model.model.{module}.lora_B.weight", "F32", (wide_out, rank)),
    )


def all_pairs(model: Architecture) -> list[Pair]:
    """The matrices of every module."""
    names = [f"layers.{number}.{local}" for number, layer in enumerate(model.layers) for local in layer.modules]
    pairs = []
    for name in [*names, *model.outside]:
        linear = model.find(name)
        assert linear is not None
        full = name if name == "lm_head" else model.roots[0] + name
        pairs.append(_pair(full, linear.inputs, linear.outputs, RANK * linear.experts))
    return pairs


def _refusal(model: Architecture, pairs: list[Pair], **changes: Any) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        check_shapes(Weights(tuple(pairs)), model, _config(**changes))
    return caught.value


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_of_every_module_fits_its_model(name: str) -> None:
    model = _model(name)
    ranks = check_shapes(Weights(tuple(all_pairs(model))), model, _config())
    assert set(ranks.values()) == {RANK}
    assert len(ranks) == len(all_pairs(model))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("by", [-1, 1])
def test_no_module_may_be_wider_or_narrower(name: str, side: str, by: int) -> None:
    model = _model(name)
    pairs = all_pairs(model)
    for number in range(0, len(pairs), max(1, len(pairs) // 12)):
        pair = pairs[number]
        wide_in, wide_out = pair.a.shape[1], pair.b.shape[0]
        changed = (wide_in + by, wide_out) if side == "a" else (wide_in, wide_out + by)
        error = _refusal(model, [*pairs[:number], _pair(pair.module, *changed, pair.rank), *pairs[number + 1 :]])
        assert error.reason is Reason.SHAPE_MISMATCH
        assert pair.module in error.message
        assert str(changed[0] if side == "a" else changed[1]) in error.message
        assert str(wide_in if side == "a" else wide_out) in error.message


def test_the_message_says_which_layers_there_are() -> None:
    error = _refusal(_model("llama"), [_pair("model.layers.2.self_attn.q_proj", 96, 256)])
    assert "2 layers, from model.layers.0 to model.layers.1" in error.message
    assert "spec.baseModel.config" in error.message
    error = _refusal(_model("llama"), [_pair("model.layers.0.mlp.fc1", 96, 256)])
    assert "down_proj, embed_tokens, gate_proj" in error.message


def test_one_module_under_two_names_of_a_multimodal_model_is_refused() -> None:
    text = MODELS["gemma3"]["config"]
    model = architecture({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text})
    assert model is not None
    name = "layers.0.self_attn.q_proj"
    pairs = [_pair(root + name, 96, 256) for root in model.roots]
    assert check_shapes(Weights((pairs[1],)), model, _config()) == {name: RANK}
    assert _refusal(model, pairs).reason is Reason.SHAPE_MISMATCH


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"])
def test_experts_of_a_layer_come_all_together(name: str) -> None:
    model = _model(name)
    pairs = all_pairs(model)
    at = next(number for number, pair in enumerate(pairs) if ".experts" in pair.module)
    error = _refusal(model, pairs[:at] + pairs[at + 1 :])
    assert error.reason is Reason.FEATURE_NOT_SUPPORTED
    assert pairs[at].module.split(".experts")[-1] in error.message
    without = [pair for pair in pairs if ".experts" not in pair.module]
    assert check_shapes(Weights(tuple(without)), model, _config())


def test_experts_of_one_projection_have_one_rank() -> None:
    model = _model("mixtral")
    pairs = all_pairs(model)
    at = next(number for number, pair in enumerate(pairs) if pair.module.endswith(".experts.2.w1"))
    pairs[at] = _pair(pairs[at].module, pairs[at].a.shape[1], pairs[at].b.shape[0], 4)
    assert _refusal(model, pairs).reason is Reason.FEATURE_NOT_SUPPORTED
    down = [
        _pair(pair.module, pair.a.shape[1], pair.b.shape[0], 4 if pair.module.endswith(".w2") else RANK)
        for pair in all_pairs(model)
    ]
    assert check_shapes(Weights(tuple(down)), model, _config())["layers.1.block_sparse_moe.experts.3.w2"] == 4


def test_stacked_experts_have_the_rank_for_each() -> None:
    model = _model("gpt_oss")
    pairs = all_pairs(model)
    ranks = check_shapes(Weights(tuple(pairs)), model, _config())
    assert ranks["layers.0.mlp.experts"] == ranks["layers.0.mlp.experts.base_layer"] == RANK
    assert _refusal(model, pairs, r=4).reason is Reason.SHAPE_MISMATCH
    twice = [_pair(pair.module, pair.a.shape[1], pair.b.shape[0], 2 * pair.rank) for pair in pairs]
    assert _refusal(model, twice).reason is Reason.SHAPE_MISMATCH
