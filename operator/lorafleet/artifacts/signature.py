"""Is an adapter signed by whom the fleet trusts, file by file?

The signature is an OpenSSF model signature (``model.sig`` of the ``model_signing`` command): a sigstore bundle around
a manifest of names and hashes. The library verifies who signed the manifest; the manifest is compared here, because
the library would want every signed file to be there, and believes the signer's list of files to leave out. No network
is asked. Whatever the library raises means: not verified. Imported late: the library takes 0.7 s and 52 MiB.
"""

import contextlib
import datetime
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from model_signing._signing import sign_certificate, sign_ec_key, sign_sigstore, sign_sigstore_pb
from OpenSSL import crypto

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import CertificateTrust, SignatureTrust, SigstoreTrust
from lorafleet.artifacts.digest import CHUNK_BYTES, FileDigest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import SIGNATURE_FILE

_MAX_SIGNATURE_BYTES = 4 * 1024**2
_HASHERS: Mapping[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "blake2b": hashlib.blake2b,
    "blake3": blake3.blake3,
}


@dataclass(frozen=True, slots=True)
class _Part:
    """What the signer says of a file, or of one part of it: bytes ``start`` to ``end``, to its end when None."""

    start: int
    end: int | None
    algorithm: str
    digest: str


def verify(signature: bytes, files: Sequence[FileDigest], folder: Path, trust: SignatureTrust, trust_file: Path) -> str:
    """Who signed these files, for people.

    ``signature``: the content of ``model.sig``; ``files``: the adapter's files in ``folder``; ``trust_file``: the
    signer's public key, the authorities or the sigstore trust root. Signed files that are not among ``files`` do not
    count. Raises ArtifactError (SignatureInvalid), naming the first file or whose signature was expected; and OSError.
    """
    if len(signature) > _MAX_SIGNATURE_BYTES:
        raise _invalid(f"{SIGNATURE_FILE} has {len(signature)} bytes; expected at most {_MAX_SIGNATURE_BYTES}")
    with _as_file(signature) as path:
        if trust.certificate is not None:
            parts, signer = _by_certificate(path, trust.certificate, trust_file)
        elif trust.sigstore is not None:
            parts, signer = _by_sigstore(path, trust.sigstore, trust_file)
        else:
            parts, signer = _by_key(path, trust, trust_file)
    for file in sorted(files, key=lambda file: file.path):
        if file.path != SIGNATURE_FILE:
            _check_file(file, folder, parts.get(file.path, []), signer)
    return signer


def _by_key(path: Path, trust: SignatureTrust, trust_file: Path) -> tuple[dict[str, list[_Part]], str]:
    with _trust(trust, "an EC public key (P-256, P-384 or P-521) in PEM"):
        key = serialization.load_pem_public_key(trust_file.read_bytes())
        verifier = sign_ec_key.Verifier(trust_file)
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signer = f"key sha256:{hashlib.sha256(encoded).hexdigest()}"
    with _not_verified(f"a signature by {signer}"):
        return _parts(verifier.verify(sign_sigstore_pb.Signature.read(path))), signer


def _by_certificate(path: Path, trust: CertificateTrust, trust_file: Path) -> tuple[dict[str, list[_Part]], str]:
    with _trust(SignatureTrust(certificate=trust), "certificates of authorities in PEM"):
        authorities = x509.load_pem_x509_certificates(trust_file.read_bytes())
        verifier = sign_certificate.Verifier([trust_file])
    expected = f"a signature with a certificate of {trust.identity!r} from the given authorities"
    with _not_verified(expected):
        signature = sign_sigstore_pb.Signature.read(path)
        parts = _parts(verifier.verify(signature))
        carried = signature.bundle.verification_material.x509_certificate_chain
        raw = [certificate.raw_bytes for certificate in carried.certificates] if carried else []
        leaf, *between = [x509.load_der_x509_certificate(item) for item in raw]
        names = _names(leaf)
    if trust.identity not in names:
        raise _invalid(
            f"{SIGNATURE_FILE} is signed by {', '.join(map(repr, names[:5])) or 'nobody'}; expected {expected}"
        )
    _check_dates(leaf, expected)
    with _not_verified(expected):
        # The library looks at the chain as it was when the signer's certificate began, and there is no proof of when
        # it was signed, so only a chain that is valid now counts.
        store = crypto.X509Store()
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        chain = [crypto.X509.from_cryptography(certificate) for certificate in between]
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), chain).verify_certificate()
    return parts, f"{trust.identity} with certificate sha256:{leaf.fingerprint(hashes.SHA256()).hex()}"


