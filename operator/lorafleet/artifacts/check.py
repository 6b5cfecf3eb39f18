"""One folder, one answer: may these files be served by this fleet?

Reads an adapter's folder and compares it with what the fleet can serve. The folder must be quiet: the store checks
its own copy, never a source that someone may still write to. Writes nothing.
"""

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts import memory, peft_config, safetensors_header
from lorafleet.artifacts.architecture import Architecture, architecture
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
from lorafleet.artifacts.safetensors_header import Header, Weights
from lorafleet.artifacts.shapes import check_shapes

if TYPE_CHECKING:
    from lorafleet.artifacts.tensors import Numbers


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the fleet can serve.

    ``base_models``: the names an adapter may give its base model, character for character. ``max_rank``: the engines'
    ``max_lora_rank``. ``engine_version``: the oldest vLLM of the fleet, such as ``0.32.0``. ``base_config``: the base
    model's config.json. None: not known. ``tensor_parallel_size``: over how many GPUs an engine is spread.
    """

    base_models: tuple[str, ...]
    max_rank: int | None = None
    engine_version: str | None = None
    limits: Limits = field(default_factory=Limits)
    base_config: Mapping[str, Any] | None = None
    tensor_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a folder that may be served holds. ``files`` are (name, bytes), sorted; ``size_bytes`` is their sum.

    ``notices``: what the user should know and keeps nobody from serving it, as (HasNoEffect or ShapesNotChecked,
    message). ``slot_bytes``: what its matrices fill of an engine's slot, on each GPU; None when that cannot be known.
    """

    base_model: str
    rank: int
    target_modules: tuple[str, ...]
    dtype: str
    min_engine: str | None
    files: tuple[tuple[str, int], ...]
    notices: tuple[tuple[Reason, str], ...] = ()
    slot_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """The size of all files of the adapter."""
        return sum(size for _, size in self.files)


@dataclass(frozen=True, slots=True)
class Step:
    """One check, which raises ArtifactError or OSError. ``after``: those that have to pass before it can be made."""

    name: str
    run: Callable[[], None]
    after: tuple[str, ...] = ()


