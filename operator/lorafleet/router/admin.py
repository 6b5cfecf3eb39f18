"""Envoy's own interface on loopback: what it runs by, what it counts, and telling it to send its clients away."""

import json

import aiohttp

TIMEOUT = 5.0


class AdminError(Exception):
    """Envoy did not answer, or not as expected."""


class EnvoyGone(AdminError):
    """Nobody listens at Envoy's address."""


class Admin:
    """The interface of the Envoy beside this process."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, query: dict[str, str] | None = None) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        try:
            async with self._session.request(method, f"{self._base}{path}", params=query or {}) as answer:
                text = await answer.text()
        except aiohttp.ClientConnectorError as error:
            raise EnvoyGone(f"Envoy does not answer on {self._base}: nobody listens") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise AdminError(f"Envoy does not answer on {self._base}: {type(error).__name__}") from error
        if answer.status != 200:
            raise AdminError(f"Envoy answers {method} {path} with {answer.status}: {text.strip()[:200]}")
        return text

    async def live(self) -> None:
        """Raises AdminError unless Envoy has its configuration and takes requests."""
        await self._ask("GET", "/ready")

    async def versions(self) -> frozenset[str]:
        """The versions of all watched files that Envoy runs by (``version_info`` in the files)."""
        text = await self._ask("GET", "/stats", {"filter": r"\.version_text$"})
        return frozenset(line.split(": ", 1)[1].strip('"') for line in text.splitlines() if ": " in line)

    async def rejected(self) -> int:
        """How many files Envoy has refused since its start."""
        text = await self._ask("GET", "/stats", {"filter": r"\.update_rejected$"})
        return sum(_values(text).values())

    async def activity(self) -> tuple[int, int, int]:
        """Connections and requests of clients that there are, and all requests since Envoy's start."""
        names = ("downstream_cx_active", "downstream_rq_active", "downstream_rq_total")
        text = await self._ask("GET", "/stats", {"filter": rf"^http\.clients\.({'|'.join(names)})$"})
        found = _values(text)
        connections, active, total = (found.get(f"http.clients.{name}", 0) for name in names)
        return connections, active, total

    async def started(self) -> str:
        """When this Envoy began, to the millisecond: no two starts have the same. Its counters are 0 at that time."""
        text = await self._ask("GET", "/config_dump", {"mask": "last_updated"})
        try:
            (found,) = [one for one in json.loads(text)["configs"] if one["@type"].endswith(".BootstrapConfigDump")]
            return str(found["last_updated"])
        except (ValueError, KeyError, TypeError) as error:
            raise AdminError(f"Envoy's /config_dump does not say when it began: {type(error).__name__}") from None

    async def statistics(self, pattern: str) -> str:
        """Counters and histograms whose name the regular expression finds, in the text form of Prometheus."""
        return await self._ask("GET", "/stats/prometheus", {"filter": pattern})

    async def drain(self) -> None:
        """From now on every answer ends its connection; new connections are still taken."""
        await self._ask("POST", "/drain_listeners", {"graceful": "", "skip_exit": ""})


def _values(text: str) -> dict[str, int]:
    lines = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {name: int(value) for name, value in lines if value.isdigit()}
