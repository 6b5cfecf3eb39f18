"""What `bulk` compares with: a bare obstore client that downloads the same files, in a process of its own.

Reads ``{"url", "config", "folders": {folder: [file, …]}, "out", "at_once"}`` from standard input. Each folder's files
side by side, so many folders at once, each file written as it comes; nothing is checked and nothing made durable.
A folder without names of files is listed first. The same event loop as the operator.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop
from obstore.store import S3Store


async def _file(store: S3Store, key: str, target: Path) -> None:
    answer = await store.get_async(key)
    _write(target, await answer.bytes_async())


def _write(target: Path, data: Any) -> None:
    with target.open("wb") as file:
        file.write(data)


async def _folder(store: S3Store, folder: str, names: list[str], out: Path, room: asyncio.Semaphore) -> None:
    async with room:
        if not names:
            names = [meta["path"].rpartition("/")[2] async for page in store.list(folder) for meta in page]
        target = out / folder
        target.mkdir(parents=True)
        await asyncio.gather(*(_file(store, f"{folder}/{name}", target / name) for name in names))


async def main() -> None:
    """Fetches everything."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    store = S3Store.from_url(wanted["url"], config=wanted["config"], client_options={"allow_http": True})
    room, out = asyncio.Semaphore(wanted["at_once"]), Path(wanted["out"])
    work = (_folder(store, folder, names, out, room) for folder, names in wanted["folders"].items())
    await asyncio.gather(*work)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
