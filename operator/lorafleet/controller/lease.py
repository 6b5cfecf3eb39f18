"""Leadership by a Lease: at most one replica acts.

Every request has a timeout shorter than the lease, expiry is judged by this process's own monotonic clock (so clocks of
nodes may differ), and leaving gives the Lease back so that the other replica takes over at once. The leader election of
``kubernetes.aio`` (37.0) was not used: it ends on a connection error, has no request timeouts and never gives back.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lorafleet.kube import Kube, KubeError, path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds: how long a lease lasts, until when a leader tries to renew, and how often anyone tries."""

    duration: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Lease:
    """One candidate for leadership."""

    def __init__(self, kube: Kube, namespace: str, name: str, identity: str, times: LeaseTimes | None = None) -> None:
        self._kube = kube
        self._identity = identity
        self._where = path("coordination.k8s.io/v1", "leases", namespace, name)
        self._collection = path("coordination.k8s.io/v1", "leases", namespace)
        self._name = name
        self._times = times or LeaseTimes()
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0
        self._renewed = 0.0
        self._held: dict[str, Any] | None = None

    @property
    def held(self) -> bool:
        """Whether this candidate leads."""
        return self._held is not None

    async def acquire(self) -> None:
        """Returns once this candidate leads."""
        while True:
            self._renewed = asyncio.get_running_loop().time()
            if await self._attempt():
                break
            await asyncio.sleep(self._times.retry)
        log.info("acquired the lease", extra={"identity": self._identity})

    async def keep(self) -> None:
        """Renews; returns when leadership is lost: someone else holds it, or it could not be renewed in time."""
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(TimeoutError):
            while self._held is not None:
                async with asyncio.timeout_at(self._renewed + self._times.renew):
                    await asyncio.sleep(self._times.retry)
                    started = clock()
                    if await self._attempt():
                        self._renewed = started
        self._held = None
        log.error("lost the lease", extra={"identity": self._identity})

    async def release(self) -> None:
        """Gives the Lease back, if held."""
        if self._held is None:
            return
        held, self._held = self._held, None
        held["spec"] = {**held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._kube.replace(self._where, held, timeout=self._times.retry)
            log.info("gave the lease back", extra={"identity": self._identity})
        except KubeError as error:
            log.warning("could not give the lease back", extra={"error": str(error)})

    async def _attempt(self) -> bool:
        """Takes or renews the Lease. On an answer that somebody else holds it, ``held`` becomes false."""
        try:
            return await self._take()
        except KubeError as error:
            if error.conflict:
                self._held = None
            log.warning("lease not renewed", extra={"error": str(error)})
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._kube.request("GET", self._where, timeout=self._times.retry)
        except KubeError as error:
            if not error.not_found:
                raise
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
            self._held = await self._kube.create(self._collection, {**body, "spec": self._spec({})})
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        now = asyncio.get_running_loop().time()
        seen = (holder, spec.get("renewTime") or "")
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        if holder not in ("", self._identity):
            self._held = None
            if now - self._seen_at < float(spec.get("leaseDurationSeconds") or self._times.duration):
                return False
        lease["spec"] = self._spec(spec)
        self._held = await self._kube.replace(self._where, lease, timeout=self._times.retry)
        return True

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine else 1),
        }
