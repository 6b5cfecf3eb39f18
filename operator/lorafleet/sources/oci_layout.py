"""Where an adapter's files are in an OCI artifact, by its manifest alone.

Tools disagree, so what each layer says of itself decides: layers that name a file (ORAS, ModelPack) are files, or
archives when they say so too; layers without a name (images, ModelKits) are archives, one tree in their order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE, Limits, Wanted, check_entries, select
from lorafleet.sources.base import Checksum, SourceFile
from lorafleet.sources.oci_client import INDEX_TYPES, MANIFEST_TYPES, Document
from lorafleet.sources.oci_reference import DIGEST

_TITLE = "org.opencontainers.image.title"
_FILE_PATH = "org.cncf.model.filepath"
_UNPACK = "io.deis.oras.content.unpack"
_MODEL_PACK = "application/vnd.cncf.model."
_EMPTY = "application/vnd.oci.empty.v1+json"
_ARCHIVE_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")
_ARCHIVES = re.compile(
    r"application/vnd\.(oci\.image\.layer\.v1\.tar"
    r"|docker\.image\.rootfs\.diff\.tar\.(gzip|zstd)"
    r"|kitops\.modelkit\.\w+\.v1\.tar"
    r"|cncf\.model\.[\w.]+\.v1\.tar)(\+gzip|\+zstd)?"
)
_NEVER = re.compile(r"application/vnd\.(kitops\.modelkit|cncf\.model)\.(code|dataset)\..*")
"""Parts of a model that cannot be an adapter and may be larger than everything else."""

_ELSEWHERE = re.compile(r".*\.(nondistributable|foreign)\..*")
_ATTESTATION = "vnd.docker.reference.type"
_LISTED = 8


@dataclass(frozen=True, slots=True)
class _Descriptor:
    digest: str
    size: int
    media_type: str
    annotations: Mapping[str, str]
    platform: str
    urls: bool

    @property
    def name(self) -> str:
        """The file or folder that the layer says it is, empty if it does not."""
        name = self.annotations.get(_FILE_PATH) or self.annotations.get(_TITLE) or ""
        return name.removeprefix("./")

    @property
    def archive(self) -> bool:
        """Whether files are in it, rather than it being one. The media type of ORAS for any file is that of a tar."""
        if self.media_type.startswith(_MODEL_PACK) or not self.name:
            return bool(_ARCHIVES.fullmatch(self.media_type)) or bool(_ELSEWHERE.fullmatch(self.media_type))
        return self.annotations.get(_UNPACK) == "true" or self.name.endswith(_ARCHIVE_NAMES)


def choose_manifest(index: Document, where: str) -> str:
    """The digest of the manifest that an index is for here: its only one, or that of linux/amd64.

    Attestations do not count. Raises ArtifactError (SourceInvalid).
    """
    if "layers" in index.content:
        raise _malformed(where)
    found = [
        item
        for item in _descriptors(index.content.get("manifests"), where)
        if _ATTESTATION not in item.annotations and item.platform != "unknown/unknown"
    ]
    chosen = found if len(found) == 1 else [item for item in found if item.platform == "linux/amd64"]
    if len(chosen) != 1:
        listed = ", ".join(f"{item.digest} ({item.platform or item.media_type})" for item in found[:_LISTED])
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} is an index of {len(found)} manifests ({listed or 'none'}); expected one, or one of"
            " linux/amd64: name the adapter's manifest by its digest in a new version",
        )
    if chosen[0].media_type not in MANIFEST_TYPES:
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} is an index whose manifest is a {chosen[0].media_type[:100]!r}; expected an image manifest:"
            " name the adapter's manifest by its digest in a new version",
        )
    return _fetchable(chosen[0], where).digest


def is_index(document: Document) -> bool:
    """Whether it lists manifests instead of layers."""
    return document.media_type in INDEX_TYPES


def files(manifest: Document, subfolder: str | None, wanted: Wanted, where: str) -> tuple[SourceFile, ...]:
    """What to fetch of a manifest: the adapter's files, or the archives that have them. Raises ArtifactError."""
    if manifest.media_type not in MANIFEST_TYPES or "manifests" in manifest.content:
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} is a {manifest.media_type[:100]!r}; expected an OCI or Docker image manifest, version 2: push"
            " the adapter with oras, kit, modctl or docker as a new version",
        )
    layers = [layer for layer in _descriptors(manifest.content.get("layers"), where) if layer.media_type != _EMPTY]
    check_entries(len(layers), wanted.limits)
    named = [layer for layer in layers if layer.name and not layer.archive]
    archives = [layer for layer in layers if layer.archive and not _NEVER.fullmatch(layer.media_type)]
    folder = _folder(named, subfolder, where)
    if folder is None and archives:
        _check_total(archives, wanted.limits, where)
        return tuple(_file(f"layer-{number:03}", layer, where, True) for number, layer in enumerate(archives))
    if not named:
        types = sorted({layer.media_type[:100] for layer in layers})[:_LISTED]
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} has no layer that can hold an adapter (found {', '.join(types) or 'no layers'}); expected files"
            " with names, or layers in tar: push the adapter with oras, kit, modctl or docker as a new version",
        )
    if folder is None:
        folder = f"{subfolder}/" if subfolder else ""
    inside = [(layer.name.removeprefix(folder), layer) for layer in named if layer.name.startswith(folder)]
    found = {name: layer for name, layer in inside if "/" not in name}
    chosen = select(((name, layer.size) for name, layer in found.items()), wanted, where)
    for name in chosen:
        if [other for other, _ in inside].count(name) > 1:
            raise ArtifactError(
                Reason.SOURCE_INVALID,
                f"{where} has two layers that are {name}: push it with one of them as a new version",
            )
    return tuple(_file(name, found[name], where, False) for name in chosen)


