"""What a version must prove before it is published: a digest, or a signature that counts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import SignatureTrust, VerificationPolicy
from lorafleet.artifacts.digest import FileDigest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import SIGNATURE_FILE


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count, and the file with their key, authorities or trust root."""

    spec: SignatureTrust
    file: Path

    @property
    def fingerprint(self) -> str:
        """Text that is another when other signatures count. Raises ArtifactError (SignatureInvalid)."""
        try:
            content = self.file.read_bytes()
        except OSError as error:
            named = self.spec.config_map_ref
            raise ArtifactError(
                Reason.SIGNATURE_INVALID,
                f"key {named.key!r} of ConfigMap {named.name} cannot be read ({error.strerror}); the fleet's"
                " spec.verification.signature names it: create it, and append a new version",
            ) from None
        return hashlib.sha256(self.spec.model_dump_json(exclude_none=True).encode() + b"\0" + content).hexdigest()[:16]


def require_digest(policy: VerificationPolicy, digest: str | None, version: str) -> None:
    """Refuse a version without a digest where the fleet asks for one. Raises ArtifactError (DigestRequired)."""
    if policy is VerificationPolicy.DIGEST and digest is None:
        raise ArtifactError(
            Reason.DIGEST_REQUIRED,
            f"version {version} has no digest and the fleet's spec.verification takes only pinned versions: append a"
            " new version with the digest of its files",
        )


def verify_signature(folder: Path, files: Sequence[FileDigest], trust: Trust) -> str:
    """Who signed the files that were fetched into a folder. Raises ArtifactError (SignatureInvalid), OSError."""
    # Late: its library takes most of a second to import.
    from lorafleet.artifacts.signature import verify

    return verify((folder / SIGNATURE_FILE).read_bytes(), files, folder, trust.spec, trust.file)
