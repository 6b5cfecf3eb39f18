"""Identical files once: ``blobs/sha256-<hex>`` is one more name of a published file, or shares its blocks.

Nothing depends on a blob: it may be missing, gone in the next moment, or wrong, so its content is hashed before it is
taken, and whoever cannot have it keeps a copy of its own. That is why publishing and collecting need no lock.
"""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from lorafleet.artifacts.digest import FileDigest, hash_file
from lorafleet.store.fs import FILE_MODE, FileSystem
from lorafleet.store.layout import Layout
from lorafleet.store.published import list_published

log = logging.getLogger("lorafleet.sync")

_NAME = re.compile(r"sha256-(?P<sha256>[0-9a-f]{64})")
_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_REFUSED_NOW = _REFUSED | {errno.EMLINK, errno.EXDEV, errno.ENOTTY}


class Sharing(StrEnum):
    """How identical files are kept once on a volume; COPY: they are not."""

    HARDLINK = "hardlink"
    REFLINK = "reflink"
    COPY = "copy"


def probe(layout: Layout, fs: FileSystem) -> Sharing:
    """What the volume can do. Raises OSError."""
    one = layout.new_staging("now")
    other = one.with_suffix(f"{one.suffix}-2")
    try:
        fs.write_file(one, (b"lorafleet",), sync=False)
        for sharing, share in ((Sharing.HARDLINK, fs.link), (Sharing.REFLINK, fs.clone)):
            try:
                share(one, other)
            except OSError as error:
                if error.errno not in _REFUSED_NOW:
                    raise
                continue
            return sharing
        return Sharing.COPY
    finally:
        for path in (other, one):
            with suppress(FileNotFoundError):
                fs.remove_file(path)


class Blobs:
    """The files of a volume that may be shared."""

    def __init__(self, layout: Layout, fs: FileSystem, sharing: Sharing) -> None:
        self._layout = layout
        self._fs = fs
        self.sharing = sharing

    def path(self, sha256: str) -> Path:
        """Where a blob is, if it is there."""
        return self._layout.blobs / f"sha256-{sha256}"

    def has(self, sha256: str) -> bool:
        """Whether a blob is there; its content is not looked at."""
        return self.sharing is not Sharing.COPY and self.path(sha256).exists()

    def take(self, wanted: FileDigest, target: Path) -> bool:
        """Make ``target``, which must not exist, the blob with this content; False when there is none to be had.

        A blob with other content loses its name. Raises OSError.
        """
        blob = self.path(wanted.sha256)
        if self.sharing is Sharing.COPY or not self._share(blob, target):
            return False
        found = target.lstat()
        fits = stat.S_ISREG(found.st_mode) and found.st_size == wanted.size
        fits = fits and stat.S_IMODE(found.st_mode) == FILE_MODE
        if fits and hash_file(target.parent, target.name).sha256 == wanted.sha256:
            return True
        log.warning("blob is not what its name says; it is not used", extra={"blob": blob.name})
        self._fs.remove_file(target)
        self._drop(blob)
        return False

    def give(self, file: FileDigest, path: Path) -> None:
        """Let ``path``, a file of ours with this content that nobody sees yet, be the blob or become it.

        A blob with other content is replaced. Raises OSError.
        """
        if self.sharing is Sharing.COPY or not file.size:
            return
        blob = self.path(file.sha256)
        for _ in range(2):
            with suppress(FileExistsError):
                if self._share(path, blob):
                    return
            if _same(path, blob):
                return
            shared = path.with_name(f"{path.name}.shared")
            if self.take(file, shared):
                self._fs.rename(shared, path)
                return

    def collect(self) -> int:
        """Remove blobs that no published version shares; the answer is how many. Raises OSError."""
        unshared = list(self.unshared({}))
        for blob in unshared:
            self._drop(blob)
        return len(unshared)

    def unshared(self, doomed: Mapping[tuple[int, int], int]) -> Iterator[Path]:
        """Blobs that no version shares, nor anything but ``doomed``: how many names inodes have that are to go."""
        named = None
        if self.sharing is Sharing.REFLINK:
            listed = list_published(self._layout)
            named = {file.sha256 for one in listed if one.manifest for file in one.manifest.files}
        with os.scandir(self._layout.blobs) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None or (named is not None and match["sha256"] in named):
                    continue
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink <= 1 + doomed.get((found.st_dev, found.st_ino), 0):
                        yield Path(entry.path)

    def _share(self, source: Path, target: Path) -> bool:
        """Whether ``target`` now is the file ``source``. Raises FileExistsError, OSError."""
        share = self._fs.link if self.sharing is Sharing.HARDLINK else self._fs.clone
        try:
            share(source, target)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _REFUSED_NOW:
                raise
            return False
        return True

    def _drop(self, blob: Path) -> None:
        with suppress(FileNotFoundError):
            self._fs.remove_file(blob)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False
