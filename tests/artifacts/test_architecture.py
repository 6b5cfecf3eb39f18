"""Which modules a base model has, against what vLLM itself made of the same configurations."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.artifacts.architecture import _ARCHITECTURES, Architecture, architecture
from lorafleet.artifacts.memory import fleet_slot_bytes, pair_items, slot_bytes, version_slot_bytes

RECORD = json.loads((Path(__file__).parent / "recorded" / "vllm-0.32.0.json").read_text())
MODELS: dict[str, Any] = RECORD["models"]
TENSOR_PARALLEL = (1, 2, 4)
LLAMA = MODELS["llama"]["config"]
LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}


def known(config: dict[str, Any]) -> Architecture:
    found = architecture(config)
    assert found is not None
    return found


def _in_adapter(part: str) -> str:
    """A module of vLLM as PEFT names it; only gpt_oss has another name in vLLM."""
    return part.replace(".attn.", ".self_attn.")


@pytest.mark.parametrize("name", MODELS)
def test_the_modules_are_those_that_vllm_applies_lora_to(name: str) -> None:
    model = known(MODELS[name]["config"])
    recorded = {_in_adapter(part) for module in MODELS[name]["modules"].values() for part in module["parts"]}
    located = {model.locate(part) for part in recorded}
    assert None not in located
    layers = {f"layers.{number}.{local}" for number, layer in enumerate(model.layers) for local in layer.modules}
    assert located == layers | set(model.outside)


@pytest.mark.parametrize("tensor_parallel", TENSOR_PARALLEL)
@pytest.mark.parametrize("name", MODELS)
def test_each_module_takes_the_bytes_that_vllm_preallocates(name: str, tensor_parallel: int) -> None:
    model = known(MODELS[name]["config"])
    which = TENSOR_PARALLEL.index(tensor_parallel)
    total = 0
    for vllm_name, module in MODELS[name]["modules"].items():
        items = 0
        for part in module["parts"]:
            linear = model.find(model.locate(_in_adapter(part)) or "")
            assert linear is not None
            items += pair_items(linear, RECORD["rank"], tensor_parallel)
        assert 2 * items == module["slot_bytes"][which], vllm_name
        total += module["slot_bytes"][which]
    assert slot_bytes(model, RECORD["rank"], tensor_parallel) == total


@pytest.mark.parametrize("name", MODELS)
def test_names_that_vllm_refuses_are_in_no_model(name: str) -> None:
    """`expected target modules in {…}`: what vLLM compares with the last part of a name, or all after `.experts`."""
    model = known(MODELS[name]["config"])
    accepted = set(MODELS[name]["accepted"])
    for layer in model.layers:
        for local in layer.modules:
            of_experts = local[local.find(".experts") + 1 :] if ".experts." in local else local.rsplit(".", 1)[-1]
            assert of_experts in accepted or local.endswith(".base_layer")
    assert {name.rsplit(".")[-1] for name in model.outside} <= accepted


def test_defaults_are_those_of_transformers() -> None:
    for name in MODELS:
        config = MODELS[name]["config"]
        defaults = RECORD["defaults"][config["model_type"]]
        bare = {"architectures": config["architectures"]}
        assert known(bare) == known({**bare, **{k: v for k, v in defaults.items() if v is not None}}), name


def test_a_slot_of_llama_3_8b_is_the_92_mb_that_vllm_takes() -> None:
    assert fleet_slot_bytes(LLAMA_3_8B, 16) == 92_356_608
    assert fleet_slot_bytes(LLAMA_3_8B, 16, dtype="float32") == 2 * 92_356_608
    assert fleet_slot_bytes(LLAMA_3_8B, 32) == 2 * 92_356_608
    assert fleet_slot_bytes(LLAMA_3_8B, None) is fleet_slot_bytes({}, 16) is fleet_slot_bytes(None, 16) is None


def test_a_version_takes_what_its_modules_take_at_their_rank() -> None:
    model = known(LLAMA_3_8B)
    ranks = {"layers.0.self_attn.q_proj": 8, "layers.31.mlp.down_proj": 4, "lm_head": 2}
    assert version_slot_bytes(model, ranks) == 2 * (8 * 8192 + 4 * (14336 + 4096) + 2 * (4096 + 128256))
    assert version_slot_bytes(model, ranks, 2) == 2 * (8 * (4096 + 2048) + 4 * (7168 + 4096) + 2 * (4096 + 128256))
    every = {f"layers.{n}.{local}": 16 for n, layer in enumerate(model.layers) for local in layer.modules}
    assert version_slot_bytes(model, every | dict.fromkeys(model.outside, 16)) == slot_bytes(model, 16)


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj"),
        ("model.layers.1.mlp.down_proj", "layers.1.mlp.down_proj"),
        ("model.embed_tokens", "embed_tokens"),
        ("lm_head", "lm_head"),
        ("model.layers.2.self_attn.q_proj", None),
        ("model.layers.-1.self_attn.q_proj", None),
        ("model.layers.01.self_attn.q_proj", None),
        ("model.layers.².self_attn.q_proj", None),
        ("model.layers.99999999999999999999.self_attn.q_proj", None),
        ("model.layers.0.self_attn", None),
        ("model.layers.0.self_attn.qkv_proj", None),
        ("model.layers.0.q_proj", None),
        ("layers.0.self_attn.q_proj", None),
        ("model.model.layers.0.self_attn.q_proj", None),
        ("embed_tokens", None),
        ("model.lm_head", None),
        ("model.norm", None),
        ("", None),
    ],
)
def test_a_module_is_found_by_its_full_name_alone(module: str, found: str | None) -> None:
    assert known(LLAMA).locate(module) == found


def test_the_text_of_a_multimodal_model_is_found_by_each_name_that_vllm_renames() -> None:
    text = MODELS["gemma3"]["config"]
    gemma = known({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}})
    name = "layers.1.self_attn.k_proj"
    assert gemma.layers == known(text).layers
    assert gemma.locate(f"model.language_model.{name}") == gemma.locate(f"language_model.model.{name}") == name
    assert gemma.locate(f"model.{name}") is gemma.locate("vision_tower.layers.0.self_attn.k_proj") is None
    text = MODELS["qwen2"]["config"]
    for config in ({"text_config": text}, text):
        qwen = known({**config, "architectures": ["Qwen2_5_VLForConditionalGeneration"]})
        assert qwen.layers == known(text).layers
        assert {qwen.locate(f"{root}{name}") for root in qwen.roots} == {name}
        assert qwen.locate("model.visual.blocks.0.attn.qkv") is None


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": None},
        {"architectures": []},
        {"architectures": ["NewForCausalLM"], "hidden_size": 64},
        {"architectures": [["LlamaForCausalLM"]]},
        {"architectures": ["Gemma3ForConditionalGeneration"]},
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": "x"},
        {**LLAMA, "hidden_size": "64"},
        {**LLAMA, "hidden_size": -64},
        {**LLAMA, "hidden_size": True},
        {**LLAMA, "hidden_size": 2**70},
        {**LLAMA, "num_hidden_layers": 10**6},
        {**MODELS["mixtral"]["config"], "num_local_experts": 10**6},
        {**MODELS["qwen3_moe"]["config"], "mlp_only_layers": "3"},
    ],
)
def test_what_is_not_known_is_none(config: dict[str, Any]) -> None:
    assert architecture(config) is None


@given(
    st.sampled_from(sorted(_ARCHITECTURES)),
    st.dictionaries(
        st.sampled_from([*LLAMA, "text_config", "num_experts", "mlp_only_layers", "ffn_dim", "num_local_experts"]),
        st.none() | st.booleans() | st.integers(-2, 300) | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    ),
)
def test_any_configuration_is_a_model_or_none(name: str, fields: dict[str, Any]) -> None:
    found = architecture({**fields, "architectures": [name]})
    assert found is None or (found.layers and slot_bytes(found, 1) > 0)