def _folder(named: Sequence[_Descriptor], subfolder: str | None, where: str) -> str | None:
    """The folder, with its slash, whose files with names are an adapter; None when there is no such folder."""
    if subfolder is not None:
        folder = f"{subfolder}/"
        return folder if any(layer.name == folder + CONFIG_FILE for layer in named) else None
    folders = {layer.name.removesuffix(CONFIG_FILE) for layer in named if f"/{layer.name}".endswith(f"/{CONFIG_FILE}")}
    if not folders:
        return None
    depth = min(folder.count("/") for folder in folders)
    shallowest = sorted(folder for folder in folders if folder.count("/") == depth)
    if len(shallowest) > 1:
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} has {CONFIG_FILE} in several folders ({', '.join(shallowest[:_LISTED])}); expected one adapter:"
            " name its folder as source.oci.subfolder in a new version",
        )
    return shallowest[0]


def _file(path: str, layer: _Descriptor, where: str, archive: bool) -> SourceFile:
    digest = _fetchable(layer, where).digest
    checksum = Checksum("sha256", digest.removeprefix("sha256:"))
    return SourceFile(path, layer.size, digest, digest, checksum, archive)


def _fetchable(layer: _Descriptor, where: str) -> _Descriptor:
    """Raises ArtifactError (SourceInvalid) for what we cannot fetch and check."""
    if layer.urls or _ELSEWHERE.fullmatch(layer.media_type):
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} needs the layer {layer.digest[:100]}, which is kept outside of the registry; nothing is fetched"
            " from elsewhere: push the adapter with all its layers as a new version",
        )
    if not DIGEST.fullmatch(layer.digest):
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} names content by {layer.digest[:100]!r}; only sha256 digests are checked here: push the adapter"
            " with sha256 digests as a new version",
        )
    return layer


def _check_total(archives: Sequence[_Descriptor], limits: Limits, where: str) -> None:
    total = sum(layer.size for layer in archives)
    if total > limits.max_bytes:
        raise ArtifactError(
            Reason.SIZE_LIMIT_EXCEEDED,
            f"{where} has {total} bytes in {len(archives)} layers; expected at most {limits.max_bytes}: this is more"
            " than a LoRA adapter needs: push the adapter alone; if it is that large, raise spec.artifacts.maxSize of"
            " the fleet",
        )


def _platform(platform: Any) -> str:
    if not isinstance(platform, dict):
        return ""
    return "/".join(str(platform[key])[:32] for key in ("os", "architecture", "variant") if platform.get(key))


def _descriptors(found: Any, where: str) -> Iterator[_Descriptor]:
    """The descriptors of a manifest or index, each as the specification wants it. Raises ArtifactError."""
    if not isinstance(found, list):
        raise _malformed(where)
    for entry in found:
        annotations = entry.get("annotations") or {} if isinstance(entry, dict) else None
        if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
            raise _malformed(where)
        digest, size, media_type = (entry.get(key) for key in ("digest", "size", "mediaType"))
        if not (isinstance(digest, str) and isinstance(media_type, str) and type(size) is int and size >= 0):
            raise _malformed(where)
        yield _Descriptor(
            digest, size, media_type, annotations, _platform(entry.get("platform")), bool(entry.get("urls"))
        )


def _malformed(where: str) -> ArtifactError:
    return ArtifactError(
        Reason.SOURCE_INVALID,
        f"{where} has a manifest without proper digests, sizes and media types: push it anew as a new version",
    )
