"""``adapter_config.json``: what PEFT says about an adapter, and which of it vLLM serves as it was trained.

The rules follow vLLM 0.32 (``vllm/lora/peft_helper.py``) and PEFT 0.21 (``LoraConfig``): what 0.32 refuses is refused
here before a byte reaches an engine, and what engines up to 0.30 ignore silently is reported as ``min_engine``. Pure:
bytes in, a frozen summary out. Regular expressions of the file are run only when they cannot run away.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE
from lorafleet.artifacts.strict_json import parse_object

MAX_CONFIG_BYTES = 1024 * 1024
MAX_PATTERNS = 4096
MAX_RANK = 512
"""The highest ``--max-lora-rank`` that any vLLM takes (``MaxLoRARanks``)."""

MAX_ALPHA = 1e6
"""vLLM multiplies B by alpha / r when it loads; beyond any use, this only keeps the product a number."""

PATTERNS_SINCE = (0, 32)
"""The vLLM version that honours ``rank_pattern`` and ``alpha_pattern``; 0.30 and older ignore them (vLLM contract)."""

# These only choose the first weights: what is saved is plain LoRA (vLLM 0.32 PEFTHelper._init_is_supported).
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")

# PEFT matches a pattern as (.*\.)?(key)$. At most two repetitions and no repeated group keep that polynomial and small.
_PATTERN_KEY = re.compile(r"[A-Za-z0-9_.\-^$|()\[\]\\*+?]{1,256}")
_REPEATED_GROUP = re.compile(r"\)[*+?]")
_MAX_REPETITIONS = 2


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What counts of a valid configuration: the ranks, where they apply, and for which base model.

    ``scales_to_zero``: every alpha is 0, so that the adapter changes nothing whatever its matrices are.
    """

    base_model: str | None
    rank: int
    rank_pattern: tuple[tuple[str, int], ...]
    target_modules: tuple[str, ...]
    min_engine: tuple[int, int] | None
    scales_to_zero: bool = False

    @property
    def max_rank(self) -> int:
        """The highest rank of any module, as vLLM compares it with ``max_lora_rank``."""
        return max((self.rank, *(rank for _, rank in self.rank_pattern)))

    def rank_of(self, module: str) -> int:
        """The rank PEFT gave a module, by its name without ``base_model.model.`` (first pattern that matches wins)."""
        for key, rank in self.rank_pattern:
            if re.match(rf"(.*\.)?({key})$", module):
                return rank
        return self.rank


_Test = Callable[[Any], bool]
_FEATURES: tuple[tuple[str, _Test, str], ...] = (
    ("use_dora", bool, "vLLM does not apply DoRA: train without use_dora, or merge the adapter into its base model"),
    ("modules_to_save", bool, "whole modules are not served from an adapter: train without modules_to_save"),
    ("lora_bias", bool, "vLLM does not apply a bias of LoRA layers: train without lora_bias"),
    ("layer_replication", bool, "vLLM does not replicate layers: merge the adapter into its base model"),
    ("alora_invocation_tokens", bool, "vLLM does not apply activated LoRA (aLoRA): train a plain LoRA"),
    ("use_qalora", bool, "vLLM does not apply QALoRA: train a plain LoRA"),
    ("use_bdlora", bool, "vLLM does not apply block-diagonal LoRA: train a plain LoRA"),
    ("arrow_config", bool, "vLLM does not apply Arrow routing: publish the experts as adapters of their own"),
    ("kasa_config", bool, "vLLM does not apply KaSA: train a plain LoRA"),
    ("monteclora_config", bool, "vLLM does not apply MonteCLoRA: train a plain LoRA"),
    ("trainable_token_indices", bool, "trained tokens are not served from an adapter: train without them"),
    (
        "ensure_weight_tying",
        bool,
        "vLLM does not tie the adapters of embed_tokens and lm_head: train without ensure_weight_tying",
    ),
    (
        "init_lora_weights",
        lambda value: isinstance(value, str) and value.lower() not in _PLAIN_INITS,
        "this initialisation changes the base model's weights when PEFT loads the adapter, which vLLM does not do:"
        " convert it with PEFT's path_initial_model_for_weight_conversion",
    ),
)


