"""Every source, from `kubectl apply` to an answer of a real vLLM; what is refused, and that no secret is ever shown."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from e2e.cluster.own import OwnCluster
from e2e.engine.vllm_env import python_of
from e2e.origins import OFFERS, Offer, Origins, oci, origins
from e2e.values import BASE, FLEET, VLLM
from e2e.witness import witness
from e2e.world import NAMESPACE, SYSTEM, World, until
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.files import is_adapter_file

NAMES = ("first", "second")
WEIGHTS = "adapter_model.safetensors"
LABEL = "lorafleet-e2e"


@pytest.fixture(scope="module")
def servers(cluster_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origins]:
    if not isinstance(cluster_world.cluster, OwnCluster):
        pytest.skip("the servers listen on the node's address, which is ours in our own cluster alone")
    with origins(tmp_path_factory.mktemp("origins"), cluster_world.cluster.enter()) as running:
        yield running


@pytest.fixture(scope="module")
def adapters(cluster_world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters by peft, on this machine."""
    cluster_world.train([{"name": name, "seed": seed} for seed, name in enumerate(NAMES, 11)])
    folder = tmp_path_factory.mktemp("adapters")
    for name in NAMES:
        shutil.copytree(cluster_world.volume_path() / "incoming" / name, folder / name)
    cluster_world.forget_training()
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="module")
def answers(cluster_world: World, adapters: dict[str, Path]) -> dict[str, str]:
    """What each adapter says when it comes from a volume; neither is what the base model says."""
    world = cluster_world
    found = {"base": world.ask(world.engines()[0], BASE)}
    for name in NAMES:
        shutil.copytree(adapters[name], world.volume_path() / "incoming" / f"{name}-1", dirs_exist_ok=True)
        world.adapter(name, "1")
        found[name] = world.ask(world.engines()[0], world.wait_serving(name, "1"))
        world.kubectl("delete", "loraadapter", name, "--timeout=90s")
    world.forget_training()
    assert len(set(found.values())) == len(found)
    return found


@pytest.fixture(autouse=True)
def no_secrets_left(cluster_world: World) -> Iterator[None]:
    yield
    cluster_world.kubectl("delete", "secret,configmap", "-l", f"made-by={LABEL}")


def digest_of(folder: Path) -> str:
    """The digest of an adapter, wherever it comes from."""
    return digest(hash_file(folder, file.name) for file in folder.iterdir() if is_adapter_file(file.name))


def keep_secret(world: World, offer: Offer, keys: Mapping[str, str] | None = None) -> None:
    """Applies the offer's Secret, if it has one, with its own keys or others."""
    if offer.secret is not None:
        metadata = {"name": offer.secret, "namespace": NAMESPACE, "labels": {"made-by": LABEL}}
        values = {key: base64.b64encode(value.encode()).decode() for key, value in (keys or offer.keys).items()}
        world.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": offer.kind, "data": values})


def apply(world: World, name: str, offers: Mapping[str, Offer], **spec: Any) -> None:
    """Applies an adapter with a version for each offer."""
    entries = [{"name": version, "source": dict(offer.source)} for version, offer in offers.items()]
    world.apply(
        {
            "apiVersion": "lorafleet.dev/v1alpha1",
            "kind": "LoRAAdapter",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"fleet": FLEET, "versions": entries, **spec},
        }
    )


def version(world: World, name: str, wanted: str) -> dict[str, Any]:
    """The status of a version."""
    found = (one for one in world.status(name).get("versions", ()) if one["name"] == wanted)
    return next(found, {})


@contextmanager
def fleet_with(world: World, **fields: Any) -> Iterator[None]:
    """The fleet's spec has these fields meanwhile."""
    spec = world.json("get", "specialistfleet", FLEET)["spec"]

    def patch(values: Mapping[str, Any]) -> None:
        steps = [
            {"op": "remove", "path": f"/spec/{field}"}
            if value is None
            else {"op": "add", "path": f"/spec/{field}", "value": value}
            for field, value in values.items()
        ]
        world.kubectl("patch", "specialistfleet", FLEET, "--type=json", "-p", json.dumps(steps))

    patch(fields)
    try:
        yield
    finally:
        patch({field: spec.get(field) for field in fields})


def staging(world: World) -> list[str]:
    """What is left half done on the volume."""
    folder = world.volume_path() / "staging"
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


# Each source.


@pytest.mark.parametrize("kind", OFFERS)
def test_the_same_adapter_answers_the_same_from_every_source(
    world: World, servers: Origins, adapters: dict[str, Path], answers: dict[str, str], kind: str
) -> None:
    offer = OFFERS[kind](servers, kind, adapters["first"])
    keep_secret(world, offer)
    apply(world, kind, {"1": offer})
    served = world.wait_serving(kind, "1", deadline=180)
    assert {world.ask(engine, served) for engine in world.engines()} == {answers["first"]}
    assert version(world, kind, "1")["digest"] == digest_of(adapters["first"])
    assert staging(world) == []


