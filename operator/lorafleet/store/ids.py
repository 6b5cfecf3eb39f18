"""Fleet-wide integer ids of versions: from 1 up, never used twice.

An id is taken by creating the file ``ids/<n>`` exclusively, which two jobs on two nodes can do at once, on NFS too,
without a lock. The files stay after a version is removed. A fleet that loses its volume passes the highest id of its
status, one that loses its status finds the files: only losing both starts again.
"""

from pathlib import Path

from lorafleet.store.fs import FileSystem
from lorafleet.store.layout import Layout


def highest(layout: Layout) -> int:
    """The highest id that was ever taken on this volume, 0 for none. Raises OSError."""
    return max((int(path.name) for path in layout.ids.iterdir() if _is_id(path)), default=0)


def allocate(layout: Layout, min_id: int, fs: FileSystem, known: int | None = None) -> int:
    """Take the lowest id that is above all taken ones and at least ``min_id`` (which is 1 or more). Raises OSError.

    It is durable once the folder of ids is, for which the caller cares before anybody can see it. ``known``: an id
    above which the caller has seen none taken, so that it is not looked for again. An id whose job dies before it
    publishes is lost; nothing needs them to be without gaps.
    """
    number = max((highest(layout) if known is None else known) + 1, min_id, 1)
    while True:
        try:
            # An empty file is nothing but its name, which the folder's sync keeps.
            fs.write_file(layout.ids / str(number), (), sync=False)
        except FileExistsError:
            number = max(number, highest(layout)) + 1
        else:
            return number


def _is_id(path: Path) -> bool:
    name = path.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) <= 18
