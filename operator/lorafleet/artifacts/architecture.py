"""The modules of a base model that vLLM applies LoRA to, with their true sizes, from the model's ``config.json``.

Pure: a configuration in, a frozen table out; None when the architecture, or a number that it needs, is not known. The
tables follow vLLM 0.27.1 to 0.32 (``vllm/model_executor/models``, ``vllm/lora/model_manager.py``);
``tests/artifacts/recorded`` holds what vLLM itself makes of each. vLLM looks an adapter's modules up by their full name
and leaves out, without a word, those that it does not find; so these names are all that counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

_HEAD = "lm_head"
_MAX_LAYERS = 2048
_MAX_EXPERTS = 4096


class Cut(Enum):
    """Which side of a linear layer tensor parallelism cuts into one part per GPU."""

    NONE = "none"
    INPUTS = "inputs"
    OUTPUTS = "outputs"


@dataclass(frozen=True, slots=True)
class Linear:
    """A module: A is (rank, inputs) and B is (outputs, rank).

    ``kv_outputs`` of the outputs belong to ``kv_heads`` heads, of which every GPU has at least one. ``experts``: that
    many modules are stacked in one pair, A is (experts · rank, inputs) and B is (outputs, experts · rank).
    """

    inputs: int
    outputs: int
    cut: Cut = Cut.NONE
    kv_outputs: int = 0
    kv_heads: int = 1
    experts: int = 1


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's modules by their name in it. Of ``together``, an adapter has all modules of a layer or none."""

    modules: Mapping[str, Linear]
    together: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A base model. ``roots``: how the name of its layers may start in an adapter, without ``base_model.model.``.

    ``outside``: modules that are in no layer, by the name that `locate` gives them.
    """

    name: str
    roots: tuple[str, ...]
    layers: tuple[Layer, ...]
    outside: Mapping[str, Linear]
    vocabulary: int
    hidden: int

    def locate(self, module: str) -> str | None:
        """A module's one name, such as ``layers.3.self_attn.q_proj``, from the one in an adapter; None: not there."""
        if module == _HEAD:
            return module if module in self.outside else None
        for root in self.roots:
            rest = module.removeprefix(root)
            if rest not in (module, _HEAD) and self.find(rest) is not None:
                return rest
        return None

    def find(self, name: str) -> Linear | None:
        """The module of a name that `locate` gave."""
        if name in self.outside:
            return self.outside[name]
        layers, _, rest = name.partition(".")
        number, _, local = rest.partition(".")
        # "01" and "²" are digits to Python but no layer to vLLM.
        if layers != "layers" or not number.isdecimal() or str(int(number[:6])) != number:
            return None
        return self.layers[int(number)].modules.get(local) if int(number) < len(self.layers) else None

    @property
    def targets(self) -> tuple[str, ...]:
        """What the modules are called, by the last part of their names, sorted."""
        names = {name for layer in self.layers for name in layer.modules} | set(self.outside)
        return tuple(sorted({name.removesuffix(".base_layer").rsplit(".", 1)[-1] for name in names}))


