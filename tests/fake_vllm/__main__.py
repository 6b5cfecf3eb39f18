"""Fake engines as a process: `python -m tests.fake_vllm --bind 127.1.0.1:8000 --control 9000 --set version=0.27.1`.

`--count N` binds N addresses from 127.1.0.1 up. `--set NAME=JSON` sets a field of `Settings` on all engines; a value
that is not JSON is a string.
"""

import argparse
import asyncio
import contextlib
import json
import sys

from tests.fake_vllm.engine import Settings
from tests.fake_vllm.fleet import address, serve


def main() -> None:
    """Parses the command line and serves until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_vllm", description=__doc__)
    parser.add_argument("--bind", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--count", type=int, default=0, help="as many engines, from 127.1.0.1 up")
    parser.add_argument("--port", type=int, default=8000, help="the port of engines made by --count")
    parser.add_argument("--control", type=int, help="the port of the control endpoint")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="NAME=JSON")
    given = parser.parse_args()
    settings = Settings()
    for pair in given.settings:
        name, _, text = pair.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        settings.change({name: value})
    hosts = [(host, int(port)) for host, _, port in (bind.rpartition(":") for bind in given.bind)]
    hosts += [(address(number), given.port) for number in range(given.count)]
    sys.stderr.write(f"{len(hosts)} fake engines of vLLM {settings.version}\n")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(hosts, settings, given.control))


if __name__ == "__main__":
    main()
