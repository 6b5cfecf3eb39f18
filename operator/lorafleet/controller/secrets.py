"""Single values of tenants' Secrets: the engines' API key, the token for Prometheus. Kept for a minute, never told."""

import base64
from time import monotonic

from lorafleet.api.fleet import SecretKeyRef
from lorafleet.controller.queue import Retry
from lorafleet.kube import Kube, KubeError, path

AGE = 60.0


class Secrets:
    """Reads values and remembers them for a short time."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: dict[tuple[str, str, str], tuple[float, str | None]] = {}

    async def value(self, namespace: str, ref: SecretKeyRef) -> str | None:
        """A key's value; None when there is none. Raises the queue's Retry when the Secret cannot be read."""
        mark = (namespace, ref.name, ref.key)
        read_at, value = self._known.get(mark, (-AGE, None))
        if value and monotonic() - read_at < AGE:
            return value
        try:
            secret = await self._kube.get(path("v1", "secrets", namespace, ref.name))
            data = (secret.get("data") or {}).get(ref.key)
            value = base64.b64decode(data).decode().strip() if data else None
        except KubeError as error:
            if not error.not_found:
                raise Retry(f"secret {ref.name} could not be read: {error.reason}") from error
            value = None
        self._known[mark] = (monotonic(), value)
        return value

    def forget(self) -> None:
        """Reads everything again: a value was refused."""
        self._known.clear()
