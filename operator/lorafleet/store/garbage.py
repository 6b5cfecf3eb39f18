"""What may go from a volume without asking the cluster: what dead Jobs left, and blobs that no version shares.

Never anything in ``serving/``: an engine that still uses a folder dies when it is gone, and which ones engines list
only the operator knows.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorafleet.store.blobs import Blobs
from lorafleet.store.fs import FileSystem
from lorafleet.store.layout import Layout
from lorafleet.store.remove import sweep_trash
from lorafleet.store.staging import abandoned, sweep_staging

_BLOCK = 512
_Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go, and the bytes that the volume has more when all of it is gone.

    Where identical files share blocks and not names (``reflink``), ``size`` counts what is shared, too.
    """

    staging: tuple[Path, ...]
    trash: tuple[Path, ...]
    blobs: tuple[Path, ...]
    size: int


def find(layout: Layout, blobs: Blobs, max_age: float, now: float) -> Garbage:
    """What ``collect`` would remove. Changes nothing. Raises OSError."""
    staging = tuple(sorted(abandoned(layout, max_age, now)))
    trash = tuple(sorted(layout.trash.iterdir()))
    found: dict[_Inode, os.stat_result] = {}
    names: Counter[_Inode] = Counter()
    for path in (*staging, *trash):
        for one in _files(path):
            found[one.st_dev, one.st_ino] = one
            names[one.st_dev, one.st_ino] += 1
    unshared = tuple(sorted(blobs.unshared(names)))
    for path in unshared:
        with suppress(FileNotFoundError):
            one = path.lstat()
            found[one.st_dev, one.st_ino] = one
            names[one.st_dev, one.st_ino] += 1
    freed = sum(found[inode].st_blocks * _BLOCK for inode, count in names.items() if count >= found[inode].st_nlink)
    return Garbage(staging, trash, unshared, freed)


def collect(layout: Layout, blobs: Blobs, max_age: float, fs: FileSystem) -> None:
    """Remove it, as every sync Job does at its end. Safe beside Jobs that are at work. Raises OSError."""
    sweep_staging(layout, max_age, fs)
    sweep_trash(layout, fs)
    blobs.collect()


def _files(path: Path) -> Iterator[os.stat_result]:
    """All files below a folder, or the one file; what is gone is fine."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if path.is_symlink() or not path.is_dir():
            yield found
            return
        for child in list(path.iterdir()):
            yield from _files(child)
