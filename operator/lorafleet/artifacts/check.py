"""One folder, one answer: may these files be served by this fleet?

Reads an adapter's folder and compares it with what the fleet can serve. The folder must be quiet: the store checks
its own copy, never a source that someone may still write to. Writes nothing.
"""

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts import peft_config, safetensors_header
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Limits,
    check_entries,
    check_sizes,
    is_adapter_file,
    require_adapter,
)
from lorafleet.artifacts.peft_config import PeftConfig


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the fleet can serve.

    ``base_models``: the names an adapter may give its base model, character for character. ``max_rank``: the engines'
    ``max_lora_rank``. ``engine_version``: the oldest vLLM of the fleet, such as ``0.32.0``. None: not known.
    """

    base_models: tuple[str, ...]
    max_rank: int | None = None
    engine_version: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a folder that may be served holds. ``files`` are (name, bytes), sorted; ``size_bytes`` is their sum."""

    base_model: str
    rank: int
    target_modules: tuple[str, ...]
    dtype: str
    min_engine: str | None
    files: tuple[tuple[str, int], ...]

    @property
    def size_bytes(self) -> int:
        """The size of all files of the adapter."""
        return sum(size for _, size in self.files)


def check(folder: Path, expectations: Expectations) -> AdapterInfo:
    """Check an adapter's folder. Raises ArtifactError with the first thing that is wrong, and OSError."""
    files = adapter_files(folder, expectations.limits)
    config = peft_config.parse(_read_config(folder))
    base_model = require_base_model(config.base_model, expectations.base_models)
    if expectations.max_rank is not None and config.max_rank > expectations.max_rank:
        raise ArtifactError(
            Reason.RANK_TOO_HIGH,
            f"{CONFIG_FILE} has rank {config.max_rank}; the engines take at most {expectations.max_rank}: start them"
            f" with --max-lora-rank {config.max_rank} or more, or train with a lower r",
        )
    _check_engine(config, expectations.engine_version)
    weights = safetensors_header.check_lora(safetensors_header.read_header(folder / WEIGHTS_FILE), config)
    return AdapterInfo(
        base_model=base_model,
        rank=config.max_rank,
        target_modules=weights.target_modules,
        dtype="+".join(weights.dtypes),
        min_engine=None if config.min_engine is None else ".".join(map(str, config.min_engine)),
        files=files,
    )


def require_base_model(found: str | None, accepted: tuple[str, ...]) -> str:
    """Refuse an adapter of another base model, which vLLM would load without a word (vLLM contract).

    Raises ArtifactError (BaseModelMismatch).
    """
    if found is not None and found in accepted:
        return found
    raise ArtifactError(
        Reason.BASE_MODEL_MISMATCH,
        f"{CONFIG_FILE} has base_model_name_or_path {found!r}; this fleet serves adapters for"
        f" {', '.join(map(repr, accepted))}: use a fleet of that base model, or, if it is another name for the same"
        " weights, add it to the fleet's spec.baseModel.aliases",
    )


def adapter_files(folder: Path, limits: Limits) -> tuple[tuple[str, int], ...]:
    """The adapter's files in a folder as (name, bytes), sorted; others are left out.

    Raises ArtifactError: ConfigMissing, WeightsMissing, PickleRefused, SizeLimitExceeded, and UnsafePath for a file
    of the adapter that is a link, a device or a folder.
    """
    names = []
    for number, entry in enumerate(folder.iterdir(), 1):
        check_entries(number, limits)
        names.append(entry.name)
    require_adapter(names, "the adapter's folder")
    files = []
    for name in sorted(filter(is_adapter_file, names)):
        found = (folder / name).lstat()
        if not stat.S_ISREG(found.st_mode):
            raise not_a_file(name, found.st_mode)
        files.append((name, found.st_size))
    check_sizes(files, limits)
    return tuple(files)


def not_a_file(name: str, mode: int) -> ArtifactError:
    """The refusal of an adapter's file that is something else, by its ``st_mode``."""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return ArtifactError(
        Reason.UNSAFE_PATH, f"{name} is {kind}; expected a regular file: copy the file itself into the adapter's folder"
    )


def _read_config(folder: Path) -> bytes:
    with (folder / CONFIG_FILE).open("rb") as file:
        return file.read(peft_config.MAX_CONFIG_BYTES + 1)


def _check_engine(config: PeftConfig, engine_version: str | None) -> None:
    if config.min_engine is None or at_least(engine_version, config.min_engine):
        return
    expected = ".".join(map(str, config.min_engine))
    raise ArtifactError(
        Reason.FEATURE_NOT_SUPPORTED,
        f"{CONFIG_FILE} has a rank_pattern or alpha_pattern, and the fleet's oldest engine runs vLLM"
        f" {engine_version or 'of an unknown version'}, which may serve it with a wrong scale: upgrade all engines to"
        f" {expected} or newer, or train with one r and lora_alpha",
    )


def release(text: str) -> tuple[int, int]:
    """``0.32`` as numbers."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def at_least(version: str | None, wanted: tuple[int, int]) -> bool:
    """Whether a vLLM version such as ``0.32.1+cpu`` is ``wanted`` or newer; an unknown or pre-release one is not."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?(.*)", version or "")
    if match is None:
        return False
    found = (int(match[1]), int(match[2]))
    before = re.match(r"[._-]?(a|b|rc|dev|alpha|beta|pre)", match[4]) and int(match[3] or 0) == 0
    return found > wanted or (found == wanted and not before)
