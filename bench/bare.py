"""What `converge` compares with: a bare httpx client that makes the same calls, in a process of its own.

Reads ``{"urls": [...], "adapters": {name: path}}`` from standard input. For each engine one listing, then one load
after another; all engines at once. Nothing is checked but the status. The same event loop as the operator.
"""

import asyncio
import json
import sys

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
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as http:
        await asyncio.gather(*(_engine(http, url, wanted["adapters"]) for url in wanted["urls"]))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
