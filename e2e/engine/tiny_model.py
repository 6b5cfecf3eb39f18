"""A model small enough for a test, and adapters for it: random, the same on every machine, made on the spot.

Two layers of Llama with random weights, a byte-level BPE tokenizer trained on a sentence, and peft adapters whose B
matrices are not zero, so that each gives its own greedy output. The file runs in two interpreters: imported by ours, it
starts itself in the vLLM environment's, which has torch, transformers and peft. It fetches nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

SENTENCE = "A small model for tests reads this sentence and writes another one; adapters change what it writes."
LAYERS, HIDDEN, HEADS, VOCABULARY = 2, 64, 2, 512
"""Heads of 32: vLLM's attention on the CPU refuses 16."""
MODEL_SEED = 20240607
RECIPE = 2
"""Part of the model's folder: another recipe makes another model."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def _make_model(folder: Path) -> None:
    import torch  # type: ignore[import-not-found]
    from tokenizers import ByteLevelBPETokenizer  # type: ignore[import-not-found]
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # type: ignore[import-not-found]

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "</s>", "<pad>"]
    trained.train_from_iterator([SENTENCE], vocab_size=VOCABULARY, min_frequency=1, special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    torch.manual_seed(MODEL_SEED)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Never the largest logit: special tokens would end an output, others have no text, or none to show.
        for token in range(VOCABULARY):
            text = tokenizer.decode([token]) if len(special) <= token < len(tokenizer) else ""
            if not (text.isascii() and text.isprintable() and text):
                model.lm_head.weight[token] = 0.0
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_adapter(folder: Path, model: Path, options: dict[str, object]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model  # type: ignore[import-not-found]
    from transformers import LlamaForCausalLM

    seed = int(str(options.pop("seed")))
    base_name = str(options.pop("base_name"))
    torch.manual_seed(seed)
    base = LlamaForCausalLM.from_pretrained(model)
    peft = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            # peft starts with B = 0, which would leave the model's output as it is.
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    peft.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base_name
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _readable(folder: Path) -> None:
    """Savers may write mode 0600, which an engine of another user cannot read (vLLM contract)."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _run(version: str, job: dict[str, object]) -> None:
    from e2e.cluster.shell import run
    from e2e.engine.vllm_env import ensure, python_of

    ensure(version)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    run([python_of(version), __file__, json.dumps(job)], env=offline, timeout=300)


def tiny_model(version: str = "0.32.0") -> Path:
    """The model's folder, `<cache>/models/tiny-llama-<recipe>`; made with ``version``'s environment if need be."""
    from e2e.cluster.paths import cache_dir
    from e2e.cluster.shell import step

    folder = cache_dir() / "models" / f"tiny-llama-{RECIPE}"
    if not (folder / "config.json").exists():
        with step("making the tiny model"):
            new = folder.with_name(f".{folder.name}-{os.getpid()}")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            _run(version, {"model": str(new)})
            new.rename(folder)
    return folder


def make_adapters(wanted: Sequence[dict[str, object]], version: str = "0.32.0") -> None:
    """Makes adapters for the tiny model with peft, all in one start of the interpreter.

    Each is ``{"folder": absolute path, "seed": int, "base_name": str, …}``; the rest are options of peft's
    ``LoraConfig`` (``r``, ``lora_alpha``, ``target_modules``, ``use_dora``, ``modules_to_save`` …). Folders that exist
    are replaced.
    """
    _run(version, {"base": str(tiny_model(version)), "adapters": list(wanted)})


def make_adapter(folder: Path, *, seed: int, base_name: str, version: str = "0.32.0", **options: object) -> Path:
    """One adapter; see `make_adapters`."""
    make_adapters([{"folder": str(folder.absolute()), "seed": seed, "base_name": base_name, **options}], version)
    return folder


def _inside(job: dict[str, object]) -> None:
    if "model" in job:
        folder = Path(str(job["model"]))
        _make_model(folder)
        _readable(folder)
        return
    adapters = job["adapters"]
    assert isinstance(adapters, list)
    for one in adapters:
        folder = Path(one.pop("folder"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        options = {"r": 8, "target_modules": list(TARGETS), **one}
        options.setdefault("lora_alpha", 2 * int(options["r"]))
        _make_adapter(folder, Path(str(job["base"])), options)
        _readable(folder)


def main() -> None:
    """In the vLLM environment: does the job that is its argument."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", help="the job as JSON")
    _inside(json.loads(parser.parse_args().job))


if __name__ == "__main__":
    main()
