"""Building the images that the end-to-end world runs, each once per content, into OCI archives.

Where Docker works it builds them from public bases; elsewhere buildah does, on a Debian base made here, without a
registry. An archive's name carries the digest of everything that went into it, so unchanged sources cost milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from e2e.cluster import debian, paths
from e2e.cluster.shell import ClusterError, run, step, succeeds

BASE = "localhost/base"
NAMES = {
    "pause": "localhost/lorafleet-pause:e2e",
    "engine": "localhost/lorafleet-engine:e2e",
    "lorafleet": "localhost/lorafleet:e2e",
    "envoy": "localhost/lorafleet-envoy:e2e",
}
# One suite and one list of packages: the host's own /usr/bin/python3 is the same, which the vLLM environment relies on.
_SUITE = "bookworm"
_BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_ENGINE_PACKAGES = ("libnuma1", "libgomp1")
# A machine behind a proxy that signs for others reaches the package registries only with its own trust store.
_TRUST = Path("/etc/ssl/certs/ca-certificates.crt")
_PUBLIC_ENGINE_BASE = "python:3.11-slim-bookworm"
_RECIPE = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock")
_CONTEXTS = {"lorafleet": (*_RECIPE, "README.md", "LICENSE", "operator"), "envoy": _RECIPE}
"""The images of the Dockerfile, and what each is made of. The first is its last stage; others are named ones."""

_PAUSE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int s) { _exit(0); }
static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0) ; }
int main(void) { signal(SIGTERM, leave); signal(SIGINT, leave); signal(SIGCHLD, reap); for (;;) pause(); }
"""
_ENGINE = """\
ARG BASE
FROM ${{BASE}}
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*
USER 65533
"""


def build(which: str = "lorafleet") -> Path:
    """The OCI archive of one image (a key of NAMES), built if its content is new."""
    if which not in NAMES:
        raise ClusterError(f"there is no image {which!r}; there are {', '.join(NAMES)}")
    docker = which != "pause" and not debian.NEEDS["buildah"].met() and succeeds(["docker", "info"])
    makers = {"pause": _pause, "engine": _engine}
    archive = paths.image_dir() / f"{which}-{_key(which, docker)}.tar"
    if archive.exists():
        return archive
    with _lock(which), _storage():
        if not archive.exists():
            with step(f"building {NAMES[which]}"):
                make = makers.get(which) or partial(_project, which)
                _into(archive, lambda part: make(part, docker))
            _forget_older(which, archive)
    return archive


