"""A fleet's volume and a claim with sources, for tests of the store."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorafleet.artifacts.check import Expectations
from lorafleet.sources.base import Source
from lorafleet.sources.volume import VolumeSource
from lorafleet.store import volume as volumes
from lorafleet.store.build import How, Request
from lorafleet.store.fs import POSIX, FileSystem
from lorafleet.store.layout import Layout, prepare
from lorafleet.store.manifest import Manifest
from lorafleet.store.publish import publish
from lorafleet.store.reading import Pace
from lorafleet.store.repair import repair
from lorafleet.store.transfer import Marks, Progress, no_progress
from tests.adapters import BASE, adapter

MODEL = "/models/base"
FLEET = Expectations(base_models=(BASE,), max_rank=64, engine_version="0.32.0")
HOW = How(pace=Pace(wait=lambda ended, seconds: None, jitter=lambda: 0.5), marks=Marks(1, 0.0))
"""Without waiting, and with a mark after every chunk."""


@dataclass(frozen=True)
class Volume:
    """``layout`` is the fleet's volume; sources are folders of ``claim``."""

    layout: Layout
    claim: Path

    @classmethod
    def at(cls, folder: Path) -> "Volume":
        """A new volume below ``folder``, with the source ``a``."""
        layout = Layout(folder / "volume")
        layout.root.mkdir(parents=True)
        prepare(layout, POSIX)
        adapter(folder / "claim" / "a", files={"tokenizer.json": b"{}"})
        return cls(layout, folder / "claim")

    def publish(
        self,
        version: str = "1.0",
        source: str | Source = "a",
        *,
        fs: FileSystem = POSIX,
        progress: Progress = no_progress,
        adapter: str = "py",
        quota: int | None = None,
        repairing: str | None = None,
        how: How = HOW,
        **changes: Any,
    ) -> Manifest:
        """Publish, or repair, a source: a folder of the claim or one of a test's own."""
        request = replace(Request(adapter, version, MODEL, FLEET), **changes)
        opened = VolumeSource(self.claim, source, request.wanted) if isinstance(source, str) else source
        volume, how = volumes.Volume(self.layout, fs, quota), replace(how, progress=progress)
        if repairing is not None:
            return repair(volume, request, repairing, lambda pin: opened, how=how).manifest
        return publish(volume, request, lambda pin: opened, how=how).manifest

    def folder(self, manifest: Manifest) -> Path:
        """Where a version is published."""
        return self.layout.serving / manifest.served_name

    def served(self) -> list[str]:
        """The folders of versions that engines can see."""
        return sorted(str(path.relative_to(self.layout.serving)) for path in self.layout.serving.glob("*/*"))

    def leftovers(self) -> list[str]:
        """What is in staging and trash."""
        return sorted(path.name for path in self._leftovers())

    def _leftovers(self) -> Iterator[Path]:
        yield from self.layout.staging.iterdir()
        yield from self.layout.trash.iterdir()


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