# Moving names.


def move_tag(servers: Origins, name: str, adapter: Path) -> None:
    servers.oras.files(f"acme/{name}", "latest", adapter)


def move_branch(servers: Origins, name: str, adapter: Path) -> None:
    servers.hub.files.commit(f"acme/{name}", adapter, private=True)


MOVES = {"oci-tag": move_tag, "hub": move_branch}


@pytest.mark.parametrize("kind", MOVES)
def test_a_name_that_moves_moves_no_version(
    world: World, servers: Origins, adapters: dict[str, Path], answers: dict[str, str], kind: str
) -> None:
    name = f"moving-{kind}"
    offer = OFFERS[kind](servers, name, adapters["first"])
    keep_secret(world, offer)
    apply(world, name, {"1": offer})
    first = world.wait_serving(name, "1", deadline=180)
    before = version(world, name, "1")
    MOVES[kind](servers, name, adapters["second"])
    apply(world, name, {"1": offer, "2": offer})
    second = world.wait_serving(name, "2", deadline=180)
    assert world.ask(world.engines()[0], second) == answers["second"], "a new entry is what the name stands for now"
    apply(world, name, {"1": offer, "2": offer}, activeVersion="1")
    assert world.wait_serving(name, "1") == first
    assert world.ask(world.engines()[0], first) == answers["first"]
    after = version(world, name, "1")
    assert before["pin"]
    assert (after["pin"], after["digest"]) == (before["pin"], before["digest"])
    assert version(world, name, "2")["pin"] != before["pin"]


# Secrets.


def shown(values: Mapping[str, str]) -> Iterator[str]:
    """The forms in which the secrets of a Secret could show."""
    for key, value in values.items():
        if key == "ca.crt" or key.endswith(("_NAME", "_ID")):
            continue
        parts = [value]
        if key == ".dockerconfigjson":
            (entry,) = json.loads(value)["auths"].values()
            parts = [entry["password"], entry["auth"]]
        for part in parts:
            yield part
            yield base64.b64encode(part.encode()).decode().rstrip("=")


@pytest.mark.parametrize("kind", ["hub", "s3", "az", "oci-tag", "http-archive"])
def test_wrong_credentials_are_told_by_the_secrets_name_and_mended_by_it(
    world: World, servers: Origins, adapters: dict[str, Path], answers: dict[str, str], kind: str
) -> None:
    name = f"denied-{kind}"
    offer = OFFERS[kind](servers, name, adapters["first"])
    assert offer.secret is not None
    with witness(world) as seen:
        keep_secret(world, offer, offer.wrong)
        apply(world, name, {"1": offer})

        def denied() -> str:
            found = world.condition(name, "Reconciling")
            reasons = ("SourceDenied", "SecretInvalid", "SourceNotFound")
            return str(found["message"]) if found.get("reason") in reasons else ""

        message = until("the source is denied", denied, 90)
        assert f"Secret {offer.secret}" in message
        assert "look at" in message or "correct" in message
        keep_secret(world, offer)
        served = world.wait_serving(name, "1", deadline=240)
        assert world.ask(world.engines()[0], served) == answers["first"]
        described = world.kubectl("describe", "loraadapter,specialistfleet,jobs,pods")
    manifest = (world.volume_path() / "serving" / served / "lorafleet.json").read_text()
    operator = world.kubectl("-n", SYSTEM, "logs", "-l", "app.kubernetes.io/name=lorafleet", "--tail=-1")
    # Were these not seen, the search below would prove nothing.
    assert "LORAFLEET_PLAN" in seen.objects("jobs")
    assert message.partition(":")[0] in seen.objects("loraadapters")
    assert name in seen.logs()
    assert name in operator
    everything = "\n".join((seen.objects(), seen.logs(), described, manifest, operator))
    for values in (offer.keys, offer.wrong):
        for secret in shown(values):
            assert secret not in everything


# Trust.


