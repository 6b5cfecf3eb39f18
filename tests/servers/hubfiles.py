"""The repositories of a hub as files: commits that never change, names that can be moved, and who may read what.

A server reads them anew for every request, so a test changes a running hub, also one in another process, by this alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LFS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
LFS_SIZE = 10_000_000


@dataclass(frozen=True)
class HubFiles:
    """Below ``root``: ``tokens.json``, and a folder for each repository."""

    root: Path

    # What a test does.

    def commit(
        self,
        repo: str,
        content: Path | Mapping[str, bytes],
        branch: str = "main",
        *,
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """A new commit of a repository with just this content; moves the branch to it and returns its name."""
        folder = self.repo(repo)
        (folder / "commits").mkdir(parents=True, exist_ok=True)
        (folder / "blobs").mkdir(exist_ok=True)
        sources: Mapping[str, Path | bytes]
        if isinstance(content, Path):
            names = sorted(file for file in content.rglob("*") if file.is_file())
            sources = {str(file.relative_to(content)): file for file in names}
        else:
            sources = content
        entries = [_store(folder / "blobs", path, source) for path, source in sorted(sources.items())]
        sha = hashlib.sha1(json.dumps([entries, secrets.token_hex(8)]).encode()).hexdigest()
        _write(folder / "commits" / f"{sha}.json", entries)
        known = self.about(repo) or {"refs": {}}
        _write(folder / "repo.json", {**known, "private": private, "gated": gated})
        self.move(repo, branch, sha)
        return sha

    def move(self, repo: str, name: str, sha: str) -> None:
        """Makes a branch or tag, new or not, stand for a commit."""
        known = self.about(repo) or {}
        _write(self.repo(repo) / "repo.json", {**known, "refs": {**known["refs"], name: sha}})

    def token(self, *repos: str) -> str:
        """A new token that reads these repositories, besides what everybody may."""
        token = f"hf_{secrets.token_hex(17)}"
        _write(self.root / "tokens.json", {**self.tokens(), token: list(repos)})
        return token

    def blob(self, repo: str, sha: str, path: str) -> Path:
        """The file with the bytes of a path, to damage it."""
        entry = next(one for one in self.entries(repo, sha) or () if one["path"] == path)
        return self.stored(repo, entry)

    # What a server asks.

    def repo(self, repo: str) -> Path:
        """Where a repository is."""
        return self.root / "repos" / repo

    def about(self, repo: str) -> dict[str, Any] | None:
        """Its names and who may read it; None when there is none."""
        found: dict[str, Any] | None = _read(self.repo(repo) / "repo.json")
        return found

    def tokens(self) -> dict[str, list[str]]:
        """The repositories of each token."""
        return _read(self.root / "tokens.json") or {}

    def resolve(self, repo: str, revision: str) -> str | None:
        """The commit that a branch, tag or commit stands for."""
        refs = (self.about(repo) or {}).get("refs", {})
        sha = str(refs.get(revision.removeprefix("refs/heads/").removeprefix("refs/tags/"), revision))
        return sha if (self.repo(repo) / "commits" / f"{sha}.json").is_file() else None

    def entries(self, repo: str, sha: str) -> list[dict[str, Any]] | None:
        """The files of a commit: path, size, git blob oid, and for large ones the sha256 as lfs.oid."""
        found: list[dict[str, Any]] | None = _read(self.repo(repo) / "commits" / f"{sha}.json")
        return found

    def stored(self, repo: str, entry: Mapping[str, Any]) -> Path:
        """The file of an entry's bytes."""
        return self.repo(repo) / "blobs" / str((entry.get("lfs") or entry)["oid"])


def _store(blobs: Path, path: str, source: Path | bytes) -> dict[str, Any]:
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if not path.endswith(LFS) and size <= LFS_SIZE:
        data = source.read_bytes() if isinstance(source, Path) else source
        oid = _git(data)
        (blobs / oid).write_bytes(data)
        return {"type": "file", "oid": oid, "size": size, "path": path}
    if isinstance(source, Path):
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not (blobs / sha256).exists():
            shutil.copyfile(source, blobs / sha256)
    else:
        sha256 = hashlib.sha256(source).hexdigest()
        (blobs / sha256).write_bytes(source)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    lfs = {"oid": sha256, "size": size, "pointerSize": len(pointer)}
    return {"type": "file", "oid": _git(pointer), "size": size, "lfs": lfs, "path": path}


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, value: Any) -> None:
    """Whole or not at all: a server may read it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.{os.getpid()}"
    part.write_text(json.dumps(value))
    part.replace(path)
