"""The bytes of one file of a source, however often its line is cut.

Goes on where it was as long as each try brings something, waits longer after each that does not, and gives up after a
few of those in a row. Reads ahead in a thread of its own, so that the network never waits for the disk.
"""

import queue
import random
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeVar

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.base import Chunk, Source, SourceFile

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Chunks = Generator[Chunk, None, None]

READER = "lorafleet-read"
"""The name of the threads that read ahead: one that waits for a silent server ends only with its time-out."""

_AHEAD = 2
_PIECE_BYTES = 1024 * 1024
_POLL_SECONDS = 0.2
_JOIN_SECONDS = 0.5


def _wait(ended: threading.Event, seconds: float) -> None:
    ended.wait(seconds)


@dataclass(frozen=True, slots=True)
class Pace:
    """When to try again: after ``first`` seconds, then twice as many each time, at most ``longest``, each with jitter.

    ``tries``: how many in a row may bring nothing.
    """

    tries: int = 6
    first: float = 0.5
    longest: float = 16.0
    wait: Callable[[threading.Event, float], None] = _wait
    jitter: Callable[[], float] = random.random

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.first * 2.0 ** (failures - 1), self.longest) * (0.5 + self.jitter())

    def again(self, ask: Callable[[], Answer], ended: threading.Event) -> Answer:
        """The answer of ``ask``, which may fail now and then. Raises what it raises the last time."""
        for failures in range(1, self.tries):
            try:
                return ask()
            except ArtifactError as error:
                if error.reason is not Reason.SOURCE_UNREACHABLE or ended.is_set():
                    raise
            self.wait(ended, self.delay(failures))
        return ask()


def read(source: Source, file: SourceFile, start: int, pace: Pace, ended: threading.Event) -> Chunks:
    """The bytes of a file from ``start`` on. Raises ArtifactError. When ``ended`` is set nothing is tried again."""
    at, failures = start, 0
    while file.size is None or at < file.size:
        try:
            with closing(source.read(file, at)) as chunks:  # type: ignore[type-var]
                for chunk in chunks:
                    at += len(chunk)
                    failures = 0
                    yield chunk
            return
        except ArtifactError as error:
            failures += 1
            if error.reason is not Reason.SOURCE_UNREACHABLE or failures >= pace.tries or ended.is_set():
                raise
        pace.wait(ended, pace.delay(failures))


def pieces(chunks: Chunks) -> Chunks:
    """Chunks in pieces of at most 1 MiB that stay as they are: the bytes of a memoryview are soon others."""
    with closing(chunks):
        for chunk in chunks:
            if not isinstance(chunk, memoryview):
                yield chunk
                continue
            for start in range(0, len(chunk), _PIECE_BYTES):
                yield bytes(chunk[start : start + _PIECE_BYTES])


def ahead(
    items: Callable[[threading.Event], Generator[Item, None, None]], check: Callable[[], None]
) -> Generator[Item, None, None]:
    """What ``items`` gives, made ahead in a thread by a few of them; ends when closed.

    ``check`` is called while nothing comes, and may raise.
    """
    ended = threading.Event()
    made: queue.Queue[Item | BaseException | None] = queue.Queue(_AHEAD)

    def put(item: Item | BaseException | None) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                made.put(item, timeout=_POLL_SECONDS)
                return

    def run() -> None:
        try:
            with closing(items(ended)) as found:
                for item in found:
                    put(item)
                    if ended.is_set():
                        return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=run, name=READER, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = made.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                check()
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        while not made.empty():
            made.get_nowait()
        thread.join(_JOIN_SECONDS)
