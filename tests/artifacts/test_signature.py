"""Whose signatures count, and for which files; all signatures are made by the library or by a sigstore of our own."""

import base64
import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf import json_format
from model_signing import hashing, signing
from model_signing._signing import signing as payloads

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import SignatureTrust
from lorafleet.artifacts.digest import FileDigest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.signature import verify
from tests.adapters import adapter
from tests.artifacts.signers import DAY, NOW, Authority, Key, Sigstore, der, new_key, pem, private_pem, public, written

REF = {"name": "trust", "key": "trust.pem"}
BY_KEY = SignatureTrust.model_validate({"publicKey": REF})
MAIL, ISSUER = "release@acme.example", "https://accounts.acme.example"
BY_SIGSTORE = SignatureTrust.model_validate({"sigstore": {"identity": MAIL, "issuer": ISSUER, "trustConfig": REF}})
KEY = new_key()
ROOT = Authority()
SIGSTORE = Sigstore()


def by_certificate(identity: str = MAIL) -> SignatureTrust:
    return SignatureTrust.model_validate({"certificate": {"identity": identity, "authorities": REF}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return adapter(tmp_path / "adapter", files={"README.md": b"# An adapter\n", "training_args.bin": b"x" * 5000})


def config(folder: Path, **arguments: Any) -> signing.Config:
    left_out = [folder / "model.sig", *arguments.pop("left_out", [])]
    shards = "shard_size" in arguments
    hashed = hashing.Config()
    hashed = (hashed.use_shard_serialization if shards else hashed.use_file_serialization)(**arguments)
    return signing.Config().set_hashing_config(hashed.set_ignored_paths(paths=left_out, ignore_git_paths=True))


def sign_by_key(folder: Path, key: Key = KEY, **arguments: Any) -> bytes:
    pem_file = written(folder.parent, "private.pem", private_pem(key))
    target = folder.parent / "signature"
    config(folder, **arguments).use_elliptic_key_signer(private_key=pem_file).sign(folder, target)
    return target.read_bytes()


def sign_by_certificate(folder: Path, key: Key, certificate: x509.Certificate, *chain: x509.Certificate) -> bytes:
    target = folder.parent / "signature"
    chain = chain or (ROOT.certificate,)  # The library cannot sign without.
    config(folder).use_certificate_signer(
        private_key=written(folder.parent, "private.pem", private_pem(key)),
        signing_certificate=written(folder.parent, "certificate.pem", pem(certificate)),
        certificate_chain=[written(folder.parent, f"{number}.pem", pem(item)) for number, item in enumerate(chain)],
    ).sign(folder, target)
    return target.read_bytes()


def sign_by_sigstore(folder: Path, sigstore: Sigstore = SIGSTORE, identity: str = MAIL, **more: Any) -> bytes:
    hashed = hashing.Config().set_ignored_paths(paths=[folder / "model.sig"], ignore_git_paths=True).hash(folder)
    payload = json_format.MessageToJson(payloads.Payload(hashed).statement.pb).encode()
    return sigstore.sign(payload, identity, more.pop("issuer", ISSUER), **more)


def fetched(
    folder: Path, names: Iterable[str] = ("README.md", "adapter_config.json", "adapter_model.safetensors")
) -> tuple[FileDigest, ...]:
    return tuple(hash_file(folder, name) for name in names)


def signer(folder: Path, signature: bytes, trust: SignatureTrust = BY_KEY, given: bytes | None = None) -> str:
    trust_file = written(folder.parent, "trust", public(KEY) if given is None else given)
    return verify(signature, fetched(folder), folder, trust, trust_file)


def refused(folder: Path, signature: bytes, trust: SignatureTrust = BY_KEY, given: bytes | None = None) -> str:
    with pytest.raises(ArtifactError) as caught:
        signer(folder, signature, trust, given)
    assert caught.value.reason is Reason.SIGNATURE_INVALID
    assert len(caught.value.message) < 1200
    return caught.value.message


# Files.


def test_files_that_are_signed_are_verified_and_signed_files_that_were_not_fetched_do_not_count(folder: Path) -> None:
    signature = sign_by_key(folder)
    (folder / "training_args.bin").unlink()
    assert signer(folder, signature).startswith("key sha256:")


_HASHES: list[dict[str, Any]] = [
    {"hashing_algorithm": "sha256"},
    {"hashing_algorithm": "blake2"},
    {"hashing_algorithm": "blake3"},
    {"hashing_algorithm": "sha256", "shard_size": 100},
    {"hashing_algorithm": "blake2", "shard_size": 64},
    {"hashing_algorithm": "sha256", "shard_size": 10**9},
]


@pytest.mark.parametrize("arguments", _HASHES, ids=str)
def test_every_way_of_the_signer_to_hash_is_verified(folder: Path, arguments: dict[str, Any]) -> None:
    signature = sign_by_key(folder, **arguments)
    assert signer(folder, signature)
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert refused(folder, signature).startswith("adapter_model.safetensors is not the file that is signed by key ")
    for other in (content[:-1], content[:100], content + b"x", b""):
        weights.write_bytes(other)
        assert refused(folder, signature).startswith("adapter_model.safetensors ")


def test_every_byte_of_a_file_must_be_signed(folder: Path) -> None:
    def signed_without(left_out: str) -> bytes:
        statement = json.loads(_payload(sign_by_key(folder, shard_size=1000)))
        kept = [item for item in statement["predicate"]["resources"] if not item["name"].startswith(left_out)]
        statement["predicate"]["resources"] = kept
        root = hashlib.sha256(b"".join(bytes.fromhex(item["digest"]) for item in kept)).hexdigest()
        statement["subject"][0]["digest"]["sha256"] = root
        return SIGSTORE.sign(json.dumps(statement).encode(), MAIL, ISSUER)

    size = (folder / "adapter_model.safetensors").stat().st_size
    assert size > 1000
    assert signer(folder, signed_without("training_args.bin"), BY_SIGSTORE, trust_root())
    for part in ("0:", "1000:", f"{size // 1000 * 1000}:"):
        message = refused(folder, signed_without(f"adapter_model.safetensors:{part}"), BY_SIGSTORE, trust_root())
        assert message.startswith(f"adapter_model.safetensors has {size} bytes")


def test_the_first_of_several_wrong_files_is_named(folder: Path) -> None:
    signature = sign_by_key(folder)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).write_bytes(b"other")
    assert refused(folder, signature).startswith("adapter_config.json ")


def test_a_file_that_is_not_signed_is_refused(folder: Path) -> None:
    (folder / "README.md").unlink()
    signature = sign_by_key(folder)
    (folder / "README.md").write_bytes(b"added later")
    assert refused(folder, signature).startswith("README.md is not among the files that are signed")


def test_a_file_that_the_signer_left_out_is_refused(folder: Path) -> None:
    signature = sign_by_key(folder, left_out=[folder / "adapter_model.safetensors"])
    assert refused(folder, signature).startswith("adapter_model.safetensors is not among")


def test_the_signature_of_the_folder_above_is_not_that_of_the_adapter(folder: Path) -> None:
    above = folder.parent / "repository"
    above.mkdir()
    folder.rename(above / "adapter")
    signature = sign_by_key(above)
    assert "is not among" in refused(above / "adapter", signature)


def test_the_signature_of_another_adapter_is_refused(folder: Path) -> None:
    other = adapter(folder.parent / "other", seed=5, files={"README.md": b"# An adapter\n"})
    assert refused(folder, sign_by_key(other)).startswith("adapter_model.safetensors ")


def test_files_of_git_are_refused(folder: Path) -> None:
    signature = sign_by_key(folder)
    (folder / ".gitattributes").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="file of git"):
        verify(signature, fetched(folder, [".gitattributes"]), folder, BY_KEY, written(folder.parent, "t", public(KEY)))


