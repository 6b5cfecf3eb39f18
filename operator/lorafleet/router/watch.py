"""The watches of a router: its fleet, the fleet's adapters and the fleet's engines, all of one namespace.

They report to the picture and decide nothing. Adapters are told apart by their fleet here, in the process: choosing
them at the API server would need ``selectableFields`` of the CRD, which Kubernetes has since 1.31.
"""

import asyncio
import logging

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL
from lorafleet.kube import Kube, Object, path
from lorafleet.router.follow import Follower, Sink
from lorafleet.router.picture import Picture

log = logging.getLogger(__name__)


class Watches:
    """Keeps a picture up to date."""

    def __init__(self, kube: Kube, namespace: str, fleet: str, picture: Picture) -> None:
        self._kube = kube
        self._namespace = namespace
        self._fleet = fleet
        self._picture = picture
        self._group: asyncio.TaskGroup | None = None
        self._pods: Follower | None = None
        self._pods_task: asyncio.Task[None] | None = None
        self._pods_mark: tuple[str, int | str] | None = None
        self._missing = False
        adapters = Sink(picture.put_adapter, picture.drop_adapter, picture.listed_adapters)
        self._adapters = Follower(kube, path(API_VERSION, ADAPTER_PLURAL, namespace), adapters)
        self._fleets = Follower(
            kube,
            path(API_VERSION, FLEET_PLURAL, namespace),
            Sink(self._put_fleet, lambda _: picture.drop_fleet(), self._listed_fleet),
            fieldSelector=f"metadata.name={fleet}",
        )

    @property
    def stale(self) -> float:
        """Seconds since one of the watches was lost; 0 while all stand."""
        return max(one.stale for one in self._followers)

    @property
    def problem(self) -> str:
        """What keeps the picture from being complete or up to date, and what to do about it; empty if nothing does."""
        if self._missing:
            return (
                f"SpecialistFleet {self._namespace}/{self._fleet} does not exist: create it, or give this router"
                " the name of a fleet of its namespace (LORAFLEET_ROUTER_FLEET)"
            )
        return next((one.problem for one in self._followers if one.problem), "")

    @property
    def _followers(self) -> list[Follower]:
        return [one for one in (self._fleets, self._adapters, self._pods) if one is not None]

    async def run(self) -> None:
        """Watches until cancelled; raises what a watch raised that must not."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._fleets.run())
            group.create_task(self._adapters.run())

    def _put_fleet(self, fleet: Object) -> None:
        self._missing = False
        self._picture.put_fleet(fleet)
        view = self._picture.fleet
        if view is None or self._pods_mark == (view.selector, view.port):
            return
        # The former engines stay until the new list is there.
        if self._pods_task is not None:
            self._pods_task.cancel()
        self._pods_mark = (view.selector, view.port)
        sink = Sink(
            self._picture.put_pod,
            lambda pod: self._picture.drop_pod(pod["metadata"]["name"]),
            self._picture.listed_pods,
        )
        self._pods = Follower(self._kube, path("v1", "pods", self._namespace), sink, labelSelector=view.selector)
        if self._group is not None:
            self._pods_task = self._group.create_task(self._pods.run())

    def _listed_fleet(self, names: set[str], _: str) -> None:
        if self._fleet in names:
            return
        self._picture.drop_fleet()
        self._missing = self._picture.fleet is None
        if self._missing:
            log.error("there is no such fleet", extra={"fleet": self._fleet, "error": self.problem})
