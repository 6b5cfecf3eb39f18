"""Which threads of a Job run: of those that publish small adapters a few, however many wait for the network.

Python runs one thread at a time, and lets another go on at every call of the operating system, of which publishing has
a hundred that take microseconds each. With many threads that have something to do, most of the processor's time goes
into changing threads. So they take turns that last from one wait for the network or a disk to the next. Where a turn
takes long even so, everything on the volume is slow, as over a network, and more of them run side by side.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lorafleet.sources.base import Chunk, Listing, Source, SourceFile
from lorafleet.store.fs import FileSystem
from lorafleet.store.transfer import is_small

if TYPE_CHECKING:
    from collections.abc import Mapping

Answer = TypeVar("Answer")

AT_ONCE = 2
SLOW_SECONDS = 0.1
"""Who waits so long for a turn adds one: many times what a turn takes on a fast volume."""


class Turns:
    """The turns of a process. Threads without one run as they like."""

    def __init__(self, at_once: int = AT_ONCE, slow: float = SLOW_SECONDS) -> None:
        # A place for each turn that may be taken: a semaphore of ``threading`` takes longer than what it guards.
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(at_once):
            self._free.put(None)
        self._slow = slow
        self._mine = threading.local()

    def enter(self) -> None:
        """Wait for a turn of this thread, which has none, but not for long."""
        with suppress(queue.Empty):
            self._free.get(timeout=self._slow)
        self._mine.held = True

    def leave(self) -> None:
        """Give this thread's turn to another; nothing when it has none."""
        if getattr(self._mine, "held", False):
            self._mine.held = False
            self._free.put(None)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A turn of this thread while the block runs, unless it is given away there."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def away(self, wait: Callable[..., Answer], *about: object) -> Answer:
        """The answer of ``wait``, which waits for something: others have the turn meanwhile, if this thread has one."""
        if not getattr(self._mine, "held", False):
            return wait(*about)
        self.leave()
        try:
            return wait(*about)
        finally:
            self.enter()


class TurnedFileSystem:
    """A file system on which a thread has no turn while something is made durable, for which it waits for a disk."""

    def __init__(self, fs: FileSystem, turns: Turns) -> None:
        self._fs = fs
        self._turns = turns
        self.make_folder = fs.make_folder
        self.write_file = fs.write_file
        self.link = fs.link
        self.clone = fs.clone
        self.set_mode = fs.set_mode
        self.rename = fs.rename
        self.remove_file = fs.remove_file
        self.remove_folder = fs.remove_folder
        self.free_bytes = fs.free_bytes

    def sync_file(self, path: Path) -> None:
        """As the file system."""
        self._turns.away(self._fs.sync_file, path)

    def sync_folder(self, path: Path) -> None:
        """As the file system."""
        self._turns.away(self._fs.sync_folder, path)


class TurnedSource:
    """A source that is waited for without a turn. Whoever finds more than small files there goes on without one."""

    def __init__(self, source: Source, turns: Turns) -> None:
        self._source = source
        self._turns = turns

    def describe(self) -> "Mapping[str, str]":
        """As the source."""
        return self._source.describe()

    def listing(self) -> Listing:
        """As the source."""
        found = self._turns.away(self._source.listing)
        if not is_small(found):
            self._turns.leave()
        return found

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """As the source."""
        with closing(self._source.read(file, start)) as chunks:  # type: ignore[type-var]
            while True:
                chunk = self._turns.away(next, chunks, None)
                if chunk is None:
                    return
                yield chunk

    def confirm(self, listing: Listing) -> None:
        """As the source."""
        self._turns.away(self._source.confirm, listing)
