"""The one seam to the Kubernetes API: raw JSON through the connection, credentials and TLS of ``kubernetes.aio``.

The typed models of that client cost milliseconds an object, which at thousands of adapters is most of the operator's
time; so requests and answers are plain dicts here. This module knows paths and errors, and no kind of ours.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.request import getproxies

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client import rest

from lorafleet.api.names import FIELD_MANAGER

Object = dict[str, Any]

REQUEST_TIMEOUT = 15.0
WATCH_SILENCE = 90.0
"""Seconds without any event after which a watch counts as dead; the API server sends a bookmark every 60."""

LONGEST_LINE = 8 * 2**20
"""Bytes of the longest event of a watch that can be read; etcd takes objects of 1.5 MiB, which JSON may make longer."""


class KubeError(Exception):
    """The API server refused a request. ``status`` is its HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """Whether the object is not there."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Whether somebody else was faster, or the object is another one of the same name."""
        return self.status == 409

    @property
    def unreachable(self) -> bool:
        """Whether there was no answer at all."""
        return self.status == 0

    @property
    def namespace_terminating(self) -> bool:
        """Whether nothing can be created any more because the namespace is being deleted."""
        return self.status == 403 and "being terminated" in self.message


def path(api_version: str, plural: str, namespace: str | None = None, name: str = "", sub: str = "") -> str:
    """The path of a resource, such as ``/apis/batch/v1/namespaces/x/jobs/y/status``."""
    parts = ["/api" if "/" not in api_version else "/apis", api_version]
    parts += ["namespaces", namespace] if namespace else []
    parts += [part for part in (plural, name, sub) if part]
    return "/".join(parts)


class Kube:
    """A connection to one API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.connection_pool_maxsize = 64
        # Else aiohttp (3.14) asks a thread twice a request, for ~/.netrc and for proxies.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies()), "read_bufsize": LONGEST_LINE // 2}
        self._client = client.ApiClient(configuration)

    @classmethod
    async def connect(cls) -> "Kube":
        """Connects with the pod's service account, else with the user's kubeconfig."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _send(
        self, method: str, where: str, query: Mapping[str, str], body: Any, content_type: str, timeout: Any
    ) -> rest.RESTResponse:
        headers = {"Accept": "application/json", **({"Content-Type": content_type} if body is not None else {})}
        method, url, headers, body, form = await self._client.param_serialize(
            method,
            where,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._client.call_api(method, url, headers, body, form, _request_timeout=timeout)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KubeError(0, type(error).__name__, f"{method} {where}: no answer from the API server") from error
        if response.status >= 400:
            raise _refusal(response.status, await response.response.read())
        return response

    async def request(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = REQUEST_TIMEOUT,
    ) -> Object:
        """One request; the answer's JSON. Raises KubeError."""
        limits = aiohttp.ClientTimeout(total=timeout)
        response = await self._send(method, where, query or {}, body, content_type, limits)
        try:
            data = await response.response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KubeError(0, type(error).__name__, f"{method} {where}: the answer was cut") from error
        parsed: Object = json.loads(data)
        return parsed

    async def get(self, where: str) -> Object:
        """One object."""
        return await self.request("GET", where)

    async def list(self, where: str, **query: str) -> Object:
        """The objects of a kind, with the list's resource version."""
        return await self.request("GET", where, query=query, timeout=60.0)

    async def create(self, where: str, body: Object) -> Object:
        """A new object."""
        return await self.request("POST", where, query={"fieldManager": FIELD_MANAGER}, body=body)

    async def replace(self, where: str, body: Object, timeout: float = REQUEST_TIMEOUT) -> Object:
        """Replaces an object; a conflict when its resource version has moved."""
        return await self.request("PUT", where, body=body, timeout=timeout)

    async def apply(self, where: str, body: Object) -> Object:
        """Server-side apply with our field manager (KEP-555).

        With ``metadata.uid`` in the body a conflict, not a new object, when the object is gone.
        """
        return await self.request(
            "PATCH",
            where,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def delete(self, where: str, **options: Any) -> None:
        """Deletes an object; nothing happens when it is gone."""
        try:
            await self.request("DELETE", where, body=options or None)
        except KubeError as error:
            if not error.not_found:
                raise

    async def watch(self, where: str, version: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """``("OPENED", {})``, then events after ``version``, bookmarks included, until the server ends the stream.

        OPENED says that the server has accepted the watch, which may be long before its first event. Raises
        KubeError with status 410 when the version is too old, and with 0 when the connection is lost or silent.
        """
        query = {**query, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT, sock_read=WATCH_SILENCE)
        response = await self._send("GET", where, query, None, "", limits)
        stream = response.response.content
        try:
            yield "OPENED", {}
            while line := await stream.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise KubeError(
                        status.get("code", 500), status.get("reason", "Error"), status.get("message", "watch ended")
                    )
                yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise KubeError(0, type(error).__name__, f"the watch of {where} was cut") from error
        finally:
            response.response.close()


def _refusal(status: int, data: bytes) -> KubeError:
    """The API server's Status object as an error."""
    try:
        body = json.loads(data)
        return KubeError(status, body.get("reason") or "Error", body.get("message") or "no message")
    except (ValueError, AttributeError):
        return KubeError(status, "Error", data[:200].decode(errors="replace"))
