"""Every change of the volume, as a few operations. Nothing else in this room writes.

The seam is here so that tests can fail or kill the process at each single step. What publishing depends on is made
durable by whoever publishes, before a name is given away. No decisions are made here.
"""

import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError

FOLDER_MODE = 0o755
FILE_MODE = 0o644
"""Engines may run as any user: they must be able to read what is published (vLLM contract, filesystem resolver)."""

Chunk = bytes | memoryview
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FICLONE = 0x40049409


class FileSystem(Protocol):
    """What may be done to the volume. All raise OSError."""

    def make_folder(self, path: Path, mode: int = FOLDER_MODE) -> None:
        """Create a folder with exactly this mode; FileExistsError when something is there."""
        ...

    def write_file(self, path: Path, chunks: Iterable[Chunk], *, sync: bool = True) -> None:
        """Create a file of mode 0644 and write all chunks; FileExistsError when something is there.

        ``sync``: it is durable at the end.
        """
        ...

    def sync_file(self, path: Path) -> None:
        """Make the content of a file durable."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError when something has it. Links are not followed."""
        ...

    def clone(self, source: Path, target: Path) -> None:
        """Create a file of mode 0644 that shares its blocks with another until one of them is written."""
        ...

    def set_mode(self, path: Path, mode: int) -> None:
        """Set the mode of a file or folder."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Make names that were created, renamed or removed in this folder durable."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over a file, or a folder to a place where there is none or an empty one; atomic."""
        ...

    def remove_file(self, path: Path) -> None:
        """Remove a name that is no folder."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        ...

    def free_bytes(self, path: Path) -> int | None:
        """Bytes that may still be written; None where the file system does not say."""
        ...


class PosixFileSystem:
    """The real one."""

    def make_folder(self, path: Path, mode: int = FOLDER_MODE) -> None:
        """``mkdir`` and ``chmod``: the umask has no say."""
        path.mkdir(mode)
        path.chmod(mode)

    def write_file(self, path: Path, chunks: Iterable[Chunk], *, sync: bool = True) -> None:
        """``O_CREAT|O_EXCL``, which NFS honours too, then ``fsync``."""
        fd = _create(path)
        try:
            written = 0
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                # Linux begins to write these pages out; the disk works while the next chunk is read and hashed.
                os.posix_fadvise(fd, written, len(chunk), os.POSIX_FADV_DONTNEED)
                written += len(chunk)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def sync_file(self, path: Path) -> None:
        """``fsync``, through any descriptor of the file."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        """``link(2)``."""
        os.link(source, target, follow_symlinks=False)

    def clone(self, source: Path, target: Path) -> None:
        """``FICLONE`` of Btrfs, XFS, NFS 4.2 and others."""
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            new = _create(target)
            try:
                fcntl.ioctl(new, _FICLONE, fd)
            except OSError:
                target.unlink()
                raise
            finally:
                os.close(new)
        finally:
            os.close(fd)

    def set_mode(self, path: Path, mode: int) -> None:
        """``chmod``, never through a link."""
        os.chmod(path, mode, follow_symlinks=os.chmod not in os.supports_follow_symlinks)  # noqa: PTH101

    def sync_folder(self, path: Path) -> None:
        """``fsync`` of the folder; file systems that know no such thing keep names durable themselves."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """``rename(2)``."""
        source.rename(target)

    def remove_file(self, path: Path) -> None:
        """``unlink(2)``."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """``rmdir(2)``."""
        path.rmdir()

    def free_bytes(self, path: Path) -> int | None:
        """``statvfs``; some network file systems report no blocks at all."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize if found.f_blocks else None


def _create(path: Path) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    os.fchmod(fd, FILE_MODE)
    return fd


POSIX: FileSystem = PosixFileSystem()


def remove_tree(fs: FileSystem, path: Path) -> None:
    """Remove a folder with all that is in it, or a file; links are removed, not followed. What is gone is fine.

    Another job may be removing the same tree at the same time.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            fs.remove_file(path)
            return
        for child in list(path.iterdir()):
            remove_tree(fs, child)
        fs.remove_folder(path)
    except FileNotFoundError:
        return


def volume_error(error: OSError, doing: str) -> ArtifactError:
    """What an OSError on the volume means: VolumeFull or VolumeError, in words."""
    if error.errno in _FULL:
        return ArtifactError(
            Reason.VOLUME_FULL,
            f"the fleet's volume ran full while {doing}: enlarge the claim of spec.storage, or retire versions",
        )
    return ArtifactError(
        Reason.VOLUME_ERROR,
        f"the fleet's volume failed while {doing}: {error.strerror or error}; look at the claim of spec.storage",
    )
