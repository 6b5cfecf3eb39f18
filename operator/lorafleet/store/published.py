"""What is published: read, verify, list. Changes nothing.

A folder in ``serving/`` is trusted only as far as it agrees with its own manifest. The quick check reads little
(names, sizes, modes, the small files); the deep one reads every byte.
"""

import os
import stat
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api import names
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE, PICKLE_FILES, WEIGHTS_FILE
from lorafleet.store import manifest as manifests
from lorafleet.store.fs import volume_error
from lorafleet.store.layout import Layout, parse_served_name
from lorafleet.store.manifest import Manifest, ManifestFile

QUICK_BYTES = 1024 * 1024
"""Files up to this size are hashed by the quick check too."""
_FOLDER_READABLE = 0o555
_FILE_READABLE = 0o444
_STILL_OPEN = ".nfs"
"""How NFS names a file that was replaced while somebody has it open; it goes when they close it."""

Hashes = MutableMapping[tuple[int, int, int], str]
"""The sha256 of files that were read already, by device, inode and time of change: a shared file is read once."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One folder of ``serving/``: its manifest, or why it has no valid one."""

    served_name: str
    manifest: Manifest | None
    problem: str | None


def verify(layout: Layout, served_name: str, *, deep: bool = False, hashes: Hashes | None = None) -> Manifest:
    """The manifest of a published version that agrees with its folder.

    ``hashes`` is used and filled by the deep check of many versions.
    Raises ArtifactError: VolumeError when they disagree or it cannot be read, UnsafePath for a name that is none.
    """
    folder = layout.version_folder(served_name)
    try:
        problem, manifest = _compare(folder, served_name, deep, {} if hashes is None else hashes)
    except OSError as error:
        raise volume_error(error, f"{served_name} was verified") from error
    if problem or manifest is None:
        raise ArtifactError(
            Reason.VOLUME_ERROR,
            f"published folder {served_name} is not what lorafleet published: {problem}; it is not served: find out who"
            " writes to the volume, remove the folder when no engine has it loaded, and it is published again",
        )
    return manifest


def list_published(layout: Layout) -> tuple[Listed, ...]:
    """All versions in ``serving/`` by their manifests, sorted by served name. Raises OSError."""
    return tuple(_listed(layout, served_name) for served_name in sorted(served_names(layout)))


def versions_of(layout: Layout, adapter: str, version: str) -> tuple[Manifest, ...]:
    """The manifests of all published bytes of one version of one adapter, not verified. Raises OSError."""
    folder = layout.serving / adapter
    if not folder.is_dir():
        return ()
    found = []
    for child in sorted(folder.glob(f"{version}-*")):
        listed = _listed(layout, f"{adapter}/{child.name}")
        if listed.manifest is not None and listed.manifest.version == version:
            found.append(listed.manifest)
    return tuple(found)


def served_names(layout: Layout) -> Iterator[str]:
    """The names of all folders two below ``serving/``, whatever they are. Raises OSError."""
    for adapter in layout.serving.iterdir():
        if adapter.is_dir() and not adapter.is_symlink():
            # Its last version may be removed at any moment.
            with suppress(FileNotFoundError):
                for version in list(adapter.iterdir()):
                    yield f"{adapter.name}/{version.name}"


def _listed(layout: Layout, served_name: str) -> Listed:
    try:
        parse_served_name(served_name)
        manifest = manifests.read(layout.serving / served_name)
    except (ArtifactError, OSError, ValueError) as error:
        return Listed(served_name, None, str(error))
    if manifest.served_name != served_name:
        return Listed(served_name, None, f"its manifest is of {manifest.served_name}")
    return Listed(served_name, manifest, None)


def _compare(folder: Path, served_name: str, deep: bool, hashes: Hashes) -> tuple[str | None, Manifest | None]:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not _readable(found.st_mode, _FOLDER_READABLE):
        return "it is no folder that everyone can read", None
    try:
        manifest = manifests.read(folder)
    except FileNotFoundError:
        return f"it has no {names.MANIFEST_FILE}", None
    except ValueError:
        return f"its {names.MANIFEST_FILE} is damaged", None
    problem = contradiction(manifest, served_name)
    if problem is None:
        problem = next((text for _, text in differences(folder, manifest, deep=deep, hashes=hashes)), None)
    return problem, manifest


def contradiction(manifest: Manifest, served_name: str) -> str | None:
    """Why a manifest cannot be that of a served name, by itself; None when it can."""
    named = names.served_name(manifest.adapter, manifest.version, manifest.digest)
    if not named == manifest.served_name == served_name:
        return f"its {names.MANIFEST_FILE} is of {manifest.served_name}"
    if digest(file.as_digest for file in manifest.source_files) != manifest.digest:
        return f"the files in its {names.MANIFEST_FILE} do not add up to its digest"
    unchanged = {file.path: file for file in manifest.source_files}
    for file in manifest.files:
        if file.path != CONFIG_FILE and file != unchanged.get(file.path) and not _is_converted(file, manifest):
            return f"{file.path} is not the source's"
    return None


def differences(folder: Path, manifest: Manifest, *, deep: bool, hashes: Hashes) -> Iterator[tuple[str, str]]:
    """What in a folder is not as its manifest says: name, and what is wrong with it. Raises OSError."""
    expected = {file.path for file in manifest.files} | {names.MANIFEST_FILE}
    present = {name for name in os.listdir(folder) if not name.startswith(_STILL_OPEN)}  # noqa: PTH208 - names
    for name in sorted(present ^ expected):
        yield name, f"it has {'no' if name in expected else 'the file'} {name[:200]}"
    for file in manifest.files:
        if file.path in present:
            problem = _difference(folder, file, deep, hashes)
            if problem is not None:
                yield file.path, f"{file.path} {problem}"


def _difference(folder: Path, file: ManifestFile, deep: bool, hashes: Hashes) -> str | None:
    found = (folder / file.path).lstat()
    if not stat.S_ISREG(found.st_mode) or not _readable(found.st_mode, _FILE_READABLE):
        return "is no file that everyone can read"
    if found.st_size != file.size:
        return f"has {found.st_size} bytes; expected {file.size}"
    if deep or file.size <= QUICK_BYTES:
        key = (found.st_dev, found.st_ino, found.st_ctime_ns)
        if key not in hashes:
            hashes[key] = hash_file(folder, file.path).sha256
        if hashes[key] != file.sha256:
            return "has other content"
    return None


def _is_converted(file: ManifestFile, manifest: Manifest) -> bool:
    """Whether a file may differ from the source because it was made of the source's only weights, a pickle."""
    sources = {one.path for one in manifest.source_files}
    return (
        file.path == WEIGHTS_FILE
        and WEIGHTS_FILE not in sources
        and manifest.converted in PICKLE_FILES
        and manifest.converted in sources
    )


def _readable(mode: int, wanted: int) -> bool:
    return mode & wanted == wanted
