"""An adapter on this machine, for ``lorafleet inspect``: a folder, or an archive, as a source like any other."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted
from lorafleet.cli.address import Unusable
from lorafleet.sources.base import Chunk, Listing, Source, SourceFile
from lorafleet.sources.volume import VolumeSource

LOCAL = "file"
"""The scheme of what is on this machine, for people: no version can name it."""

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalArchive:
    """The archive ``path``; whoever unpacks it says whether it is one."""

    path: Path

    def describe(self) -> Mapping[str, str]:
        """Scheme and path."""
        return {"scheme": LOCAL, "path": str(self.path)}

    def listing(self) -> Listing:
        """The archive as the only file. Raises ArtifactError."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise self._failed(error) from None
        identity = f"{found.st_ino}:{found.st_dev}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
        return Listing("", (SourceFile(self.path.name, found.st_size, identity, archive=True),))

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """Its bytes. Raises ArtifactError."""
        try:
            with self.path.open("rb", buffering=0) as opened:
                opened.seek(start)
                while chunk := opened.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise self._failed(error) from None

    def confirm(self, listing: Listing) -> None:
        """Raises ArtifactError (SourceChanged) unless the file is as it was listed."""
        if self.listing() != listing:
            raise ArtifactError(
                Reason.SOURCE_CHANGED,
                f"{self.path} changed while it was read; expected a file that nobody writes to: inspect it again",
            )

    def _failed(self, error: OSError) -> ArtifactError:
        return ArtifactError(
            Reason.SOURCE_NOT_FOUND,
            f"{self.path} cannot be read: {error.strerror}; expected an archive: correct the path, or its mode",
        )


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """The folder ``path``, read just as one on a claim is; its links may lead anywhere below ``root``."""

    path: Path
    root: Path
    wanted: Wanted
    _volume: VolumeSource = field(init=False)

    def __post_init__(self) -> None:
        """Raises Unusable for a folder that is not below ``root``."""
        try:
            inside = self.path.resolve().relative_to(self.root.resolve())
        except ValueError:
            raise Unusable(
                f"{self.path} is not below --root {self.root}; expected a folder in it: correct one"
            ) from None
        object.__setattr__(self, "_volume", VolumeSource(self.root, str(inside), self.wanted))

    def describe(self) -> Mapping[str, str]:
        """Scheme and path."""
        return {"scheme": LOCAL, "path": str(self.path)}

    def listing(self) -> Listing:
        """The adapter's files. Raises ArtifactError."""
        with self._here():
            return self._volume.listing()

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of one file. Raises ArtifactError."""
        with self._here():
            yield from self._volume.read(file, start)

    def confirm(self, listing: Listing) -> None:
        """Raises ArtifactError (SourceChanged) unless the folder is as it was listed."""
        with self._here():
            self._volume.confirm(listing)

    @contextmanager
    def _here(self) -> Iterator[None]:
        """Turns messages about a claim into ones about this machine."""
        try:
            yield
        except ArtifactError as error:
            text = error.message.replace(f"source folder {self._volume.path!r} of the claim", str(self.path))
            if error.reason is Reason.UNSAFE_PATH:
                text += f"; here the claim's root is {self.root}, unless --root names another folder"
            raise ArtifactError(error.reason, text) from None


def open_local(path: Path, root: Path | None, wanted: Wanted) -> Source:
    """A folder or an archive of this machine; links of a folder may lead anywhere below ``root``, else below itself.

    Raises ArtifactError (SourceNotFound), and Unusable for a ``root`` that does not hold the folder.
    """
    mode = mode_of(path)
    if stat.S_ISDIR(mode):
        return LocalFolder(path, root or path, wanted)
    if stat.S_ISREG(mode):
        return LocalArchive(path)
    found = "is neither a folder nor a file" if mode else "does not exist, or may not be seen"
    raise ArtifactError(
        Reason.SOURCE_NOT_FOUND, f"{path} {found}; expected the adapter's folder or its archive: correct the path"
    )


def mode_of(path: Path) -> int:
    """The mode of what is there, links followed; 0 where nothing is to be seen."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
