"""Publish a version: from a source to a folder that engines can load, or not at all.

Bytes go to ``staging/``, are hashed on the way, proved and checked there (never at the source, which someone may still
write to), made durable, and become visible by one rename. Whatever happens before it leaves nothing in ``serving/``;
what is there is immutable and never overwritten. Which fleet the bytes are for is the caller's knowledge, not this
module's.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lorafleet import __version__
from lorafleet.api import names
from lorafleet.api.model import timestamp
from lorafleet.artifacts.check import AdapterInfo, check
from lorafleet.artifacts.digest import FileDigest, digest
from lorafleet.sources.base import Listing, Source
from lorafleet.store import manifest as manifests
from lorafleet.store.attempts import Attempt, attempt
from lorafleet.store.build import LOCAL, Fetched, How, Request, convert, fetch, is_local, rewrite_config
from lorafleet.store.fs import FileSystem, volume_error
from lorafleet.store.layout import Layout
from lorafleet.store.manifest import Manifest, ManifestFile
from lorafleet.store.proof import require_digest
from lorafleet.store.published import verify, versions_of
from lorafleet.store.recheck import no_effect, recheck
from lorafleet.store.transfer import Meter, place
from lorafleet.store.volume import Volume

Clock = Callable[[], datetime]
Open = Callable[[str | None], Source]
"""Opens the source for a pin. Raises ArtifactError."""

_RENAMES = 5
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A published version: its manifest, and what the checks found; None when they were not asked."""

    manifest: Manifest
    info: AdapterInfo | None


def publish(
    volume: Volume,
    request: Request,
    open_source: Open,
    *,
    how: How = How(),  # noqa: B008 - frozen
    pinned: Callable[[str], None] = lambda _: None,
    now: Clock = lambda: datetime.now(UTC),
) -> Outcome:
    """Publish a version; the same bytes published before keep their folder and id.

    ``pinned`` is told what the source's name stands for as soon as that is known. Raises ArtifactError: what the source
    is refused for, DigestRequired, DigestMismatch, SourceChanged, SignatureInvalid, QuotaExceeded, VolumeFull,
    VolumeError. What the progress raises passes through; what was fetched by then stays for the next attempt.
    """
    require_digest(request.policy, request.digest, request.version)
    try:
        known = versions_of(volume.layout, request.adapter, request.version)
        same_entry = _of_entry(known, request.entry)
        before = _without_source(volume, request, known, same_entry)
        if before is not None:
            return before
        source = open_source(request.pin if same_entry is None or not same_entry.pin else same_entry.pin)
        listing = how.pace.again(source.listing, threading.Event())
        pinned(listing.pin)
        with place(listing, lambda: how.progress(0, None)):
            return _hashed_in_place(volume, request, known, source, listing, how) or _publish(
                volume, request, source, listing, how, now
            )
    except OSError as error:
        raise volume_error(error, f"{request.name} was published") from error


def _of_entry(known: tuple[Manifest, ...], entry: str) -> Manifest | None:
    """The latest version that this very entry of a spec was published as."""
    return max((one for one in known if entry and one.entry == entry), key=lambda one: one.id, default=None)


def _without_source(
    volume: Volume, request: Request, known: tuple[Manifest, ...], same_entry: Manifest | None
) -> Outcome | None:
    """The version if a digest or a pin says that it is published, so that its source need not be asked."""
    match = next((one for one in known if one.digest == request.digest), None)
    if request.digest is None and same_entry is not None and same_entry.source.get("scheme") != LOCAL:
        match = same_entry
    if match is None or not _proved(match, request):
        return None
    return _verified(volume, request, match.served_name)


def _hashed_in_place(
    volume: Volume, request: Request, known: tuple[Manifest, ...], source: Source, listing: Listing, how: How
) -> Outcome | None:
    """The version if the very bytes of a local source are published: read and hashed, not copied."""
    if not is_local(source) or request.digest is not None:
        return None
    sizes = {(file.path, file.size) for file in listing.files}
    if not any(sizes == {(file.path, file.size) for file in one.source_files} for one in known):
        return None
    meter = Meter(sum(file.size or 0 for file in listing.files), how.progress)
    found = digest(_hash(source, listing, meter))
    source.confirm(listing)
    match = next((one for one in known if one.digest == found and _proved(one, request)), None)
    return None if match is None else _verified(volume, request, match.served_name)


def _hash(source: Source, listing: Listing, meter: Meter) -> list[FileDigest]:
    files = []
    for file in listing.files:
        content, size = hashlib.sha256(), 0
        with closing(source.read(file, 0)) as chunks:  # type: ignore[type-var]
            for chunk in chunks:
                content.update(chunk)
                size += len(chunk)
                meter.add(len(chunk))
        files.append(FileDigest(file.path, size, content.hexdigest()))
    return files


