"""What a container's command line says that vLLM was started with. Pure, and never raises on any command line.

It understands ``vllm serve MODEL``, ``python -m vllm.entrypoints.openai.api_server --model MODEL``, the vLLM images
whose entrypoint is vLLM itself, and the same inside ``sh -c "…"``. Flags are ``--flag value`` or ``--flag=value``, with
dashes or underscores; of a repeated flag the last one counts, as in argparse. What a shell would compute is not known.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh"})
_LISTS = frozenset({"served-model-name", "lora-modules", "api-key", "middleware"})
_BOOLEANS = frozenset({"enable-lora", "no-enable-lora", "headless"})
_SEPARATOR = re.compile(r"^(;|&&|\|\|?|&|\n)$")
_ALIASES = {"asc": "api-server-count", "dp": "data-parallel-size", "tp": "tensor-parallel-size"}
_EXPANSION = re.compile(r"\$\((?P<paren>[A-Za-z_][-A-Za-z0-9_.]*)\)|\$\{(?P<brace>\w+)\}|\$(?P<bare>\w+)")
DEPTH = 4


@dataclass(frozen=True)
class Arguments:
    """The flags by name without dashes; each has the words that follow it. ``positional`` is ``vllm serve``'s model."""

    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positional: str | None = None

    def text(self, name: str) -> str | None:
        """The flag's value; None when it is missing or has none."""
        values = self.flags.get(name, ())
        return values[0] if values else None

    def number(self, name: str) -> int | None:
        """The flag's value as a positive number; None when it is missing or is not one."""
        value = self.text(name)
        if value is None or not value.isascii() or not value.isdigit() or len(value) > 9:
            return None
        return int(value)

    def switch(self, name: str) -> bool | None:
        """Whether a switch is on; None when it is not given. ``--no-NAME`` turns it off."""
        if name in self.flags:
            value = self.text(name)
            return value is None or value.lower() not in {"false", "0", "no"}
        return False if f"no-{name}" in self.flags else None


def parse(words: Sequence[str], env: Mapping[str, str | None]) -> Arguments:
    """The arguments of vLLM in a container's command and args. ``env`` expands ``$(NAME)`` as Kubernetes does."""
    return _flags(_vllm([_expand(word, env) for word in words], env))


def _expand(word: str, env: Mapping[str, str | None]) -> str:
    def value(match: re.Match[str]) -> str:
        known = env.get(match["paren"] or match["brace"] or match["bare"])
        return match[0] if known is None else known

    return _EXPANSION.sub(value, word)


def _name(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def _vllm(words: list[str], env: Mapping[str, str | None], depth: int = 0) -> list[str]:
    """The words from vLLM's own arguments on, looked for inside shells."""
    if words and _name(words[0]) in {"env", "exec", "tini", "dumb-init", "nohup"}:
        rest = [word for at, word in enumerate(words) if at and word != "--"]
        return _vllm(rest, env, depth + 1) if depth < DEPTH else words
    if words and _name(words[0]) in _SHELLS:
        for at, word in enumerate(words[1:], 1):
            if re.match(r"^-[a-z]*c[a-z]*$", word) and at + 1 < len(words) and depth < DEPTH:
                return _vllm(_script(words[at + 1]), env, depth + 1)
    for at, word in enumerate(words):
        if _name(word) == "vllm" and at + 1 < len(words) and words[at + 1] == "serve":
            return _until_separator(words[at + 1 :])
        if word.startswith("vllm.entrypoints.") or _name(word) == "api_server.py":
            return _until_separator(words[at + 1 :])
        if _name(word) in _SHELLS and at and depth < DEPTH:
            inner = _vllm(words[at:], env, depth + 1)
            if inner is not words[at:]:
                return inner
    return _until_separator(words)


def _script(text: str) -> list[str]:
    text = text.replace("\\\n", " ").replace("\n", " ; ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return text.split()


def _until_separator(words: list[str]) -> list[str]:
    for at, word in enumerate(words):
        if _SEPARATOR.match(word):
            return words[:at]
    return words


def _flags(words: list[str]) -> Arguments:
    flags: dict[str, tuple[str, ...]] = {}
    positional: str | None = None
    serve = bool(words) and words[0] == "serve"
    open_flag: str | None = None
    for word in words[1:] if serve else words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            # Only vLLM's own names: what follows a dot configures something else (`--compilation-config.mode`).
            name = name.replace("_", "-").lower()
            name = _ALIASES.get(name, name)
            flags[name] = (value,) if equals else ()
            open_flag = None if equals and name not in _LISTS else name
        elif re.match(r"^-[a-zA-Z]", word):
            name = _ALIASES.get(word.lstrip("-").partition("=")[0], "")
            open_flag = name or "-"
            flags[open_flag] = (word.partition("=")[2],) if "=" in word else ()
        elif open_flag is not None and not (open_flag in _BOOLEANS and word.lower() not in {"true", "false"}):
            taken = flags[open_flag]
            if taken and open_flag not in _LISTS:
                open_flag = None
                positional = positional or (word if serve else None)
            else:
                flags[open_flag] = (*taken, word)
        elif serve and positional is None:
            positional = word
            open_flag = None
    return Arguments(flags, positional)
