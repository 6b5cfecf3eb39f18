"""The folders of the volume and where things go in them.

``serving/`` is all that engines see. ``staging/`` and ``trash/`` are on the same file system, so that a version
appears and disappears by one rename. Names come from users by way of a plan, so every path is made and judged here.
"""

import re
import stat
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.api import names
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.fs import FOLDER_MODE, FileSystem, volume_error

_SERVED_NAME = re.compile(
    r"(?P<adapter>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/"
    r"(?P<version>[A-Za-z0-9](?:[-A-Za-z0-9._]{0,61}[A-Za-z0-9])?)-(?P<digest>[0-9a-f]{12})"
)
_READABLE = 0o005


@dataclass(frozen=True, slots=True)
class Layout:
    """The volume below ``root``, the place where the fleet's claim is mounted."""

    root: Path
    serving: Path = field(init=False, compare=False)
    """What engines mount, read-only."""
    staging: Path = field(init=False, compare=False)
    """Versions in the making, one folder for each attempt."""
    blobs: Path = field(init=False, compare=False)
    """Bytes kept between attempts, by digest."""
    trash: Path = field(init=False, compare=False)
    """Versions on their way out."""
    ids: Path = field(init=False, compare=False)
    """One empty file for each id that was ever given."""

    def __post_init__(self) -> None:
        for name in (names.SERVING, names.STAGING, names.BLOBS, names.TRASH, names.IDS):
            object.__setattr__(self, name, self.root / name)

    def version_folder(self, served_name: str) -> Path:
        """Where a version is published. Raises ArtifactError (UnsafePath) for a name that is none."""
        parse_served_name(served_name)
        return self.serving / served_name

    def new_staging(self, about: str) -> Path:
        """A folder below ``staging/`` that no other job has."""
        return self.staging / f"{about}.{uuid.uuid4().hex}"

    def new_trash(self, about: str) -> Path:
        """A place below ``trash/`` that no other job has."""
        return self.trash / f"{about}.{uuid.uuid4().hex}"


def parse_served_name(served_name: str) -> tuple[str, str]:
    """Adapter and version of a served name. Raises ArtifactError (UnsafePath) for anything else."""
    match = _SERVED_NAME.fullmatch(served_name)
    if match is None:
        raise ArtifactError(
            Reason.UNSAFE_PATH, f"{served_name!r} is no served name; expected <adapter>/<version>-<12 hex digits>"
        )
    return match["adapter"], match["version"]


def prepare(layout: Layout, fs: FileSystem) -> None:
    """Make the folders that are missing and refuse a volume that cannot work. Raises ArtifactError."""
    if not layout.root.is_dir():
        raise _broken(f"{layout.root} does not exist", "mount the fleet's claim there")
    try:
        devices = {_prepare_folder(layout, folder, fs) for folder in _folders(layout)}
    except OSError as error:
        raise volume_error(error, "its folders were made") from error
    if len(devices) > 1:
        raise _broken(
            f"the folders of {layout.root} are on {len(devices)} file systems",
            "mount the whole claim, not its folders: publishing is one rename",
        )


def _folders(layout: Layout) -> tuple[Path, ...]:
    return layout.serving, layout.staging, layout.blobs, layout.trash, layout.ids


def _prepare_folder(layout: Layout, folder: Path, fs: FileSystem) -> int:
    try:
        fs.make_folder(folder)
        fs.sync_folder(layout.root)
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _broken(f"{folder} is no folder", "remove it")
    if folder == layout.serving and found.st_mode & _READABLE != _READABLE:
        fs.set_mode(folder, FOLDER_MODE)
    return found.st_dev


def _broken(what: str, move: str) -> ArtifactError:
    return ArtifactError(Reason.VOLUME_ERROR, f"the fleet's volume cannot be used: {what}; {move}")
