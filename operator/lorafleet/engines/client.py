"""The few calls that the operator makes to one vLLM server, each bounded in time and size.

The same call twice is as good as once, so a connection that breaks before an answer is tried again at once, and a load
that times out is looked up in the listing before it counts as failed. Engines belong to tenants and may answer
anything: bodies are cut, redirects are not followed, and the API key is in no message. No cache and no policy here.

Thousands of loads go through this on a core or two: headers and URLs are made once, and a success is its status alone.
`load_inplace` is never sent: it serves new weights with the old KV cache (vLLM contract, rules 2 and 3).
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import httpx

from lorafleet.api.reasons import Reason
from lorafleet.engines.errors import (
    Answer,
    BoundElsewhere,
    Call,
    EngineError,
    Misconfigured,
    NotLoaded,
    Rejected,
    Retry,
    already_loaded,
    answer,
    classify,
    not_loaded,
    unknown_model,
)

CONNECT_TIMEOUT = 2.0
LIST_TIMEOUT = 5.0
LOAD_TIMEOUT = 60.0
COMPLETE_TIMEOUT = 30.0
POOL_TIMEOUT = 10.0
"""Seconds to wait for a connection of the shared client; running out is the operator's fault, not the engine's."""

LISTING_BYTES = 32 * 2**20
ANSWER_BYTES = 64 * 2**10

_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)


class LoadOutcome(StrEnum):
    """What a load did. Either way the name is now loaded from the path."""

    LOADED = "loaded"
    ALREADY_LOADED = "already_loaded"


class UnloadOutcome(StrEnum):
    """What an unload did. Either way the name is now unknown to the engine."""

    UNLOADED = "unloaded"
    NOT_LOADED = "not_loaded"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model that the server itself serves: ``id`` is a served name, ``root`` the ``--model`` string."""

    id: str
    root: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What ``/v1/models`` shows: base entries, and adapters from name to the path they were loaded from."""

    bases: tuple[BaseModel, ...]
    adapters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Timeouts:
    httpx: dict[str, object]
    total: float

    @classmethod
    def of(cls, read: float) -> "_Timeouts":
        """A limit per step, and one for the whole call that an engine which answers byte by byte runs into."""
        steps = {"connect": CONNECT_TIMEOUT, "read": read, "write": read, "pool": POOL_TIMEOUT}
        return cls({"timeout": steps}, CONNECT_TIMEOUT + POOL_TIMEOUT + read + 1.0)


class EngineClient:
    """Calls to one server at ``base_url`` (``http://10.0.0.7:8000``).

    Through an HTTP transport, not a client: httpx's redirects, cookies and authentication flows are not wanted here
    and cost a fifth of the processor time of a call. ``name`` is what messages call the engine: its pod's name.
    ``load_timeout`` and ``list_timeout`` are in seconds.
    Every call raises only `EngineError`; the subclass says what to do next.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        base_url: str,
        api_key: str | None = None,
        *,
        name: str = "",
        load_timeout: float = LOAD_TIMEOUT,
        list_timeout: float = LIST_TIMEOUT,
    ) -> None:
        self._transport = transport
        self._name = name or base_url
        self._secret = api_key or ""
        base = base_url.rstrip("/")
        self._load_url = httpx.URL(f"{base}/v1/load_lora_adapter")
        self._unload_url = httpx.URL(f"{base}/v1/unload_lora_adapter")
        self._complete_url = httpx.URL(f"{base}/v1/completions")
        self._models_url = httpx.URL(f"{base}/v1/models")
        self._version_url = httpx.URL(f"{base}/version")
        self._health_url = httpx.URL(f"{base}/health")
        headers = {"Host": self._load_url.netloc.decode("ascii"), "Accept-Encoding": "identity"}
        self._unusable_key = bool(api_key) and not (str(api_key).isascii() and str(api_key).isprintable())
        if api_key and not self._unusable_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._get_headers = httpx.Headers(headers)
        self._post_headers = httpx.Headers({**headers, "Content-Type": "application/json"})
        self._load_timeouts = _Timeouts.of(load_timeout)
        self._list_timeouts = _Timeouts.of(list_timeout)

    def __repr__(self) -> str:
        return f"EngineClient({self._name!r}, {str(self._models_url)!r})"

    async def loaded(self) -> Listing:
        """What the engine serves now (``GET /v1/models``)."""
        status, body = await self._get(self._models_url, Call.LIST, LISTING_BYTES)
        if status != 200:
            raise self._refusal(status, body, Call.LIST)
        bases: list[BaseModel] = []
        adapters: dict[str, str] = {}
        try:
            for entry in json.loads(body)["data"]:
                name, root = entry["id"], entry.get("root")
                # Base entries have `parent: null`, adapters the id of their base (vLLM contract, observing).
                if entry.get("parent") is None:
                    bases.append(BaseModel(str(name), str(root if root is not None else name)))
                else:
                    adapters[str(name)] = str(root)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            message = (
                f"engine {self._name} answers /v1/models with something that is not a list of models;"
                " set spec.engines.port to the port of vLLM's API"
            )
            raise Misconfigured(Reason.PORT_NOT_FOUND, message) from error
        return Listing(tuple(bases), MappingProxyType(adapters))

    async def load(self, served_name: str, path: str) -> LoadOutcome:
        """Loads an adapter from an absolute path as engines see it.

        Raises `BoundElsewhere` when the name is loaded from another path, `Rejected` when this version can never load.
        """
        if not path.startswith("/"):
            # vLLM makes a hub download of a relative path that does not exist (vLLM contract, capacity).
            raise ValueError(f"the path of {served_name} is not absolute: {path}")
        body = json.dumps({"lora_name": served_name, "lora_path": path}).encode()
        try:
            status, said = await self._post(self._load_url, body, Call.LOAD, self._load_timeouts)
        except Retry as error:
            if error.reason is not Reason.HUNG:
                raise
            return await self._after_timeout(served_name, path, error)
        if status == 200:
            return LoadOutcome.LOADED
        found = answer(status, said)
        if already_loaded(found):
            root = (await self.loaded()).adapters.get(served_name)
            if root == path:
                return LoadOutcome.ALREADY_LOADED
            if root is not None:
                raise self._bound(served_name, path, root)
            message = f"engine {self._name} has {served_name} and does not list it; trying again"
            raise Retry(Reason.LOAD_FAILED, message)
        raise self._refusal(status, said, Call.LOAD, served_name)

    async def unload(self, served_name: str) -> UnloadOutcome:
        """Makes the engine forget a name. Its weights stay in memory until they are evicted (vLLM contract, rule 4)."""
        body = json.dumps({"lora_name": served_name}).encode()
        status, said = await self._post(self._unload_url, body, Call.UNLOAD, self._list_timeouts)
        if status == 200:
            return UnloadOutcome.UNLOADED
        if not_loaded(answer(status, said)):
            return UnloadOutcome.NOT_LOADED
        raise self._refusal(status, said, Call.UNLOAD, served_name)

    async def complete(self, model: str, prompt: str, *, max_tokens: int = 1, timeout: float = COMPLETE_TIMEOUT) -> str:
        """What a model that the engine has, by its served name, says to a prompt at temperature 0.

        Raises `NotLoaded` when the engine has no such model, `Rejected` when it will not answer this prompt.
        """
        asked = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        body = json.dumps(asked).encode()
        status, said = await self._post(self._complete_url, body, Call.COMPLETE, _Timeouts.of(timeout))
        if status == 200:
            try:
                return str(json.loads(said)["choices"][0]["text"])
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                message = f"engine {self._name} answers as {model} with something that is no completion; trying again"
                raise Retry(Reason.PROBE_FAILED, message) from error
        found = answer(status, said)
        refusal = self._refusal(status, said, Call.COMPLETE, model)
        if unknown_model(found):
            raise NotLoaded(refusal.reason, refusal.message)
        if status in (400, 413, 422) and not isinstance(refusal, Misconfigured):
            raise Rejected(Reason.PROBE_FAILED, refusal.message.removesuffix("; trying again"))
        raise refusal

    async def runtime_updating(self) -> bool:
        """Whether the engine takes adapters at run time, found without changing anything.

        To unload a name that is empty is refused by the endpoint where it exists, and by the framework where it does
        not.
        """
        status, said = await self._post(self._unload_url, b'{"lora_name":""}', Call.UNLOAD, self._list_timeouts)
        if status == 400 or status == 200:
            return True
        error = self._refusal(status, said, Call.UNLOAD)
        if error.reason is Reason.RUNTIME_UPDATING_DISABLED:
            return False
        raise error

    async def version(self) -> str:
        """The version of vLLM (``GET /version``)."""
        status, body = await self._get(self._version_url, Call.VERSION, ANSWER_BYTES)
        if status != 200:
            raise self._refusal(status, body, Call.VERSION)
        try:
            return str(json.loads(body)["version"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            message = (
                f"engine {self._name} answers /version with something that is not a version;"
                " set spec.engines.port to the port of vLLM's API"
            )
            raise Misconfigured(Reason.PORT_NOT_FOUND, message) from error

    async def health(self) -> bool:
        """Whether the engine says that it is alive (``GET /health``)."""
        status, _ = await self._get(self._health_url, Call.HEALTH, ANSWER_BYTES)
        return status == 200

    async def _after_timeout(self, served_name: str, path: str, error: Retry) -> LoadOutcome:
        """The load may have completed after we stopped waiting for its answer."""
        try:
            root = (await self.loaded()).adapters.get(served_name)
        except EngineError:
            raise error from None
        if root == path:
            return LoadOutcome.LOADED
        if root is not None:
            raise self._bound(served_name, path, root) from error
        raise error

    def _bound(self, served_name: str, path: str, root: str) -> BoundElsewhere:
        message = f"engine {self._name} has {served_name} from {root} and not from {path}; it must be unloaded first"
        return BoundElsewhere(message, root)

    async def _get(self, url: httpx.URL, call: Call, most: int) -> tuple[int, bytes]:
        timeouts = self._list_timeouts
        return await self._send("GET", url, self._get_headers, None, call, timeouts, most)

    async def _post(self, url: httpx.URL, body: bytes, call: Call, timeouts: _Timeouts) -> tuple[int, bytes]:
        return await self._send("POST", url, self._post_headers, body, call, timeouts, ANSWER_BYTES)

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: httpx.Headers,
        body: bytes | None,
        call: Call,
        timeouts: _Timeouts,
        most: int,
    ) -> tuple[int, bytes]:
        if self._unusable_key:
            message = f"the API key for engine {self._name} has characters that no header can hold; correct the Secret"
            raise Misconfigured(Reason.API_KEY_REJECTED, message)
        request = httpx.Request(method, url, headers=headers, content=body, extensions=timeouts.httpx)
        try:
            async with asyncio.timeout(timeouts.total):
                try:
                    return await self._once(request, most)
                except _LOST:
                    # vLLM closes idle connections after 5 s, perhaps just as we use one.
                    return await self._once(request, most)
        except httpx.PoolTimeout as error:
            message = f"the operator had no free connection to ask engine {self._name} to {call}; trying again"
            raise Retry(Reason.UNREACHABLE, message) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, *_LOST) as error:
            raise self._unreachable(url, error) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise self._hung(call, timeouts) from error
        except httpx.HTTPError as error:
            raise self._unreachable(url, error) from error

    async def _once(self, request: httpx.Request, most: int) -> tuple[int, bytes]:
        response = await self._transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            parts: list[bytes] = []
            size = 0
            async for part in response.stream:
                parts.append(part)
                size += len(part)
                if size > most:
                    break
        finally:
            await response.stream.aclose()
        return response.status_code, b"".join(parts)[:most]

    def _refusal(self, status: int, body: bytes, call: Call, about: str = "") -> EngineError:
        found = answer(status, body)
        if self._secret:
            found = Answer(status, found.message.replace(self._secret, "***"))
        return classify(found, call, self._name, about=about, keyed=bool(self._secret))

    def _unreachable(self, url: httpx.URL, error: Exception) -> Retry:
        why = str(error) or type(error).__name__
        if self._secret:
            why = why.replace(self._secret, "***")
        message = (
            f"engine {self._name} does not answer at {url.host}:{url.port} ({why}); check that vLLM runs, listens on"
            " this port, and that a NetworkPolicy admits the operator"
        )
        return Retry(Reason.UNREACHABLE, message)

    def _hung(self, call: Call, timeouts: _Timeouts) -> Retry:
        limit = timeouts.httpx["timeout"]["read"]  # type: ignore[index]
        message = (
            f"engine {self._name} accepts connections and did not {call} within {limit:g} s;"
            " if it goes on, look at its log and restart it"
        )
        return Retry(Reason.HUNG, message)
