"""Where adapters come from: real servers in the cluster's network, on the node's address, filled as their users do.

An offer is one adapter at one of them: the source to write, what its Secret holds, and what a wrong one would hold.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster.network import NODE
from tests.servers.azure import azure
from tests.servers.bucket import Bucket
from tests.servers.certificates import Tls, tls
from tests.servers.gcs import gcs
from tests.servers.hub import Hub, hub_process
from tests.servers.oras import Oras, compress, contents, tar
from tests.servers.process import Where
from tests.servers.registry import Registry, registry
from tests.servers.s3 import s3
from tests.servers.sending import Faults
from tests.servers.web import web_process

HEADER = "X-Reader"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Offer:
    """An adapter somewhere. ``keys``: what its Secret holds, none without one; ``wrong``: what does not open it."""

    source: Mapping[str, Any]
    keys: Mapping[str, str] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    kind: str = "Opaque"

    @property
    def secret(self) -> str | None:
        """The name of the Secret that the source names."""
        (scheme,) = self.source.values()
        found = scheme.get("secretName") or scheme.get("pullSecretName")
        return None if found is None else str(found)


@dataclass(frozen=True)
class Origins:
    """The running servers; ``archives`` and ``files`` are folders of two web servers, ``word`` opens the first."""

    s3: Bucket
    gs: Bucket
    az: Bucket
    hub: Hub
    registry: Registry
    archives_url: str
    archives: Path
    files_url: str
    files: Path
    word: str
    tls: Tls

    @property
    def oras(self) -> Oras:
        """The command, as who may push."""
        return Oras(self.registry)


@contextmanager
def origins(folder: Path, enter: list[str]) -> Iterator[Origins]:
    """All servers, on the node's address; hub, registry, S3 and archives speak TLS by an authority of their own."""
    where = Where(NODE, tuple(enter))
    secure = tls(folder / "tls", NODE)
    word = secrets.token_urlsafe(24)
    archives, files = folder / "archives", folder / "files"
    # So that a download that goes on where it was cut is part of the main job, too.
    cut = {f"/cut/{WEIGHTS}": Faults(cut_after=5000, cuts=2)}
    with ExitStack() as stack:
        yield Origins(
            s3=stack.enter_context(s3(folder / "s3", where=where, tls=secure)),
            gs=stack.enter_context(gcs(folder / "gs", where=where)),
            az=stack.enter_context(azure(folder / "az", where=where)),
            hub=stack.enter_context(hub_process(folder / "hub", folder / "hub.log", where=where, tls=secure)),
            registry=stack.enter_context(registry(folder / "registry", auth="token", where=where, tls=secure)),
            archives_url=stack.enter_context(
                web_process(
                    archives, folder / "archives.log", where=where, tls=secure,
                    faults={"": Faults(headers={HEADER: word})},
                )
            ),
            archives=archives,
            files_url=stack.enter_context(web_process(files, folder / "files.log", where=where, faults=cut)),
            files=files,
            word=word,
            tls=secure,
        )  # fmt: skip


def hugging_face(at: Origins, name: str, adapter: Path) -> Offer:
    """A private repository, by its branch."""
    at.hub.files.commit(f"acme/{name}", adapter, private=True)
    token = at.hub.files.token(f"acme/{name}")
    source = {"repo": f"acme/{name}", "endpoint": at.hub.url, "secretName": name}
    wrong = {"token": f"hf_{secrets.token_hex(17)}", "ca.crt": at.tls.ca}
    return Offer({"huggingFace": source}, {"token": token, "ca.crt": at.tls.ca}, wrong)


def s3_folder(at: Origins, name: str, adapter: Path) -> Offer:
    """A folder of a bucket whose store has a certificate of its own authority."""
    at.s3.fill(f"{name}/1", adapter)
    source = {"url": at.s3.url(f"{name}/1/"), "endpoint": at.s3.endpoint, "secretName": name}
    trusted = {"ca.crt": at.tls.ca}
    return Offer({"objectStore": source}, {**at.s3.keys, **trusted}, {**at.s3.wrong_keys, **trusted})


