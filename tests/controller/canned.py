"""A sync that answers what a test says, for tests of what the operator makes of it; it publishes small real folders."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from lorafleet.api.names import served_name
from lorafleet.store.plan import ItemResult, PublishItem, RemoveItem, ScrubItem, SyncPlan, SyncReport, VolumeReport
from tests.adapters import adapter as write_adapter

Answer = Callable[[PublishItem], ItemResult | None]


class CannedSync:
    """Publishes whatever it is asked for; ``answer`` may say something else, ``damaged`` is what a scrub finds."""

    def __init__(self) -> None:
        self.plans: list[SyncPlan] = []
        self.secrets: list[dict[str, bytes]] = []
        self.answer: Answer = lambda item: None
        self.damaged: tuple[str, ...] = ()
        self.volume = VolumeReport(used_bytes=1, free_bytes=2, sharing="hardlink")
        self.ids = 0

    def __call__(self, plan: SyncPlan) -> SyncReport:
        """Does a plan."""
        self.plans.append(plan)
        results = tuple(self._do(i, item, plan) for i, item in enumerate(plan.items))
        return SyncReport(results=results, volume=self.volume)

    def _do(self, i: int, item: PublishItem | RemoveItem | ScrubItem, plan: SyncPlan) -> ItemResult:
        serving = Path(plan.root) / "serving"
        if isinstance(item, ScrubItem):
            return ItemResult(i=i, scrubbed=1, damaged=self.damaged or None)
        if isinstance(item, RemoveItem):
            for file in (serving / item.served_name).glob("*"):
                file.unlink()
            (serving / item.served_name).rmdir()
            return ItemResult(i=i, served_name=item.served_name)
        if item.secret is not None:
            folder = Path(item.secret)
            self.secrets.append({file.name: file.read_bytes() for file in folder.iterdir()})
        said = self.answer(item) or ItemResult(i=i)
        if said.reason is not None:
            return said.model_copy(update={"i": i})
        self.ids += 1
        digest = "sha256:" + hashlib.sha256(f"{item.adapter}/{item.version}".encode()).hexdigest()
        served = served_name(item.adapter, item.version, digest)
        write_adapter(serving / served, base_model_name_or_path=plan.model)
        known = {"i": i, "id": max(self.ids, plan.min_id), "digest": digest, "served_name": served, "rank": 8}
        return said.model_copy(update=known | {"size_bytes": 10, "target_modules": ("q_proj",)})

    def published(self) -> list[PublishItem]:
        """All items that were asked to be published, in order."""
        return [item for plan in self.plans for item in plan.items if isinstance(item, PublishItem)]