def test_a_disk_that_fails_is_no_wrong_signature(folder: Path) -> None:
    signature = sign_by_key(folder, hashing_algorithm="blake2")
    files = fetched(folder)
    (folder / "README.md").unlink()
    with pytest.raises(OSError):
        verify(signature, files, folder, BY_KEY, written(folder.parent, "trust", public(KEY)))


# Keys.


def test_another_key_is_refused(folder: Path) -> None:
    message = refused(folder, sign_by_key(folder, new_key()))
    assert "expected a signature by key sha256:" in message


def test_the_fingerprint_is_that_of_openssl(folder: Path) -> None:
    expected = hashlib.sha256(public(KEY, serialization.Encoding.DER)).hexdigest()
    assert signer(folder, sign_by_key(folder)) == f"key sha256:{expected}"


def test_a_hint_of_the_right_key_does_not_help_another(folder: Path) -> None:
    bundle = json.loads(sign_by_key(folder, new_key()))
    right = json.loads(sign_by_key(folder))
    bundle["verificationMaterial"] = right["verificationMaterial"]
    assert "InvalidSignature" in refused(folder, json.dumps(bundle).encode())


def test_a_changed_manifest_is_refused(folder: Path) -> None:
    bundle = json.loads(sign_by_key(folder))
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement + b" ").decode()
    assert "does not verify" in refused(folder, json.dumps(bundle).encode())


