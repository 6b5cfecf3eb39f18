"""A bucket of an object store, whichever kind: what a Secret for it holds, and how objects get into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Bucket:
    """A bucket. ``keys``: what a Secret for it holds; ``wrong_keys``: ones that do not open it, none if all do.

    ``send(method, path, file)`` speaks to the store about one object; ``file`` is what a PUT carries.
    """

    scheme: str
    name: str
    endpoint: str
    keys: Mapping[str, str]
    wrong_keys: Mapping[str, str]
    send: Callable[[str, str, Path | bytes], None] = field(repr=False)

    def url(self, folder: str) -> str:
        """A folder of it, as a source's ``url``."""
        return f"{self.scheme}://{self.name}/{folder}"

    @property
    def secrets(self) -> list[str]:
        """The values that no message may hold."""
        return [value for key, value in self.keys.items() if not key.endswith("_NAME")]

    def put(self, path: str, content: Path | bytes) -> None:
        """Writes an object, from a file or from memory."""
        self.send("PUT", path, content)

    def delete(self, path: str) -> None:
        """Removes an object."""
        self.send("DELETE", path, b"")

    def fill(self, prefix: str, folder: Path) -> None:
        """Writes every file of a folder, below a prefix."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix.rstrip('/')}/{file.relative_to(folder)}", file)
