"""The servers that the contract suite runs against.

By default the fake, as a process of its own, once for each version whose behaviour it knows. With the environment
variable ``VLLM`` (``VLLM=0.27.1``, or several versions) a real vLLM from `e2e.engine` instead, as a plain process.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import httpx
import pytest

from lorafleet.engines.client import EngineClient, session
from tests.contract.adapters import WIDTHS, copy_with, write_adapter

VERSIONS = tuple(os.environ.get("VLLM", "").split())
REAL = bool(VERSIONS)
FAKE_VERSIONS = ("0.32.0", "0.27.1")
MAX_RANK = 16
SERVED = ("tiny", "tiny-alias")
REPOSITORY = Path(__file__).resolve().parents[2]


class Process(Protocol):
    """A server that was started."""

    url: str

    def restart(self) -> object: ...

    def stop(self) -> None: ...


@dataclass
class Target:
    """A server under test and the folder that it resolves adapters from."""

    process: Process
    version: tuple[int, ...]
    model: str
    serving: Path
    templates: dict[str, Path]
    numbers: Iterator[int]

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.process.url

    def adapter(self, template: str = "one", fault: str | None = None) -> tuple[str, str]:
        """A new adapter in the serving folder: its served name and absolute path."""
        name = f"adapter-{next(self.numbers)}/1.2.0-3f2a9c1d04be"
        copy_with(self.templates[template], self.serving / name, fault)
        return name, str(self.serving / name)


class FakeProcess:
    """The fake as a process, steered through its control endpoint."""

    def __init__(self, changes: dict[str, Any]) -> None:
        from e2e.engine.server import free_port

        port, control = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._control = f"http://127.0.0.1:{control}/engines/127.0.0.1:{port}"
        words = [sys.executable, "-m", "tests.fake_vllm", "--bind", f"127.0.0.1:{port}", "--control", str(control)]
        for name, value in changes.items():
            words += ["--set", f"{name}={json.dumps(value)}"]
        self._process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20.0
        while True:
            try:
                httpx.get(self._control, timeout=2.0).raise_for_status()
                return
            except httpx.HTTPError:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.02)

    def restart(self) -> None:
        httpx.post(f"{self._control}/restart", timeout=5.0).raise_for_status()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class World:
    """What all servers of one version share: the model, adapters to copy, and the serving folder."""

    version: str
    model: str
    serving: Path
    templates: dict[str, Path]
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, **changes: Any) -> Process:
        """A server: ``enable_lora``, ``runtime_updating``, ``api_key`` as in both kinds' options."""
        if not REAL:
            return FakeProcess(
                {
                    "version": self.version,
                    "model": self.model,
                    "served_names": list(SERVED),
                    "max_lora_rank": MAX_RANK,
                    "resolver_dir": str(self.serving),
                    "widths": WIDTHS,
                    "max_model_len": 256,
                    **changes,
                }
            )
        from e2e.engine.server import Options, Server, free_port

        options = Options(
            version=self.version,
            model=Path(self.model),
            port=free_port(),
            served_names=SERVED,
            max_lora_rank=MAX_RANK,
            resolver_dir=self.serving,
            **changes,
        )
        return Server(options, self.folder).start()

    def target(self, process: Process) -> Target:
        """The server with this world's folders."""
        number = tuple(int(part) for part in self.version.split("."))
        return Target(process, number, self.model, self.serving, self.templates, self.numbers)


@pytest.fixture(scope="session", params=VERSIONS or FAKE_VERSIONS, ids=lambda v: f"{'real' if REAL else 'fake'}-{v}")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("contract")
    serving = folder / "serving"
    serving.mkdir()
    wanted = {"one": (1, 8), "two": (2, 8), "rank 32": (3, 2 * MAX_RANK)}
    templates = {name: folder / "templates" / name.replace(" ", "-") for name in wanted}
    if REAL:
        from e2e.engine.tiny_model import make_adapters, tiny_model

        model = str(tiny_model(request.param))
        make_adapters(
            [
                {"folder": str(templates[name]), "seed": seed, "r": rank, "base_name": model}
                for name, (seed, rank) in wanted.items()
            ],
            request.param,
        )
    else:
        model = "/models/tiny-llama"
        for name, (seed, rank) in wanted.items():
            write_adapter(templates[name], base_name=model, rank=rank, seed=seed)
    return World(request.param, model, serving, templates, folder)


def _serve(world: World, **changes: Any) -> Iterator[Target]:
    process = world.start(**changes)
    try:
        yield world.target(process)
    finally:
        process.stop()


@pytest.fixture(scope="session")
def target(world: World) -> Iterator[Target]:
    """A server as the operator wants it."""
    yield from _serve(world)


@pytest.fixture(scope="session")
def without_lora(world: World) -> Iterator[Target]:
    """A server with an API key, started without --enable-lora."""
    yield from _serve(world, enable_lora=False, api_key="s3cret")


@pytest.fixture(scope="session")
def without_updating(world: World) -> Iterator[Target]:
    """A server without VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    yield from _serve(world, runtime_updating=False)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60.0) as client:
        yield client


@pytest.fixture
async def connections() -> AsyncIterator[aiohttp.ClientSession]:
    async with session() as one:
        yield one


@pytest.fixture
def client(target: Target, connections: aiohttp.ClientSession) -> EngineClient:
    return EngineClient(connections, target.url, name="vllm-0")


async def say(http: httpx.AsyncClient, target: Target, model: str) -> tuple[int, Any]:
    """A greedy completion: the status, and the text or the error's message."""
    body = {"model": model, "prompt": "A small model", "max_tokens": 12, "temperature": 0}
    answer = await asyncio.wait_for(http.post(f"{target.url}/v1/completions", json=body), 60.0)
    parsed = answer.json()
    return answer.status_code, parsed["choices"][0]["text"] if answer.status_code == 200 else parsed["error"]["message"]