_NO_KEYS: dict[str, bytes] = {
    "nothing": b"",
    "text": b"-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n",
    "a private key": private_pem(KEY),
    "an RSA key": rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
}


@pytest.mark.parametrize("given", _NO_KEYS.values(), ids=_NO_KEYS)
def test_a_key_that_is_none_is_said_to_be_the_config_maps(folder: Path, given: bytes) -> None:
    message = refused(folder, sign_by_key(folder), given=given)
    assert message.startswith("key 'trust.pem' of ConfigMap trust cannot be used")
    assert "PRIVATE" not in message


def test_a_config_map_that_is_not_mounted_is_named(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="ConfigMap trust cannot be used"):
        verify(sign_by_key(folder), fetched(folder), folder, BY_KEY, folder / "nothing")


# Certificates.


def certified(folder: Path, authority: Authority = ROOT, *between: Authority, **more: Any) -> bytes:
    key = new_key()
    names = more.pop("names", (x509.RFC822Name(MAIL),))
    certificate = authority.sign(authority.issue(key, more.pop("common_name", "Release"), *names, **more))
    return sign_by_certificate(folder, key, certificate, *(item.certificate for item in between))


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ([x509.RFC822Name(MAIL)], MAIL),
        ([x509.UniformResourceIdentifier("https://ci.acme.example/release")], "https://ci.acme.example/release"),
        ([x509.DNSName("release.acme.example"), x509.RFC822Name("x@y.example")], "release.acme.example"),
        ([], "Release"),
    ],
)
def test_a_certificate_of_the_identity_is_verified(folder: Path, names: list[x509.GeneralName], identity: str) -> None:
    signature = certified(folder, names=names)
    found = signer(folder, signature, by_certificate(identity), pem(ROOT.certificate))
    assert found.startswith(f"{identity} with certificate sha256:")


def test_an_intermediate_authority_may_come_with_the_signature(folder: Path) -> None:
    between = Authority("Acme Signing CA", issuer=ROOT)
    signature = certified(folder, between, between)
    assert signer(folder, signature, by_certificate(), pem(ROOT.certificate))
    assert "does not verify" in refused(folder, certified(folder, between), by_certificate(), pem(ROOT.certificate))


@pytest.mark.parametrize("identity", ["other@acme.example", "acme.example", "release@acme.example.evil", "RELEASE"])
def test_another_subject_of_the_same_authority_is_refused(folder: Path, identity: str) -> None:
    message = refused(folder, certified(folder), by_certificate(identity), pem(ROOT.certificate))
    assert f"is signed by '{MAIL}', 'Release'" in message
    assert repr(identity) in message


def test_another_authority_of_the_same_name_is_refused(folder: Path) -> None:
    assert "does not verify" in refused(folder, certified(folder, Authority()), by_certificate(), pem(ROOT.certificate))


def test_an_authority_that_comes_with_the_signature_is_not_trusted(folder: Path) -> None:
    other = Authority("Evil CA")
    message = refused(folder, certified(folder, other, other), by_certificate(), pem(ROOT.certificate))
    assert "does not verify" in message


def test_a_certificate_that_signs_itself_is_refused(folder: Path) -> None:
    key = new_key()
    alone = Authority("Release", key=key)
    certificate = alone.sign(alone.issue(key, "Release", x509.RFC822Name(MAIL)))
    refused(folder, sign_by_certificate(folder, key, certificate), by_certificate(), pem(ROOT.certificate))


