"""Many fake engines in one process, each at its own address, and a control endpoint to steer and read them from afar.

Control, JSON over HTTP:
    GET    /engines                   reports of all
    GET    /engines/HOST:PORT         one report
    GET    /engines/HOST:PORT/events  its requests: [began, ended, route, status, model], oldest first
    POST   /engines/HOST:PORT         change settings; the engine is made if it is not there
    POST   /engines/HOST:PORT/restart, /stop, /start
    DELETE /engines/HOST:PORT
"""

import asyncio
import copy
import json
from collections.abc import Awaitable, Iterable
from dataclasses import astuple
from typing import Any

from tests.fake_vllm.engine import FakeEngine, Settings
from tests.fake_vllm.wire import Listener, Request, Response


def address(number: int) -> str:
    """The loopback address of an engine by number, from 127.1.0.1 up; Linux answers on all of 127/8."""
    number += 1
    return f"127.{1 + number // 65536}.{number // 256 % 256}.{number % 256}"


class FakeFleet:
    """Engines by ``host:port``. Each gets its own copy of ``settings``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.engines: dict[str, FakeEngine] = {}
        self._listener = Listener(self._handle)

    async def add(self, host: str, port: int = 8000, **changes: Any) -> FakeEngine:
        """One more engine, listening. ``changes`` are fields of `Settings`."""
        settings = copy.deepcopy(self.settings)
        settings.change(changes)
        engine = await FakeEngine(settings, host=host, port=port).start()
        self.engines[f"{host}:{engine.port}"] = engine
        return engine

    async def add_many(self, hosts: Iterable[str], port: int = 8000) -> list[FakeEngine]:
        """Engines at these hosts, all at one port."""
        return [await self.add(host, port) for host in hosts]

    def remove(self, name: str) -> None:
        """Ends an engine."""
        self.engines.pop(name).stop()

    async def control(self, port: int, host: str = "127.0.0.1") -> int:
        """Opens the control endpoint; the answer is its port."""
        return await self._listener.open(host, port)

    def close(self) -> None:
        """Ends all engines and the control endpoint."""
        for engine in self.engines.values():
            engine.stop()
        self._listener.close()

    async def __aenter__(self) -> "FakeFleet":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _handle(self, request: Request) -> Awaitable[Response]:
        return self._control(request)

    async def _control(self, request: Request) -> Response:
        try:
            content = await self._do(request)
        except KeyError as error:
            return Response(404, json.dumps({"error": f"there is no {error}"}).encode())
        except (ValueError, TypeError, OSError) as error:
            return Response(400, json.dumps({"error": str(error)}).encode())
        return Response(200, json.dumps(content).encode())

    async def _do(self, request: Request) -> object:
        parts = request.path.strip("/").split("/")
        if parts[0] != "engines":
            raise KeyError(request.path)
        if len(parts) == 1:
            return {name: engine.report() for name, engine in self.engines.items()}
        name, verb = parts[1], parts[2] if len(parts) > 2 else ""
        if request.method == "POST" and not verb:
            changes = json.loads(request.body or b"{}")
            if name in self.engines:
                self.engines[name].settings.change(changes)
            else:
                host, _, port = name.rpartition(":")
                await self.add(host, int(port), **changes)
            return self.engines[name].report()
        engine = self.engines[name]
        match request.method, verb:
            case "GET", "":
                return engine.report()
            case "GET", "events":
                return [astuple(event) for event in engine.events]
            case "DELETE", "":
                self.remove(name)
                return {}
            case "POST", "restart":
                await engine.restart()
            case "POST", "stop":
                engine.stop()
            case "POST", "start":
                await engine.start()
            case _:
                raise KeyError(request.path)
        return engine.report()


async def serve(hosts: Iterable[tuple[str, int]], settings: Settings, control: int | None) -> None:
    """Runs until cancelled."""
    async with FakeFleet(settings) as fleet:
        for host, port in hosts:
            await fleet.add(host, port)
        if control is not None:
            await fleet.control(control)
        await asyncio.Event().wait()
