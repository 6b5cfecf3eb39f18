"""A folder on a mounted claim. Only reads, and only below the claim's root.

Whoever may write to the claim may try to point us elsewhere or change files while they are read. So every file is
opened first and then judged by where the open file really is, links may lead anywhere below the root and nowhere
else, and a folder that does not look the same after the last byte as before the first is reported as changed.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path, PurePosixPath

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import not_a_file
from lorafleet.artifacts.digest import CHUNK_BYTES
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted, check_entries, check_sizes, select
from lorafleet.sources.base import Chunk, Listing, SourceFile


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one file looked like: any change of its bytes changes one of these."""

    name: str
    size: int
    inode: int
    device: int
    modified_ns: int
    changed_ns: int

    @property
    def identity(self) -> str:
        """All of it as text."""
        return ":".join(map(str, astuple(self)))


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """The adapter's folder ``path``, relative to ``root``, the place where its claim is mounted."""

    root: Path
    path: str
    wanted: Wanted = field(default_factory=Wanted)

    def describe(self) -> Mapping[str, str]:
        """Scheme and path; the mount point means nothing outside this process."""
        return {"scheme": "volume", "path": self.path}

    def listing(self) -> Listing:
        """The adapter's files, sorted. Raises ArtifactError."""
        with self._read_errors():
            files = tuple(SourceFile(seen.name, seen.size, seen.identity) for seen in self._look())
        return Listing(pin="", files=files)

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of one file, which is opened now and judged by what was opened. Raises ArtifactError."""
        with self._read_errors():
            fd = self._open(self._folder() / file.path)
        try:
            if _seen(file.path, os.fstat(fd)).identity != file.identity:
                raise self._changed(f"{file.path} changed")
            yield from self._chunks(fd, start)
        finally:
            os.close(fd)

    def confirm(self, listing: Listing) -> None:
        """Raises ArtifactError (SourceChanged) unless the folder looks as it was listed."""
        if self.listing() != listing:
            raise self._changed("its files changed")

    def _look(self) -> tuple[_Seen, ...]:
        folder = self._folder()
        names = []
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries, 1):
                check_entries(number, self.wanted.limits)
                names.append(entry.name)
        seen = []
        for name in select(((name, None) for name in names), self.wanted, self._where):
            fd = self._open(folder / name)
            try:
                seen.append(_seen(name, os.fstat(fd)))
            finally:
                os.close(fd)
        check_sizes([(file.name, file.size) for file in seen], self.wanted.limits)
        return tuple(seen)

    def _folder(self) -> Path:
        relative = PurePosixPath(self.path)
        if relative.is_absolute() or ".." in relative.parts or "\0" in self.path:
            raise self._unsafe(self.path, "leaves the claim")
        folder = _real(self.root / relative)
        if not folder.is_relative_to(_real(self.root)):
            raise self._unsafe(self.path, "is a link that leaves the claim")
        if not folder.is_dir():
            raise ArtifactError(
                Reason.SOURCE_NOT_FOUND, f"{self._where} is a file; expected the adapter's folder: name the folder"
            )
        return folder

    def _open(self, file: Path) -> int:
        name = file.name
        # Opening a device or a pipe may do something, so look first; judge again by what was opened.
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise not_a_file(name, mode)
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise not_a_file(name, mode)
            real = Path(f"/proc/self/fd/{fd}").readlink()
            if not real.is_relative_to(_real(self.root)):
                raise self._unsafe(name, "is a link that leaves the claim")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _chunks(self, fd: int, start: int) -> Iterator[memoryview]:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        os.lseek(fd, start, os.SEEK_SET)
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while True:
            with self._read_errors():
                count = os.readv(fd, [buffer])
            if count == 0:
                return
            yield buffer[:count]

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(
                Reason.SOURCE_NOT_FOUND,
                f"{self._where} does not exist or went away; expected the adapter's folder: copy it there, or correct"
                " source.volume.path in a new version",
            ) from None
        except PermissionError:
            raise ArtifactError(
                Reason.VOLUME_ERROR,
                f"{self._where} cannot be read by user {os.getuid()}, which the sync Job runs as: make its folders"
                " 0755 and its files 0644",
            ) from None
        except OSError as error:
            raise ArtifactError(
                Reason.VOLUME_ERROR, f"{self._where} cannot be read: {error.strerror}; look at the claim's storage"
            ) from error

    @property
    def _where(self) -> str:
        return f"source folder {self.path!r} of the claim"

    def _unsafe(self, name: str, what: str) -> ArtifactError:
        return ArtifactError(
            Reason.UNSAFE_PATH, f"{name!r} {what}; expected files below the claim's root: copy them to the claim itself"
        )

    def _changed(self, what: str) -> ArtifactError:
        return ArtifactError(
            Reason.SOURCE_CHANGED,
            f"{self._where}: {what} while it was copied; expected a folder that nobody writes to: finish writing under"
            " another name, rename the folder at the end, and it is tried again",
        )


def _seen(name: str, found: os.stat_result) -> _Seen:
    return _Seen(name, found.st_size, found.st_ino, found.st_dev, found.st_mtime_ns, found.st_ctime_ns)


def _real(path: Path) -> Path:
    # Path.resolve answers a loop of links with RuntimeError on Python 3.11; this is always OSError.
    return Path(os.path.realpath(path, strict=True))
