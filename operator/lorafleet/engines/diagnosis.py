"""What is wrong with an engine, and who has to do what about it. Pure: facts and answers in, sentences out.

A blocking diagnosis means that the fleet must not use the engine; the others are told and change nothing. Every
message names the engine, what was found, what was expected and the fix. What vLLM itself said outweighs what its Pod
seems to say, because images and scripts can set what no Pod shows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lorafleet.api.reasons import Reason
from lorafleet.engines.errors import EngineError, Rejected
from lorafleet.engines.facts import PLUGINS, RESOLVER_DIRECTORY, RESOLVER_PLUGIN, UPDATING, EngineFacts

OLDEST = (0, 27, 1)
"""Before it, a load could mix up adapters of running requests (vLLM contract)."""


@dataclass(frozen=True)
class Diagnosis:
    """One thing that is wrong. ``blocking``: the engine must not be used until it is mended."""

    reason: Reason
    message: str
    blocking: bool = True


@dataclass(frozen=True)
class Expectations:
    """What the fleet expects of its engines.

    ``base_names`` are the base model's name and aliases, ``engine_model`` is the ``--model`` string that published
    configurations carry (None until an engine has set it), ``other_fleets`` are fleets that claim the engine too.
    """

    base_names: Sequence[str]
    mount_path: str
    engine_model: str | None = None
    other_fleets: Sequence[str] = field(default=())
    expects_api_key: bool = False


def diagnose(
    facts: EngineFacts,
    *,
    bases: Sequence[tuple[str, str]] | None = None,
    version: str | None = None,
    error: EngineError | None = None,
    runtime_updating: bool | None = None,
    expectations: Expectations,
) -> tuple[Diagnosis, ...]:
    """Everything wrong with an engine, blocking things first.

    ``bases`` are the (id, root) of the engine's base entries, None when it has not been listed; ``version`` is what
    ``/version`` said; ``error`` is how the last call failed, None when it did not; ``runtime_updating`` is what
    `EngineClient.runtime_updating` found, None when it was not asked.
    """
    found = [
        *_claims(facts, expectations),
        *_place(facts),
        *_answers(facts, error, expectations),
        *_version(facts, version),
        *_base(facts, bases, expectations),
        *_command_line(facts, runtime_updating),
        *_key(facts, bases, expectations),
        *_resolver(facts, expectations),
    ]
    by_reason: dict[Reason, Diagnosis] = {}
    for one in found:
        by_reason.setdefault(one.reason, one)
    return tuple(sorted(by_reason.values(), key=lambda one: not one.blocking))


def _claims(facts: EngineFacts, expectations: Expectations) -> list[Diagnosis]:
    if not expectations.other_fleets:
        return []
    others = " and ".join(sorted(expectations.other_fleets))
    message = (
        f"engine {facts.name} is also selected by fleet {others} and belongs to the oldest;"
        " make spec.engines.selector of the fleets select different pods"
    )
    return [Diagnosis(Reason.CLAIMED_BY_TWO_FLEETS, message)]


def _place(facts: EngineFacts) -> list[Diagnosis]:
    if facts.port is not None:
        return []
    message = (
        f"engine {facts.name} has no container port of the name in spec.engines.port;"
        " name the port of vLLM so in the pod, or give its number in the fleet"
    )
    return [Diagnosis(Reason.PORT_NOT_FOUND, message)]


def _answers(facts: EngineFacts, error: EngineError | None, expectations: Expectations) -> list[Diagnosis]:
    # A load that failed for the adapter's or the volume's sake says nothing about the engine as such.
    if error is None or isinstance(error, Rejected) or error.reason is Reason.LOAD_FAILED:
        return []
    if error.reason is Reason.API_KEY_MISSING and expectations.expects_api_key:
        message = (
            f"engine {facts.name} asks for an API key and none could be read: create the Secret that"
            " spec.engines.apiKey names, with that key in it"
        )
        return [Diagnosis(error.reason, message)]
    return [Diagnosis(error.reason, error.message)]


def _version(facts: EngineFacts, version: str | None) -> list[Diagnosis]:
    number = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    # A development build calls itself 0.1.dev… or names no number: the person who made it knows what is in it.
    if number is None or re.match(r"0\.1\.dev", version or ""):
        return []
    if tuple(int(part or 0) for part in number.groups()) >= OLDEST:
        return []
    oldest = ".".join(map(str, OLDEST))
    message = (
        f"engine {facts.name} runs vLLM {version}, which can mix up adapters while one is loaded;"
        f" upgrade it to {oldest} or later"
    )
    return [Diagnosis(Reason.VERSION_NOT_SUPPORTED, message)]


def _base(facts: EngineFacts, bases: Sequence[tuple[str, str]] | None, expectations: Expectations) -> list[Diagnosis]:
    roots = [root for _, root in bases or ()] or ([facts.model] if facts.model and bases is None else [])
    # What the engine lists is what it serves; its command line counts only until it was asked.
    names = {name for base in bases for name in base} if bases else {*roots, *facts.served_model_names}
    if bases is not None and not bases:
        message = (
            f"engine {facts.name} lists no base model; set spec.engines.port of the fleet to the port of vLLM's API"
        )
        return [Diagnosis(Reason.BASE_MODEL_DIFFERS, message)]
    if not roots:
        return []
    expected = tuple(expectations.base_names)
    if expected and names.isdisjoint(expected):
        message = (
            f"engine {facts.name} serves {_list(names)} and the fleet is for {_list(expected)}: start it with that"
            " model, or, if the weights are the same, add its name to spec.baseModel.aliases"
        )
        return [Diagnosis(Reason.BASE_MODEL_DIFFERS, message)]
    if expectations.engine_model and expectations.engine_model not in roots:
        message = (
            f"engine {facts.name} was started with --model {roots[0]} and the fleet publishes for --model"
            f" {expectations.engine_model}: loads work, but vLLM's filesystem resolver compares the two character for"
            " character and will not recover adapters by itself after a restart; start all engines of the fleet with"
            " the same --model"
        )
        return [Diagnosis(Reason.BASE_MODEL_DIFFERS, message, blocking=False)]
    return []


def _command_line(facts: EngineFacts, runtime_updating: bool | None) -> list[Diagnosis]:
    found = []
    if facts.enable_lora is False:
        message = f"engine {facts.name} was started without --enable-lora; add it and restart"
        found.append(Diagnosis(Reason.LORA_DISABLED, message))
    if runtime_updating is None:
        runtime_updating = facts.runtime_updating
        # vLLM refuses to start with runtime updating and several API servers: one that answers has one.
        if facts.api_server_count > 1:
            message = (
                f"engine {facts.name} has {facts.api_server_count} API servers, and each would know other adapters;"
                " start it with --api-server-count 1"
            )
            found.append(Diagnosis(Reason.TOO_MANY_API_SERVERS, message))
    if runtime_updating is False:
        message = (
            f"engine {facts.name} does not take adapters at run time; set the environment variable {UPDATING}=true in"
            f" its container {facts.container} and restart"
        )
        found.append(Diagnosis(Reason.RUNTIME_UPDATING_DISABLED, message))
    return found


def _key(facts: EngineFacts, bases: Sequence[tuple[str, str]] | None, expectations: Expectations) -> list[Diagnosis]:
    if not facts.has_api_key or expectations.expects_api_key or bases is not None:
        return []
    message = (
        f"engine {facts.name} was started with an API key and the fleet names none;"
        " name the Secret that holds it in spec.engines.apiKey"
    )
    return [Diagnosis(Reason.API_KEY_MISSING, message)]


def _resolver(facts: EngineFacts, expectations: Expectations) -> list[Diagnosis]:
    """Whether the engine can load adapters by itself after a restart. Never blocking: loads work without it."""
    without = "loads work, but the engine cannot recover adapters by itself after a restart"
    mount = expectations.mount_path
    if PLUGINS not in facts.unknown and facts.plugins is not None and RESOLVER_PLUGIN not in facts.plugins:
        message = (
            f"engine {facts.name} was started without the plugin {RESOLVER_PLUGIN} in {PLUGINS}: {without};"
            " add it and restart"
        )
        return [Diagnosis(Reason.RESOLVER_NOT_CONFIGURED, message, blocking=False)]
    if RESOLVER_DIRECTORY in facts.unknown:
        return []
    if not facts.resolver_dir:
        message = (
            f"engine {facts.name} was started without {RESOLVER_DIRECTORY}: {without}; set it to {mount} and restart"
        )
        return [Diagnosis(Reason.RESOLVER_NOT_CONFIGURED, message, blocking=False)]
    if facts.resolver_dir.rstrip("/") != mount.rstrip("/"):
        message = (
            f"engine {facts.name} has {RESOLVER_DIRECTORY}={facts.resolver_dir} and the fleet's spec.storage.mountPath"
            f" is {mount}: {without}; make them equal and restart"
        )
        return [Diagnosis(Reason.RESOLVER_DIRECTORY_DIFFERS, message, blocking=False)]
    return []


def _list(names: Sequence[str] | set[str]) -> str:
    return " or ".join(sorted(names) if isinstance(names, set) else names)
