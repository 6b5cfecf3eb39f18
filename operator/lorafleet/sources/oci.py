"""An image or artifact in an OCI registry, by tag or digest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import OciSource as OciSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted
from lorafleet.sources.base import Chunk, Listing, SourceFile
from lorafleet.sources.oci_client import Document, Registry
from lorafleet.sources.oci_layout import choose_manifest, files, is_index
from lorafleet.sources.oci_reference import Reference, parse_reference
from lorafleet.sources.remote import check_subfolder
from lorafleet.sources.secret import Secret


@dataclass(frozen=True, slots=True)
class OciSource:
    """What ``spec`` names; ``pin`` is the digest of the manifest or index that its tag was when it was first asked."""

    spec: OciSpec
    secret: Secret
    wanted: Wanted
    pin: str | None = None
    _reference: Reference = field(init=False)
    _registry: Registry = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises ArtifactError (SecretInvalid, SourceInvalid)."""
        check_subfolder(self.spec.subfolder, self._where)
        reference = parse_reference(self.spec.reference)
        object.__setattr__(self, "_reference", reference)
        object.__setattr__(self, "_registry", Registry(reference, self.spec.plain_http, self.secret))

    def describe(self) -> Mapping[str, str]:
        """Scheme, reference, and folder if it is named."""
        folder = {"subfolder": self.spec.subfolder} if self.spec.subfolder else {}
        return {"scheme": "oci", "reference": self.spec.reference, **folder}

    def listing(self) -> Listing:
        """The adapter's files, or the layers that have them in tar. Raises ArtifactError."""
        named = self._named()
        manifest = named
        if is_index(named):
            manifest = self._registry.manifest(choose_manifest(named, self._where), self._where)
        return Listing(named.digest, files(manifest, self.spec.subfolder, self.wanted, self._where))

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of one layer. Raises ArtifactError."""
        yield from self._registry.blob(file.locator, start, file.size, f"{file.path} of {self._where}")

    def confirm(self, listing: Listing) -> None:
        """Nothing: what a digest names does not change, and each layer's digest was checked."""

    def _named(self) -> Document:
        try:
            return self._registry.manifest(self.pin or self._reference.name, self._where)
        except ArtifactError as error:
            if error.reason is not Reason.SOURCE_NOT_FOUND or not self.pin or self._reference.digest:
                raise
            raise ArtifactError(
                Reason.SOURCE_NOT_FOUND,
                f"{self._where} no longer has the manifest {self.pin}, which its tag named when this version was first"
                " fetched: push that one again, or append a new version for what the tag names now",
            ) from None

    @property
    def _where(self) -> str:
        return f"source {self.spec.reference}"
