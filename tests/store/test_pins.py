"""A moving name is asked once per version entry, and what a fleet asks to be proved is proved."""

from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import ConfigMapKeyRef, SignatureTrust, VerificationPolicy
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted
from lorafleet.store import manifest as manifests
from lorafleet.store import proof
from lorafleet.store import volume as volumes
from lorafleet.store.build import Request
from lorafleet.store.proof import Trust
from lorafleet.store.publish import publish
from lorafleet.store.repair import repair
from lorafleet.store.scrub import scrub
from tests.adapters import adapter
from tests.store.remote import Remote
from tests.store.volume import FLEET, HOW, MODEL, Volume


def _publish(volume: Volume, remote: Remote, **changes: Any) -> tuple[list[str | None], list[str], int]:
    """Publish: the pins that the source was opened with, the pins that were told, the id."""
    opened: list[str | None] = []
    told: list[str] = []

    def open_source(pin: str | None) -> Remote:
        opened.append(pin)
        return remote

    request = Request("py", "1.0", MODEL, FLEET, **changes)
    found = publish(volumes.Volume(volume.layout), request, open_source, how=HOW, pinned=told.append)
    return opened, told, found.manifest.id


@pytest.fixture
def remote(volume: Volume) -> Remote:
    return Remote.of(volume.claim / "a")


def test_what_a_name_stood_for_is_told_and_kept(volume: Volume, remote: Remote) -> None:
    assert _publish(volume, remote, entry="e1") == ([None], ["pin-1"], 1)
    manifest = manifests.read(volume.layout.serving / volume.served()[0])
    assert (manifest.pin, manifest.entry) == ("pin-1", "e1")


def test_an_entry_that_is_published_asks_its_source_nothing(volume: Volume, remote: Remote) -> None:
    _publish(volume, remote, entry="e1")
    remote.pin = "pin-2"
    remote.files["README.md"] = b"moved"
    assert _publish(volume, remote, entry="e1") == ([], [], 1)


def test_another_entry_of_the_same_name_asks_anew(volume: Volume, remote: Remote) -> None:
    _publish(volume, remote, entry="e1")
    remote.pin = "pin-2"
    remote.files["README.md"] = b"moved"
    assert _publish(volume, remote, entry="e2") == ([None], ["pin-2"], 2)


def test_another_entry_with_the_same_bytes_keeps_the_id_and_is_known_from_then_on(
    volume: Volume, remote: Remote
) -> None:
    _publish(volume, remote, entry="e1")
    assert _publish(volume, remote, entry="e2") == ([None], ["pin-1"], 1)
    assert _publish(volume, remote, entry="e2") == ([], [], 1)
    assert not volume.leftovers()


def test_the_pin_of_the_status_opens_a_source_that_was_never_published(volume: Volume, remote: Remote) -> None:
    assert _publish(volume, remote, entry="e1", pin="pin-0")[0] == ["pin-0"]


def test_a_pin_is_told_even_if_the_version_is_refused(volume: Volume) -> None:
    adapter(volume.claim / "bad", use_dora=True)
    told: list[str] = []
    request = Request("py", "1.0", MODEL, FLEET)
    remote = Remote.of(volume.claim / "bad")
    with pytest.raises(ArtifactError):
        publish(volumes.Volume(volume.layout), request, lambda pin: remote, how=HOW, pinned=told.append)
    assert told == ["pin-1"]


def test_a_local_source_that_changed_is_another_version_of_the_same_entry(volume: Volume) -> None:
    first = volume.publish(entry="e1")
    adapter(volume.claim / "a", seed=3)
    assert volume.publish(entry="e1").id == first.id + 1


def test_a_digest_that_is_asked_for_and_missing_is_refused_before_anything_is_asked(
    volume: Volume, remote: Remote
) -> None:
    with pytest.raises(ArtifactError) as caught:
        _publish(volume, remote, policy=VerificationPolicy.DIGEST)
    assert caught.value.reason is Reason.DIGEST_REQUIRED
    assert remote.listings == 0


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    (tmp_path / "key.pem").write_text("key 1")
    return Trust(SignatureTrust(public_key=ConfigMapKeyRef(name="keys", key="key.pem")), tmp_path / "key.pem")


class Signatures:
    """What is asked of ``artifacts.signature``: the signature of a folder is its signer's name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        monkeypatch.setattr(proof, "verify_signature", self.verify)
        monkeypatch.setattr("lorafleet.store.build.verify_signature", self.verify)

    def verify(self, folder: Path, files: Any, trust: Trust) -> str:
        self.asked.append([file.path for file in files])
        signer = (folder / "model.sig").read_text()
        if signer == "nobody":
            raise ArtifactError(Reason.SIGNATURE_INVALID, "no")
        return signer


SIGNED: dict[str, Any] = {"policy": VerificationPolicy.SIGNATURE, "wanted": Wanted(signature=True), "entry": "e1"}


def test_a_signature_is_verified_and_not_published(
    volume: Volume, remote: Remote, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = volume.publish("0")
    signatures = Signatures(monkeypatch)
    remote.files["model.sig"] = b"alice"
    _publish(volume, remote, trust=trust, **SIGNED)
    found = manifests.read(volume.layout.serving / volume.served()[1])
    assert found.verified_by == "alice"
    assert found.digest == unsigned.digest
    assert "model.sig" not in {file.path for file in (*found.files, *found.source_files)}
    assert signatures.asked == [sorted(set(remote.files) - {"model.sig"})]


def test_a_bad_signature_leaves_nothing(
    volume: Volume, remote: Remote, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    Signatures(monkeypatch)
    remote.files["model.sig"] = b"nobody"
    with pytest.raises(ArtifactError) as caught:
        _publish(volume, remote, trust=trust, **SIGNED)
    assert caught.value.reason is Reason.SIGNATURE_INVALID
    assert volume.served() == volume.leftovers() == []


def test_what_was_published_before_signatures_counted_is_verified_then(
    volume: Volume, remote: Remote, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    signatures = Signatures(monkeypatch)
    _publish(volume, remote, entry="e1")
    remote.files["model.sig"] = b"alice"
    for expected in ([None], [], []):
        opened, _, number = _publish(volume, remote, trust=trust, **SIGNED)
        assert number == 1
        assert opened == ([] if expected == [] else ["pin-1"])
    assert len(signatures.asked) == 1
    trust.file.write_text("key 2")
    _publish(volume, remote, trust=trust, **SIGNED)
    assert len(signatures.asked) == 2


def test_a_repair_restores_the_bytes_that_the_pin_names(volume: Volume, remote: Remote) -> None:
    _publish(volume, remote, entry="e1")
    (served,) = volume.served()
    weights = volume.layout.serving / served / "adapter_model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    assert [name for name, _ in scrub(volume.layout).damaged] == [served]
    opened: list[str | None] = []

    def open_source(pin: str | None) -> Remote:
        opened.append(pin)
        return remote

    repair(volumes.Volume(volume.layout), Request("py", "1.0", MODEL, FLEET), served, open_source, how=HOW)
    assert opened == ["pin-1"]
    assert scrub(volume.layout).damaged == ()
