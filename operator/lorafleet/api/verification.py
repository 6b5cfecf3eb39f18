"""What a version must prove before it is published, as a fleet's spec says it: nothing, a digest, or a signature.

A signature is one of the OpenSSF model signing: by a key, by a certificate, or by an identity of sigstore.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from lorafleet.api.model import ApiModel, ObjectName, rules


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap of the fleet's namespace."""

    name: Annotated[ObjectName, Field(description="The ConfigMap's name.")]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The key in it.")]


class CertificateTrust(ApiModel):
    """Signatures made with a certificate that the given authorities issued."""

    authorities: Annotated[ConfigMapKeyRef, Field(description="The authorities' certificates, in PEM.")]
    identity: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            description="Who must have signed: a subject alternative name (mail address, URI or DNS name) of the"
            " certificate, or its common name.",
        ),
    ]


class SigstoreTrust(ApiModel):
    """Signatures made with sigstore, verified without a network."""

    identity: Annotated[str, Field(min_length=1, max_length=512, description="Who must have signed.")]
    issuer: Annotated[
        str, Field(min_length=1, max_length=512, description="The OIDC issuer that vouched for the identity.")
    ]
    trust_config: Annotated[
        ConfigMapKeyRef, Field(description="The trust root, as a sigstore ClientTrustConfig in JSON.")
    ]


class SignatureTrust(ApiModel):
    """Whose OpenSSF model signature an adapter must carry, in the file model.sig: exactly one of the ways."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.publicKey), has(self.certificate), has(self.sigstore)].filter(x, x).size() == 1",
                "a signature has exactly one of publicKey, certificate, sigstore",
            )
        )
    )

    public_key: Annotated[ConfigMapKeyRef | None, Field(description="The signer's public key (EC), in PEM.")] = None
    certificate: Annotated[CertificateTrust | None, Field(description="A certificate of given authorities.")] = None
    sigstore: Annotated[SigstoreTrust | None, Field(description="An identity of sigstore.")] = None

    @property
    def config_map_ref(self) -> ConfigMapKeyRef:
        """Where the key, the authorities or the trust root are."""
        found = (
            self.public_key
            or (self.certificate.authorities if self.certificate else None)
            or (self.sigstore.trust_config if self.sigstore else None)
        )
        if found is None:
            raise ValueError("a signature has exactly one of publicKey, certificate, sigstore")
        return found


class VerificationPolicy(StrEnum):
    """What a version must prove before it is published."""

    NONE = "None"
    DIGEST = "Digest"
    SIGNATURE = "Signature"


class Verification(ApiModel):
    """What a version must prove before it is published."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(self.policy == 'Signature') == has(self.signature)",
                "verification.signature goes with policy Signature, and only with it",
            )
        )
    )

    policy: Annotated[
        VerificationPolicy,
        Field(description="None; Digest: every version is pinned by its digest; Signature: every version is signed."),
    ] = VerificationPolicy.NONE
    signature: Annotated[SignatureTrust | None, Field(description="Whose signature counts.")] = None
