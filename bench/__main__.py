"""``python -m bench NAME [--quick]``: one line of JSON on standard output, progress on standard error.

``--quick`` does the same at a size that proves that the benchmark works; its figures mean nothing. The exit code is 0
whether or not the bound is met: `ok` says that.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from importlib import import_module

from bench.figure import Figure

NAMES = (
    "fanout",
    "hung",
    "converge",
    "repair",
    "idle",
    "objects",
    "sync",
    "bulk",
    "publish",
    "dedupe",
    "rollback",
    "split",
    "router",
    "routes",
)


def main() -> None:
    """Parses the command line and runs one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="a small version, to see that it works")
    given = parser.parse_args()
    # Programs that a benchmark starts find byte code from their second start on, as those in the image do.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A benchmark that is told to end takes its control plane and processes down like one that fails.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with contextlib.redirect_stdout(sys.stderr):
        figure: Figure = asyncio.run(import_module(f"bench.{given.name}").measure(given.quick))
    print(figure.line(given.name, given.quick))


if __name__ == "__main__":
    main()