@pytest.fixture
def signer(world: World, tmp_path: Path) -> Path:
    """A private key whose public key is in the ConfigMap `trust`."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    file = tmp_path / "signer.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    metadata = {"name": "trust", "namespace": NAMESPACE, "labels": {"made-by": LABEL}}
    world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"signer.pub": public}})
    return file


def signed(folder: Path, key: Path) -> None:
    """Signs a folder as a person would."""
    argv = ["model_signing", "sign", "key", "--private_key", str(key), "--signature", str(folder / "model.sig")]
    subprocess.run([*argv, "--ignore-paths", str(folder / "model.sig"), str(folder)], check=True, capture_output=True)


def test_a_fleet_that_asks_for_signatures_takes_signed_adapters_alone(
    world: World, servers: Origins, adapters: dict[str, Path], answers: dict[str, str], signer: Path, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("unsigned", "signed", "tampered")}
    for folder in folders.values():
        shutil.copytree(adapters["first"], folder)
    for name in ("signed", "tampered"):
        signed(folders[name], signer)
    weights = folders["tampered"] / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    trust = {"publicKey": {"name": "trust", "key": "signer.pub"}}
    with fleet_with(world, verification={"policy": "Signature", "signature": trust}):
        for name, folder in folders.items():
            offer = OFFERS["oci-tag"](servers, name, folder)
            keep_secret(world, offer)
            apply(world, name, {"1": offer})
        served = world.wait_serving("signed", "1", deadline=180)
        assert world.ask(world.engines()[0], served) == answers["first"]
        assert version(world, "signed", "1")["verifiedBy"]
        assert "model.sig" in world.wait("unsigned", "Stalled", "SignatureMissing")["message"]
        assert WEIGHTS in world.wait("tampered", "Stalled", "SignatureInvalid")["message"]
        assert staging(world) == []
        for name in ("unsigned", "tampered"):
            assert not (world.volume_path() / "serving" / name).exists()


# Pickles.


def test_a_fleet_that_converts_pickles_serves_what_is_in_them(
    world: World, servers: Origins, adapters: dict[str, Path], answers: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(adapters["first"], folder)
    save = "import sys, torch, safetensors.torch as s; torch.save(s.load_file(sys.argv[1]), sys.argv[2])"
    subprocess.run(
        [python_of(VLLM), "-c", save, folder / WEIGHTS, folder / "adapter_model.bin"],
        check=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    (folder / WEIGHTS).unlink()
    offer = OFFERS["s3"](servers, "pickled", folder)
    keep_secret(world, offer)
    with fleet_with(world, artifacts={"pickle": "Convert"}):
        apply(world, "pickled", {"1": offer})
        served = world.wait_serving("pickled", "1", deadline=180)
        assert {world.ask(engine, served) for engine in world.engines()} == {answers["first"]}
    names = {file.name for file in (world.volume_path() / "serving" / served).iterdir()}
    assert WEIGHTS in names
    assert not any(name.endswith((".bin", ".pt")) for name in names)
    assert any("PickleConverted" in notice for notice in version(world, "pickled", "1")["notices"])


# Damage.


def test_a_scrub_finds_a_flipped_byte_and_the_bytes_come_back_from_the_pin(
    world: World, servers: Origins, adapters: dict[str, Path], answers: dict[str, str]
) -> None:
    offer = OFFERS["oci-tag"](servers, "scrubbed", adapters["first"])
    keep_secret(world, offer)
    apply(world, "scrubbed", {"1": offer})
    served = world.wait_serving("scrubbed", "1", deadline=180)
    # The tag has moved since: only its pin leads back to these bytes.
    servers.oras.files("acme/scrubbed", "latest", adapters["second"])
    file = world.volume_path() / "serving" / served / WEIGHTS
    sound = file.read_bytes()
    with fleet_with(world, storage={**world.json("get", "specialistfleet", FLEET)["spec"]["storage"],
                                    "scrub": {"schedule": "0 3 * * *"}}):  # fmt: skip
        cron = until("the CronJob", lambda: world.json("get", "cronjobs")["items"], 60)[0]["metadata"]["name"]
        with witness(world) as seen:
            with file.open("r+b") as opened:
                opened.seek(len(sound) // 2)
                opened.write(bytes([sound[len(sound) // 2] ^ 1]))
            assert file.read_bytes() != sound
            world.kubectl("create", "job", "scrub-now", f"--from=cronjob/{cron}")
            until("the bytes are back", lambda: file.read_bytes() == sound, 120)
            until("the damage was told", lambda: "FilesDamaged" in seen.objects("loraadapters", "events"), 30)
        world.wait_serving("scrubbed", "1", deadline=180)

        def settled() -> bool:
            storage = world.json("get", "specialistfleet", FLEET)["status"].get("storage", {})
            return bool(storage.get("lastScrub")) and not storage.get("damaged")

        until("the fleet knows of no damage", settled, 60)
        assert {world.ask(engine, served) for engine in world.engines()} == {answers["first"]}
    until("the CronJob is gone", lambda: not world.json("get", "cronjobs")["items"], 60)


def test_a_digest_pin_of_another_adapter_is_refused(world: World, servers: Origins, adapters: dict[str, Path]) -> None:
    servers.oras.files("acme/pinned", "1", adapters["first"])
    offer = oci(servers, "pinned", ":1")
    keep_secret(world, offer)
    entry = {"name": "1", "source": dict(offer.source), "digest": digest_of(adapters["second"])}
    apply(world, "pinned", {}, versions=[entry])
    message = world.wait("pinned", "Stalled", "DigestMismatch", deadline=120)["message"]
    assert digest_of(adapters["first"]) in message or digest_of(adapters["first"])[:19] in message
    assert staging(world) == []