def gs_folder(at: Origins, name: str, adapter: Path) -> Offer:
    """A folder of a bucket that everybody may read."""
    at.gs.fill(f"{name}/1", adapter)
    return Offer({"objectStore": {"url": at.gs.url(f"{name}/1"), "endpoint": at.gs.endpoint}})


def az_folder(at: Origins, name: str, adapter: Path) -> Offer:
    """A folder of a container."""
    at.az.fill(f"{name}/1", adapter)
    source = {"url": at.az.url(f"{name}/1"), "endpoint": at.az.endpoint, "secretName": name}
    return Offer({"objectStore": source}, at.az.keys, at.az.wrong_keys)


def oci(at: Origins, name: str, reference: str, **source: Any) -> Offer:
    """What a tag (``:latest``) or digest (``@sha256:…``) of ``acme/<name>`` stands for."""
    source |= {"reference": f"{at.registry.address}/acme/{name}{reference}", "pullSecretName": name}
    config, trusted = ".dockerconfigjson", {"ca.crt": at.tls.ca}
    right = {config: at.registry.docker_config(), **trusted}
    wrong = {config: at.registry.docker_config(secrets.token_urlsafe(24)), **trusted}
    return Offer({"oci": source}, right, wrong, "kubernetes.io/dockerconfigjson")


def oci_tag(at: Origins, name: str, adapter: Path) -> Offer:
    """Files as ``oras push`` has them, by a tag."""
    at.oras.files(f"acme/{name}", "latest", adapter)
    return oci(at, name, ":latest")


def oci_image(at: Origins, name: str, adapter: Path) -> Offer:
    """A folder of a container image among others of an index, by digest."""
    repository = f"acme/{name}"
    base = {"etc/os-release": b"ID=scratch\n"}
    image = at.oras.image(repository, "amd64", adapter, compression="zst", below="models/adapter", base=base)
    other = at.oras.image(repository, "arm64", adapter, architecture="arm64")
    platforms = {image: {"os": "linux", "architecture": "amd64"}, other: {"os": "linux", "architecture": "arm64"}}
    digest = at.oras.index(repository, "both", platforms)
    return oci(at, name, f"@{digest}", subfolder="models/adapter")


def oci_modelkit(at: Origins, name: str, adapter: Path) -> Offer:
    """A KitOps ModelKit."""
    at.oras.modelkit(f"acme/{name}", "1.0", adapter)
    return oci(at, name, ":1.0")


def oci_modelpack(at: Origins, name: str, adapter: Path) -> Offer:
    """A CNCF ModelPack artifact."""
    at.oras.modelpack(f"acme/{name}", "1.0", adapter)
    return oci(at, name, ":1.0")


def http_archive(at: Origins, name: str, adapter: Path) -> Offer:
    """A tar.zst over TLS that takes a header."""
    data = compress(tar(contents(adapter, "run/adapter")), "zst")
    (at.archives / f"{name}.tar.zst").write_bytes(data)
    source = {
        "url": f"{at.archives_url}/{name}.tar.zst",
        "sha256": hashlib.sha256(data).hexdigest(),
        "secretName": name,
    }
    trusted = {"ca.crt": at.tls.ca}
    return Offer({"http": source}, {HEADER: at.word, **trusted}, {HEADER: secrets.token_urlsafe(24), **trusted})


def http_files(at: Origins, name: str, adapter: Path) -> Offer:
    """A list of files, at a server that cuts the first connections."""
    shutil.copytree(adapter, at.files / "cut", dirs_exist_ok=True)
    files = [
        {"path": path, "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in contents(adapter).items()
        if "/" not in path
    ]
    return Offer({"http": {"url": f"{at.files_url}/cut/", "files": files}})


OFFERS: dict[str, Callable[[Origins, str, Path], Offer]] = {
    "hub": hugging_face,
    "s3": s3_folder,
    "gs": gs_folder,
    "az": az_folder,
    "oci-tag": oci_tag,
    "oci-image": oci_image,
    "oci-modelkit": oci_modelkit,
    "oci-modelpack": oci_modelpack,
    "http-archive": http_archive,
    "http-files": http_files,
}
