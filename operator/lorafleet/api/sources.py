"""Where the bytes of a version come from, as users write it. Exactly one scheme per version.

These very models travel in the plan of a sync Job, so nothing secret has a field here: a secret is a name, and its
keys are files in the Job alone.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from lorafleet.api.model import ApiModel, ObjectName, rules

_Text = Annotated[str, Field(min_length=1, max_length=1024)]
_Sha256 = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
_Endpoint = Annotated[str, Field(max_length=512, pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$")]
_Subfolder = Annotated[
    str, Field(min_length=1, max_length=512, pattern=r"^[^/\s][^\s]*$", description="A folder, relative to the root.")
]
_NO_PARENTS = (
    "!has(self.subfolder) || !self.subfolder.split('/').exists(p, p == '..' || p == '')",
    "subfolder is relative and stays inside: remove the '..' and empty parts",
)


class HuggingFaceSource(ApiModel):
    """A repository on a Hugging Face hub."""

    model_config = ConfigDict(json_schema_extra=rules(_NO_PARENTS))

    repo: Annotated[
        str,
        Field(max_length=256, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="The repository, as owner/name."),
    ]
    revision: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            pattern=r"^[\w./-]+$",
            description="A commit, tag or branch; resolved once.",
        ),
    ] = "main"
    subfolder: Annotated[
        _Subfolder | None, Field(description="The folder of the repository that holds the adapter.")
    ] = None
    endpoint: Annotated[
        _Endpoint | None, Field(description="A mirror of the hub, as HF_ENDPOINT; the public hub when not set.")
    ] = None
    secret_name: Annotated[
        ObjectName | None,
        Field(
            description="A Secret of this namespace: its key `token` reads the repository, `ca.crt` holds the"
            " certificate authorities of a mirror."
        ),
    ] = None


class ObjectStoreSource(ApiModel):
    """A folder in an object store."""

    url: Annotated[
        str,
        Field(
            max_length=1024,
            pattern=r"^(s3|gs|az)://[^/?#@\s]+(/[^?#\s]*)?$",
            description="The folder, such as s3://bucket/path/.",
        ),
    ]
    endpoint: Annotated[
        _Endpoint | None, Field(description="The endpoint of a compatible store, such as http://minio.minio:9000.")
    ] = None
    region: Annotated[
        str | None, Field(max_length=64, pattern=r"^[a-z0-9-]+$", description="The region of an s3:// bucket.")
    ] = None
    secret_name: Annotated[
        ObjectName | None,
        Field(
            description="A Secret of this namespace with the store's credentials, its keys named as the store's own"
            " environment variables (AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT_KEY, AZURE_STORAGE_ACCOUNT_KEY, …), and"
            " `ca.crt`. Without it the store is read anonymously."
        ),
    ] = None


class OciSource(ApiModel):
    """An image or artifact in an OCI registry."""

    model_config = ConfigDict(json_schema_extra=rules(_NO_PARENTS))

    reference: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            # Not \w, which is ten milliseconds of Unicode each time lorafleet starts.
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]+)?/[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
            r"(@sha256:[0-9a-f]{64})?$",
            description="The artifact with its registry, by tag or digest, such as ghcr.io/acme/python-lora:1.2.0.",
        ),
    ]
    subfolder: Annotated[_Subfolder | None, Field(description="The folder of the artifact that holds the adapter.")] = (
        None
    )
    plain_http: Annotated[
        bool, Field(description="Speak HTTP instead of HTTPS to the registry; for one inside the cluster.")
    ] = False
    pull_secret_name: Annotated[
        ObjectName | None,
        Field(description="A Secret of type kubernetes.io/dockerconfigjson; `ca.crt` in it is trusted too."),
    ] = None


class HttpFile(ApiModel):
    """One file of a list of files."""

    path: Annotated[
        str, Field(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="The file's name.")
    ]
    sha256: Annotated[_Sha256, Field(description="The file's sha256, in hex.")]


class HttpSource(ApiModel):
    """An archive, or a list of files, behind an HTTP address."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.sha256) != (has(self.files) && self.files.size() > 0)",
                "an http source has either sha256, of an archive, or files, each with its own sha256",
            ),
            _NO_PARENTS,
        )
    )

    url: Annotated[
        str,
        Field(
            max_length=2048,
            pattern=r"^https?://[^/?#@\s]+(/[^#\s]*)?$",
            description="The address of an archive (tar, tar.gz, tar.zst, zip), or of the folder that holds `files`.",
        ),
    ]
    sha256: Annotated[_Sha256 | None, Field(description="The archive's sha256, in hex.")] = None
    files: Annotated[
        tuple[HttpFile, ...],
        Field(
            max_length=64,
            description="The adapter's files below the address.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["path"]},
        ),
    ] = ()
    subfolder: Annotated[_Subfolder | None, Field(description="The folder of the archive that holds the adapter.")] = (
        None
    )
    secret_name: Annotated[
        ObjectName | None,
        Field(description="A Secret of this namespace: each key is a header to send, but `ca.crt`, which is trusted."),
    ] = None


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
    http: Annotated[HttpSource | None, Field(description="An archive or files behind an HTTP address.")] = None
    volume: Annotated[VolumeSource | None, Field(description="A folder on a claim of this namespace.")] = None

    @property
    def scheme(self) -> str:
        """The name of the scheme that is set, as users write it."""
        return next(iter(self.to_json()), "none")

    @property
    def secret_name(self) -> str | None:
        """The Secret of the namespace that reading the source takes, whatever the scheme calls it."""
        if self.oci is not None:
            return self.oci.pull_secret_name
        keyed = self.hugging_face or self.object_store or self.http
        return keyed.secret_name if keyed is not None else None
