"""Publish a version: from a source to a folder that engines can load, or not at all.

Bytes go to ``staging/``, are hashed on the way, checked there (never at the source, which someone may still write
to), made durable, and become visible by one rename. Whatever happens before it leaves nothing in ``serving/``; what
is there is immutable and never overwritten. Which fleet the bytes are for is the caller's knowledge, not this
module's.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lorafleet import __version__
from lorafleet.api import names
from lorafleet.api.model import timestamp
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import AdapterInfo, Expectations, check, require_base_model
from lorafleet.artifacts.digest import FileDigest, digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE
from lorafleet.artifacts.peft_config import with_base_model
from lorafleet.sources.base import Listing, Source
from lorafleet.store import ids
from lorafleet.store import manifest as manifests
from lorafleet.store.fs import POSIX, FileSystem, remove_tree, volume_error
from lorafleet.store.layout import Layout
from lorafleet.store.manifest import Manifest, ManifestFile
from lorafleet.store.published import verify, versions_of
from lorafleet.store.staging import Progress, fetch, hash_source, no_progress

Clock = Callable[[], datetime]

_RESERVE = 4 * 1024 * 1024
"""Bytes beyond the files themselves: folders, the manifest, the rewritten configuration."""
_RENAMES = 5
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@dataclass(frozen=True, slots=True)
class Request:
    """What to publish. ``model``: the engines' ``--model`` string. ``min_id``: the lowest id that may be given.

    ``pin``: the digest that the source must have, if any.
    """

    adapter: str
    version: str
    model: str
    expectations: Expectations
    min_id: int = 1
    pin: str | None = None


def publish(
    layout: Layout,
    request: Request,
    source: Source,
    *,
    fs: FileSystem = POSIX,
    progress: Progress = no_progress,
    now: Clock = lambda: datetime.now(UTC),
) -> Manifest:
    """Publish a version and return its manifest; the same bytes published before keep their folder and id.

    Raises ArtifactError: what the source is refused for, DigestMismatch, SourceChanged, VolumeFull, VolumeError. What
    ``progress`` raises passes through after the staging folder is removed.
    """
    try:
        return _published_before(layout, request, source, progress) or _publish(
            layout, request, source, fs, progress, now
        )
    except OSError as error:
        raise volume_error(error, f"{request.adapter} {request.version} was published") from error


def _published_before(layout: Layout, request: Request, source: Source, progress: Progress) -> Manifest | None:
    """The version if these very bytes are published: read and hashed in place, not copied.

    A pin says what the bytes are, so then the source is not even read.
    """
    known = versions_of(layout, request.adapter, request.version)
    if request.pin is not None:
        pinned = next((manifest for manifest in known if manifest.digest == request.pin), None)
        return None if pinned is None else _verified(layout, request, pinned.served_name)
    if not known:
        return None
    listing = source.listing()
    sizes = {(file.path, file.size) for file in listing.files}
    if not any(sizes == {(file.path, file.size) for file in manifest.source_files} for manifest in known):
        return None
    found = digest(hash_source(source, listing, progress))
    source.confirm(listing)
    match = next((manifest for manifest in known if manifest.digest == found), None)
    return None if match is None else _verified(layout, request, match.served_name)


def _publish(
    layout: Layout, request: Request, source: Source, fs: FileSystem, progress: Progress, now: Clock
) -> Manifest:
    listing = source.listing()
    _check_space(layout, listing, fs)
    folder = layout.new_staging(request.adapter)
    try:
        fs.make_folder(folder)
        received = fetch(source, listing, folder, fs, progress)
        source.confirm(listing)
        info = check(folder, request.expectations)
        found = digest(received)
        if request.pin is not None and request.pin != found:
            raise ArtifactError(
                Reason.DIGEST_MISMATCH,
                f"the source has digest {found}; the version is pinned to {request.pin}: restore the files, or append a"
                " new version with the digest of these",
            )
        served_name = names.served_name(request.adapter, request.version, found)
        if _exists(layout.version_folder(served_name)):
            return _verified(layout, request, served_name)
        files = _rewrite_config(folder, request.model, received, fs)
        manifest = _manifest(
            request, source, info, found, received, files, ids.allocate(layout, request.min_id, fs), now
        )
        manifests.write(folder, manifest, fs)
        fs.sync_folder(folder)
        if _make_visible(layout, folder, manifest, fs):
            return manifest
        return _verified(layout, request, served_name)
    finally:
        if folder.is_dir():
            with suppress(OSError):
                remove_tree(fs, folder)


def _verified(layout: Layout, request: Request, served_name: str) -> Manifest:
    """A version that is there already, if it is whole and this fleet may still serve it."""
    # A pin is kept by reading every byte again.
    manifest = verify(layout, served_name, deep=request.pin is not None)
    require_base_model(manifest.base_model, request.expectations.base_models)
    check(layout.version_folder(served_name), replace(request.expectations, base_models=(manifest.model,)))
    return manifest


def _check_space(layout: Layout, listing: Listing, fs: FileSystem) -> None:
    needed = sum(file.size or 0 for file in listing.files) + _RESERVE
    free = fs.free_bytes(layout.staging)
    if free is not None and free < needed:
        raise ArtifactError(
            Reason.VOLUME_FULL,
            f"the fleet's volume has {free} bytes free and the adapter needs {needed}: enlarge the claim of"
            " spec.storage, or retire versions",
        )


def _rewrite_config(
    folder: Path, model: str, received: tuple[FileDigest, ...], fs: FileSystem
) -> tuple[FileDigest, ...]:
    """Give the staged configuration the engines' name of the base model; the answer is the files as they are then."""
    config, new = folder / CONFIG_FILE, folder / f"{CONFIG_FILE}.new"
    fs.write_file(new, (with_base_model(config.read_bytes(), model),))
    fs.rename(new, config)
    return tuple(hash_file(folder, file.path) if file.path == CONFIG_FILE else file for file in received)


def _manifest(
    request: Request,
    source: Source,
    info: AdapterInfo,
    found: str,
    received: tuple[FileDigest, ...],
    files: tuple[FileDigest, ...],
    number: int,
    now: Clock,
) -> Manifest:
    return Manifest(
        id=number,
        adapter=request.adapter,
        version=request.version,
        served_name=names.served_name(request.adapter, request.version, found),
        digest=found,
        base_model=info.base_model,
        model=request.model,
        rank=info.rank,
        target_modules=info.target_modules,
        dtype=info.dtype,
        min_engine=info.min_engine,
        size_bytes=sum(file.size for file in files),
        source=dict(source.describe()),
        source_files=tuple(map(ManifestFile.of, received)),
        files=tuple(map(ManifestFile.of, files)),
        published_at=timestamp(now()),
        published_by=f"lorafleet {__version__}",
    )


def _make_visible(layout: Layout, folder: Path, manifest: Manifest, fs: FileSystem) -> bool:
    """Rename the staged folder into ``serving/``; False when another job was first."""
    target = layout.version_folder(manifest.served_name)
    if target.parent.is_symlink():
        raise OSError(errno.ELOOP, f"{target.parent} is a link where a folder is expected")
    for _ in range(_RENAMES):
        with suppress(FileExistsError):
            fs.make_folder(target.parent)
            fs.sync_folder(layout.serving)
        try:
            fs.rename(folder, target)
        except FileNotFoundError:
            # A removal of the adapter's last version took the empty folder away in between.
            if not folder.is_dir():
                raise
            continue
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        fs.sync_folder(target.parent)
        return True
    raise OSError(errno.ENOENT, f"{target.parent} keeps disappearing")


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True
