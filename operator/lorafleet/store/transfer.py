"""Fetch the files of a listing into an attempt: side by side, hashed on the way, gone on with where a try before ended.

Each file is one write of a new file, whatever happens to the line. What a source says of a file's bytes is checked
here; a file that differs is fetched once more from its beginning. Memory is a few chunks for each of a bounded number
of large files in the whole process.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import FileDigest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import WEIGHTS_FILE, Limits, check_sizes
from lorafleet.sources.base import Chunk, Listing, Source, SourceFile
from lorafleet.store.attempts import Attempt, Head
from lorafleet.store.counting import BadHead, Counted, Piece, Pieces, Written, head_of
from lorafleet.store.reading import Pace, ahead, pieces, read

if TYPE_CHECKING:
    from lorafleet.artifacts.tensors import Arriving, Numbers

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and of all files, None while a size is unknown; from any thread; may raise to end it."""

SIDE_BY_SIDE = 4
LARGE_BYTES = 1024 * 1024
_PLACES = threading.BoundedSemaphore(8)
"""Adapters of this process that are more than a few small files, and are fetched, unpacked or checked."""
_LANES = threading.BoundedSemaphore(8)
"""Large files that are on their way in this process, each with its chunks in memory."""
_POLL_SECONDS = 0.2


def no_progress(done: int, total: int | None) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Marks:
    """How often a part is marked: after so many bytes, and not before so many seconds."""

    every_bytes: int = 8 * 1024 * 1024
    every_seconds: float = 1.0