@pytest.mark.parametrize(("start", "end"), [(NOW - 9 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY)])
def test_a_certificate_that_is_not_valid_now_is_refused(folder: Path, start: Any, end: Any) -> None:
    """The library takes it: it looks at the chain at the first moment of the certificate."""
    message = refused(folder, certified(folder, start=start, end=end), by_certificate(), pem(ROOT.certificate))
    assert "and not now" in message


def test_an_authority_that_is_not_valid_now_is_refused(folder: Path) -> None:
    old = Authority(start=NOW - 900 * DAY, end=NOW - DAY / 24)
    message = refused(folder, certified(folder, old), by_certificate(), pem(old.certificate))
    assert "expired" in message


def test_a_certificate_that_is_not_for_signatures_is_refused(folder: Path) -> None:
    signature = certified(folder, signing=False)
    assert "cannot be used for signing" in refused(folder, signature, by_certificate(), pem(ROOT.certificate))


def test_an_empty_chain_is_refused(folder: Path) -> None:
    bundle = json.loads(certified(folder))
    bundle["verificationMaterial"]["x509CertificateChain"]["certificates"] = []
    refused(folder, json.dumps(bundle).encode(), by_certificate(), pem(ROOT.certificate))


@pytest.mark.parametrize("given", [b"", b"nonsense", public(KEY)])
def test_no_authorities_are_not_those_of_the_web(folder: Path, given: bytes) -> None:
    message = refused(folder, certified(folder), by_certificate(), given)
    assert message.startswith("key 'trust.pem' of ConfigMap trust cannot be used")


def test_files_count_for_certificates_too(folder: Path) -> None:
    signature = certified(folder)
    (folder / "README.md").write_bytes(b"other")
    assert refused(folder, signature, by_certificate(), pem(ROOT.certificate)).startswith("README.md is not the file")


# Sigstore.


def trust_root(sigstore: Sigstore = SIGSTORE) -> bytes:
    return sigstore.trust_config().encode()


def test_an_identity_of_a_sigstore_is_verified_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> None:
        raise AssertionError("asks the network")

    monkeypatch.setattr("socket.socket.connect", closed)
    monkeypatch.setattr("socket.getaddrinfo", closed)
    signature = sign_by_sigstore(folder)
    assert signer(folder, signature, BY_SIGSTORE, trust_root()) == f"{MAIL} by {ISSUER}"
    (folder / "README.md").write_bytes(b"other")
    assert refused(folder, signature, BY_SIGSTORE, trust_root()).startswith("README.md is not the file")


def test_another_identity_or_issuer_of_the_same_sigstore_is_refused(folder: Path) -> None:
    for signature in (
        sign_by_sigstore(folder, identity="other@acme.example"),
        sign_by_sigstore(folder, issuer="https://accounts.evil.example"),
    ):
        message = refused(folder, signature, BY_SIGSTORE, trust_root())
        assert f"expected a sigstore signature of {MAIL} by {ISSUER}" in message


@pytest.mark.parametrize("part", ["authority", "promises", "log"])
def test_each_part_of_another_sigstore_is_refused(folder: Path, part: str) -> None:
    mixed = Sigstore(
        **(
            {"authority": SIGSTORE.authority, "promises": SIGSTORE.promises, "log": SIGSTORE.log}
            | {part: getattr(Sigstore(), part)}
        )
    )
    assert "does not verify" in refused(folder, sign_by_sigstore(folder, mixed), BY_SIGSTORE, trust_root())
    assert signer(folder, sign_by_sigstore(folder, mixed), BY_SIGSTORE, trust_root(mixed))


@pytest.mark.parametrize(("start", "end"), [(NOW - DAY, NOW - DAY / 24), (NOW + DAY / 24, NOW + DAY)])
def test_a_certificate_of_sigstore_that_was_not_valid_when_logged_is_refused(
    folder: Path, start: Any, end: Any
) -> None:
    refused(folder, sign_by_sigstore(folder, start=start, end=end), BY_SIGSTORE, trust_root())


