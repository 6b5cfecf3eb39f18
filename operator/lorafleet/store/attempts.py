"""One try to publish a version: its private folder in ``staging/``, and what an earlier try left there.

``parts`` holds files on their way, ``tree`` the version as it will be published. A try that may go on later leaves its
parts. The next one takes the whole folder over by a rename, which only one can do; nobody locks, and nothing is
believed: whoever was slow may still write into what was taken, so its bytes are read, compared with a mark, and written
to a new file. A mark is an empty file beside the part whose name says how many bytes have which sha256.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.fs import FileSystem, remove_tree
from lorafleet.store.layout import Layout
from lorafleet.store.staging import last_written, volume_time

if TYPE_CHECKING:
    from lorafleet.artifacts.tensors import Numbers

ABANDONED_SECONDS = 5.0
"""An attempt shows a sign of life more often than that; without one for so long it is taken over."""
_ALIVE_SECONDS = 1.0
ALIVE_THREAD = "lorafleet-alive"
"""The name of the thread that shows signs of life."""
_UUID = re.compile(r"[0-9a-f]{32}")
_MARK = re.compile(r"(?P<part>[0-9a-f]{64})\.(?P<size>[0-9]{1,15})\.(?P<sha256>[0-9a-f]{64})")
_PART = re.compile(r"[0-9a-f]{64}")
_NO_ROOM = frozenset({Reason.VOLUME_FULL, Reason.QUOTA_EXCEEDED})


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file that an earlier attempt wrote: its first ``size`` bytes had this sha256."""

    path: Path
    size: int
    sha256: str


@dataclass(slots=True)
class Attempt:
    """A private folder. ``heads`` are what earlier attempts left, by the name of the part."""

    folder: Path
    fs: FileSystem
    heads: dict[str, Head] = field(default_factory=dict)
    keep: bool = False
    """Whether there is something that a later attempt can go on with."""
    numbers: "Numbers | None" = None
    """What was found in the weights of ``tree`` while they arrived."""
    parts: Path = field(init=False)
    """Files on their way, by a name that says all about which bytes they are; there for those that are large."""
    tree: Path = field(init=False)
    """The version as it will be published."""
    old: Path = field(init=False)
    """Folders of earlier attempts."""

    def __post_init__(self) -> None:
        self.parts, self.tree, self.old = (self.folder / name for name in ("parts", "tree", "old"))

    def make_parts(self) -> None:
        """Make the folder of files on their way, for whoever has one. Raises OSError."""
        with suppress(FileExistsError):
            self.fs.make_folder(self.parts)

    def mark(self, part: str, size: int, sha256: str) -> None:
        """Say that the first bytes of a part are written. Raises OSError."""
        with suppress(FileExistsError):
            self.fs.write_file(self.parts / f"{part}.{size}.{sha256}", (), sync=False)
        self.keep = True

    def forget(self, part: str) -> None:
        """Remove a part with its marks, and what is left of it from before. Raises OSError."""
        self.heads.pop(part, None)
        for path in list(self.parts.glob(f"{part}*")):
            self.fs.remove_file(path)


@contextmanager
def attempt(layout: Layout, adapter: str, version: str, fs: FileSystem, *, resume: bool) -> Iterator[Attempt]:
    """A new attempt, which goes on where an abandoned one of the same version ended if it may ``resume``.

    Its folder is gone when the block ends, but for the parts if it ends by an error after which trying again helps.
    Raises OSError.
    """
    one = Attempt(layout.new_staging(f"{adapter}.{version}"), fs)
    try:
        for folder in (one.folder, one.tree):
            fs.make_folder(folder)
        with _SIGNS.of(one):
            if resume:
                _take_over(layout, f"{adapter}.{version}.", one)
            yield one
    except Exception as error:
        _end(one, keep=resume and one.keep and _goes_on(error))
        raise
    except BaseException:
        # The process ends in the middle of something: it is as if it had been killed.
        _end(one, keep=resume and one.keep)
        raise
    _end(one, keep=False)


def _goes_on(error: Exception) -> bool:
    if isinstance(error, ArtifactError):
        return error.retry and error.reason not in _NO_ROOM
    return not (isinstance(error, OSError) and error.errno is not None)


def _end(one: Attempt, *, keep: bool) -> None:
    with suppress(OSError):
        remove_tree(one.fs, one.tree if keep else one.folder)


def _take_over(layout: Layout, prefix: str, one: Attempt) -> None:
    names = (
        name
        for name in os.listdir(layout.staging)  # noqa: PTH208 - names
        if name.startswith(prefix) and name != one.folder.name and _UUID.fullmatch(name.removeprefix(prefix))
    )
    found = [layout.staging / name for name in names]
    if not found:
        return
    now = volume_time(layout, one.fs)
    for path in found:
        if now - last_written(path, now) <= ABANDONED_SECONDS:
            continue
        if not one.old.is_dir():
            one.fs.make_folder(one.old)
        with suppress(FileNotFoundError):
            one.fs.rename(path, one.old / path.name)
    if one.old.is_dir():
        _collect(one)


def _collect(one: Attempt) -> None:
    """Find the longest marked beginning of each part, and remove everything else."""
    longest: dict[str, Head] = {}
    for path in one.old.rglob("*"):
        match = _MARK.fullmatch(path.name)
        if match is None or path.parent.name != one.parts.name:
            continue
        head = Head(path.with_name(match["part"]), int(match["size"]), match["sha256"])
        best = longest.get(match["part"])
        if (best is None or head.size > best.size) and _has(head):
            longest[match["part"]] = head
    kept = {head.path for head in longest.values()}
    for path in list(one.old.rglob("*")):
        if _PART.fullmatch(path.name) and path not in kept and not path.is_dir():
            with suppress(FileNotFoundError):
                one.fs.remove_file(path)
    one.heads = longest
    one.keep = bool(longest)


def _has(head: Head) -> bool:
    try:
        return head.path.is_file() and not head.path.is_symlink() and head.path.stat().st_size >= head.size
    except FileNotFoundError:
        return False


class _Signs:
    """Changes something in the folders of all attempts now and then, while sources are silent or checks write nothing.

    One thread for the process, because small adapters are published faster than threads start and end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._living: dict[int, Attempt] = {}
        self._runs = False

    @contextmanager
    def of(self, one: Attempt) -> Iterator[None]:
        """Signs of life of an attempt while the block runs, and none after it unless the volume hangs."""
        with self._lock:
            self._living[id(one)] = one
            if not self._runs:
                threading.Thread(target=self._run, name=ALIVE_THREAD, daemon=True).start()
                self._runs = True
        try:
            yield
        finally:
            held = self._lock.acquire(timeout=_ALIVE_SECONDS)
            del self._living[id(one)]
            if held:
                self._lock.release()

    def _run(self) -> None:
        try:
            time.sleep(_ALIVE_SECONDS)
            while self._sign():
                time.sleep(_ALIVE_SECONDS)
        except BaseException:
            self._runs = False
            raise

    def _sign(self) -> bool:
        """False when nobody is left, and so this thread is to end."""
        with self._lock:
            # Whoever ends does not wait for a volume that hangs, and then changes this meanwhile.
            for one in list(self._living.values()):
                sign = one.folder / "alive"
                with suppress(OSError):
                    # One that could not be removed the last time is removed now, which is a sign as well.
                    with suppress(FileExistsError):
                        one.fs.make_folder(sign)
                    one.fs.remove_folder(sign)
            self._runs = bool(self._living)
            return self._runs


_SIGNS = _Signs()
