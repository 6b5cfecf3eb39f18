"""How much of the volume is used, and whether there is room for what is to be fetched.

Several items of one Job share the answer: what is about to be written counts as written. What another Job does at the
same time is seen as far as it is on the volume already.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.fs import FileSystem
from lorafleet.store.layout import Layout

_RESERVE = 4 * 1024 * 1024
"""Bytes beyond the files themselves: folders, the manifest, the rewritten configuration."""
_BLOCK = 512


def used_bytes(layout: Layout) -> int:
    """What lorafleet uses of the volume: the allocated bytes below its folders, each file once. Raises OSError."""
    seen: set[tuple[int, int]] = set()
    return sum(used_below(folder, seen) for folder in (layout.serving, layout.blobs, layout.staging, layout.trash))


def used_below(folder: Path | str, seen: set[tuple[int, int]]) -> int:
    """The allocated bytes below a folder, but for the inodes in ``seen``, which grows. Raises OSError."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    total += found.st_blocks * _BLOCK + used_below(entry.path, seen)
                elif (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * _BLOCK
    return total


@dataclass(slots=True)
class Reserved:
    """Room for one item: ``needed`` bytes that its source announced, of which ``written`` are there."""

    needed: int
    written: int = 0


class Room:
    """The room of a volume, for all items of a Job."""

    def __init__(self, layout: Layout, fs: FileSystem, quota: int | None) -> None:
        self._layout = layout
        self._fs = fs
        self._quota = quota
        self._lock = threading.Lock()
        self._used: int | None = None
        self._reserved: list[Reserved] = []

    @contextmanager
    def reserve(self, needed: int, what: str) -> Iterator[Reserved]:
        """Room for ``needed`` bytes while the block runs. Raises ArtifactError (QuotaExceeded, VolumeFull), OSError."""
        one = Reserved(needed)
        with self._lock:
            self._check_quota(needed, what)
            self._check_free(needed, what)
            self._reserved.append(one)
        try:
            yield one
        except BaseException:
            with self._lock:
                self._reserved.remove(one)
            raise
        with self._lock:
            self._reserved.remove(one)
            if self._used is not None:
                self._used += one.written

    def write(self, one: Reserved, count: int, what: str) -> None:
        """Count bytes of an item; more than were announced must fit, too. Raises ArtifactError (QuotaExceeded)."""
        with self._lock:
            one.written = max(0, one.written + count)
            if one.written > one.needed:
                self._check_quota(0, what)

    def _check_quota(self, needed: int, what: str) -> None:
        if self._quota is None:
            return
        if self._used is None:
            self._used = used_bytes(self._layout)
        total = self._used + sum(max(one.needed, one.written) for one in self._reserved) + needed
        if total > self._quota:
            raise ArtifactError(
                Reason.QUOTA_EXCEEDED,
                f"with {what} lorafleet would use {total} bytes of the fleet's volume ({self._used} now); the quota is"
                f" {self._quota}: raise spec.storage.quota of the fleet, or retire versions",
            )

    def _check_free(self, needed: int, what: str) -> None:
        free = self._fs.free_bytes(self._layout.staging)
        coming = sum(max(0, one.needed - one.written) for one in self._reserved)
        if free is not None and free < needed + coming + _RESERVE:
            raise ArtifactError(
                Reason.VOLUME_FULL,
                f"the fleet's volume has {free} bytes free and {what} needs {needed}, with {coming} more on their way:"
                " enlarge the claim of spec.storage, or retire versions",
            )