class Meter:
    """Counts the bytes of an attempt, of all threads, and ends it when they become too many.

    ``total`` is what the source says in all. ``room`` is told of each byte written, and may raise.
    """

    def __init__(
        self,
        total: int | None,
        progress: Progress,
        room: Callable[[int], None] = lambda _: None,
        limits: Limits | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._progress = progress
        self._room = room
        self._limits = limits
        self._done = 0

    def add(self, count: int) -> None:
        """Count bytes that were fetched and written; fewer than none when a file begins anew.

        Raises ArtifactError (SizeLimitExceeded), and what the watchers raise.
        """
        self._room(count)
        self.pass_over(count)
        if self._total is None and self._limits is not None:
            check_sizes([(WEIGHTS_FILE, self._done)], self._limits)

    def pass_over(self, count: int) -> None:
        """Count bytes that need not be fetched."""
        with self._lock:
            self._done += count
            done = self._done
        self._progress(done, self._total)

    def write(self, count: int) -> None:
        """Count bytes that are written beside those that are fetched."""
        self._room(count)
        self.check()

    def check(self) -> None:
        """Raises when the watcher wants it to end."""
        self._progress(self._done, self._total)


def is_small(listing: Listing) -> bool:
    """Whether a listing is nothing but small files."""
    return all(_is_small(file) and not file.archive for file in listing.files)


@contextmanager
def place(listing: Listing, check: Callable[[], None]) -> Iterator[None]:
    """A place for a listing while the block runs; small files need none. ``check`` is called meanwhile, may raise."""
    if is_small(listing):
        yield
        return
    with _waiting(_PLACES, check):
        yield


@contextmanager
def _waiting(places: threading.BoundedSemaphore, check: Callable[[], None]) -> Iterator[None]:
    while not places.acquire(timeout=_POLL_SECONDS):
        check()
    try:
        yield
    finally:
        places.release()


class _Over(Exception):
    """Another file of the attempt failed."""


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is at ``part``; None: where it belongs in ``tree``. ``numbers``: those of large weights."""

    file: SourceFile
    digest: FileDigest
    part: Path | None
    numbers: "Numbers | None" = None


class Transfer:
    """One fetch of a listing. ``resume``: parts are marked, so that a later attempt can go on with them."""

    def __init__(
        self,
        source: Source,
        listing: Listing,
        into: Attempt,
        limits: Limits,
        meter: Meter,
        *,
        resume: bool,
        pace: Pace,
        marks: Marks = Marks(),
    ) -> None:
        self._source = source
        self._about = [sorted(source.describe().items()), listing.pin]
        self._into = into
        self._limits = limits
        self._meter = meter
        self._resume = resume
        self._pace = pace
        self._marks = marks
        self._failed = threading.Event()

    def run(self, files: tuple[SourceFile, ...]) -> tuple[Received, ...]:
        """Fetch files. Raises ArtifactError, OSError, and what the progress raises; no thread goes on after it."""
        if not all(_goes_straight(file) for file in files):
            self._into.make_parts()
        if len(files) == 1 or all(_is_small(file) for file in files):
            # Threads would cost more than they gain: other items are fetched meanwhile.
            return tuple(self._fetch(file) for file in files)
        with ThreadPoolExecutor(min(len(files), SIDE_BY_SIDE) or 1, "lorafleet-write") as pool:
            futures = [pool.submit(self._guarded, file) for file in files]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        first = next((error for error in errors if not isinstance(error, _Over)), None)
        if first is not None:
            raise first
        return tuple(future.result() for future in futures)

    def _guarded(self, file: SourceFile) -> Received:
        try:
            self._check()
            return self._fetch(file)
        except BaseException:
            self._failed.set()
            raise

    def _fetch(self, file: SourceFile) -> Received:
        part = None if _goes_straight(file) else self._part(file)
        head = self._into.heads.get(part) if part else None
        with nullcontext() if _is_small(file) else _waiting(_LANES, self._check):
            try:
                return self._write(file, part, head)
            except BadHead:
                pass
            except ArtifactError as error:
                if error.reason is not Reason.SOURCE_CORRUPT:
                    raise
            self._forget(file, part)
            try:
                return self._write(file, part, None)
            except ArtifactError as error:
                if error.reason is Reason.SOURCE_CORRUPT:
                    self._forget(file, part)
                raise

    def _forget(self, file: SourceFile, part: str | None) -> None:
        if part:
            self._into.forget(part)
        else:
            self._into.fs.remove_file(self._into.tree / file.path)

    def _write(self, file: SourceFile, part: str | None, head: Head | None) -> Received:
        arriving = _arriving(file)
        counted, written = Counted(file, self._limits, arriving.add if arriving else None), Written()
        path = self._into.parts / part if part else self._into.tree / file.path
        try:
            with closing(self._stream(file, counted, head)) as found:
                self._into.fs.write_file(path, self._marked(part, written, found), sync=False)
            digest = counted.finish()
        except BaseException:
            with suppress(Exception):
                self._meter.add(-written.done)
            raise
        return Received(file, digest, path if part else None, arriving.numbers() if arriving else None)

    def _stream(self, file: SourceFile, counted: Counted, head: Head | None) -> Pieces:
        if head is not None and (file.size is None or head.size <= file.size):
            yield from head_of(head, counted)
        start = counted.done
        if _is_small(file):
            yield from counted.of(read(self._source, file, start, self._pace, self._failed))
            return
        # Reading, hashing and looking take about as long as writing.
        yield from ahead(
            lambda ended: counted.of(pieces(read(self._source, file, start, self._pace, ended))), self._check
        )

    def _marked(self, part: str | None, written: Written, found: Iterator[Piece]) -> Iterator[Chunk]:
        marked, at = 0, time.monotonic()

        def mark() -> None:
            nonlocal marked, at
            if self._resume and part is not None and written.done - marked >= self._marks.every_bytes:
                self._into.mark(part, written.done, written.sha256)
                marked, at = written.done, time.monotonic()

        try:
            for piece in found:
                yield piece.chunk
                written.add(piece)
                self._check()
                self._meter.add(len(piece.chunk))
                if time.monotonic() - at >= self._marks.every_seconds:
                    mark()
        except OSError:
            raise
        except Exception:
            # What is counted as written is written: a later attempt can go on here.
            mark()
            raise
        mark()

    def _check(self) -> None:
        if self._failed.is_set():
            raise _Over
        self._meter.check()

    def _part(self, file: SourceFile) -> str:
        text = json.dumps([*self._about, file.path, file.identity, file.size])
        return hashlib.sha256(text.encode()).hexdigest()


def _arriving(file: SourceFile) -> "Arriving | None":
    """What looks at the numbers of large weights while they come: later it would have to read them again."""
    if file.path != WEIGHTS_FILE or file.archive or file.size is None or _is_small(file):
        return None
    from lorafleet.artifacts.tensors import Arriving

    return Arriving(file.size)


def _is_small(file: SourceFile) -> bool:
    return file.size is not None and file.size <= LARGE_BYTES


def _goes_straight(file: SourceFile) -> bool:
    """Whether a file is written where it belongs: no later attempt goes on with so little, nor is it unpacked."""
    return _is_small(file) and not file.archive