def _by_sigstore(path: Path, trust: SigstoreTrust, trust_file: Path) -> tuple[dict[str, list[_Part]], str]:
    with _trust(SignatureTrust(sigstore=trust), "a sigstore ClientTrustConfig in JSON"):
        verifier = sign_sigstore.Verifier(identity=trust.identity, oidc_issuer=trust.issuer, trust_config=trust_file)
    signer = f"{trust.identity} by {trust.issuer}"
    with _not_verified(f"a sigstore signature of {signer}"):
        return _parts(verifier.verify(sign_sigstore.Signature.read(path))), signer


def _names(certificate: x509.Certificate) -> list[str]:
    """What a certificate calls its owner: alternative names, then common names."""
    names: list[str] = []
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        for kind in (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName):
            names += found.get_values_for_type(kind)
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return names + [str(attribute.value) for attribute in common]


def _check_dates(certificate: x509.Certificate, expected: str) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= datetime.datetime.now(datetime.UTC) <= end:
        raise _invalid(
            f"the certificate of {SIGNATURE_FILE} is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC and"
            f" not now; expected {expected} that is valid"
        )


def _parts(manifest: Any) -> dict[str, list[_Part]]:
    """The signed parts of each file. ``manifest`` is the library's, whose signature is good."""
    sharded = manifest.serialization_type["method"] == "shards"
    parts: dict[str, list[_Part]] = {}
    for item in manifest.resource_descriptors():
        name, start, end = item.identifier, 0, None
        if sharded:
            name, first, last = name.rsplit(":", 2)
            start, end = int(first), int(last)
        algorithm = item.digest.algorithm.partition("-sharded-")[0]
        part = _Part(start, end, algorithm, item.digest.digest_hex)
        parts.setdefault(str(PurePosixPath(name)), []).append(part)
    return parts


def _check_file(file: FileDigest, folder: Path, parts: list[_Part], signer: str) -> None:
    if file.path.startswith(".git"):
        raise _invalid(f"{file.path} is a file of git, which a model signature leaves out; expected only signed files")
    if not parts:
        raise _invalid(f"{file.path} is not among the files that are signed by {signer}; expected all files")
    end = 0
    for part in sorted(parts, key=lambda part: part.start):
        stop = file.size if part.end is None else part.end
        if part.start != end or not end <= stop <= file.size:
            raise _invalid(f"{file.path} has {file.size} bytes, which is not what is signed by {signer}")
        end = stop
        if _digest(file, folder, part, stop) != part.digest:
            raise _invalid(f"{file.path} is not the file that is signed by {signer}: its {part.algorithm} is another")
    if end != file.size:
        raise _invalid(f"{file.path} has {file.size} bytes, of which {end} are signed by {signer}")


def _digest(file: FileDigest, folder: Path, part: _Part, stop: int) -> str:
    if part.algorithm == "sha256" and (part.start, stop) == (0, file.size):
        return file.sha256
    if part.algorithm not in _HASHERS:
        raise _invalid(f"{file.path} is signed by its {part.algorithm[:40]!r}; expected {', '.join(_HASHERS)}")
    hasher = _HASHERS[part.algorithm]()
    with (folder / file.path).open("rb") as content:
        content.seek(part.start)
        left = stop - part.start
        while left and (data := content.read(min(left, CHUNK_BYTES))):
            hasher.update(data)
            left -= len(data)
    return str(hasher.hexdigest())


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """A path to these bytes, in memory: the library reads signatures from nowhere else."""
    descriptor = os.memfd_create(SIGNATURE_FILE)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _not_verified(expected: str) -> Iterator[None]:
    # The library prints warnings of what it tolerates.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        said = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise _invalid(f"{SIGNATURE_FILE} does not verify ({said}); expected {expected}") from None


@contextlib.contextmanager
def _trust(trust: SignatureTrust, expected: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        named = trust.config_map_ref
        raise ArtifactError(
            Reason.SIGNATURE_INVALID,
            f"key {named.key!r} of ConfigMap {named.name} cannot be used ({type(error).__name__}); expected {expected}:"
            " correct it, or the fleet's spec.verification.signature, and append a new version",
        ) from None


def _invalid(what: str) -> ArtifactError:
    return ArtifactError(
        Reason.SIGNATURE_INVALID,
        f"{what}: sign the adapter's own folder with `model_signing sign` and publish it as a new version, or correct"
        " the fleet's spec.verification.signature",
    )
