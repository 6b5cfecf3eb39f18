"""A fleet's volume as one Job uses it: its folders, its file system, and what the threads of the Job share."""

import logging
import threading
from functools import cached_property
from pathlib import Path

from lorafleet.store import ids
from lorafleet.store.blobs import Blobs, probe
from lorafleet.store.fs import POSIX, FileSystem
from lorafleet.store.layout import Layout
from lorafleet.store.room import Room

log = logging.getLogger("lorafleet.sync")


class Volume:
    """A prepared volume. Several threads may use it."""

    def __init__(self, layout: Layout, fs: FileSystem = POSIX, quota: int | None = None) -> None:
        self.layout = layout
        self.fs = fs
        self.room = Room(layout, fs, quota)
        self._lock = threading.RLock()
        self._highest: int | None = None

    @classmethod
    def at(cls, root: Path) -> "Volume":
        """The volume below ``root``, without a quota."""
        return cls(Layout(root))

    @property
    def blobs(self) -> Blobs:
        """Files that may be shared. Raises OSError."""
        with self._lock:
            return self._blobs

    @cached_property
    def _blobs(self) -> Blobs:
        sharing = probe(self.layout, self.fs)
        log.info("volume probed", extra={"sharing": sharing.value})
        return Blobs(self.layout, self.fs, sharing)

    def new_id(self, min_id: int) -> int:
        """An id that no version ever had, and that stays taken whatever happens. Raises OSError."""
        with self._lock:
            number = self._highest = ids.allocate(self.layout, min_id, self.fs, self._highest)
        # Outside of the lock: what many threads ask a disk for at once it does at once.
        self.fs.sync_folder(self.layout.ids)
        return number