def architecture(config: Mapping[str, Any]) -> Architecture | None:
    """The base model of a ``config.json``; None when it cannot be known."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    kind = _ARCHITECTURES.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    # Older files of Qwen2-VL have the sizes of the text outside.
    nested = config.get("text_config") if kind.nested else None
    fields = nested if isinstance(nested, Mapping) else config
    if kind.nested and fields is config and "hidden_size" not in config:
        return None
    numbers = _Numbers({**kind.defaults, **fields})
    try:
        layers, outside = kind.make(numbers)
        vocabulary, hidden = numbers["vocab_size"], numbers["hidden_size"]
    except _Unknown:
        return None
    return Architecture(str(name), kind.roots, layers, MappingProxyType(outside), vocabulary, hidden)


class _Unknown(Exception):
    """A number that the sizes need is missing or impossible."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The fields of a configuration, of which only sane numbers are taken."""

    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> int:
        value = self.fields.get(name)
        if type(value) is not int or not 0 < value < 2**24:
            raise _Unknown
        return value

    def get(self, name: str, default: int) -> int:
        return default if self.fields.get(name) is None else self[name]

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of numbers; empty when missing."""
        value = self.fields.get(name) or ()
        if not isinstance(value, (list, tuple)) or not all(type(item) is int for item in value):
            raise _Unknown
        return tuple(value)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        if self["num_hidden_layers"] > _MAX_LAYERS:
            raise _Unknown
        return self["num_hidden_layers"]


_Made = tuple[tuple[Layer, ...], dict[str, Linear]]
_Make = Callable[[_Numbers], _Made]


def _attention(config: _Numbers, out: str = "o_proj", *, packed: bool = False) -> dict[str, Linear]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head = config.get("head_dim", max(1, hidden // heads))
    q, kv = heads * head, kv_heads * head
    if packed:
        qkv = {"qkv_proj": Linear(hidden, q + 2 * kv, Cut.OUTPUTS, 2 * kv, kv_heads)}
    else:
        of_kv = Linear(hidden, kv, Cut.OUTPUTS, kv, kv_heads)
        qkv = {"q_proj": Linear(hidden, q, Cut.OUTPUTS), "k_proj": of_kv, "v_proj": of_kv}
    return {f"self_attn.{name}": linear for name, linear in (qkv | {out: Linear(q, hidden, Cut.INPUTS)}).items()}


def _mlp(path: str, hidden: int, size: int, *, packed: bool = False) -> dict[str, Linear]:
    up = Linear(hidden, size, Cut.OUTPUTS)
    wide = {"gate_up_proj": Linear(hidden, 2 * size, Cut.OUTPUTS)} if packed else {"gate_proj": up, "up_proj": up}
    return {
        f"{path}.{name}": linear for name, linear in (wide | {"down_proj": Linear(size, hidden, Cut.INPUTS)}).items()
    }


def _experts(path: str, count: int, hidden: int, size: int, names: tuple[str, str, str]) -> dict[str, Linear]:
    """``names``: of the gate, the projection down, and the projection up."""
    if count > _MAX_EXPERTS:
        raise _Unknown
    gate, down, up = names
    wide = Linear(hidden, size, Cut.OUTPUTS)
    each = {gate: wide, down: Linear(size, hidden, Cut.INPUTS), up: wide}
    return {f"{path}.{expert}.{name}": linear for expert in range(count) for name, linear in each.items()}


def _embeddings(config: _Numbers) -> dict[str, Linear]:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    return {"embed_tokens": Linear(vocabulary, hidden), _HEAD: Linear(hidden, vocabulary)}


def _dense(*, packed: bool = False, embeddings: bool = False) -> _Make:
    """Decoders of the kind of Llama. ``packed``: q, k and v are one module, and so are gate and up."""

    def make(config: _Numbers) -> _Made:
        mlp = _mlp("mlp", config["hidden_size"], config["intermediate_size"], packed=packed)
        layer = Layer(_attention(config, packed=packed) | mlp)
        return (layer,) * config.layers, _embeddings(config) if embeddings else {}

    return make


def _opt(config: _Numbers) -> _Made:
    hidden, size = config["hidden_size"], config["ffn_dim"]
    mlp = {"fc1": Linear(hidden, size, Cut.OUTPUTS), "fc2": Linear(size, hidden, Cut.INPUTS)}
    inner = config["word_embed_proj_dim"]
    outside = {"project_in": Linear(inner, hidden), "project_out": Linear(hidden, inner)} if inner != hidden else {}
    plain = _Numbers({name: config[name] for name in ("hidden_size", "num_attention_heads")})
    return (Layer(_attention(plain, "out_proj") | mlp),) * config.layers, outside


def _mixtral(config: _Numbers) -> _Made:
    hidden, count = config["hidden_size"], config["num_local_experts"]
    path = "block_sparse_moe"
    experts = _experts(f"{path}.experts", count, hidden, config["intermediate_size"], ("w1", "w2", "w3"))
    layer = Layer(_attention(config) | {f"{path}.gate": Linear(hidden, count)} | experts, frozenset(experts))
    return (layer,) * config.layers, _embeddings(config)


def _qwen_moe(*, shared: bool, embeddings: bool) -> _Make:
    """``shared``: sparse layers have an expert that sees every token."""

    def make(config: _Numbers) -> _Made:
        hidden, count = config["hidden_size"], config["num_experts"]
        experts = _experts(
            "mlp.experts", count, hidden, config["moe_intermediate_size"], ("gate_proj", "down_proj", "up_proj")
        )
        modules = _attention(config) | {"mlp.gate": Linear(hidden, count)} | experts
        if shared:
            modules |= {"mlp.shared_expert_gate": Linear(hidden, 1)}
            modules |= _mlp("mlp.shared_expert", hidden, config["shared_expert_intermediate_size"])
        sparse = Layer(modules, frozenset(experts))
        dense = Layer(_attention(config) | _mlp("mlp", hidden, config["intermediate_size"]))
        step, only_mlp = config["decoder_sparse_step"], set(config.numbers("mlp_only_layers"))
        layers = (
            sparse if number not in only_mlp and (number + 1) % step == 0 else dense for number in range(config.layers)
        )
        return tuple(layers), _embeddings(config) if embeddings else {}

    return make


def _gpt_oss(config: _Numbers) -> _Made:
    """Experts are one parameter, for which PEFT writes ``experts.base_layer`` (gate and up) and ``experts`` (down)."""
    hidden, size, count = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    if count > _MAX_EXPERTS:
        raise _Unknown
    experts = {
        "mlp.experts": Linear(size, hidden, Cut.INPUTS, experts=count),
        "mlp.experts.base_layer": Linear(hidden, 2 * size, Cut.OUTPUTS, experts=count),
    }
    layer = Layer(_attention(config) | {"mlp.router": Linear(hidden, count)} | experts, frozenset(experts))
    return (layer,) * config.layers, {}


# How the names of layers start. vLLM renames the second and third to the fourth (hf_to_vllm_mapper).
_TEXT = ("model.",)
_NESTED = ("model.language_model.", "language_model.model.")
_NESTED_OR_TEXT = (*_NESTED, "model.")


def _defaults(*values: int | None, **more: int) -> Mapping[str, int]:
    """What a ``config.json`` may leave out: the defaults of transformers 5."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    given = dict(zip((*names, "num_key_value_heads", "head_dim"), values, strict=False))
    return MappingProxyType({name: value for name, value in (given | more).items() if value is not None})


