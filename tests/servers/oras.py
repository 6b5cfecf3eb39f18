"""The oras command, pushing adapters to a registry in the layouts that people use.

Each method returns the digest that its tag stands for.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.process import program
from tests.servers.registry import Login, Registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"

Descriptor = dict[str, Any]


@dataclass(frozen=True)
class Oras:
    """The command, logged in as somebody."""

    registry: Registry
    login: Login | None = None

    def files(self, repository: str, tag: str, folder: Path) -> str:
        """Each file a layer of its own, named by its title, as `oras push` does with files."""
        names = sorted(file.name for file in folder.iterdir() if file.is_file())
        return self._pushed("push", f"{self.registry.address}/{repository}:{tag}", *names, cwd=folder)

    def directory(self, repository: str, tag: str, folder: Path) -> str:
        """The folder as one tar+gzip layer that is to be unpacked, as `oras push` does with folders."""
        target = f"{self.registry.address}/{repository}:{tag}"
        return self._pushed("push", target, folder.name, cwd=folder.parent)

    def image(
        self,
        repository: str,
        tag: str,
        folder: Path,
        *,
        compression: str = "gz",
        below: str = "",
        base: Mapping[str, bytes] | None = None,
        **platform: str,
    ) -> str:
        """A container image: an optional layer with other files under the adapter's, which lie ``below`` a folder.

        ``compression``: "" for a plain tar, "gz", or "zst", which takes Python's zstandard.
        """
        layers = [self._layer(repository, base, compression)] if base else []
        layers.append(self._layer(repository, contents(folder, below), compression))
        config = {"architecture": "amd64", "os": "linux", **platform, "rootfs": {"type": "layers", "diff_ids": []}}
        return self.manifest(repository, tag, (IMAGE_CONFIG, json.dumps(config).encode()), layers)

    def index(self, repository: str, tag: str, members: Mapping[str, Mapping[str, str] | None]) -> str:
        """An index of manifests of the same repository, by digest, each for a platform or none."""
        manifests = []
        for digest, platform in members.items():
            found = json.loads(self.run("manifest", "fetch", "--descriptor", self._at(repository, digest)))
            manifests.append({**found, **({"platform": dict(platform)} if platform else {})})
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self.document(repository, tag, INDEX, body)

    def modelkit(self, repository: str, tag: str, folder: Path, suffix: str = "tar+gzip") -> str:
        """A KitOps ModelKit: a Kitfile as config, and the adapter in one tar whose names begin with its folder."""
        kitfile = {"manifestVersion": "1.0.0", "model": {"name": folder.name, "path": f"./{folder.name}"}}
        kind = f"application/vnd.kitops.modelkit.model.v1.{suffix}"
        data = tar(contents(folder, folder.name), "gz" if suffix == "tar+gzip" else "")
        layer = self.blob(repository, kind, data)
        config = ("application/vnd.kitops.modelkit.config.v1+json", json.dumps(kitfile).encode())
        return self.manifest(repository, tag, config, [layer])

    def modelpack(self, repository: str, tag: str, folder: Path, form: str = "raw", below: str = "") -> str:
        """A CNCF ModelPack artifact: a layer for each file, raw or in a tar, whose path is an annotation."""
        layers = []
        for name, data in contents(folder, below).items():
            role = "weight" if name.endswith((".safetensors", ".bin")) else "weight.config"
            if name.endswith(".md"):
                role = "doc"
            packed = data if form == "raw" else tar({name: data}, "gz" if form == "tar+gzip" else "")
            kind = f"application/vnd.cncf.model.{role}.v1.{form}"
            layers.append({**self.blob(repository, kind, packed), "annotations": {FILEPATH: name}})
        body = {"descriptor": {"name": folder.name}, "config": {}, "modelfs": {"type": "layers", "diffIds": []}}
        config = ("application/vnd.cncf.model.config.v1+json", json.dumps(body).encode())
        kind = "application/vnd.cncf.model.manifest.v1+json"
        return self.manifest(repository, tag, config, layers, artifactType=kind)

    # The parts that layouts are made of.

    def blob(self, repository: str, kind: str, data: bytes) -> Descriptor:
        """Pushes bytes; their descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.run("blob", "push", self._at(repository, digest), file.name)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def manifest(
        self,
        repository: str,
        tag: str,
        config: tuple[str, bytes],
        layers: Sequence[Descriptor],
        **fields: Any,
    ) -> str:
        """Pushes a manifest of these layers, and its config."""
        body = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            **fields,
            "config": self.blob(repository, *config),
            "layers": list(layers),
        }
        return self.document(repository, tag, MANIFEST, body)

    def document(self, repository: str, tag: str, kind: str, body: Mapping[str, Any] | bytes) -> str:
        """Pushes a manifest or index as it is."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            target = f"{self.registry.address}/{repository}:{tag}"
            self.run("manifest", "push", "--media-type", kind, target, file.name)
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def tag(self, repository: str, digest: str, tag: str) -> None:
        """Makes a tag stand for a digest."""
        self.run("tag", self._at(repository, digest), tag)

    def pull(self, repository: str, reference: str, target: Path) -> None:
        """Pulls an artifact of files into a folder: what our own client is compared with."""
        self.run("pull", "--no-tty", "-o", str(target), self._at(repository, reference))

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """Runs a subcommand; what it prints."""
        count = 1 if words[0] in ("push", "pull", "tag") else 2
        if words[:3] == ("manifest", "index", "create"):
            count = 3
        options = ["--plain-http"] if self.registry.tls is None else ["--ca-file", str(self.registry.tls.authority)]
        stdin = None
        login = self.login or self.registry.pusher
        if login is not None:
            options += ["--username", login.name, "--password-stdin"]
            stdin = login.password.encode()
        with tempfile.TemporaryDirectory() as home:
            # Not the user's own logins.
            env = {"DOCKER_CONFIG": home, "HOME": home, "ORAS_CACHE": ""}
            argv = [str(program("oras")), *words[:count], *options, *words[count:]]
            return self.registry.where.run(*argv, stdin=stdin, cwd=cwd, env=env).decode()

    def _pushed(self, *words: str, cwd: Path) -> str:
        out = json.loads(self.run(*words, "--no-tty", "--format", "json", cwd=cwd))
        return str(out["digest"])

    def _layer(self, repository: str, files: Mapping[str, bytes], compression: str) -> Descriptor:
        suffix = {"": "", "gz": "+gzip", "zst": "+zstd"}[compression]
        return self.blob(repository, IMAGE_LAYER + suffix, tar(files, compression))

    def _at(self, repository: str, reference: str) -> str:
        mark = "@" if ":" in reference else ":"
        return f"{self.registry.address}/{repository}{mark}{reference}"


def contents(folder: Path, below: str = "") -> dict[str, bytes]:
    """The files of a folder by name, perhaps below another."""
    names = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return {f"{below}/{name}".lstrip("/"): (folder / name).read_bytes() for name in names}


def tar(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar of files with their parent folders, perhaps compressed; the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        folders = sorted({str(parent) for name in files for parent in Path(name).parents if parent != Path()})
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return compress(out.getvalue(), compression)


def compress(data: bytes, compression: str) -> bytes:
    """Bytes as they are (""), by gzip ("gz") or by zstd ("zst")."""
    if compression == "gz":
        import gzip

        return gzip.compress(data, mtime=0)
    if compression == "zst":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data