def _publish(volume: Volume, request: Request, source: Source, listing: Listing, how: How, now: Clock) -> Outcome:
    layout, fs = volume.layout, volume.fs
    with attempt(layout, request.adapter, request.version, fs, resume=not is_local(source)) as one:
        fetched = fetch(volume, request, source, listing, one, how)
        served_name = names.served_name(request.adapter, request.version, fetched.digest)
        if _exists(layout.version_folder(served_name)):
            return _found(volume, request, served_name, fetched, one)
        files, converted = convert(request, fetched, one)
        info = check(one.tree, request.expectations, one.numbers)
        files = rewrite_config(one, request.model, files)
        for file in files:
            volume.blobs.give(file, one.tree / file.path)
        number = volume.new_id(request.min_id)
        manifest = new_manifest(number, request, source, fetched, info, files, converted, now())
        manifests.write(one.tree, manifest, fs)
        _make_durable(one)
        if _make_visible(layout, one.tree, manifest, fs):
            return Outcome(manifest, info)
        return _found(volume, request, served_name, fetched, one)


def new_manifest(
    number: int,
    request: Request,
    source: Source,
    fetched: Fetched,
    info: AdapterInfo,
    files: tuple[FileDigest, ...],
    converted: str | None,
    now: datetime,
) -> Manifest:
    """The manifest of a version. ``files``: as engines get them; ``converted``: the pickle that weights came from."""
    return Manifest(
        id=number,
        adapter=request.adapter,
        version=request.version,
        served_name=names.served_name(request.adapter, request.version, fetched.digest),
        digest=fetched.digest,
        base_model=info.base_model,
        model=request.model,
        rank=info.rank,
        target_modules=info.target_modules,
        dtype=info.dtype,
        min_engine=info.min_engine,
        size_bytes=sum(file.size for file in files),
        source=dict(source.describe()),
        pin=fetched.pin,
        entry=request.entry,
        converted=converted,
        has_no_effect=no_effect(info),
        verified_by=fetched.verified_by,
        trust=request.trust.fingerprint if request.trust else None,
        source_files=tuple(map(ManifestFile.of, fetched.files)),
        files=tuple(map(ManifestFile.of, files)),
        published_at=timestamp(now),
        published_by=f"lorafleet {__version__}",
    )


def _make_durable(one: Attempt) -> None:
    # All files at the end, because most of them are durable when the first is.
    for name in sorted(os.listdir(one.tree)):  # noqa: PTH208 - names
        one.fs.sync_file(one.tree / name)
    one.fs.sync_folder(one.tree)


def _found(volume: Volume, request: Request, served_name: str, fetched: Fetched, one: Attempt) -> Outcome:
    """A version that turned out to be published already; its manifest learns what was proved and asked now."""
    found = _verified(volume, request, served_name)
    learnt = {"pin": fetched.pin, "entry": request.entry or found.manifest.entry}
    if request.trust is not None:
        learnt |= {"verified_by": fetched.verified_by or "", "trust": request.trust.fingerprint}
    manifest = found.manifest.model_copy(update=learnt)
    if manifest != found.manifest:
        replace_manifest(volume.layout.version_folder(served_name), manifest, one)
    return Outcome(manifest, found.info)


def replace_manifest(folder: Path, manifest: Manifest, one: Attempt) -> None:
    """Put a manifest in the place of the one in a published folder, which is there at every moment. Raises OSError."""
    new = one.folder / "manifest"
    one.fs.make_folder(new)
    manifests.write(new, manifest, one.fs)
    one.fs.sync_file(new / names.MANIFEST_FILE)
    one.fs.rename(new / names.MANIFEST_FILE, folder / names.MANIFEST_FILE)
    one.fs.sync_folder(folder)


def _proved(manifest: Manifest, request: Request) -> bool:
    """Whether a published version has the signature that is asked for now, by what its manifest says."""
    return request.trust is None or (bool(manifest.verified_by) and manifest.trust == request.trust.fingerprint)


def _verified(volume: Volume, request: Request, served_name: str) -> Outcome:
    """A version that is there already, if it is whole and this fleet may still serve it."""
    # A digest is kept by reading every byte again.
    manifest = verify(volume.layout, served_name, deep=request.digest is not None)
    folder = volume.layout.version_folder(served_name)
    return Outcome(manifest, recheck(folder, manifest, request.expectations))


def _make_visible(layout: Layout, folder: Path, manifest: Manifest, fs: FileSystem) -> bool:
    """Rename the staged folder into ``serving/``; False when another job was first."""
    target = layout.version_folder(manifest.served_name)
    if target.parent.is_symlink():
        raise OSError(errno.ELOOP, f"{target.parent} is a link where a folder is expected")
    for _ in range(_RENAMES):
        try:
            with suppress(FileExistsError):
                fs.make_folder(target.parent)
                fs.sync_folder(layout.serving)
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