@dataclass(frozen=True, slots=True)
class _Kind:
    """An entry of ``architectures``. ``nested``: the sizes are in ``text_config``."""

    make: _Make
    defaults: Mapping[str, int]
    roots: tuple[str, ...] = _TEXT
    nested: bool = False


_LLAMA = _Kind(_dense(embeddings=True), _defaults(4096, 11008, 32, 32, 32000))
_MISTRAL = _defaults(4096, 14336, 32, 32, 32000, 8)
_QWEN2 = _defaults(4096, 22016, 32, 32, 151936, 32)
_GEMMA3 = _defaults(2304, 9216, 26, 8, 262208, 4, 256)
_ARCHITECTURES: Mapping[str, _Kind] = MappingProxyType(
    {
        "LlamaForCausalLM": _LLAMA,
        "LLaMAForCausalLM": _LLAMA,
        "GraniteForCausalLM": _LLAMA,
        # No embeddings for Mistral and Qwen2: their embedding_modules are empty.
        "MistralForCausalLM": _Kind(_dense(), _MISTRAL),
        "Mistral3ForConditionalGeneration": _Kind(_dense(), _MISTRAL, _NESTED_OR_TEXT, nested=True),
        "Qwen2ForCausalLM": _Kind(_dense(), _QWEN2),
        "Qwen2VLForConditionalGeneration": _Kind(_dense(), _QWEN2, _NESTED_OR_TEXT, nested=True),
        "Qwen2_5_VLForConditionalGeneration": _Kind(_dense(), _QWEN2, _NESTED_OR_TEXT, nested=True),
        "Qwen3ForCausalLM": _Kind(_dense(embeddings=True), _defaults(4096, 22016, 32, 32, 151936, 32, 128)),
        "GemmaForCausalLM": _Kind(_dense(), _defaults(3072, 24576, 28, 16, 256000, 16, 256)),
        "Gemma2ForCausalLM": _Kind(_dense(), _defaults(2304, 9216, 26, 8, 256000, 4, 256)),
        "Gemma3ForCausalLM": _Kind(_dense(), _GEMMA3),
        "Gemma3ForConditionalGeneration": _Kind(_dense(), _GEMMA3, _NESTED, nested=True),
        "Phi3ForCausalLM": _Kind(_dense(packed=True, embeddings=True), _defaults(3072, 8192, 32, 32, 32064)),
        "OPTForCausalLM": _Kind(
            _opt,
            _defaults(768, None, 12, 12, 50272, ffn_dim=3072, word_embed_proj_dim=768),
            ("model.decoder.", "decoder."),
        ),
        "MixtralForCausalLM": _Kind(_mixtral, _defaults(4096, 14336, 32, 32, 32000, 8, num_local_experts=8)),
        "Qwen2MoeForCausalLM": _Kind(
            _qwen_moe(shared=True, embeddings=False),
            _defaults(
                2048,
                5632,
                24,
                16,
                151936,
                16,
                num_experts=60,
                moe_intermediate_size=1408,
                shared_expert_intermediate_size=5632,
                decoder_sparse_step=1,
            ),
        ),
        "Qwen3MoeForCausalLM": _Kind(
            _qwen_moe(shared=False, embeddings=True),
            _defaults(2048, 6144, 24, 32, 151936, 4, num_experts=128, moe_intermediate_size=768, decoder_sparse_step=1),
        ),
        "GptOssForCausalLM": _Kind(_gpt_oss, _defaults(2880, 2880, 36, 64, 201088, 8, 64, num_local_experts=128)),
    }
)
