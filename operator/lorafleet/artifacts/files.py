"""Which files of a folder are the adapter.

An allowlist, so that a training folder with gigabytes of optimizer state, pickles, scripts or a ``.git`` can be a
source and none of it reaches the engines' volume. The digest covers exactly these files. Names only: nothing is
opened here.
"""

from collections.abc import Collection

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILES = ("adapter_model.bin", "adapter_model.pt")
"""What vLLM would load if the safetensors file were missing: code execution by whoever wrote it."""

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