def parse(data: bytes) -> PeftConfig:
    """The summary of ``adapter_config.json``.

    Raises ArtifactError: ConfigInvalid, PeftTypeNotSupported, FeatureNotSupported.
    """
    config = _object(data)
    peft_type = config.get("peft_type")
    if peft_type != "LORA":
        raise ArtifactError(
            Reason.PEFT_TYPE_NOT_SUPPORTED,
            f"{CONFIG_FILE} has peft_type {_short(peft_type)}; expected 'LORA': vLLM serves only LoRA adapters,"
            " train one",
        )
    for field, is_used, why in _FEATURES:
        if is_used(config.get(field)):
            raise ArtifactError(
                Reason.FEATURE_NOT_SUPPORTED, f"{CONFIG_FILE} has {field} set to {_short(config[field])}; {why}"
            )
    if config.get("bias", "none") != "none":
        raise ArtifactError(
            Reason.FEATURE_NOT_SUPPORTED,
            f"{CONFIG_FILE} has bias {_short(config['bias'])}; expected 'none': vLLM does not apply a trained bias,"
            " train without it",
        )
    rank = _rank("r", config.get("r"))
    alpha = _alpha("lora_alpha", config.get("lora_alpha"))
    rank_pattern = tuple(
        (key, _rank(f"rank_pattern[{key!r}]", value)) for key, value in _pattern(config, "rank_pattern")
    )
    alpha_pattern = [_alpha(f"alpha_pattern[{key!r}]", value) for key, value in _pattern(config, "alpha_pattern")]
    differs = any(value != rank for _, value in rank_pattern) or any(value != alpha for value in alpha_pattern)
    if type(config.get("use_rslora")) not in (bool, type(None)):
        raise _invalid(f"use_rslora is {_short(config['use_rslora'])}; expected true or false")
    base_model = config.get("base_model_name_or_path")
    if base_model is not None and not isinstance(base_model, str):
        raise _invalid(f"base_model_name_or_path is {_short(base_model)}; expected the base model's name")
    return PeftConfig(
        base_model=base_model,
        rank=rank,
        rank_pattern=rank_pattern,
        target_modules=_target_modules(config),
        min_engine=PATTERNS_SINCE if differs else None,
        scales_to_zero=not any((alpha, *alpha_pattern)),
    )


def with_base_model(data: bytes, model: str) -> bytes:
    """The same configuration with ``base_model_name_or_path`` set to ``model``; every other value stays equal.

    vLLM's resolver compares that field with the engine's ``--model`` string, character for character (vLLM contract).
    """
    config = _object(data)
    config["base_model_name_or_path"] = model
    # A line for each field, as PEFT writes it; `indent` would make a slow encoder do the rest, too.
    lines = (f"  {_encode(name)}: {_encode(value)}" for name, value in config.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


_encode = json.JSONEncoder(allow_nan=False).encode
"""Made once: ``json.dumps`` with an option makes one for each value."""


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise ArtifactError(
            Reason.SIZE_LIMIT_EXCEEDED,
            f"{CONFIG_FILE} has more than {MAX_CONFIG_BYTES} bytes: publish the file that PEFT's save_pretrained wrote",
        )
    try:
        return parse_object(data)
    except ValueError as error:
        raise _invalid(f"it is no valid JSON object: {error}") from None


def _rank(field: str, value: Any) -> int:
    if type(value) is not int or value <= 0:
        raise _invalid(f"{field} is {_short(value)}; expected a positive integer")
    return value


def _alpha(field: str, value: Any) -> float:
    # Compared before anything makes a float of it, which an integer may be too large for.
    if type(value) not in (int, float) or not -MAX_ALPHA <= value <= MAX_ALPHA:
        raise _invalid(f"{field} is {_short(value)}; expected a number, at most {MAX_ALPHA:.0f}")
    return float(value)


def _pattern(config: dict[str, Any], field: str) -> list[tuple[str, Any]]:
    value = config.get(field)
    if value is None:
        return []
    if not isinstance(value, dict) or len(value) > MAX_PATTERNS:
        raise _invalid(f"{field} is {_short(value)}; expected an object with at most {MAX_PATTERNS} module names")
    for key in value:
        repetitions = len(re.findall(r"[*+?]", key))
        runs_away = repetitions > _MAX_REPETITIONS or _REPEATED_GROUP.search(key)
        if not _PATTERN_KEY.fullmatch(key) or runs_away or not _compiles(key):
            raise _invalid(
                f"{field} has the key {_short(key)}; expected a module name, or a regular expression with at most"
                f" {_MAX_REPETITIONS} repetitions and no repeated group: write the modules' names instead"
            )
    return list(value.items())


def _compiles(key: str) -> bool:
    try:
        re.compile(rf"(.*\.)?({key})$")
    except (re.error, OverflowError):
        return False
    return True


def _target_modules(config: dict[str, Any]) -> tuple[str, ...]:
    value = config.get("target_modules")
    if isinstance(value, str) and value:
        return (value,)
    if isinstance(value, list) and all(isinstance(module, str) and module for module in value):
        modules = tuple(value)
    elif value is None and "target_modules" in config:
        modules = ()
    else:
        raise _invalid(f"target_modules is {_short(value)}; expected a list of module names or one expression")
    parameters = config.get("target_parameters") or []
    if not isinstance(parameters, list) or not all(isinstance(name, str) and name for name in parameters):
        raise _invalid(f"target_parameters is {_short(parameters)}; expected a list of parameters' names")
    if not modules and not parameters:
        raise _invalid("target_modules names no module: the adapter changes nothing")
    return modules


def _invalid(what: str) -> ArtifactError:
    return ArtifactError(
        Reason.CONFIG_INVALID, f"{CONFIG_FILE}: {what}; save the adapter again with PEFT's save_pretrained"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
