"""What nobody needs any more: staging of dead jobs, trash, blobs without a version, empty folders; and strays.

Only what no version is made of is removed. A folder of ``serving/`` that no status names is reported: an engine may
still read it, and whether it may go is not decided here.
"""

import errno
import hashlib
import stat
from collections.abc import Collection
from contextlib import suppress

from lorafleet.store.published import served_names
from lorafleet.store.remove import sweep_trash
from lorafleet.store.staging import sweep_staging, volume_time
from lorafleet.store.volume import Volume

STAGING_SECONDS = 24 * 3600.0
"""Staging that nobody wrote to for so long is a dead job's; no Job lives so long."""
STRAY_SECONDS = 3600.0
"""A folder that no status names is a stray after so long: a status may be late."""
EMPTY_SECONDS = 3600.0
MAX_STRAYS = 20


def collect(volume: Volume) -> None:
    """Remove what nobody needs. Raises OSError; what is left is removed the next time."""
    sweep_staging(volume.layout, STAGING_SECONDS, volume.fs)
    sweep_trash(volume.layout, volume.fs)
    volume.blobs.collect()
    _remove_empty(volume)


def strays(volume: Volume, known: Collection[str]) -> tuple[str, ...]:
    """Served names of old folders that none of ``known`` is: 12 hex digits of the sha256 of a name. Raises OSError."""
    now = volume_time(volume.layout, volume.fs)
    found = []
    for name in served_names(volume.layout):
        with suppress(FileNotFoundError):
            unknown = hashlib.sha256(name.encode()).hexdigest()[:12] not in known
            if unknown and now - (volume.layout.serving / name).lstat().st_mtime > STRAY_SECONDS:
                found.append(name)
    return tuple(sorted(found)[:MAX_STRAYS])


def _remove_empty(volume: Volume) -> None:
    """Remove folders of adapters without a version; a young one is perhaps just about to get one."""
    now = volume_time(volume.layout, volume.fs)
    for adapter in list(volume.layout.serving.iterdir()):
        with suppress(FileNotFoundError):
            found = adapter.lstat()
            if not stat.S_ISDIR(found.st_mode) or now - found.st_mtime < EMPTY_SECONDS or any(adapter.iterdir()):
                continue
            try:
                volume.fs.remove_folder(adapter)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    raise
