"""What a vLLM server's refusals mean, named by what the reconcile loop does next.

    EngineError
    ├── Retry             ask again with backoff: nobody has to do anything
    │   ├── BoundElsewhere    the name is loaded from another path: list again, unload first
    │   └── NotLoaded         the engine does not know the name that it was asked by: load it first
    ├── Rejected          final for this adapter version on this engine: only new files or another engine help
    └── Misconfigured     a person must change the engine or the fleet; look again now and then

vLLM's statuses changed between versions (a rank that is too high was 400, 404 and 500), its messages did not: one table
classifies answers by message (vLLM contract, load and unload). Messages name the engine and the next move, quote vLLM
in part, and never hold the API key. Nothing here does I/O.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from lorafleet.api.reasons import Reason

QUOTE = 300
"""Characters of an engine's own words that a message may hold."""


class EngineError(Exception):
    """A call to an engine did not do what was asked. ``reason`` and ``message`` fit a condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Retry(EngineError):
    """It may pass by itself: ask again with backoff."""


class BoundElsewhere(Retry):
    """The name is loaded, from ``root`` and not from where it was asked to be: unload it first, or leave it."""

    def __init__(self, message: str, root: str) -> None:
        super().__init__(Reason.LOAD_FAILED, message)
        self.root = root


class NotLoaded(Retry):
    """The engine does not know the model that it was asked for an answer by: load it first."""


class Rejected(EngineError):
    """This version will not load, or not answer this, on this engine, however often it is asked."""


class Misconfigured(EngineError):
    """The engine or the fleet must be changed by a person."""


class Call(StrEnum):
    """What was asked of the engine; the same words can mean another thing elsewhere."""

    LIST = "list its models"
    LOAD = "load"
    UNLOAD = "unload"
    VERSION = "tell its version"
    HEALTH = "tell its health"
    COMPLETE = "answer as"


@dataclass(frozen=True)
class Answer:
    """A refusal as vLLM words it: ``message`` from any of its three shapes of error bodies."""

    status: int
    message: str


def answer(status: int, body: bytes) -> Answer:
    """The message in a refusal's body.

    vLLM's shapes: ``{"error": {"message": …}}`` from the API, ``{"error": "Unauthorized"}`` from its authentication,
    ``{"detail": "Not Found"}`` from the framework when a route does not exist. Anything else is taken as text.
    """
    text = body.decode("utf-8", "replace")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return Answer(status, text)
    if isinstance(parsed, dict):
        error = parsed.get("error")
        if isinstance(error, dict):
            error = error.get("message")
        for found in (error, parsed.get("detail"), parsed.get("message")):
            if isinstance(found, str):
                return Answer(status, found)
    return Answer(status, text)


@dataclass(frozen=True)
class Rule:
    """One row of the table: a message that matches ``pattern`` is of ``kind`` for ``reason``, with the next ``move``.

    ``calls`` limits a row to calls where the message means that. ``move`` may use the groups of the pattern.
    """

    pattern: re.Pattern[str]
    kind: type[Retry] | type[Rejected] | type[Misconfigured]
    reason: Reason
    move: str
    calls: frozenset[Call] = frozenset(Call)


_CHANGES = frozenset({Call.LOAD, Call.UNLOAD})
_LOAD = frozenset({Call.LOAD})


def _rule(
    pattern: str,
    kind: type[Retry] | type[Rejected] | type[Misconfigured],
    reason: Reason,
    move: str,
    calls: frozenset[Call] = frozenset(Call),
) -> Rule:
    return Rule(re.compile(pattern), kind, reason, move, calls)


_NEW_VERSION = "publish a new version without it"
RULES: tuple[Rule, ...] = (
    # The server. Three shapes, so these match the whole message where the words are common ones.
    _rule(
        r"^Unauthorized$",
        Misconfigured,
        Reason.API_KEY_REJECTED,
        "put the key that the engine was started with into the Secret of spec.engines.apiKey",
    ),
    _rule(
        r"^Not Found$",
        Misconfigured,
        Reason.RUNTIME_UPDATING_DISABLED,
        "start it with the environment variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=true",
        _CHANGES,
    ),
    _rule(
        r"^Not Found$",
        Misconfigured,
        Reason.PORT_NOT_FOUND,
        "no vLLM API answers at this port; set spec.engines.port to vLLM's",
        frozenset(Call) - _CHANGES,
    ),
    _rule(r"LoRA is not enabled", Misconfigured, Reason.LORA_DISABLED, "start it with --enable-lora", _CHANGES),
    # The place: the mount may come, and a volume may be slow to show new files. Before the adapter's own faults,
    # because it quotes the path.
    _rule(
        r"No adapter found for",
        Retry,
        Reason.LOAD_FAILED,
        "mount the serving folder of the fleet's claim at spec.storage.mountPath in the engine, readable for its user",
        _LOAD,
    ),
    # The adapter: its configuration.
    _rule(
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)",
        Rejected,
        Reason.RANK_TOO_HIGH,
        "rank {rank} needs engines started with a --max-lora-rank of at least {rank} (now {most}), or a new version of"
        " rank {most} or less",
        _LOAD,
    ),
    _rule(
        r"not (yet )?support DoRA",
        Rejected,
        Reason.FEATURE_NOT_SUPPORTED,
        "vLLM cannot serve DoRA; " + _NEW_VERSION,
        _LOAD,
    ),
    _rule(
        r"Adapter bias is not supported|not support LoRA bias",
        Rejected,
        Reason.FEATURE_NOT_SUPPORTED,
        "vLLM cannot serve bias; " + _NEW_VERSION,
        _LOAD,
    ),
    _rule(
        r"only supports modules_to_save|modules_to_save .*not supported",
        Rejected,
        Reason.FEATURE_NOT_SUPPORTED,
        "vLLM cannot serve modules_to_save; " + _NEW_VERSION,
        _LOAD,
    ),
    _rule(
        r"init_lora_weights=",
        Rejected,
        Reason.FEATURE_NOT_SUPPORTED,
        "convert it to a plain LoRA with peft's path_initial_model_for_weight_conversion and publish that as a new"
        " version",
        _LOAD,
    ),
    _rule(
        r"not support (Activated LoRA|layer_replication|block-diagonal LoRA|QALoRA)",
        Rejected,
        Reason.FEATURE_NOT_SUPPORTED,
        "vLLM cannot serve this feature of peft; " + _NEW_VERSION,
        _LOAD,
    ),
    _rule(
        r"expected target modules in .* but received",
        Rejected,
        Reason.FEATURE_NOT_SUPPORTED,
        "its target modules cannot be adapted in the engine's model; train a new version without them, for this model",
        _LOAD,
    ),
    _rule(
        r"Missing required configuration fields|must be a positive integer"
        r"|(Expecting .*|Extra data|Unterminated string.*|Invalid (control character|\\escape).*): line \d+ column",
        Rejected,
        Reason.CONFIG_INVALID,
        "adapter_config.json is not what peft writes; publish a new version",
        _LOAD,
    ),
    # The adapter: its weights.
    _rule(
        r"doesn't contain tensors", Rejected, Reason.WEIGHTS_MISSING, "publish a new version with its weights", _LOAD
    ),
    _rule(
        r"[Dd]eserializ|HeaderTooLarge|HeaderTooSmall|InvalidHeader|MetadataIncompleteBuffer|Weights only load failed"
        r"|invalid load key|PytorchStreamReader|is unsupported LoRA weight|is missing weight",
        Rejected,
        Reason.WEIGHTS_INVALID,
        "the weights file is damaged or of another format; publish a new version from a good copy",
        _LOAD,
    ),
    _rule(
        r"size of tensor .* must match|shapes? .*(mismatch|cannot be multiplied|must match)|shape mismatch"
        r"|must be consistent with the base model's vocabulary size|size mismatch|expected shape"
        r"|could not be broadcast|exceeds dimension size|not broadcastable|output with shape",
        Rejected,
        Reason.BASE_MODEL_MISMATCH,
        "its tensors do not fit the engine's model; publish a version trained for this model",
        _LOAD,
    ),
    _rule(
        r"conflicts with a served base model",
        Rejected,
        Reason.LOAD_REJECTED,
        "the adapter has the name of a model that the engine serves; rename one of them",
        _LOAD,
    ),
    _rule(r"must be provided|needs to be provided", Rejected, Reason.LOAD_REJECTED, "report this as a bug", _CHANGES),
)

_UNKNOWN = {
    Call.LOAD: Reason.LOAD_FAILED,
    Call.UNLOAD: Reason.LOAD_FAILED,
    Call.COMPLETE: Reason.PROBE_FAILED,
}


def quote(text: str) -> str:
    """An engine's words on one line, cut to a length that fits a status."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * QUOTE]).split())
    return line if len(line) <= QUOTE else line[: QUOTE - 1] + "…"


