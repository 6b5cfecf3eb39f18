"""Where the bytes of a version come from, as users write it. Exactly one scheme per version.

This release acts on ``volume`` only; the other schemes are accepted, so that manifests written for later releases
apply, and end in a condition that says so.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from lorafleet.api.model import ApiModel, ObjectName, rules

_Text = Annotated[str, Field(min_length=1, max_length=1024)]


class HuggingFaceSource(ApiModel):
    """A repository on a Hugging Face hub."""

    repo: Annotated[
        str,
        Field(max_length=256, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="The repository, as owner/name."),
    ]
    revision: Annotated[
        str, Field(min_length=1, max_length=256, description="A commit, tag or branch; resolved once.")
    ] = "main"
    subfolder: Annotated[
        str | None, Field(max_length=512, description="The folder of the repository that holds the adapter.")
    ] = None
    secret_name: Annotated[
        ObjectName | None,
        Field(description="A Secret of this namespace whose key `token` reads the repository."),
    ] = None


class ObjectStoreSource(ApiModel):
    """A folder in an object store."""

    url: Annotated[
        str,
        Field(
            max_length=1024,
            pattern=r"^(s3|gs|az)://.+$",
            description="The folder, such as s3://bucket/path/.",
        ),
    ]
    endpoint: Annotated[str | None, Field(max_length=512, description="The endpoint of an S3-compatible store.")] = None
    secret_name: Annotated[
        ObjectName | None, Field(description="A Secret of this namespace with the store's credentials.")
    ] = None


class OciSource(ApiModel):
    """An image or artifact in an OCI registry."""

    reference: Annotated[_Text, Field(description="The artifact, by tag or digest.")]
    pull_secret_name: Annotated[
        ObjectName | None, Field(description="A Secret of type kubernetes.io/dockerconfigjson.")
    ] = None


class HttpSource(ApiModel):
    """An archive behind an HTTP address."""

    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://.+$", description="The archive's address.")]
    sha256: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$", description="The archive's sha256, in hex.")]
    secret_name: Annotated[ObjectName | None, Field(description="A Secret of this namespace with headers to send.")] = (
        None
    )


class VolumeSource(ApiModel):
    """A folder on a claim of the adapter's namespace."""

    claim_name: Annotated[
        ObjectName | None,
        Field(description="The claim that holds the folder; the fleet's own claim when not set."),
    ] = None
    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            description="The adapter's folder on the claim, relative to its root, such as incoming/python/1.2.0.",
        ),
    ]

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.path.startsWith('/')",
                "path is relative to the root of the claim: remove the leading slash",
            ),
            (
                "!self.path.split('/').exists(p, p == '..')",
                "path stays inside the claim: remove the '..' parts",
            ),
        )
    )


class Source(ApiModel):
    """Where the bytes come from: exactly one of the schemes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.huggingFace), has(self.objectStore), has(self.oci), has(self.http),"
                " has(self.volume)].filter(x, x).size() == 1",
                "a source has exactly one of huggingFace, objectStore, oci, http, volume",
            )
        )
    )

    hugging_face: Annotated[HuggingFaceSource | None, Field(description="A repository on a Hugging Face hub.")] = None
    object_store: Annotated[ObjectStoreSource | None, Field(description="A folder in an object store.")] = None
    oci: Annotated[OciSource | None, Field(description="An image or artifact in an OCI registry.")] = None
    http: Annotated[HttpSource | None, Field(description="An archive behind an HTTP address.")] = None
    volume: Annotated[VolumeSource | None, Field(description="A folder on a claim of this namespace.")] = None

    @property
    def scheme(self) -> str:
        """The name of the scheme that is set, as users write it."""
        return next(iter(self.to_json()), "none")
