"""What `converge` compares with: a bare httpx client that makes the same calls, in a process of its own.

Reads ``{"urls": [...], "adapters": {name: path}, "shared": bool}`` from standard input; ``shared``: one client and pool
for all engines, as one writes it first, else one for each. For each engine one listing, then one load
after another; all engines at once. Nothing is checked but the status. The same event loop as the operator.
"""

import asyncio
import contextlib
import json
import ssl
import sys
from functools import partial

import httpx
import uvloop


async def _engine(http: httpx.AsyncClient, url: str, adapters: dict[str, str]) -> None:
    (await http.get(f"{url}/v1/models")).raise_for_status()
    for name, path in adapters.items():
        answer = await http.post(f"{url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path})
        answer.raise_for_status()


async def main() -> None:
    """Loads everything everywhere."""
    wanted = json.load(sys.stdin)
    new = partial(
        httpx.AsyncClient,
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
        timeout=60,
        verify=ssl.create_default_context(),
    )
    async with contextlib.AsyncExitStack() as stack:
        shared = await stack.enter_async_context(new())
        clients = [shared if wanted["shared"] else await stack.enter_async_context(new()) for _ in wanted["urls"]]
        work = zip(clients, wanted["urls"], strict=True)
        await asyncio.gather(*(_engine(http, url, wanted["adapters"]) for http, url in work))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
