"""Running other programs: one line of progress for people, the whole output only when something failed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


class ClusterError(Exception):
    """Something the person at the terminal must know; the message says what to do next."""


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run to the end and return standard output; raise ClusterError with the tail of both streams."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{' '.join(words)}` did not end within {timeout:.0f} s") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise ClusterError(f"`{' '.join(words)}` ended with {done.returncode}:\n{tail}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, timeout: float = 10) -> bool:
    """Whether a probe ran and exited with 0. A missing program is a no, not an error."""
    try:
        run(argv, timeout=timeout)
    except ClusterError:
        return False
    return True


def say(line: str) -> None:
    """Progress goes to standard error, so that `export KUBECONFIG=…` is alone on standard output."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """One line when it is done, with the seconds it took."""
    begun = time.monotonic()
    if sys.stderr.isatty():
        sys.stderr.write(f"  … {what}\r")
        sys.stderr.flush()
    try:
        yield
    except BaseException:
        say(f"  ✗ {what} ({time.monotonic() - begun:.1f} s)")
        raise
    say(f"  ✓ {what} ({time.monotonic() - begun:.1f} s)")


def wait_until(what: str, ready: Callable[[], bool], *, seconds: float, every: float = 0.1) -> None:
    """Poll a callable until it is true; raise ClusterError naming what never came."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise ClusterError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(every)
