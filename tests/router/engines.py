"""Small servers in the place of vLLM: each keeps what it was asked, byte for byte, and answers as a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from lorafleet.router.table import EngineAddress
from tests.fake_vllm.fleet import address

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def model(self) -> str:
        """The model that it names."""
        return str(json.loads(self.body)["model"])


async def completion(request: web.Request, body: bytes) -> web.StreamResponse:
    """What vLLM says, as short as can be."""
    asked = json.loads(body)
    answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": asked["model"],
        "choices": [{"index": 0, "text": "ok"}],
        "usage": {"prompt_tokens": 7, "total_tokens": 9, "completion_tokens": 2},
    }
    return web.Response(text=json.dumps(answer, separators=(",", ":")), content_type="application/json")


def not_loaded(body: bytes) -> web.Response:
    """vLLM's answer for a model that it does not have."""
    message = f"The model `{json.loads(body)['model']}` does not exist."
    error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
    return web.Response(status=404, text=json.dumps({"error": error}), content_type="application/json")


@dataclass
class Engine:
    """One server at an address of its own."""

    name: str
    host: str
    port: int = 0
    answer: Answer = completion
    asked: list[Asked] = field(default_factory=list)
    runner: web.AppRunner | None = None

    @property
    def address(self) -> EngineAddress:
        """As the routing table has it."""
        return EngineAddress(self.name, self.host, self.port)

    async def start(self) -> None:
        """Listens; at the same port as before if it did before."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, self.host, self.port)
        await site.start()
        if self.port == 0:
            self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuses connections from now on."""
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(Asked(request.path_qs, dict(request.headers), body))
        return await self.answer(request, body)


@asynccontextmanager
async def engines(count: int) -> AsyncIterator[list[Engine]]:
    """``count`` of them, named ``e0`` and so on, at addresses of their own."""
    async with AsyncExitStack() as stack:
        found = [Engine(f"e{number}", address(number)) for number in range(count)]
        for one in found:
            await one.start()
            stack.push_async_callback(one.stop)
        yield found


class Stream:
    """An answer of events that a test lets go on: each ``step()`` sends the next one."""

    def __init__(self, kind: str = "text/event-stream; charset=utf-8") -> None:
        self.kind = kind
        self.steps: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.begun = asyncio.Event()

    def step(self, event: bytes) -> None:
        """Sends these bytes."""
        self.steps.put_nowait(event)

    def end(self) -> None:
        """Ends the answer as it should end."""
        self.steps.put_nowait(None)

    async def __call__(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": self.kind})
        await response.prepare(request)
        self.begun.set()
        while (event := await self.steps.get()) is not None:
            await response.write(event)
        return response
