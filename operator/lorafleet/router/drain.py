"""The end of a router: clients go to others, what runs comes to its end, and only then does the process.

When its pod ends, this process is told first and Envoy only after it has ended (Envoy is a sidecar, KEP-753). At that
moment other nodes may still send requests here, for as long as they have not heard of it.
"""

import asyncio
import logging
import time

from lorafleet.router.admin import Admin, AdminError

log = logging.getLogger(__name__)

PAUSE = 0.25
QUIET = 5.0
"""Seconds without a request after which connections that clients only keep are of no use any more."""


async def drain(admin: Admin, leave: float, grace: float) -> None:
    """Returns when no client is left, or after ``grace`` seconds; not before ``leave`` seconds, as some come late."""
    begin = time.monotonic()
    try:
        await admin.drain()
        connections, active, total = await admin.activity()
        log.info("drains", extra={"connections": connections, "requests": active, "grace_s": grace})
        quiet_since = begin
        while True:
            await asyncio.sleep(PAUSE)
            now = time.monotonic()
            connections, active, count = await admin.activity()
            if active or count != total:
                total, quiet_since = count, now
            if now - begin >= grace:
                break
            idle = connections == 0 or now - quiet_since >= QUIET
            if now - begin >= leave and idle:
                break
    except AdminError as error:
        log.warning("Envoy is gone; there is nothing to wait for", extra={"error": str(error)})
        return
    level = logging.WARNING if active else logging.INFO
    extra = {"connections": connections, "requests": active, "seconds": round(time.monotonic() - begin, 1)}
    log.log(level, "drained: requests that still run are cut" if active else "drained", extra=extra)
