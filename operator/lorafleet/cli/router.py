"""``lorafleet router``: starts the process beside Envoy, or writes what Envoy starts with. Nothing but wiring."""

import asyncio
import sys

import uvloop
from pydantic import ValidationError

from lorafleet.logs import configure
from lorafleet.router.environment import Environment, EnvoyEnvironment
from lorafleet.router.process import main, write_bootstrap
from lorafleet.router.secrets import SecretsError


def run(bootstrap: bool) -> int:
    """Runs until told to stop; with ``bootstrap`` only writes the first files. The exit code."""
    try:
        environment, settings = Environment(), EnvoyEnvironment()
    except ValidationError as error:
        # Without the values: one may be a key in the wrong place.
        for one in error.errors(include_input=False, include_url=False):
            name = "_".join(map(str, one["loc"])).upper()
            sys.stderr.write(f"error: LORAFLEET_ROUTER_{name}: {one['msg']}\n")
        return 2
    configure(environment.log_level)
    if bootstrap:
        try:
            write_bootstrap(environment, settings)
        except (SecretsError, OSError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        return 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main(environment, settings))
