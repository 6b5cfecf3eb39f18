"""The end of a router: clients go to others, what runs comes to its end, and only then does the process.

When its pod ends, this process is told first and Envoy only after it has ended (Envoy is a sidecar, KEP-753). At that
moment other nodes may still send requests here, for as long as they have not heard of it.
"""

import asyncio
import logging
import time

from lorafleet.router.admin import Admin, AdminError, EnvoyGone

log = logging.getLogger(__name__)

PAUSE = 0.25
QUIET = 5.0
"""Seconds without a request after which connections that clients only keep are of no use any more."""


async def drain(admin: Admin, leave: float, grace: float) -> None:
    """Returns when no client is left, or after ``grace`` seconds; not before ``leave`` seconds, as some come late."""
    begin = quiet_since = time.monotonic()
    told, connections, active, total = False, 0, 0, -1
    while (now := time.monotonic()) - begin < grace:
        try:
            if not told:
                await admin.drain()
                told = True
                log.info("drains", extra={"grace_s": grace})
            connections, active, count = await admin.activity()
        except EnvoyGone as error:
            log.warning("Envoy is gone; there is nothing to wait for", extra={"error": str(error)})
            return
        except AdminError as error:
            log.warning("Envoy is slow to answer; it still has its clients", extra={"error": str(error)})
            quiet_since = now
        else:
            if active or count != total:
                total, quiet_since = count, now
            if now - begin >= leave and (connections == 0 or now - quiet_since >= QUIET):
                break
        await asyncio.sleep(PAUSE)
    level = logging.WARNING if active else logging.INFO
    extra = {"connections": connections, "requests": active, "seconds": round(time.monotonic() - begin, 1)}
    log.log(level, "drained: requests that still run are cut" if active else "drained", extra=extra)
