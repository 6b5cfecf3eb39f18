"""A file system that fails, or dies, at one chosen step.

Every operation is a step, and so is every chunk that is written: half of it reaches the file before the fault. A
process that was killed does nothing more, so after ``Killed`` each further operation raises it again.

Signs of life come by the clock, from a thread of their own: they are no steps, or the chosen one would be another on a
slow machine.
"""

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from lorafleet.store.attempts import ALIVE_THREAD
from lorafleet.store.fs import FOLDER_MODE, POSIX, Chunk


class Killed(BaseException):
    """The process is dead."""


class FaultyFileSystem:
    """Fails at step ``at`` (from 0) with an OSError of ``number``, or is killed when ``number`` is None."""

    def __init__(self, at: int, number: int | None) -> None:
        self._at = at
        self._number = number
        self._dead = False
        self._lock = threading.Lock()
        self.steps: list[str] = []

    @property
    def reached(self) -> bool:
        """Whether the fault happened."""
        return len(self.steps) > self._at

    def _step(self, name: str) -> None:
        if threading.current_thread().name == ALIVE_THREAD:
            if self._dead:
                raise OSError(errno.EIO, "the process is dead")
            return
        if self._dead:
            raise Killed
        with self._lock:
            self.steps.append(name)
            now = len(self.steps) - 1
        if now == self._at:
            if self._number is None:
                self._dead = True
                raise Killed
            raise OSError(self._number, os.strerror(self._number))

    def make_folder(self, path: Path, mode: int = FOLDER_MODE) -> None:
        self._step(f"make_folder {path.name}")
        POSIX.make_folder(path, mode)

    def write_file(self, path: Path, chunks: Iterable[Chunk], *, sync: bool = True) -> None:
        def through() -> Iterator[Chunk]:
            for chunk in chunks:
                yield chunk[: len(chunk) // 2]
                self._step(f"write {path.name}")
                yield chunk[len(chunk) // 2 :]
            if sync:
                self._step(f"sync {path.name}")

        self._step(f"create {path.name}")
        POSIX.write_file(path, through(), sync=sync)

    def sync_file(self, path: Path) -> None:
        self._step(f"sync_file {path.name}")
        POSIX.sync_file(path)

    def link(self, source: Path, target: Path) -> None:
        self._step(f"link {target.name}")
        POSIX.link(source, target)

    def clone(self, source: Path, target: Path) -> None:
        self._step(f"clone {target.name}")
        POSIX.clone(source, target)

    def set_mode(self, path: Path, mode: int) -> None:
        self._step(f"set_mode {path.name}")
        POSIX.set_mode(path, mode)

    def sync_folder(self, path: Path) -> None:
        self._step(f"sync_folder {path.name}")
        POSIX.sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step(f"rename {target.name}")
        POSIX.rename(source, target)

    def remove_file(self, path: Path) -> None:
        self._step(f"remove_file {path.name}")
        POSIX.remove_file(path)

    def remove_folder(self, path: Path) -> None:
        self._step(f"remove_folder {path.name}")
        POSIX.remove_folder(path)

    def free_bytes(self, path: Path) -> int | None:
        self._step("free_bytes")
        return POSIX.free_bytes(path)


NEVER = 10**9
