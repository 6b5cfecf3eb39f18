"""An adapter on this machine, for ``lorafleet inspect``: a folder, or an archive, as a source like any other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted
from lorafleet.sources.base import Chunk, Listing, Source, SourceFile
from lorafleet.sources.volume import VolumeSource

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalArchive:
    """The archive ``path``; whoever unpacks it says whether it is one."""

    path: Path

    def describe(self) -> Mapping[str, str]:
        """Scheme and path."""
        return {"scheme": "file", "path": str(self.path)}

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


def open_local(path: Path, root: Path | None, wanted: Wanted) -> Source:
    """A folder or an archive of this machine; links of a folder may lead anywhere below ``root``, else below itself.

    Raises ArtifactError (SourceNotFound).
    """
    if path.is_dir():
        root = root or path
        try:
            inside = path.resolve().relative_to(root.resolve())
        except (ValueError, OSError):
            raise ArtifactError(
                Reason.SOURCE_NOT_FOUND, f"{path} is not below --root {root}; expected a folder in it: correct one"
            ) from None
        return _LocalFolder(VolumeSource(root, str(inside), wanted), path)
    if path.is_file():
        return LocalArchive(path)
    found = "is neither a folder nor a file" if path.exists() else "does not exist"
    raise ArtifactError(
        Reason.SOURCE_NOT_FOUND, f"{path} {found}; expected the adapter's folder or its archive: correct the path"
    )


@dataclass(frozen=True, slots=True)
class _LocalFolder:
    """A folder that is read just as one on a claim is."""

    volume: VolumeSource
    path: Path

    def describe(self) -> Mapping[str, str]:
        return {"scheme": "file", "path": str(self.path)}

    def listing(self) -> Listing:
        return self.volume.listing()

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        return self.volume.read(file, start)

    def confirm(self, listing: Listing) -> None:
        self.volume.confirm(listing)
