"""The keys of a source's Secret, which the Job has as a folder with one file a key. No value is ever in a message."""

import os
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError

CA_KEY = "ca.crt"
"""Certificate authorities in PEM, trusted in addition to the system's."""

_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret by its name, for messages, and the folder of its keys; no folder: the source names no Secret."""

    name: str = ""
    folder: Path | None = None

    def names(self) -> tuple[str, ...]:
        """Its keys, sorted. Raises ArtifactError (SecretInvalid) when it is named and has none."""
        if self.folder is None:
            if self.name:
                raise self.invalid("is not mounted in this Job", "create it, and the next Job has it")
            return ()
        try:
            # Kubernetes keeps a Secret's content in hidden folders that the keys are links into.
            keys = sorted(name for name in os.listdir(self.folder) if not name.startswith(".."))  # noqa: PTH208 - names
        except OSError as error:
            raise self._unreadable("it", error) from None
        if not keys:
            raise self.invalid("does not exist or has no keys", "create it with the keys that the source needs")
        return tuple(keys)

    def get(self, key: str) -> bytes | None:
        """The value of a key, None without it. Raises ArtifactError (SecretInvalid)."""
        if self.folder is None:
            self.names()
            return None
        try:
            with (self.folder / key).open("rb") as file:
                return file.read(_MAX_BYTES)
        except FileNotFoundError:
            # Without the key, or without any.
            self.names()
            return None
        except OSError as error:
            raise self._unreadable(f"its key {key!r}", error) from None

    def text(self, key: str) -> str | None:
        """The value of a key as text of one or more lines, without white space around it, where an editor or ``echo``
        left a newline. Raises ArtifactError (SecretInvalid) when it is empty or no text."""
        value = self.get(key)
        if value is None:
            return None
        try:
            text = value.decode().strip()
        except UnicodeDecodeError:
            raise self.invalid(
                f"has a key {key!r} that is not UTF-8 text", "write the value as it is, not encoded"
            ) from None
        if not text or "\0" in text:
            raise self.invalid(f"has a key {key!r} without a value", "set it or remove the key")
        return text

    def authorities(self) -> str | None:
        """The certificates of ``ca.crt``, in PEM. Raises ArtifactError (SecretInvalid)."""
        text = self.text(CA_KEY)
        if text is not None and "-----BEGIN CERTIFICATE-----" not in text:
            raise self.invalid(
                f"has no certificate in its key {CA_KEY!r}", "put the authority's certificate there, in PEM"
            )
        return text

    def invalid(self, found: str, move: str) -> ArtifactError:
        """The error that this Secret is not as it must be: what was ``found``, and the next ``move``."""
        return ArtifactError(Reason.SECRET_INVALID, f"Secret {self.name} of this namespace {found}: {move}")

    def _unreadable(self, what: str, error: OSError) -> ArtifactError:
        return self.invalid(f"cannot be read ({what}: {error.strerror})", "it is tried again")