def _key(which: str, docker: bool) -> str:
    digest = hashlib.sha256(repr((_SUITE, _BASE_PACKAGES, docker)).encode())
    if which == "pause":
        digest.update(_PAUSE.encode())
    if which == "engine":
        digest.update(repr((_ENGINE, _ENGINE_PACKAGES)).encode())
    if which in _CONTEXTS:
        for file in _sources(which):
            digest.update(f"{file.relative_to(paths.REPOSITORY)}\0{file.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _sources(which: str) -> Iterator[Path]:
    for name in _CONTEXTS[which]:
        path = paths.REPOSITORY / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def _pause(archive: Path, docker: bool) -> None:
    debian.require("gcc", "libc", "buildah")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pause.c"
        source.write_text(_PAUSE)
        run(["gcc", "-Os", "-static", "-s", "-o", source.with_suffix(""), source])
        with _container("scratch") as container:
            _buildah("add", "-q", container, source.with_suffix(""), "/pause")
            _buildah("config", "--entrypoint", '["/pause"]', "--user", "65535:65535", container)
            _buildah("commit", "-q", container, NAMES["pause"])
    _export("pause", archive)


def _engine(archive: Path, docker: bool) -> None:
    recipe = _ENGINE.format(packages=" ".join(_ENGINE_PACKAGES))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "Dockerfile"
        file.write_text(recipe)
        if docker:
            _docker("engine", Path(folder), archive, _PUBLIC_ENGINE_BASE)
        else:
            _bud("engine", Path(folder))
            _export("engine", archive)


def _project(which: str, archive: Path, docker: bool) -> None:
    target = () if which == "lorafleet" else ("--target", which)
    # A copy of just what the digest was made of: what is changed meanwhile cannot slip in.
    with tempfile.TemporaryDirectory() as folder:
        for file in _sources(which):
            copy = Path(folder) / file.relative_to(paths.REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
        if docker:
            _docker(which, Path(folder), archive, None, *target)
        else:
            _bud(which, Path(folder), *target)
            _export(which, archive)


def _bud(which: str, folder: Path, *more: str) -> None:
    _make_base()
    # chroot is the isolation that needs neither a new mount of /proc nor control groups.
    isolation = ["--isolation", "chroot"]
    words = ["-q", "--layers", "--force-rm", *isolation, *more, "--build-arg", f"BASE={BASE}", "-t", NAMES[which]]
    _buildah("bud", *words, folder)


def _docker(which: str, folder: Path, archive: Path, base: str | None, *more: str) -> None:
    arguments = [*more, *(["--build-arg", f"BASE={base}"] if base else [])]
    run(["docker", "build", "-q", *arguments, "-t", NAMES[which], folder])
    run(["docker", "save", "-o", archive, NAMES[which]])


def _make_base() -> None:
    """A minimal Debian with Python. The home of root may be crossed: the vLLM environment is often mounted below it."""
    debian.require("buildah", "mmdebstrap")
    trust = _TRUST.read_bytes() if _TRUST.exists() else b""
    wanted = hashlib.sha256(repr((_SUITE, _BASE_PACKAGES, trust)).encode()).hexdigest()[:12]
    with _lock("base"):
        if succeeds([*_buildah_words(), "inspect", "--type", "image", f"{BASE}:{wanted}"]):
            return
        with step(f"building {BASE}"), tempfile.TemporaryDirectory(dir=paths.image_dir()) as folder:
            tree = Path(folder) / "base.tar"
            include = f"--include={','.join(_BASE_PACKAGES)}"
            home = '--customize-hook=chmod 0711 "$1/root"'
            run(["mmdebstrap", "-q", "--variant=minbase", include, home, _SUITE, tree])
            with _container("scratch") as container:
                _buildah("add", "-q", container, tree, "/")
                env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
                if trust:
                    _buildah("add", "-q", container, _TRUST, _TRUST)
                    env |= {"SSL_CERT_FILE": str(_TRUST), "PIP_CERT": str(_TRUST)}
                words = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
                _buildah("config", *words, "--cmd", '["bash"]', container)
                _buildah("commit", "-q", container, f"{BASE}:{wanted}")
            _buildah("tag", f"{BASE}:{wanted}", BASE)


def _export(which: str, archive: Path) -> None:
    # The fastest compression that containerd unpacks: an archive is read once, from this disk.
    fast = ["--compression-format", "zstd", "--compression-level", "1"]
    _buildah("push", "-q", *fast, NAMES[which], f"oci-archive:{archive}:{NAMES[which]}")


def _buildah(*words: str | Path) -> str:
    paths.image_dir().mkdir(parents=True, exist_ok=True)
    return run([*_buildah_words(), *words])


def _buildah_words() -> list[str | Path]:
    driver = "overlay" if os.geteuid() == 0 else "vfs"
    storage = paths.image_dir() / "storage"
    return ["buildah", "--root", storage, "--runroot", storage / "run", "--storage-driver", driver]


def tidy() -> None:
    """Take away the working containers, and with them the mounts, of a build that was killed."""
    if (paths.image_dir() / "storage").exists():
        with _storage():
            pass


@contextmanager
def _storage() -> Iterator[None]:
    """Builds run side by side; what lies about when a build is the only one is nobody's."""
    paths.image_dir().mkdir(parents=True, exist_ok=True)
    with (paths.image_dir() / ".storage.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if debian.NEEDS["buildah"].met() and _buildah("containers", "-q").strip():
                _buildah("rm", "--all")
        except BlockingIOError:
            pass
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def _container(image: str) -> Iterator[str]:
    name = _buildah("from", "-q", image).strip()
    try:
        yield name
    finally:
        _buildah("rm", name)


def _into(archive: Path, make: Callable[[Path], None]) -> None:
    part = archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    make(part)
    part.rename(archive)


def _forget_older(which: str, archive: Path) -> None:
    for file in paths.image_dir().glob(f"{which}-*.tar"):
        if file != archive and len(file.stem.removeprefix(f"{which}-")) == 12:
            file.unlink()


@contextmanager
def _lock(which: str) -> Iterator[None]:
    """Two processes build the same image once; different images go side by side."""
    paths.image_dir().mkdir(parents=True, exist_ok=True)
    with (paths.image_dir() / f".{which}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
