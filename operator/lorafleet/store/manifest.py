"""``lorafleet.json``: the file in each published folder that says what the folder is.

It is the volume's own memory: with it a version is recognised, verified and listed without the cluster. Written once,
before the folder becomes visible. Holds no secret: engines and their users can read it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lorafleet.api.model import ApiModel, Digest, DnsName, VersionName
from lorafleet.api.names import MANIFEST_FILE
from lorafleet.artifacts.digest import FileDigest
from lorafleet.store.fs import FileSystem

MAX_MANIFEST_BYTES = 4 * 1024 * 1024


class ManifestFile(ApiModel):
    """One file: path relative to the folder, bytes, sha256 in hex."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, file: FileDigest) -> "ManifestFile":
        """The same file as the manifest writes it."""
        return cls(path=file.path, size=file.size, sha256=file.sha256)

    @property
    def as_digest(self) -> FileDigest:
        """The same file as digests are made of."""
        return FileDigest(self.path, self.size, self.sha256)


class Manifest(ApiModel):
    """What a published folder is. ``files`` are all files in it but this one; ``source_files`` what they came from."""

    schema_version: Literal[1] = 1
    id: Annotated[int, Field(ge=1)]
    adapter: DnsName
    version: VersionName
    served_name: str
    digest: Digest
    base_model: str
    """What the adapter called its base model before it was rewritten to ``model``."""
    model: str
    """The engines' ``--model`` string that the published ``adapter_config.json`` carries."""
    rank: Annotated[int, Field(ge=1)]
    target_modules: tuple[str, ...]
    dtype: str
    min_engine: str | None = None
    """The oldest vLLM that serves it as it was trained, when that is not any."""
    size_bytes: Annotated[int, Field(ge=0)]
    source: dict[str, str]
    pin: str = ""
    """What the source's moving name stood for."""
    entry: str = ""
    """The hash of the version's entry in the adapter's spec."""
    converted: str | None = None
    """The pickle among ``source_files`` that the safetensors file was made of."""
    verified_by: str | None = None
    """Who signed the source's files."""
    trust: str | None = None
    """A hash of the signatures that counted when ``verified_by`` was found."""
    has_no_effect: str | None = None
    """What was found when every number of the weights was looked at, if they have no effect."""
    source_files: tuple[ManifestFile, ...]
    files: tuple[ManifestFile, ...]
    published_at: str
    published_by: str


def read(folder: Path) -> Manifest:
    """The manifest of a published folder. Raises OSError, ValueError when it is none."""
    with (folder / MANIFEST_FILE).open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"{MANIFEST_FILE} has more than {MAX_MANIFEST_BYTES} bytes")
    return Manifest.model_validate_json(data)


def write(folder: Path, manifest: Manifest, fs: FileSystem) -> None:
    """Write the manifest into a folder that is not visible yet; not durable by itself. Raises OSError."""
    text = manifest.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    fs.write_file(folder / MANIFEST_FILE, (text.encode(), b"\n"), sync=False)
