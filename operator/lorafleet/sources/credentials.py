"""Which keys of a Secret an object store takes, by the names of the stores' own environment variables.

A list of what is taken, because other settings of the library would read files of the Job, ask metadata addresses, or
move the source to another bucket.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.secret import CA_KEY, Secret


@dataclass(frozen=True, slots=True)
class Store:
    """A kind of store. ``signing``: sets of keys, each of which is enough to sign. ``others``: further settings."""

    scheme: str
    endpoint_key: str
    signing: tuple[tuple[str, ...], ...]
    others: tuple[str, ...]

    @property
    def keys(self) -> frozenset[str]:
        """All keys that it takes."""
        return frozenset(self.others).union(*self.signing)

    @property
    def keys_text(self) -> str:
        """The sets of keys for people."""
        return ", or ".join(" and ".join(keys) for keys in self.signing)


STORES: Mapping[str, Store] = {
    "s3": Store(
        "s3",
        "aws_endpoint",
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),),
        (
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_REQUEST_PAYER",
            "AWS_S3_EXPRESS",
            "AWS_SERVER_SIDE_ENCRYPTION",
            "AWS_SSE_CUSTOMER_KEY_BASE64",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        ),
    ),
    "gs": Store("gs", "google_base_url", (("GOOGLE_SERVICE_ACCOUNT_KEY",), ("GOOGLE_BEARER_TOKEN",)), ()),
    "az": Store(
        "az",
        "azure_endpoint",
        (
            ("AZURE_STORAGE_ACCOUNT_KEY",),
            ("AZURE_STORAGE_SAS_TOKEN",),
            ("AZURE_STORAGE_TOKEN",),
            ("AZURE_STORAGE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_TENANT_ID"),
        ),
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_AUTHORITY_HOST"),
    ),
}


_LIBRARY_NAMES = {"AZURE_STORAGE_SAS_TOKEN": "azure_storage_sas_key"}


def credentials(store: Store, endpoint: str | None, secret: Secret) -> dict[str, str | bool]:
    """Settings for the library that reads a store. Raises ArtifactError (SecretInvalid, SourceInvalid)."""
    found: dict[str, str] = {}
    for key in secret.names():
        name = key.upper()
        if key == CA_KEY:
            continue
        if name not in store.keys:
            raise secret.invalid(
                f"has the key {key!r}, which sources of {store.scheme}:// do not take",
                f"remove it; expected {store.keys_text}, perhaps {', '.join(sorted({*store.others, CA_KEY}))}",
            )
        if name in found:
            raise secret.invalid(f"has the key {name} twice", "remove one")
        found[name] = secret.text(key) or ""
    for keys in store.signing:
        given = [key for key in keys if key in found]
        if given and len(given) < len(keys):
            missing = next(key for key in keys if key not in found)
            raise secret.invalid(f"has {given[0]} and no {missing}", f"add {missing}")
    config: dict[str, str | bool] = {_LIBRARY_NAMES.get(name, name.lower()): value for name, value in found.items()}
    if store.scheme == "az" and "AZURE_STORAGE_ACCOUNT_NAME" not in found:
        config["azure_storage_account_name"] = _account(endpoint)
    if not any(all(key in found for key in keys) for keys in store.signing):
        config["skip_signature"] = True
    return config


def _account(endpoint: str | None) -> str:
    """The storage account that an endpoint names: in its path, as emulators do, or as the first part of its host."""
    if endpoint is None:
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            "an az:// source needs the name of its storage account: put it under AZURE_STORAGE_ACCOUNT_NAME into a"
            " Secret, or set source.objectStore.endpoint to https://<account>.blob.core.windows.net",
        )
    parts = urlsplit(endpoint)
    return parts.path.strip("/").rpartition("/")[2] or (parts.hostname or "").partition(".")[0]
