"""Weights that are a pickle at their source and a safetensors file on the volume; real signatures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_signing import signing

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import ConfigMapKeyRef, SignatureTrust, VerificationPolicy
from lorafleet.artifacts import pickles
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.store import manifest as manifests
from lorafleet.store.manifest import Manifest
from lorafleet.store.proof import Trust
from lorafleet.store.published import verify
from tests.artifacts.signers import new_key, private_pem, public
from tests.store.remote import Remote
from tests.store.volume import Volume

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
CONVERTING: dict[str, Any] = {"wanted": Wanted(pickle=True)}


@pytest.fixture
def converted(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The source ``a`` has a pickle, which stands for these weights."""
    weights = (volume.claim / "a" / WEIGHTS).read_bytes()
    (volume.claim / "a" / WEIGHTS).unlink()
    (volume.claim / "a" / PICKLE).write_bytes(b"a pickle")

    def convert(path: Path, limits: Limits) -> Iterator[bytes]:
        assert path.read_bytes() == b"a pickle"
        yield from (weights[:100], weights[100:])

    monkeypatch.setattr(pickles, "convert", convert)
    return weights


def _publish(volume: Volume, **changes: Any) -> Manifest:
    # Only a source of the test's own hands out pickles without a word.
    return volume.publish(source=Remote.of(volume.claim / "a"), **(CONVERTING | changes))


def test_engines_get_safetensors_and_never_the_pickle(volume: Volume, converted: bytes) -> None:
    found = _publish(volume)
    folder = volume.folder(found)
    assert (folder / WEIGHTS).read_bytes() == converted
    assert not (folder / PICKLE).exists()
    assert verify(volume.layout, found.served_name, deep=True) == found


def test_the_digest_is_that_of_the_source(volume: Volume, converted: bytes) -> None:
    found = _publish(volume)
    source = volume.claim / "a"
    assert found.digest == digest(hash_file(source, path.name) for path in source.iterdir())
    assert (found.converted, {file.path for file in found.source_files} & {PICKLE}) == (PICKLE, {PICKLE})


@pytest.mark.parametrize("forge", [None, "README.md", "adapter_model.pt", "tokenizer.json"])
def test_other_weights_need_a_pickle_that_the_source_has(volume: Volume, converted: bytes, forge: str | None) -> None:
    found = _publish(volume)
    path = volume.folder(found) / "lorafleet.json"
    fields = json.loads(path.read_text()) | {"converted": forge}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    with pytest.raises(ArtifactError, match="is not the source's"):
        verify(volume.layout, found.served_name)


def test_weights_of_the_source_are_never_called_converted(volume: Volume) -> None:
    (volume.claim / "a" / PICKLE).write_bytes(b"a pickle")
    found = volume.publish(source=Remote.of(volume.claim / "a"))
    path = volume.folder(found) / "lorafleet.json"
    text = path.read_text()
    weights = next(file for file in found.files if file.path == WEIGHTS)
    head, tail = text[: text.index('"files"')], text[text.index('"files"') :]
    forged = json.loads(head + tail.replace(weights.sha256, "0" * 64)) | {"converted": PICKLE}
    path.write_text(json.dumps(forged))
    with pytest.raises(ArtifactError, match="is not the source's"):
        verify(volume.layout, found.served_name)


def test_a_damaged_conversion_is_repaired(volume: Volume, converted: bytes) -> None:
    found = _publish(volume)
    (volume.folder(found) / WEIGHTS).write_bytes(b"x" * len(converted))
    assert _publish(volume, repairing=found.served_name) == found
    assert (volume.folder(found) / WEIGHTS).read_bytes() == converted


@pytest.fixture
def signed(volume: Volume, tmp_path: Path) -> Trust:
    """The source ``a`` is signed by whoever has the key."""
    key = new_key()
    private = tmp_path / "private.pem"
    private.write_bytes(private_pem(key))
    (tmp_path / "key.pem").write_bytes(public(key))
    config = signing.Config().use_elliptic_key_signer(private_key=private)
    config.sign(volume.claim / "a", volume.claim / "a" / "model.sig")
    return Trust(SignatureTrust(public_key=ConfigMapKeyRef(name="keys", key="key.pem")), tmp_path / "key.pem")


def _signed(volume: Volume, trust: Trust) -> Manifest:
    return volume.publish(wanted=Wanted(signature=True), policy=VerificationPolicy.SIGNATURE, trust=trust)


def test_what_is_signed_with_the_key_is_served_and_says_so(volume: Volume, signed: Trust) -> None:
    found = _signed(volume, signed)
    assert found.verified_by
    assert not (volume.folder(found) / "model.sig").exists()
    assert verify(volume.layout, found.served_name, deep=True) == found
    assert manifests.read(volume.folder(found)) == found
    assert _signed(volume, signed) == found


def test_what_changed_since_it_was_signed_leaves_nothing(volume: Volume, signed: Trust) -> None:
    (volume.claim / "a" / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json") as caught:
        _signed(volume, signed)
    assert caught.value.reason is Reason.SIGNATURE_INVALID
    assert volume.served() == volume.leftovers() == []


def test_a_folder_without_a_signature_is_refused(volume: Volume, signed: Trust) -> None:
    (volume.claim / "a" / "model.sig").unlink()
    with pytest.raises(ArtifactError) as caught:
        _signed(volume, signed)
    assert caught.value.reason is Reason.SIGNATURE_MISSING
