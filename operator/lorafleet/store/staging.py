"""The clock of the volume, and the sweep of what dead jobs left in ``staging/``.

Nothing here is ever visible to an engine. Ages are differences of the volume's own times: a node's clock may be wrong
by hours, or jump.
"""

from contextlib import suppress
from pathlib import Path

from lorafleet.store.fs import FileSystem, remove_tree
from lorafleet.store.layout import Layout

_DEPTH = 3


def volume_time(layout: Layout, fs: FileSystem) -> float:
    """What time the volume has: that of a file written now. Raises OSError."""
    probe = layout.new_staging("now")
    try:
        fs.write_file(probe, (), sync=False)
        return probe.stat().st_mtime
    finally:
        with suppress(FileNotFoundError):
            fs.remove_file(probe)


def sweep_staging(layout: Layout, max_age: float, fs: FileSystem) -> int:
    """Remove staging folders in which nothing was written for ``max_age`` seconds; the answer is how many.

    A job that is alive writes all the time, so ``max_age`` has to exceed the longest stall of a source. Raises OSError.
    """
    old = abandoned(layout, max_age, volume_time(layout, fs))
    for path in old:
        remove_tree(fs, path)
    return len(old)


def abandoned(layout: Layout, max_age: float, now: float) -> tuple[Path, ...]:
    """What in ``staging/`` nothing was written to for ``max_age`` seconds. Raises OSError."""
    return tuple(path for path in layout.staging.iterdir() if now - last_written(path, now) > max_age)


def last_written(path: Path, now: float, depth: int = _DEPTH) -> float:
    """When something in a folder was last written, by the volume's clock; ``now`` when it is gone. Raises OSError."""
    try:
        last = path.lstat().st_mtime
        if depth and path.is_dir() and not path.is_symlink():
            last = max([last, *(last_written(child, now, depth - 1) for child in path.iterdir())])
    except FileNotFoundError:
        return now
    return last
