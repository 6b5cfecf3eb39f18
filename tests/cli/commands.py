"""The ``lorafleet`` command in a process of its own, as a user runs it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command printed, without the blanks at the ends of lines, and its exit code."""

    code: int
    out: str
    err: str


def lorafleet(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Answer:
    """Run the command; 100 columns wide."""
    done = subprocess.run(
        [sys.executable, "-m", "lorafleet", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Answer(done.returncode, _trimmed(done.stdout), done.stderr)


def _trimmed(text: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.splitlines())
