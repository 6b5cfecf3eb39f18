"""Put a published version right again, file by file, under its name and id.

Its source is fetched again and must have the very bytes that were published. A damaged file is replaced by a rename:
its path exists at every moment, for an engine that reads an adapter again and finds none dies (vLLM contract, rule 1).
Files that are whole are not touched.
"""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lorafleet.api import names
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import AdapterInfo, check
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store import manifest as manifests
from lorafleet.store.attempts import Attempt, attempt
from lorafleet.store.build import Fetched, How, Request, convert, fetch, is_local, rewrite_config
from lorafleet.store.fs import FOLDER_MODE, volume_error
from lorafleet.store.manifest import Manifest, ManifestFile
from lorafleet.store.publish import Clock, Open, Outcome, new_manifest, replace_manifest
from lorafleet.store.published import contradiction, differences, list_published, verify
from lorafleet.store.recheck import recheck
from lorafleet.store.transfer import place
from lorafleet.store.volume import Volume

_MAX_ID = 2**53
_ITSELF = ""


def repair(
    volume: Volume,
    request: Request,
    served_name: str,
    open_source: Open,
    *,
    how: How = How(),  # noqa: B008 - frozen
    pinned: Callable[[str], None] = lambda _: None,
    now: Clock = lambda: datetime.now(UTC),
) -> Outcome:
    """Repair a published version; nothing is fetched when nothing is wrong with it.

    Raises ArtifactError: what the source is refused for, DigestMismatch when it no longer has the bytes, VolumeError
    when the folder or its id is lost. What the progress raises passes through.
    """
    folder = volume.layout.version_folder(served_name)
    try:
        if not folder.is_dir() or folder.is_symlink():
            raise _lost(served_name, "is gone", "append the version under a new name")
        manifest = _manifest_of(folder, served_name)
        if manifest is not None and not _damage(folder, manifest):
            return Outcome(manifest, _info(folder, manifest, request))
        source = open_source(manifest.pin if manifest is not None and manifest.pin else request.pin)
        listing = how.pace.again(source.listing, threading.Event())
        pinned(listing.pin)
        with (
            place(listing, lambda: how.progress(0, None)),
            attempt(volume.layout, request.adapter, request.version, volume.fs, resume=not is_local(source)) as one,
        ):
            fetched = fetch(volume, request, source, listing, one, how)
            _require_same(served_name, manifest, fetched)
            files, converted = convert(request, fetched, one)
            if manifest is not None:
                whole, files = manifest, rewrite_config(one, manifest.model, files)
            else:
                number, info = _require_id(volume, served_name), check(one.tree, request.expectations)
                files = rewrite_config(one, request.model, files)
                whole = new_manifest(number, request, source, fetched, info, files, converted, now())
            if tuple(map(ManifestFile.of, files)) != whole.files:
                raise _lost(
                    served_name, "was made by another release in another way", "append the version under a new name"
                )
            _replace(volume, folder, whole, one)
            if manifest is None:
                replace_manifest(folder, whole, one)
        manifest = verify(volume.layout, served_name, deep=True)
        return Outcome(manifest, _info(folder, manifest, request))
    except OSError as error:
        raise volume_error(error, f"{served_name} was repaired") from error


def _info(folder: Path, manifest: Manifest, request: Request) -> AdapterInfo | None:
    """What the checks say of a version that is whole; None when the fleet would not take it any more."""
    try:
        return recheck(folder, manifest, request.expectations)
    except ArtifactError:
        return None


def _manifest_of(folder: Path, served_name: str) -> Manifest | None:
    """The manifest, if it can be believed."""
    try:
        manifest = manifests.read(folder)
    except (FileNotFoundError, ValueError):
        return None
    return None if contradiction(manifest, served_name) else manifest


def _damage(folder: Path, manifest: Manifest) -> dict[str, str]:
    found = dict(differences(folder, manifest, deep=True, hashes={}))
    if folder.stat().st_mode & FOLDER_MODE != FOLDER_MODE:
        found[_ITSELF] = "is closed"
    return found


def _require_same(served_name: str, manifest: Manifest | None, fetched: Fetched) -> None:
    digest12 = fetched.digest.removeprefix(names.DIGEST_PREFIX)[:12]
    if served_name.endswith(f"-{digest12}") and (manifest is None or manifest.digest == fetched.digest):
        return
    raise ArtifactError(
        Reason.DIGEST_MISMATCH,
        f"published folder {served_name} is damaged and its source has other bytes now ({fetched.digest}); expected"
        f" {manifest.digest if manifest else 'those of its name'}: restore the source's files, or append a new version"
        " and retire this one",
    )


def _replace(volume: Volume, folder: Path, manifest: Manifest, one: Attempt) -> None:
    fs = volume.fs
    fresh = {file.path: file.as_digest for file in manifest.files}
    if folder.stat().st_mode & FOLDER_MODE != FOLDER_MODE:
        fs.set_mode(folder, FOLDER_MODE)
    for name in _damage(folder, manifest):
        path = folder / name
        if name in fresh:
            new = one.tree / name
            volume.blobs.give(fresh[name], new)
            fs.sync_file(new)
            if path.is_dir() and not path.is_symlink():
                fs.rename(path, volume.layout.new_trash("stranger"))
            fs.rename(new, path)
        elif name not in (_ITSELF, names.MANIFEST_FILE):
            fs.rename(path, volume.layout.new_trash("stranger"))
    fs.sync_folder(folder)


def _require_id(volume: Volume, served_name: str) -> int:
    """The id that can still be read from what is left of a manifest. Raises ArtifactError."""
    number = _readable_id(volume, served_name)
    if number is None:
        raise _lost(
            served_name,
            f"has lost its {names.MANIFEST_FILE}, and with it the id under which engines know it",
            "append the same source as a new version and retire this one",
        )
    return number


def _readable_id(volume: Volume, served_name: str) -> int | None:
    """The id in a manifest that is not valid as a whole, if it was ever given and no other version has it."""
    try:
        with (volume.layout.version_folder(served_name) / names.MANIFEST_FILE).open("rb") as file:
            found = json.loads(file.read(manifests.MAX_MANIFEST_BYTES))
    except (OSError, ValueError):
        return None
    number = found.get("id") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number < _MAX_ID:
        return None
    others = {one.manifest.id for one in list_published(volume.layout) if one.manifest is not None}
    given = (volume.layout.ids / str(number)).exists()
    return number if given and number not in others else None


def _lost(served_name: str, what: str, move: str) -> ArtifactError:
    return ArtifactError(Reason.VOLUME_ERROR, f"published folder {served_name} {what}: {move}")
