"""The entry of ``spec.versions`` that stands for what was inspected: pinned, and with nothing secret in it."""

import re
from pathlib import Path
from typing import Any

from lorafleet.api.names import short_digest
from lorafleet.api.sources import Source
from lorafleet.sources.remote import public

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_MOVING = ("main", "master", "latest")


def entry(source: Source | Path, pin: str, digest: str, archive_sha256: str | None = None) -> dict[str, Any]:
    """An entry with the digest as its pin; a moving name is replaced by what it stood for.

    For a path of this machine it names where the bytes could be: a folder of the fleet's claim, or an address.
    """
    name, where = _local(source, archive_sha256) if isinstance(source, Path) else _remote(source, pin)
    if not _NAME.fullmatch(name) or name in _MOVING:
        name = short_digest(digest)
    return {"name": name, "source": where, "digest": digest}


def _local(path: Path, archive_sha256: str | None) -> tuple[str, dict[str, Any]]:
    if archive_sha256 is None:
        return path.name, {"volume": {"path": path.resolve().name}}
    return "", {"http": {"url": f"https://files.example.org/{path.name}", "sha256": archive_sha256}}


def _remote(source: Source, pin: str) -> tuple[str, dict[str, Any]]:
    where = source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if source.hugging_face is not None:
        revision = source.hugging_face.revision
        where["huggingFace"]["revision"] = pin or revision
        return (revision[:12] if _COMMIT.fullmatch(revision) else revision), where
    if source.oci is not None:
        reference, _, _ = source.oci.reference.partition("@")
        where["oci"]["reference"] = f"{reference}@{pin}" if pin else source.oci.reference
        tag = reference.rpartition("/")[2].partition(":")[2]
        return tag, where
    if source.object_store is not None:
        return source.object_store.url.rstrip("/").rpartition("/")[2], where
    if source.http is not None:
        where["http"]["url"] = public(source.http.url)
    return "", where