_CHANGES: dict[str, Any] = {
    "no entry of the log": lambda bundle: bundle["verificationMaterial"].update(tlogEntries=[]),
    "no promise": lambda bundle: bundle["verificationMaterial"]["tlogEntries"][0].pop("inclusionPromise"),
    "no proof": lambda bundle: bundle["verificationMaterial"]["tlogEntries"][0].pop("inclusionProof"),
    "another time": lambda bundle: bundle["verificationMaterial"]["tlogEntries"][0].update(integratedTime="1"),
    "no signature": lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
    "no envelope": lambda bundle: bundle.pop("dsseEnvelope"),
    "another version": lambda bundle: bundle.update(mediaType="application/vnd.dev.sigstore.bundle.v9+json"),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_bundle_of_sigstore_that_lacks_a_part_is_refused(folder: Path, change: Any) -> None:
    bundle = json.loads(sign_by_sigstore(folder))
    change(bundle)
    assert "does not verify" in refused(folder, json.dumps(bundle).encode(), BY_SIGSTORE, trust_root())


@pytest.mark.parametrize("given", [b"", b"{}", b"nonsense", public(KEY)])
def test_a_trust_root_that_is_none_is_said_to_be_the_config_maps(folder: Path, given: bytes) -> None:
    message = refused(folder, sign_by_sigstore(folder), BY_SIGSTORE, given)
    assert message.startswith("key 'trust.pem' of ConfigMap trust cannot be used")


# Anything else.


def test_a_signature_of_one_kind_is_none_of_another(folder: Path) -> None:
    key, certificate, sigstore = sign_by_key(folder), certified(folder), sign_by_sigstore(folder)
    for signature in (certificate, sigstore):
        refused(folder, signature)
    for signature in (key, sigstore):
        refused(folder, signature, by_certificate(), pem(ROOT.certificate))
    for signature in (key, certificate):
        refused(folder, signature, BY_SIGSTORE, trust_root())


_NO_SIGNATURES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"-----BEGIN PGP SIGNATURE-----",
    "bytes": b"\xff\xfe\x00",
    "a list": b"[]",
    "an object": b"{}",
    "null": b"null",
    "deep": b"[" * 100_000,
    "large": b" " * (4 * 1024**2 + 1),
    "a certificate": der(ROOT.certificate),
}


@pytest.mark.parametrize("signature", _NO_SIGNATURES.values(), ids=_NO_SIGNATURES)
def test_what_is_no_signature_is_refused(folder: Path, signature: bytes) -> None:
    refused(folder, signature)
    refused(folder, signature, by_certificate(), pem(ROOT.certificate))
    refused(folder, signature, BY_SIGSTORE, trust_root())


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_of_a_signature_ends_in_another_error_or_is_accepted(folder: Path, seed: int) -> None:
    source = random.Random(seed)
    cases = [
        (sign_by_key(folder), BY_KEY, public(KEY)),
        (certified(folder), by_certificate(), pem(ROOT.certificate)),
        (sign_by_sigstore(folder), BY_SIGSTORE, trust_root()),
    ]
    files = fetched(folder)
    signature, trust, given = cases[seed]
    trust_file = written(folder.parent, "trust", given)
    signed = _payload(signature)
    for _ in range(150):
        damaged = bytearray(signature)
        for _ in range(source.choice([1, 1, 3])):
            at = source.randrange(len(damaged))
            match source.randrange(3):
                case 0:
                    damaged[at] ^= 1 << source.randrange(7)
                case 1:
                    del damaged[at : at + source.choice([1, 20])]
                case _:
                    damaged[at:at] = source.choice([b"A", b'"', b"null", b"{", b"]"])
        try:
            verify(bytes(damaged), files, folder, trust, trust_file)
        except ArtifactError as error:
            assert error.reason is Reason.SIGNATURE_INVALID
        else:
            # Only what is not signed may differ: what base64 does not mind, a hint.
            assert _payload(damaged) == signed


def _payload(signature: bytes | bytearray) -> bytes:
    return base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"])


def test_descriptors_are_not_left_open(folder: Path) -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    signature = sign_by_key(folder)
    before = opened()
    for _ in range(5):
        signer(folder, signature)
        refused(folder, b"{}")
    assert opened() == before
