"""Where bytes come from: one file per scheme behind one Protocol."""

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source as SourceSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted
from lorafleet.sources.base import Checksum, Chunk, Listing, Place, Source, SourceFile
from lorafleet.sources.secret import Secret

__all__ = ["Checksum", "Chunk", "Listing", "Place", "Source", "SourceFile", "open_source"]


def open_source(spec: SourceSpec, place: Place, wanted: Wanted, pin: str | None = None) -> Source:
    """The source that a version's entry names; ``pin`` is what its moving name stood for when it was first asked.

    Each scheme is imported when it is used: its library costs start-up time and memory. Raises ArtifactError
    (SourceNotSupported, SecretInvalid).
    """
    if spec.volume is not None and place.claim is not None:
        from lorafleet.sources.volume import VolumeSource

        return VolumeSource(place.claim, spec.volume.path, wanted)
    if spec.object_store is not None:
        from lorafleet.sources.object_store import ObjectStoreSource

        return ObjectStoreSource(spec.object_store, _secret(spec, place), wanted, pin)
    if spec.hugging_face is not None:
        from lorafleet.sources.hugging_face import HuggingFaceSource

        return HuggingFaceSource(spec.hugging_face, _secret(spec, place), wanted, pin)
    if spec.oci is not None:
        from lorafleet.sources.oci import OciSource

        return OciSource(spec.oci, _secret(spec, place), wanted, pin)
    if spec.http is not None:
        from lorafleet.sources.http import HttpSource

        return HttpSource(spec.http, _secret(spec, place), wanted)
    raise ArtifactError(
        Reason.SOURCE_NOT_SUPPORTED,
        f"source {spec.scheme} is not supported by this release of the sync Job: upgrade lorafleet, or copy the adapter"
        " to a claim and use source.volume",
    )


def _secret(spec: SourceSpec, place: Place) -> Secret:
    return Secret(spec.secret_name or "", place.secret)
