"""What is published: read, verify, list. Changes nothing.

A folder in ``serving/`` is trusted only as far as it agrees with its own manifest. The quick check reads little
(names, sizes, modes, the small files); the deep one reads every byte.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api import names
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE
from lorafleet.store import manifest as manifests
from lorafleet.store.fs import volume_error
from lorafleet.store.layout import Layout, parse_served_name
from lorafleet.store.manifest import Manifest

QUICK_BYTES = 1024 * 1024
"""Files up to this size are hashed by the quick check too."""
_FOLDER_READABLE = 0o555
_FILE_READABLE = 0o444


@dataclass(frozen=True, slots=True)
class Listed:
    """One folder of ``serving/``: its manifest, or why it has no valid one."""

    served_name: str
    manifest: Manifest | None
    problem: str | None


def verify(layout: Layout, served_name: str, *, deep: bool = False) -> Manifest:
    """The manifest of a published version that agrees with its folder.

    Raises ArtifactError: VolumeError when they disagree or it cannot be read, UnsafePath for a name that is none.
    """
    folder = layout.version_folder(served_name)
    try:
        problem, manifest = _compare(folder, served_name, deep)
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
    return tuple(_listed(layout, served_name) for served_name in sorted(_served_names(layout)))


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


def _served_names(layout: Layout) -> Iterator[str]:
    for adapter in layout.serving.iterdir():
        if adapter.is_dir() and not adapter.is_symlink():
            for version in adapter.iterdir():
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


def _compare(folder: Path, served_name: str, deep: bool) -> tuple[str | None, Manifest | None]:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not _readable(found.st_mode, _FOLDER_READABLE):
        return "it is no folder that everyone can read", None
    try:
        manifest = manifests.read(folder)
    except FileNotFoundError:
        return f"it has no {names.MANIFEST_FILE}", None
    except ValueError:
        return f"its {names.MANIFEST_FILE} is damaged", None
    return _disagreement(folder, served_name, manifest, deep), manifest


def _disagreement(folder: Path, served_name: str, manifest: Manifest, deep: bool) -> str | None:
    named = names.served_name(manifest.adapter, manifest.version, manifest.digest)
    if not named == manifest.served_name == served_name:
        return f"its {names.MANIFEST_FILE} is of {manifest.served_name}"
    if digest(file.as_digest for file in manifest.source_files) != manifest.digest:
        return f"the files in its {names.MANIFEST_FILE} do not add up to its digest"
    unchanged = {file.path: file for file in manifest.source_files}
    expected = {file.path for file in manifest.files} | {names.MANIFEST_FILE}
    present = set(os.listdir(folder))  # noqa: PTH208 - names, not paths
    if present != expected:
        return f"it has other files than it should: {', '.join(sorted(present ^ expected))[:200]}"
    for file in manifest.files:
        if file.path != CONFIG_FILE and file != unchanged.get(file.path):
            return f"{file.path} is not the source's"
        found = (folder / file.path).lstat()
        if not stat.S_ISREG(found.st_mode) or not _readable(found.st_mode, _FILE_READABLE):
            return f"{file.path} is no file that everyone can read"
        if found.st_size != file.size:
            return f"{file.path} has {found.st_size} bytes; expected {file.size}"
        if (deep or file.size <= QUICK_BYTES) and hash_file(folder, file.path) != file.as_digest:
            return f"{file.path} has other content"
    return None


def _readable(mode: int, wanted: int) -> bool:
    return mode & wanted == wanted
