"""``lorafleet operator``: starts one replica of the operator. Nothing but wiring."""

import asyncio
import logging

import uvloop

from lorafleet.controller.app import main
from lorafleet.controller.settings import Settings
from lorafleet.logs import configure


def run() -> int:
    """Runs one replica until it is told to stop or loses the Lease; the exit code."""
    settings = Settings()
    configure(settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main(settings))
