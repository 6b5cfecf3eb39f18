"""Signers for tests: keys, authorities with certificates, and a whole sigstore of our own, all in memory.

The sigstore has what the library checks against a trust root: an authority that issues short-lived certificates with
an identity and its issuer (Fulcio), a log that promises to list them (CT) and a log of signatures (Rekor v1).
"""

import base64
import datetime
import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey

_SHA256 = ec.ECDSA(hashes.SHA256())


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: Key) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def public(key: Key, encoding: serialization.Encoding = serialization.Encoding.PEM) -> bytes:
    return key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _builder(name: str, issuer: str, key: Key, start: datetime.datetime, end: datetime.datetime) -> Any:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(signing, False, False, False, False, not signing, not signing, False, False)


@dataclass
class Authority:
    """An authority that issues certificates; ``issuer`` when it is an intermediate one."""

    name: str = "Acme CA"
    issuer: "Authority | None" = None
    start: datetime.datetime = NOW - 900 * DAY
    end: datetime.datetime = NOW + 900 * DAY
    key: Key = field(default_factory=new_key)

    def __post_init__(self) -> None:
        above = self.issuer or self
        identifier = x509.SubjectKeyIdentifier.from_public_key
        self.certificate = (
            _builder(self.name, above.name, self.key, self.start, self.end)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(_usage(signing=False), critical=True)
            .add_extension(identifier(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()), critical=False)
            .sign(above.key, hashes.SHA256())
        )

    def issue(
        self,
        key: Key,
        common_name: str = "Release",
        *alternative: x509.GeneralName,
        start: datetime.datetime = NOW - DAY,
        end: datetime.datetime = NOW + DAY,
        signing: bool = True,
        more: tuple[x509.ExtensionType, ...] = (),
    ) -> Any:
        """A builder of a certificate for ``key``, to be signed by :meth:`sign`."""
        found = _builder(common_name, self.name, key, start, end)
        found = found.add_extension(x509.BasicConstraints(False, None), critical=True)
        found = found.add_extension(_usage(signing), critical=True)
        found = found.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if alternative:
            found = found.add_extension(x509.SubjectAlternativeName(alternative), critical=not common_name)
        for extension in more:
            found = found.add_extension(extension, critical=False)
        return found

    def sign(self, builder: Any) -> x509.Certificate:
        found = builder.sign(self.key, hashes.SHA256())
        assert isinstance(found, x509.Certificate)
        return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class Sigstore:
    """A sigstore: ``trust_config`` is what its users hand to verifiers, ``sign`` what its users do."""

    authority: Authority = field(default_factory=lambda: Authority("Fulcio of Acme"))
    promises: Key = field(default_factory=new_key)
    log: Key = field(default_factory=new_key)

    def trust_config(self) -> str:
        """A ClientTrustConfig."""
        valid = {"start": (NOW - 900 * DAY).isoformat().replace("+00:00", "Z")}

        def log(key: Key) -> dict[str, Any]:
            raw = public(key, serialization.Encoding.DER)
            return {
                "baseUrl": "https://log.acme.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": _base64(raw), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid},
                "logId": {"keyId": _base64(_sha256(raw))},
            }

        authority = {
            "subject": {"organization": "acme", "commonName": self.authority.name},
            "uri": "https://ca.acme.example",
            "certChain": {"certificates": [{"rawBytes": _base64(der(self.authority.certificate))}]},
            "validFor": valid,
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": {
                    "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                    "tlogs": [log(self.log)],
                    "certificateAuthorities": [authority],
                    "ctlogs": [log(self.promises)],
                },
                "signingConfig": {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
            }
        )

    def certificate(self, key: Key, identity: str, issuer: str, **dates: datetime.datetime) -> x509.Certificate:
        """A certificate for an identity that an issuer vouched for, with the promise of the log to list it."""
        # The library asks for the older form of the extension, which is the text itself.
        vouched = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), issuer.encode())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = self.authority.issue(
            key,
            "",
            x509.RFC822Name(identity),
            more=(usage, vouched),
            **({"start": NOW, "end": NOW + DAY / 144} | dates),
        )
        entry = self.authority.sign(builder).tbs_certificate_bytes
        # RFC 6962, 3.2: the promise is over the certificate without the promise.
        issued_by = _sha256(public(self.authority.key, serialization.Encoding.DER))
        when = struct.pack("!Q", int(NOW.timestamp() * 1000))
        signed = b"\0\0" + when + b"\0\1" + issued_by + struct.pack("!I", len(entry))[1:] + entry + b"\0\0"
        signature = self.promises.sign(signed, _SHA256)
        log = _sha256(public(self.promises, serialization.Encoding.DER))
        promise = b"\0" + log + when + b"\0\0" + b"\4\3" + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(promise) + 2, len(promise)) + promise
        wrapped = b"\4" + (bytes([len(listed)]) if len(listed) < 128 else bytes([0x81, len(listed)])) + listed
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
        return self.authority.sign(builder.add_extension(x509.UnrecognizedExtension(oid, wrapped), critical=False))

    def sign(self, payload: bytes, identity: str, issuer: str, **dates: datetime.datetime) -> bytes:
        """A bundle over an in-toto statement, as sigstore's clients write it."""
        key = new_key()
        certificate = self.certificate(key, identity, issuer, **dates)
        kind = "application/vnd.in-toto+json"
        signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload), _SHA256)
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": _base64(der(certificate))},
                    "tlogEntries": [self._entry(payload, signature, certificate)],
                },
                "dsseEnvelope": {
                    "payload": _base64(payload),
                    "payloadType": kind,
                    "signatures": [{"sig": _base64(signature)}],
                },
            }
        ).encode()

    def _entry(self, payload: bytes, signature: bytes, certificate: x509.Certificate) -> dict[str, Any]:
        """The entry of the log, which has no other."""
        hashed = {"algorithm": "sha256", "value": _sha256(payload).hex()}
        body = _canonical(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": hashed,
                    "payloadHash": hashed,
                    "signatures": [{"signature": _base64(signature), "verifier": _base64(pem(certificate))}],
                },
            }
        )
        identifier = _sha256(public(self.log, serialization.Encoding.DER))
        when = int(NOW.timestamp())
        promised = {"body": _base64(body), "integratedTime": when, "logID": identifier.hex(), "logIndex": 0}
        root = _sha256(b"\0" + body)
        note = f"log.acme.example - 1\n1\n{_base64(root)}\n"
        checkpoint = _base64(identifier[:4] + self.log.sign(note.encode(), _SHA256))
        return {
            "logIndex": "0",
            "logId": {"keyId": _base64(identifier)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(when),
            "inclusionPromise": {"signedEntryTimestamp": _base64(self.log.sign(_canonical(promised), _SHA256))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _base64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.acme.example {checkpoint}\n"},
            },
            "canonicalizedBody": _base64(body),
        }


def written(folder: Path, name: str, content: bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content)
    return path
