"""`python -m tests.servers`: puts every server and client of the tests into the cache, and stops there."""

from __future__ import annotations

import sys

from e2e.cluster import binaries
from e2e.cluster.shell import ClusterError, say
from tests.servers import azure


def main() -> int:
    try:
        binaries.ensure(binaries.SERVERS)
        azure.install()
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
