"""Clients of a router as a benchmark needs them: many connections, answers checked, versions told by what they say."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import aiohttp

from tests.fake_vllm.answers import text_of

TOKENS = 4
AT_ONCE = 24
HEADERS = {"content-type": "application/json"}


class Clients:
    """They ask for one adapter, at routers in turn. ``failures`` has what went wrong, by its words."""

    def __init__(self, http: aiohttp.ClientSession, urls: Sequence[str], adapter: str, served: Sequence[str]) -> None:
        self._http = http
        self._urls = [f"{url}/v1/completions" for url in urls]
        self._adapter = adapter
        self._texts = {served_name: json.dumps(text_of(served_name, TOKENS)).encode() for served_name in served}
        self._asked = 0
        self.failures: Counter[str] = Counter()

    async def ask(self, user: str | None = None) -> str:
        """The served name that answered; empty for a failure."""
        body = {"model": self._adapter, "prompt": "x", "max_tokens": TOKENS, **({"user": user} if user else {})}
        self._asked += 1
        url = self._urls[self._asked % len(self._urls)]
        try:
            async with self._http.post(url, data=json.dumps(body), headers=HEADERS) as answer:
                said = await answer.read()
                if answer.status == 200:
                    for name, text in self._texts.items():
                        if text in said:
                            return name
                self.failures[f"{answer.status} {said[:200]!r}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures[f"{type(error).__name__} {error}"] += 1
        return ""

    async def spread(self, users: Sequence[str | None]) -> list[str]:
        """One request for each, many at once; who answered, in the same order."""
        found = [""] * len(users)
        numbers = iter(range(len(users)))

        async def worker() -> None:
            for number in numbers:
                found[number] = await self.ask(users[number])

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        return found

    @contextlib.asynccontextmanager
    async def traffic(self, users: int, pause: float) -> AsyncIterator[Counter[str]]:
        """So many users ask again and again while the block runs, with a pause between; the answers by served name."""
        counts: Counter[str] = Counter()
        ended = asyncio.Event()

        async def user() -> None:
            while not ended.is_set():
                counts[await self.ask()] += 1
                await asyncio.sleep(pause)

        tasks = [asyncio.create_task(user()) for _ in range(users)]
        try:
            yield counts
        finally:
            ended.set()
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def clients(urls: Sequence[str], adapter: str, served: Sequence[str]) -> AsyncIterator[Clients]:
    """Clients with connections of their own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as http:
        yield Clients(http, urls, adapter, served)
