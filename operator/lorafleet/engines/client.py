"""The few calls that the operator makes to one vLLM server, each bounded in time and size.

The same call twice is as good as once, so a connection that breaks before an answer is tried again at once, and a load
that times out is looked up in the listing before it counts as failed. Engines belong to tenants and may answer
anything: bodies are cut, redirects are not followed, and the API key is in no message. No cache and no policy here.

Thousands of loads go through this on a core or two: headers and URLs are made once, and a success is its status alone.
aiohttp, because httpcore spends twice the processor time of a call, and looks at every connection of its pool for each.
`load_inplace` is never sent: it serves new weights with the old KV cache (vLLM contract, rules 2 and 3).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import aiohttp
from multidict import CIMultiDict
from yarl import URL

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
IDLE_SECONDS = 4.0
"""How long an idle connection is kept; vLLM closes it after 5 s."""

LISTING_BYTES = 32 * 2**20
ANSWER_BYTES = 64 * 2**10

_LOST = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientPayloadError,
)


def session() -> aiohttp.ClientSession:
    """Connections for the clients of any number of engines; whoever makes it closes it."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
    # A tenant's engine sets no cookie here, and its answers are not unpacked.
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept"),
    )


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


def _timeout(read: float) -> aiohttp.ClientTimeout:
    """A limit per step, and one for the whole call that an engine which answers byte by byte runs into."""
    return aiohttp.ClientTimeout(total=CONNECT_TIMEOUT + read + 1.0, sock_connect=CONNECT_TIMEOUT, sock_read=read)


class EngineClient:
    """Calls to one server at ``base_url`` (``http://10.0.0.7:8000``).

    ``http`` is one `session` for all engines. ``name`` is what messages call the engine: its pod's name.
    ``load_timeout`` and ``list_timeout`` are in seconds.
    Every call raises only `EngineError`; the subclass says what to do next.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        api_key: str | None = None,
        *,
        name: str = "",
        load_timeout: float = LOAD_TIMEOUT,
        list_timeout: float = LIST_TIMEOUT,
    ) -> None:
        self._http = http
        self._name = name or base_url
        self._secret = api_key or ""
        base = base_url.rstrip("/")
        self._load_url = URL(f"{base}/v1/load_lora_adapter")
        self._unload_url = URL(f"{base}/v1/unload_lora_adapter")
        self._complete_url = URL(f"{base}/v1/completions")
        self._models_url = URL(f"{base}/v1/models")
        self._version_url = URL(f"{base}/version")
        self._health_url = URL(f"{base}/health")
        headers = {"Accept-Encoding": "identity"}
        self._unusable_key = bool(api_key) and not (str(api_key).isascii() and str(api_key).isprintable())
        if api_key and not self._unusable_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._get_headers = CIMultiDict(headers)
        self._post_headers = CIMultiDict({**headers, "Content-Type": "application/json"})
        self._load_timeout = _timeout(load_timeout)
        self._list_timeout = _timeout(list_timeout)

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
            status, said = await self._post(self._load_url, body, Call.LOAD, self._load_timeout)
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
        status, said = await self._post(self._unload_url, body, Call.UNLOAD, self._list_timeout)
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
        status, said = await self._post(self._complete_url, body, Call.COMPLETE, _timeout(timeout))
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
        status, said = await self._post(self._unload_url, b'{"lora_name":""}', Call.UNLOAD, self._list_timeout)
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

    async def _get(self, url: URL, call: Call, most: int) -> tuple[int, bytes]:
        return await self._send("GET", url, self._get_headers, None, call, self._list_timeout, most)

    async def _post(self, url: URL, body: bytes, call: Call, timeout: aiohttp.ClientTimeout) -> tuple[int, bytes]:
        return await self._send("POST", url, self._post_headers, body, call, timeout, ANSWER_BYTES)

    async def _send(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | None,
        call: Call,
        timeout: aiohttp.ClientTimeout,
        most: int,
    ) -> tuple[int, bytes]:
        if self._unusable_key:
            message = f"the API key for engine {self._name} has characters that no header can hold; correct the Secret"
            raise Misconfigured(Reason.API_KEY_REJECTED, message)
        try:
            try:
                return await self._once(method, url, headers, body, timeout, most)
            except aiohttp.ClientConnectorError:
                raise
            except _LOST:
                # vLLM closes idle connections after 5 s, perhaps just as we use one. A GET aiohttp has tried again.
                if method == "GET":
                    raise
                return await self._once(method, url, headers, body, timeout, most)
        except aiohttp.ConnectionTimeoutError as error:
            raise self._unreachable(url, error) from error
        except TimeoutError as error:
            raise self._hung(call, timeout) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(url, error) from error

    async def _once(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
        most: int,
    ) -> tuple[int, bytes]:
        async with self._http.request(
            method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
        ) as response:
            parts: list[bytes] = []
            size = 0
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > most:
                    response.close()
                    break
        return response.status, b"".join(parts)[:most]

    def _refusal(self, status: int, body: bytes, call: Call, about: str = "") -> EngineError:
        found = answer(status, body)
        if self._secret:
            found = Answer(status, found.message.replace(self._secret, "***"))
        return classify(found, call, self._name, about=about, keyed=bool(self._secret))

    def _unreachable(self, url: URL, error: Exception) -> Retry:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number else str(error) or type(error).__name__
        if self._secret:
            why = why.replace(self._secret, "***")
        message = (
            f"engine {self._name} does not answer at {url.host}:{url.port} ({why}); check that vLLM runs, listens on"
            " this port, and that a NetworkPolicy admits the operator"
        )
        return Retry(Reason.UNREACHABLE, message)

    def _hung(self, call: Call, timeout: aiohttp.ClientTimeout) -> Retry:
        message = (
            f"engine {self._name} accepts connections and did not {call} within {timeout.sock_read:g} s;"
            " if it goes on, look at its log and restart it"
        )
        return Retry(Reason.HUNG, message)
