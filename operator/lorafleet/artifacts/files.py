"""Which files of a folder are the adapter.

An allowlist, so that a training folder with gigabytes of optimizer state, pickles, scripts or a ``.git`` can be a
source and none of it reaches the engines' volume. The digest covers exactly these files. Names only: nothing is
opened here.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILES = ("adapter_model.bin", "adapter_model.pt")
"""What vLLM would load if the safetensors file were missing: code execution by whoever wrote it."""

SIGNATURE_FILE = "model.sig"
"""An OpenSSF model signature over the folder, as the ``model_signing`` command writes it."""

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an adapter may be, in bytes; ``max_entries`` counts everything in its folder, archive or listing."""

    max_bytes: int = 64 * GIB
    max_side_file_bytes: int = 256 * 1024**2
    max_entries: int = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files a fetch is for. ``pickle``: weights that are only a pickle too; ``signature``: ``model.sig`` too."""

    limits: Limits = field(default_factory=Limits)
    pickle: bool = False
    signature: bool = False


ADAPTER_FILES = frozenset(
    {
        CONFIG_FILE,
        WEIGHTS_FILE,
        # The tokenizer as transformers saves it beside an adapter; data only.
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "chat_template.jinja",
        "chat_template.json",
        # What the author says and allows, which has to stay with the weights.
        "README.md",
        "LICENSE",
        "LICENSE.md",
        "LICENSE.txt",
        "NOTICE",
        "NOTICE.txt",
    }
)


def is_adapter_file(name: str) -> bool:
    """Whether a file of this name, directly in the adapter's folder, is part of the adapter."""
    return name in ADAPTER_FILES


def require_adapter(names: Collection[str], where: str) -> None:
    """Refuse a folder that cannot be an adapter by the names of its files alone.

    Raises ArtifactError: ConfigMissing, PickleRefused (weights only as a pickle), WeightsMissing.
    """
    if CONFIG_FILE not in names:
        raise ArtifactError(
            Reason.CONFIG_MISSING,
            f"{where} has no {CONFIG_FILE}: point the source at the folder that PEFT's save_pretrained wrote",
        )
    if WEIGHTS_FILE in names:
        return
    pickles = [name for name in PICKLE_FILES if name in names]
    if pickles:
        raise ArtifactError(
            Reason.PICKLE_REFUSED,
            f"{where} has its weights only in {pickles[0]}, a pickle that can run code when it is read; expected"
            f" {WEIGHTS_FILE}: convert it with PEFT's save_pretrained(..., safe_serialization=True) and publish that"
            " as a new version",
        )
    raise ArtifactError(
        Reason.WEIGHTS_MISSING,
        f"{where} has no {WEIGHTS_FILE}: save the adapter with PEFT's save_pretrained and publish that as a new"
        " version",
    )


def select(entries: Iterable[tuple[str, int | None]], wanted: Wanted, where: str) -> tuple[str, ...]:
    """The names of the files to fetch, sorted, of all (name, bytes or None) directly in an adapter's folder.

    Every source chooses by this, so that the same adapter has the same digest wherever it comes from. Raises
    ArtifactError: ConfigMissing, WeightsMissing, PickleRefused, SizeLimitExceeded, SignatureMissing.
    """
    sizes: dict[str, int | None] = {}
    for number, (name, size) in enumerate(entries, 1):
        check_entries(number, wanted.limits)
        sizes[name] = size
    pickles = [name for name in PICKLE_FILES if name in sizes] if wanted.pickle and WEIGHTS_FILE not in sizes else []
    require_adapter([*sizes, WEIGHTS_FILE] if pickles else sizes, where)
    if wanted.signature and SIGNATURE_FILE not in sizes:
        raise ArtifactError(
            Reason.SIGNATURE_MISSING,
            f"{where} has no {SIGNATURE_FILE}; the fleet's spec.verification takes only signed adapters: sign the"
            " folder with `model_signing sign` and publish it as a new version",
        )
    chosen = sorted([*filter(is_adapter_file, sizes), *pickles[:1], *([SIGNATURE_FILE] if wanted.signature else [])])
    check_sizes([(name, sizes[name] or 0) for name in chosen], wanted.limits)
    return tuple(chosen)


def check_entries(count: int, limits: Limits) -> None:
    """Refuse a folder with too many entries to be an adapter's. Raises ArtifactError (SizeLimitExceeded)."""
    if count > limits.max_entries:
        raise ArtifactError(
            Reason.SIZE_LIMIT_EXCEEDED,
            f"the adapter's folder has more than {limits.max_entries} entries: point the source at the folder that"
            " PEFT's save_pretrained wrote",
        )


def check_sizes(files: Iterable[tuple[str, int]], limits: Limits) -> None:
    """Refuse files that are too large. Raises ArtifactError (SizeLimitExceeded)."""
    total = 0
    for name, size in files:
        total += size
        if name not in (WEIGHTS_FILE, *PICKLE_FILES) and size > limits.max_side_file_bytes:
            raise ArtifactError(
                Reason.SIZE_LIMIT_EXCEEDED,
                f"{name} has {size} bytes; expected at most {limits.max_side_file_bytes}: remove it from the source",
            )
    if total > limits.max_bytes:
        raise ArtifactError(
            Reason.SIZE_LIMIT_EXCEEDED,
            f"the adapter has {total} bytes; expected at most {limits.max_bytes}: this is more than a LoRA adapter"
            " needs; if not, raise spec.artifacts.maxSize of the fleet",
        )
