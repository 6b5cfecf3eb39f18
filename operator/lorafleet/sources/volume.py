"""A folder on a mounted claim. Only reads, and only below the claim's root.

Whoever may write to the claim may try to point us elsewhere or change files while they are read. So every file is
opened first and then judged by where the open file really is, links may lead anywhere below the root and nowhere
else, and a folder that does not look the same after the last byte as before the first is reported as changed.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Limits, check_entries, check_sizes, not_a_file
from lorafleet.artifacts.digest import CHUNK_BYTES, FileDigest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import is_adapter_file, require_adapter
from lorafleet.sources.base import Sink, SourceFile


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one file looked like: any change of its bytes changes one of these."""

    name: str
    size: int
    inode: int
    device: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """The adapter's folder ``path``, relative to ``root``, the place where its claim is mounted."""

    root: Path
    path: str
    limits: Limits = field(default_factory=Limits)

    def describe(self) -> Mapping[str, str]:
        """Scheme and path; the mount point means nothing outside this process."""
        return {"scheme": "volume", "path": self.path}

    def list_files(self) -> tuple[SourceFile, ...]:
        """The adapter's files, sorted. Raises ArtifactError."""
        with self._read_errors():
            return tuple(SourceFile(seen.name, seen.size) for seen in self._look())

    def fetch(self, sink: Sink) -> tuple[FileDigest, ...]:
        """Push all files into ``sink``, each read once. Raises ArtifactError."""
        with self._read_errors():
            before = self._look()
        received = tuple(self._push(seen, sink) for seen in before)
        with self._read_errors():
            after = self._look()
        if before != after:
            raise self._changed("its files changed")
        return received

    def _look(self) -> tuple[_Seen, ...]:
        folder = self._folder()
        names = []
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries, 1):
                check_entries(number, self.limits)
                names.append(entry.name)
        require_adapter(names, self._where)
        seen = []
        for name in sorted(filter(is_adapter_file, names)):
            fd = self._open(folder / name)
            try:
                seen.append(_seen(name, os.fstat(fd)))
            finally:
                os.close(fd)
        check_sizes([(file.name, file.size) for file in seen], self.limits)
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

    def _push(self, seen: _Seen, sink: Sink) -> FileDigest:
        with self._read_errors():
            fd = self._open(self._folder() / seen.name)
        try:
            if _seen(seen.name, os.fstat(fd)) != seen:
                raise self._changed(f"{seen.name} changed")
            return sink.receive(seen.name, seen.size, self._chunks(fd))
        finally:
            os.close(fd)

    def _chunks(self, fd: int) -> Iterator[memoryview]:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
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
