"""Do an adapter's matrices fit the modules of the fleet's base model?

vLLM answers 200 to a matrix that is narrower than its module, to one for a layer that the model does not have, and to
a name that differs a little, and then serves the base model, or nonsense, under the adapter's name. Only comparing each
name and each size with the model's own finds that. Pure.
"""

from collections.abc import Iterable

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.architecture import Architecture, Linear
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import WEIGHTS_FILE
from lorafleet.artifacts.peft_config import PeftConfig
from lorafleet.artifacts.safetensors_header import Pair, Tensor, Weights

_NEXT = "publish an adapter that was trained for this fleet's base model, or correct its config.json in the fleet's"
_WHERE = "spec.baseModel.config or spec.baseModel.volume"


def check_shapes(weights: Weights, model: Architecture, config: PeftConfig) -> dict[str, int]:
    """Compare all matrices with the base model's modules; the answer is each module's rank, by its name in the model.

    Raises ArtifactError: ShapeMismatch (no such module or layer, or another size), FeatureNotSupported (experts that
    vLLM cannot load by themselves).
    """
    ranks: dict[str, int] = {}
    for pair in weights.pairs:
        name = model.locate(pair.module)
        linear = None if name is None else model.find(name)
        if name is None or linear is None:
            raise _no_module(pair, model)
        if name in ranks:
            raise _mismatch(
                f"has module {name!r} under two names, one of them {pair.module!r}; expected each module once"
            )
        rank = pair.rank
        if linear.experts > 1:
            rank = _rank_of_stacked(pair, linear, config)
        _check_size(pair.a, (pair.rank, linear.inputs), model)
        _check_size(pair.b, (linear.outputs, pair.rank), model)
        ranks[name] = rank
    for tensor in weights.others:
        _check_size(tensor, (model.vocabulary, model.hidden), model)
    _check_experts(ranks, model)
    return ranks


def _check_size(tensor: Tensor, expected: tuple[int, int], model: Architecture) -> None:
    if tensor.shape != expected:
        raise _mismatch(
            f"has tensor {tensor.name!r} of shape {list(tensor.shape)}; the base model ({model.name}) needs"
            f" {list(expected)}"
        )


def _rank_of_stacked(pair: Pair, linear: Linear, config: PeftConfig) -> int:
    parameter = "gate_up_proj" if pair.module.endswith(".base_layer") else "down_proj"
    rank = config.rank_of(f"{pair.module.removesuffix('.base_layer')}.{parameter}")
    if pair.rank != rank * linear.experts:
        raise _mismatch(
            f"has tensor {pair.a.name!r} with {pair.rank} rows; expected {rank * linear.experts}, the rank {rank} for"
            f" each of {linear.experts} experts"
        )
    return rank


def _check_experts(ranks: dict[str, int], model: Architecture) -> None:
    """Experts of a layer come all together, and those of one projection with one rank (``pack_moe`` of vLLM)."""
    for number, layer in enumerate(model.layers):
        if not layer.together:
            continue
        found = {local: ranks[name] for local in layer.together if (name := f"layers.{number}.{local}") in ranks}
        if not found:
            continue
        missing = sorted(layer.together - found.keys())
        if missing:
            raise ArtifactError(
                Reason.FEATURE_NOT_SUPPORTED,
                f"{WEIGHTS_FILE} has {len(found)} of {len(layer.together)} modules of the experts of layer {number};"
                f" {missing[0]!r} is missing, and vLLM loads experts only all together: train all projections of all"
                " experts, or none",
            )
        by_projection: dict[str, int] = {}
        for local, rank in sorted(found.items()):
            projection = local.rsplit(".", 1)[-1]
            if by_projection.setdefault(projection, rank) != rank:
                raise ArtifactError(
                    Reason.FEATURE_NOT_SUPPORTED,
                    f"{WEIGHTS_FILE} has rank {rank} in {local!r} of layer {number} and {by_projection[projection]} in"
                    " other experts; vLLM takes one rank for a projection of all experts: train them with one r",
                )


def _no_module(pair: Pair, model: Architecture) -> ArtifactError:
    last = _last(pair.module)
    if last not in model.targets:
        what = f"vLLM applies LoRA to {', '.join(_listed(model.targets))} of the base model ({model.name})"
    else:
        what = (
            f"the base model ({model.name}) has {len(model.layers)} layers, from {model.roots[0]}layers.0 to"
            f" {model.roots[0]}layers.{len(model.layers) - 1}, and none has it"
        )
    return _mismatch(f"has tensor {pair.a.name!r} for a module that is not there: {what}")


def _last(module: str) -> str:
    return module.removesuffix(".base_layer").rsplit(".", 1)[-1]


def _listed(names: Iterable[str]) -> list[str]:
    """Names for people: no more than fit."""
    listed = list(names)
    return listed if len(listed) <= 20 else [*listed[:20], "…"]


def _mismatch(what: str) -> ArtifactError:
    return ArtifactError(Reason.SHAPE_MISMATCH, f"{WEIGHTS_FILE} {what}: {_NEXT} {_WHERE}")