@dataclass(slots=True)
class Examination:
    """The checks of one folder, step by step, for whoever goes on after one that failed; what they learnt is kept."""

    folder: Path
    expectations: Expectations
    numbers: "Numbers | None" = None
    files: tuple[tuple[str, int], ...] = ()
    config: PeftConfig | None = None
    header: Header | None = None
    weights: Weights | None = None
    ranks: dict[str, int] = field(default_factory=dict)
    notices: list[tuple[Reason, str]] = field(default_factory=list)

    def steps(self) -> tuple[Step, ...]:
        """The checks in the order in which they are made."""
        return (
            Step("files", self._check_files),
            Step("configuration", self._check_config, ("files",)),
            Step("base model", self._check_base_model, ("configuration",)),
            Step("rank", self._check_rank, ("configuration",)),
            Step("engine version", self._check_engine_version, ("configuration",)),
            Step("weights", self._check_header, ("files",)),
            Step("matrices", self._check_matrices, ("configuration", "weights")),
            Step("shapes", self._check_shapes, ("matrices",)),
            Step("numbers", self._check_numbers, ("matrices",)),
        )

    def info(self) -> AdapterInfo:
        """What the folder holds, once all steps passed."""
        assert self.config is not None and self.weights is not None
        return AdapterInfo(
            base_model=self.config.base_model or "",
            rank=self.config.max_rank,
            target_modules=self.weights.target_modules,
            dtype="+".join(self.weights.dtypes),
            min_engine=None if self.config.min_engine is None else ".".join(map(str, self.config.min_engine)),
            files=self.files,
            notices=tuple(self.notices),
            slot_bytes=self._slot_bytes(),
        )

    def _check_files(self) -> None:
        self.files = adapter_files(self.folder, self.expectations.limits)

    def _check_config(self) -> None:
        self.config = peft_config.parse(_read_config(self.folder))

    def _check_base_model(self) -> None:
        assert self.config is not None
        require_base_model(self.config.base_model, self.expectations.base_models)

    def _check_rank(self) -> None:
        assert self.config is not None
        rank, highest = self.config.max_rank, self.expectations.max_rank
        if rank > peft_config.MAX_RANK:
            raise ArtifactError(
                Reason.RANK_TOO_HIGH,
                f"{CONFIG_FILE} has rank {rank}; no vLLM takes more than {peft_config.MAX_RANK}: train with a lower r",
            )
        if highest is not None and rank > highest:
            raise ArtifactError(
                Reason.RANK_TOO_HIGH,
                f"{CONFIG_FILE} has rank {rank}; the engines take at most {highest}: start them with --max-lora-rank"
                f" {rank} or more, or train with a lower r",
            )

    def _check_engine_version(self) -> None:
        assert self.config is not None
        _check_engine(self.config, self.expectations.engine_version)

    def _check_header(self) -> None:
        self.header = safetensors_header.read_header(self.folder / WEIGHTS_FILE)

    def _check_matrices(self) -> None:
        assert self.config is not None and self.header is not None
        self.weights = safetensors_header.check_lora(self.header, self.config)

    def _check_shapes(self) -> None:
        assert self.config is not None and self.weights is not None
        model = self._model()
        if model is None:
            self.notices.append((Reason.SHAPES_NOT_CHECKED, _why_not_checked(self.expectations.base_config)))
        else:
            self.ranks = check_shapes(self.weights, model, self.config)

    def _check_numbers(self) -> None:
        assert self.config is not None and self.header is not None and self.weights is not None
        # Late, for numpy.
        from lorafleet.artifacts.tensors import scan

        zero = scan(self.folder / WEIGHTS_FILE, self.header, self.weights, self.numbers)
        if self.config.scales_to_zero:
            self.notices.append((Reason.HAS_NO_EFFECT, f"the adapter has no effect: {CONFIG_FILE} has lora_alpha 0"))
        elif len(zero) == len(self.weights.pairs):
            self.notices.append((Reason.HAS_NO_EFFECT, f"the adapter has no effect: {_WHAT_IS_ZERO}"))

    def _model(self) -> Architecture | None:
        config = self.expectations.base_config
        return None if config is None else architecture(config)

    def _slot_bytes(self) -> int | None:
        gpus, model = self.expectations.tensor_parallel_size, self._model()
        if model is not None:
            return memory.version_slot_bytes(model, self.ranks, gpus)
        # Which matrices are cut into parts, only the model says.
        return memory.cpu_bytes(self.weights.items) if self.weights is not None and gpus == 1 else None


_WHAT_IS_ZERO = (
    "in every module lora_B (or lora_A) is all zero, as before training; if that is not meant, publish a trained"
    " checkpoint as a new version"
)


def check(folder: Path, expectations: Expectations, numbers: "Numbers | None" = None) -> AdapterInfo:
    """Check an adapter's folder. Raises ArtifactError with the first thing that is wrong, and OSError.

    ``numbers``: what was found in the weights of the folder while they arrived.
    """
    examination = Examination(folder, expectations, numbers)
    for step in examination.steps():
        step.run()
    return examination.info()


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


def _why_not_checked(base_config: Mapping[str, Any] | None) -> str:
    left = "names and sizes of the adapter's matrices were not compared with the base model"
    if base_config is None:
        return (
            f"{left}, whose config.json is not known; vLLM serves some that do not fit without a word: give it as"
            " spec.baseModel.config of the fleet, or its folder as spec.baseModel.volume"
        )
    names = str(base_config.get("architectures"))[:80]
    return (
        f"{left}, whose config.json has architectures {names}, which lorafleet does not know, or no usable sizes: check"
        " the answers of the version before it takes traffic"
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
