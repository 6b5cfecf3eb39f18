"""What vLLM itself makes of a base model's config.json: its LoRA layers, recorded for the tests of `architecture`.

Runs in a vLLM environment (`python_of(version) record.py >vllm-0.32.0.json`, some two minutes): for small
configurations of each architecture it builds vLLM's own model without weights, wraps it with vLLM's own LoRA manager
and writes down every LoRA layer with the sizes of what it preallocates for one slot, for several tensor parallel sizes,
and the names of modules that vLLM accepts in an adapter. The kernels of mixtures of experts are for GPUs only; here
just their sizes count.
"""

import gc
import json
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
RANK, SLOTS, TP = 8, 2, (1, 2, 4)
PLAIN = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
NO_HEAD_DIM = {**PLAIN, "hidden_size": 256, "head_dim": None}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
SPARSE = {**EXPERTS, "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]}


def _of(architecture: str, model_type: str, base: dict = PLAIN, **changes: object) -> dict:
    fields = {**base, "architectures": [architecture], "model_type": model_type, **changes}
    return {name: value for name, value in fields.items() if value is not None}


CONFIGS = {
    "llama": _of("LlamaForCausalLM", "llama"),
    "llama, no head_dim": _of("LlamaForCausalLM", "llama", NO_HEAD_DIM),
    "llama, tied": _of("LlamaForCausalLM", "llama", tie_word_embeddings=True),
    "llama, all heads": _of("LlamaForCausalLM", "llama", num_key_value_heads=None),
    "mistral": _of("MistralForCausalLM", "mistral", sliding_window=None),
    "qwen2": _of("Qwen2ForCausalLM", "qwen2", NO_HEAD_DIM),
    "qwen2, tied": _of("Qwen2ForCausalLM", "qwen2", NO_HEAD_DIM, tie_word_embeddings=True),
    "qwen3": _of("Qwen3ForCausalLM", "qwen3"),
    "qwen3, tied, one kv head": _of("Qwen3ForCausalLM", "qwen3", tie_word_embeddings=True, num_key_value_heads=1),
    "gemma": _of("GemmaForCausalLM", "gemma", tie_word_embeddings=True),
    "gemma2": _of("Gemma2ForCausalLM", "gemma2", tie_word_embeddings=True, sliding_window=32),
    "gemma3": _of("Gemma3ForCausalLM", "gemma3_text", tie_word_embeddings=True, sliding_window=32),
    "phi3": _of("Phi3ForCausalLM", "phi3", NO_HEAD_DIM, pad_token_id=0, original_max_position_embeddings=128),
    "granite": _of("GraniteForCausalLM", "granite", NO_HEAD_DIM),
    "opt": _of(
        "OPTForCausalLM", "opt", NO_HEAD_DIM, ffn_dim=640, word_embed_proj_dim=256, do_layer_norm_before=True,
        tie_word_embeddings=True,
    ),
    "opt, projected": _of(
        "OPTForCausalLM", "opt", NO_HEAD_DIM, ffn_dim=640, word_embed_proj_dim=64, do_layer_norm_before=True,
        tie_word_embeddings=True,
    ),
    "mixtral": _of("MixtralForCausalLM", "mixtral", NO_HEAD_DIM, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": _of("Qwen2MoeForCausalLM", "qwen2_moe", NO_HEAD_DIM, shared_expert_intermediate_size=224, **SPARSE),
    "qwen2_moe, all sparse": _of(
        "Qwen2MoeForCausalLM", "qwen2_moe", NO_HEAD_DIM, shared_expert_intermediate_size=224, **EXPERTS,
        decoder_sparse_step=1,
    ),
    "qwen3_moe": _of("Qwen3MoeForCausalLM", "qwen3_moe", **SPARSE),
    "qwen3_moe, all sparse": _of("Qwen3MoeForCausalLM", "qwen3_moe", **EXPERTS, decoder_sparse_step=1),
    "gpt_oss": _of(
        "GptOssForCausalLM", "gpt_oss", head_dim=64, num_key_value_heads=4, num_local_experts=4,
        num_experts_per_tok=2, sliding_window=32,
        layer_types=["sliding_attention", "full_attention"], max_position_embeddings=131072,
    ),
}  # fmt: skip
DEFAULTS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "num_local_experts", "num_experts", "moe_intermediate_size", "shared_expert_intermediate_size",
    "decoder_sparse_step", "mlp_only_layers", "ffn_dim", "word_embed_proj_dim",
)  # fmt: skip


def _only_sizes() -> None:
    """Take out what needs a GPU."""
    from vllm.lora.layers import fused_moe
    from vllm.lora.layers.base import BaseLayerWithLoRA

    def init(self, base_layer):
        BaseLayerWithLoRA.__init__(self)
        self.base_layer = base_layer
        self.moe_config = base_layer.moe_config
        self._shared_experts = base_layer._shared_experts
        self.tp_size = self.moe_config.moe_parallel_config.tp_size
        self.tp_rank = 0
        self.device = "cpu"
        self._w13_slices = 2 if self.moe_config.is_act_and_mul else 1
        self.enable_moe_shared_loras = False
        self.n_slices = self.local_num_experts * (self._w13_slices + 1)

    fused_moe.FusedMoEWithLoRA.__init__ = init
    fused_moe.FusedMoEWithLoRA.set_mapping = lambda self, punica_wrapper: None


def _slot_bytes(layer) -> int:
    """What a LoRA layer preallocates for one slot."""
    total = 0
    moe = hasattr(layer, "w2_lora_a_stacked")
    for name in ("lora_a_stacked", "lora_b_stacked"):
        for stacked in [getattr(layer, f"{w}_{name}") for w in ("w13", "w2")] if moe else [getattr(layer, name)]:
            for tensor in stacked if isinstance(stacked, tuple) else (stacked,):
                total += tensor.numel() * tensor.element_size()
    assert total % SLOTS == 0
    return total // SLOTS


def _record(config: dict, tp: int) -> dict:
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.lora.model_manager import LoRAModelManager
    from vllm.model_executor.model_loader.utils import initialize_model

    folder = Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(config))
    arguments = EngineArgs(
        model=str(folder), skip_tokenizer_init=True, enable_lora=True, max_loras=SLOTS, max_lora_rank=RANK,
        dtype="bfloat16", enforce_eager=True, max_model_len=64, load_format="dummy",
    )  # fmt: skip
    vllm = arguments.create_engine_config()
    with set_current_vllm_config(vllm):
        if parallel_state._WORLD is None:
            parallel_state.init_distributed_environment(1, 0, f"file://{tempfile.mktemp()}", 0, "gloo")
            parallel_state.initialize_model_parallel(1, 1)
        parallel_state._EP = parallel_state._TP
        parallel_state._TP.world_size = tp
        vllm.parallel_config.tensor_parallel_size = tp
        with torch.device("meta"):
            model = initialize_model(vllm)
        manager = LoRAModelManager(
            model, 8, 64, vllm.model_config.get_vocab_size(), vllm.lora_config, torch.device("cpu"), vllm
        )
        expected = set()
        for module in manager.supported_lora_modules:
            expected.update(manager.packed_modules_mapping.get(module, [module]))
            expected |= {module} if module == "experts" else set()
        modules = {}
        for name, layer in manager.modules.items():
            parts = manager.packed_modules.get(name) or [name]
            if manager._is_3d_moe_model and name.endswith(".experts"):
                parts = [name, f"{name}.base_layer"]
            modules[name] = {"type": type(layer).__name__, "parts": parts, "slot_bytes": _slot_bytes(layer)}
    del manager, model
    gc.collect()
    return {"accepted": sorted(expected), "modules": modules}


def _defaults(model_type: str) -> dict:
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type)
    return {name: getattr(config, name) for name in DEFAULTS if hasattr(config, name)}


def _model(config: dict) -> dict:
    """``slot_bytes`` of a module are those with tensor parallelism 1, 2 and 4."""
    found = [_record(config, tp) for tp in TP]
    model = {"config": config, **found[0]}
    for name, module in model["modules"].items():
        module["slot_bytes"] = [one["modules"][name]["slot_bytes"] for one in found]
    return model


def main() -> None:
    """Writes the record to standard output."""
    import vllm

    _only_sizes()
    types = sorted({config["model_type"] for config in CONFIGS.values()})
    record = {
        "vllm": re.match(r"[\d.]+", vllm.__version__)[0],
        "rank": RANK,
        "defaults": {model_type: _defaults(model_type) for model_type in types},
        "models": {name: _model(CONFIGS[name]) for name in sys.argv[1:] or CONFIGS},
    }
    # A line for each module or list.
    text = json.dumps(record, indent=1)
    sys.stdout.write(re.sub(r"(?<=[\[\d\",])\n\s+(?=[\]\d\"][^:]*[\n\]])", "", text) + "\n")


if __name__ == "__main__":
    main()
