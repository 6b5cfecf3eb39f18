"""A fake vLLM server: its API for LoRA adapters, with the faults that a test asks for.

It does as the vLLM contract says; `tests/contract` runs the same rules against it and against a real vLLM. It computes
nothing: completions are words made of the model's name. Settings may change while it runs.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.fake_vllm.answers import card_answer, completion_answer, error_answer, json_answer
from tests.fake_vllm.verdicts import Missing, Refused, Version, check
from tests.fake_vllm.wire import Listener, Request, Response

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
MODELS = "/v1/models"
ROUTES = (LOAD, UNLOAD, MODELS, "/version", "/health", "/v1/completions", "/v1/chat/completions")


@dataclass(frozen=True)
class Reply:
    """A completion as a test wants it: ``seconds`` late, ``status`` instead of 200 for a ``share`` of the requests.

    ``text`` is what it says instead of the usual words, and ``hang``: it never says anything.
    """

    seconds: float = 0.0
    status: int = 200
    share: float = 1.0
    text: str | None = None
    hang: bool = False


@dataclass
class Settings:
    """How an engine behaves.

    ``served_names`` are the ids of its base model, ``model`` (its ``--model``) when empty. ``load_seconds`` is how long
    the engine is busy with one load; loads wait for each other. ``delay`` and ``hang`` are by route: seconds before an
    answer, and routes that are never answered. ``answers`` forces (status, body) on a route. With ``check_files`` off
    any path loads. ``replies`` says how a completion by a served name, a version (``adapter/1.2.0``) or any of an
    adapter goes otherwise than well; prompts of more than ``max_model_len`` words are refused. ``mounts`` says where
    the engine's paths are on this machine: ``{"/adapters": "/tmp/x/serving"}``.
    """

    version: str = "0.32.0"
    model: str = "acme/base"
    served_names: list[str] = field(default_factory=list)
    enable_lora: bool = True
    runtime_updating: bool = True
    api_key: str | None = None
    max_lora_rank: int = 16
    resolver_dir: str | None = None
    check_files: bool = True
    mounts: dict[str, str] = field(default_factory=dict)
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)
    load_seconds: float = 0.0
    delay: dict[str, float] = field(default_factory=dict)
    hang: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_model_len: int = 1 << 30

    @property
    def number(self) -> Version:
        """The version as numbers."""
        return tuple(int(part) for part in self.version.split(".")[:3] if part.isdigit())

    def reply(self, model: str) -> Reply | None:
        """How a completion by this name goes; None: as usual."""
        names = (model, model.rpartition("-")[0], model.partition("/")[0])
        found = next((self.replies[name] for name in names if name in self.replies), None)
        return Reply(**found) if found is not None else None

    def change(self, changes: dict[str, Any]) -> None:
        """Sets fields by name; raises KeyError for one that does not exist."""
        known = {one.name for one in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise KeyError(name)
            setattr(self, name, value)


@dataclass(frozen=True, slots=True)
class Event:
    """One answered request: when it came and ended (``time.monotonic``), and what it was about."""

    began: float
    ended: float
    route: str
    status: int
    model: str = ""


class FakeEngine:
    """One server. ``await start()`` listens; ``stop()`` is a killed process; ``restart()`` forgets every adapter."""

    def __init__(self, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.settings = settings or Settings()
        self.host, self.port = host, port
        self.adapters: dict[str, str] = {}
        self.events: deque[Event] = deque(maxlen=200_000)
        self.counts: Counter[str] = Counter()
        self.restarts = 0
        self.double_loads = 0
        self.loads_in_flight = 0
        self.most_loads_in_flight = 0
        self._names: dict[str, asyncio.Lock] = {}
        self._replied: Counter[str] = Counter()
        self._busy = asyncio.Lock()
        self._listener = Listener(self._handle)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    @property
    def served_names(self) -> list[str]:
        """The ids of its base model."""
        return self.settings.served_names or [self.settings.model]

    async def start(self) -> "FakeEngine":
        """Listens, on a port of the system's choice if it was 0 (the same one after a restart)."""
        self.port = await self._listener.open(self.host, self.port)
        return self

    def stop(self) -> None:
        """Breaks all connections and refuses new ones."""
        self._listener.close()
        self.adapters.clear()
        self._names.clear()
        self._busy = asyncio.Lock()
        self.loads_in_flight = 0

    async def restart(self) -> None:
        """As a restarted container: the registry of adapters is empty."""
        self.stop()
        self.restarts += 1
        await self.start()

    async def __aenter__(self) -> "FakeEngine":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    def report(self) -> dict[str, Any]:
        """What happened so far, for the control endpoint."""
        return {
            "url": self.url,
            "listening": self._listener.listening,
            "adapters": dict(self.adapters),
            "counts": dict(self.counts),
            "restarts": self.restarts,
            "double_loads": self.double_loads,
            "loads_in_flight": self.loads_in_flight,
            "most_loads_in_flight": self.most_loads_in_flight,
        }

    # Requests.

    def _handle(self, request: Request) -> Response | Awaitable[Response]:
        settings, route = self.settings, request.path
        self.counts[route] += 1
        if route not in settings.hang and route not in settings.delay and not self._slow(route):
            began = time.monotonic()
            answer = self._answer(request)
            return self._noted(began, request, answer) if isinstance(answer, Response) else self._wait(request, answer)
        return self._wait(request, None)

    def _slow(self, route: str) -> bool:
        return "*" in self.settings.hang or "*" in self.settings.delay

    def _noted(self, began: float, request: Request, response: Response) -> Response:
        model = ""
        if request.body:
            with contextlib.suppress(ValueError, AttributeError):
                parsed = json.loads(request.body)
                model = str(parsed.get("lora_name") or parsed.get("model") or "")
        self.events.append(Event(began, time.monotonic(), request.path, response.status, model))
        return response

    async def _wait(self, request: Request, answer: Awaitable[Response] | None) -> Response:
        began = time.monotonic()
        if answer is None:
            route, settings = request.path, self.settings
            if route in settings.hang or "*" in settings.hang:
                await asyncio.Event().wait()
            await asyncio.sleep(settings.delay.get(route, settings.delay.get("*", 0.0)))
            now = self._answer(request)
            response = now if isinstance(now, Response) else await now
        else:
            response = await answer
        return self._noted(began, request, response)

    def _answer(self, request: Request) -> Response | Awaitable[Response]:
        settings, route = self.settings, request.path
        if route in settings.answers:
            status, body = settings.answers[route]
            return Response(status, body.encode())
        # Only what is below /v1 asks for the key (vLLM 0.32.0, `middleware/authenticate.py`).
        if route.startswith("/v1") and settings.api_key is not None:
            given = request.headers.get("authorization", "")
            if given != f"Bearer {settings.api_key}":
                return json_answer(401, {"error": "Unauthorized"})
        match request.method, route:
            case "GET", "/health":
                return Response(200)
            case "GET", "/version":
                return json_answer(200, {"version": settings.version})
            case "GET", "/v1/models":
                return json_answer(200, self._models())
            case "POST", "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" if settings.runtime_updating:
                return self._change(request)
            case "POST", "/v1/completions" | "/v1/chat/completions":
                return self._complete(request)
        return json_answer(404, {"detail": "Not Found"})

    def _models(self) -> dict[str, Any]:
        base = self.served_names[0]
        cards = [card_answer(name, self.settings.model, None) for name in self.served_names]
        cards += [card_answer(name, root, base) for name, root in self.adapters.items()]
        return {"object": "list", "data": cards}

    def _change(self, request: Request) -> Response | Awaitable[Response]:
        media = request.headers.get("content-type", "").lower().partition(";")[0]
        loading = request.path == LOAD
        try:
            body = json.loads(request.body)
            name = body["lora_name"]
            path = body["lora_path"] if loading else ""
        except (ValueError, KeyError, TypeError):
            media = ""
        if media != "application/json" or not isinstance(name, str) or not isinstance(path, str):
            return error_answer(400, "Bad Request", "1 validation error:\n  the request is not what the endpoint takes")
        return self._load(name, path) if loading else self._unload(name)

    def _unload(self, name: str) -> Response:
        if not name:
            return error_answer(400, "InvalidUserInput", "'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self.adapters:
            return error_answer(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        return Response(200, f"Success: LoRA adapter '{name}' removed successfully.".encode(), "")

    def _load(self, name: str, path: str) -> Response | Awaitable[Response]:
        self.double_loads += name in self.adapters or name in self._names
        if self.settings.load_seconds == 0.0 and not self._busy.locked() and name not in self._names:
            self.most_loads_in_flight = max(self.most_loads_in_flight, self.loads_in_flight + 1)
            refused = self._refuse(name, path)
            return refused or self._try(name, path)
        return self._load_slowly(name, path)

    async def _load_slowly(self, name: str, path: str) -> Response:
        self.loads_in_flight += 1
        self.most_loads_in_flight = max(self.most_loads_in_flight, self.loads_in_flight)
        lock = self._names.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                if refused := self._refuse(name, path):
                    return refused
                # Loads run inside the engine's loop, one at a time (vLLM contract, load and unload).
                async with self._busy:
                    await asyncio.sleep(self.settings.load_seconds)
                    return self._try(name, path)
        finally:
            self.loads_in_flight -= 1
            if not lock.locked():
                self._names.pop(name, None)

    def _refuse(self, name: str, path: str) -> Response | None:
        if not name or not path:
            return error_answer(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.served_names and self.settings.number >= (0, 32):
            message = f"The lora adapter '{name}' conflicts with a served base model."
            return error_answer(400, "InvalidUserInput", message)
        if name in self.adapters:
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set"
                " 'load_inplace' to True."
            )
            return error_answer(400, "InvalidUserInput", message)
        return None

    def _try(self, name: str, path: str) -> Response:
        try:
            self._check(path)
        except Missing:
            return error_answer(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        except Refused as refused:
            old = self.settings.number <= (0, 15, 1)
            message = (
                f"Call to add_lora method failed: Worker failed with error '{refused}',"
                " please check the stack trace above for the root cause"
            )
            return error_answer(400 if old else 500, "BadRequestError" if old else "InternalServerError", message)
        self.adapters[name] = path
        return Response(200, f"Success: LoRA adapter '{name}' added successfully.".encode(), "")

    def _check(self, path: str) -> None:
        if not self.settings.enable_lora:
            raise Refused("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        if self.settings.check_files:
            check(
                self._here(path),
                max_lora_rank=self.settings.max_lora_rank,
                version=self.settings.number,
                widths=self.settings.widths,
            )

    def _here(self, path: str) -> Path:
        for mount, folder in self.settings.mounts.items():
            if path == mount or path.startswith(mount.rstrip("/") + "/"):
                return Path(folder + path[len(mount.rstrip("/")) :])
        return Path(path)

    # Completions.

    def _complete(self, request: Request) -> Response | Awaitable[Response]:
        try:
            body = json.loads(request.body)
            model = str(body.get("model") or self.served_names[0])
        except (ValueError, AttributeError):
            return error_answer(400, "Bad Request", "the request is not what the endpoint takes")
        if model not in self.served_names and model not in self.adapters:
            refused = self._resolve(model)
            if refused is not None:
                return refused
        if str(body.get("prompt", "")).count(" ") > self.settings.max_model_len:
            message = f"This model's maximum context length is {self.settings.max_model_len} tokens."
            return error_answer(400, "BadRequestError", message)
        count = min(max(int(body.get("max_tokens") or 16), 1), 256)
        reply = self.settings.reply(model)
        said = completion_answer(
            model,
            count,
            chat=request.path.startswith("/v1/chat"),
            stream=bool(body.get("stream")),
            text=reply.text if reply else None,
        )
        return said if reply is None else self._otherwise(model, reply, said)

    def _otherwise(self, model: str, reply: Reply, said: Response) -> Response | Awaitable[Response]:
        """The answer of a model that a test told to answer otherwise."""
        self._replied[model] += 1
        if reply.status != 200 and int(self._replied[model] * reply.share) > int(
            (self._replied[model] - 1) * reply.share
        ):
            said = error_answer(reply.status, "InternalServerError", f"the model {model} failed")
        return self._late(reply, said) if reply.seconds or reply.hang else said

    async def _late(self, reply: Reply, said: Response) -> Response:
        if reply.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(reply.seconds)
        return said

    def _resolve(self, model: str) -> Response | None:
        """The filesystem resolver: joins its folder with the name, and compares the base model's name exactly."""
        aliases = f" Valid aliases: {', '.join(self.served_names)}." if self.settings.number >= (0, 32) else ""
        missing = error_answer(404, "NotFoundError", f"The model `{model}` does not exist.{aliases}", "model")
        directory = self.settings.resolver_dir
        if directory is None or not self.settings.enable_lora or not self.settings.runtime_updating:
            return missing
        path = f"{directory.rstrip('/')}/{model}" if not model.startswith("/") else model
        try:
            config = json.loads((self._here(path) / "adapter_config.json").read_text())
            found = config["peft_type"] == "LORA" and config["base_model_name_or_path"] == self.settings.model
        except (OSError, ValueError, KeyError, TypeError):
            return missing
        if not found:
            return missing
        try:
            self._check(path)
        except (Missing, Refused):
            return error_answer(400, "BadRequestError", f"LoRA adapter '{model}' was found but could not be loaded.")
        self.adapters[model] = path
        return None