def already_loaded(found: Answer) -> bool:
    """Whether the refusal of a load says that the name is taken, from whatever path."""
    return "has already been loaded" in found.message


def not_loaded(found: Answer) -> bool:
    """Whether the refusal of an unload says that there is no such name."""
    return re.search(r"lora adapter .* cannot be found", found.message, re.DOTALL) is not None


def unknown_model(found: Answer) -> bool:
    """Whether the refusal of a completion says that there is no such model."""
    return found.status == 404 and re.search(r"model .* does not exist", found.message, re.DOTALL) is not None


def classify(found: Answer, call: Call, engine: str, *, about: str = "", keyed: bool = True) -> EngineError:
    """The error for an engine's refusal of ``call``. ``about`` is the served name; ``keyed`` whether a key was sent."""
    words = quote(found.message)
    what = f"{call} {about}".strip()
    for rule in RULES:
        match = rule.pattern.search(found.message) if call in rule.calls else None
        if match is None:
            continue
        move = rule.move.format(**match.groupdict()) if match.groupdict() else rule.move
        if rule.reason is Reason.API_KEY_REJECTED:
            if not keyed:
                move = "it was started with an API key; name the Secret that holds it in spec.engines.apiKey"
                return Misconfigured(Reason.API_KEY_MISSING, f"engine {engine} refused to {what}: {move}")
            return Misconfigured(rule.reason, f"engine {engine} refused the API key: {move}")
        return rule.kind(rule.reason, f"engine {engine} did not {what}: {move} (vLLM: {words})")
    reason = _UNKNOWN.get(call, Reason.UNREACHABLE)
    return Retry(
        reason, f"engine {engine} did not {what}: it answered {found.status} ({words or 'nothing'}); trying again"
    )
