"""Which start of Envoy numbers are of: the operator adds up counters that begin at 0 with each of them.

Envoy has no name for a start of its own, so it is told by when it began, and kept in a file beside the configuration:
a new start of this process beside the same Envoy must not look like new counters.
"""

import json
import secrets
from pathlib import Path

SAME = 3.0
"""Seconds by which two looks at one start may differ; Envoy says whole seconds."""


class Instance:
    """The start of the Envoy beside this process."""

    def __init__(self, name: str, file: Path) -> None:
        self._name = name
        self._file = file
        self._started, self._token = self._load()

    def at(self, started: float) -> str:
        """The name of the start that began at this Unix time, as far as one can tell."""
        if abs(started - self._started) > SAME:
            self._started, self._token = started, secrets.token_hex(4)
            part = self._file.with_name(f".{self._file.name}.part")
            part.write_text(json.dumps({"started": self._started, "token": self._token}))
            part.replace(self._file)
        return f"{self._name}/{self._token}"

    def _load(self) -> tuple[float, str]:
        try:
            found = json.loads(self._file.read_text())
            return float(found["started"]), str(found["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, ""
