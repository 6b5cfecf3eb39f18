"""A server that speaks the routes of a Hugging Face hub for models; in a thread or as a process of its own.

As the hub does, it answers with a commit's name and redirects large files to another origin by an address that is good
without a token, and refused with one. What it says of repositories that somebody may not read is the hub's, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from aiohttp import web as aio

from e2e.cluster.paths import REPOSITORY
from tests.servers.certificates import Tls, url
from tests.servers.hubfiles import HubFiles
from tests.servers.own import forever, in_thread, load
from tests.servers.process import LOOPBACK, Where, running
from tests.servers.sending import NONE, Faults, send

PAGE = 1000


@dataclass
class Hub:
    """A hub at ``url`` that sends large files from ``cdn``.

    ``faults``: how the bytes of large files go wrong, by the file's sha256, "" for all others; ``api_faults``: how
    answers about repositories do; ``page``: how many files a page of a tree has.
    """

    url: str
    cdn: str
    files: HubFiles
    faults: dict[str, Faults] = field(default_factory=dict)
    api_faults: Faults = NONE
    page: int = PAGE
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def application(self) -> aio.Application:
        """Both origins in one."""
        app = aio.Application()
        app.router.add_get("/cdn/{oid}", self._cdn)
        app.router.add_get("/{path:.*}", self._route)
        app.on_response_prepare.append(_identify)
        app.middlewares.append(self._remember)
        return app

    @aio.middleware
    async def _remember(self, request: aio.Request, handler: Any) -> aio.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        try:
            answer: aio.StreamResponse = await handler(request)
        except _Refused as refused:
            return refused.response
        return answer

    async def _route(self, request: aio.Request) -> aio.StreamResponse:
        # Names of revisions hold slashes, which clients encode: the parts are taken before they are decoded.
        parts = [unquote(part) for part in request.rel_url.raw_path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            if self.api_faults is not NONE:
                before = sum(1 for _, path, _ in self.requests if path == request.path_qs) - 1
                refusal = await send(request, Path("/nonexistent"), self.api_faults, before)
                if refusal.status != 404:
                    return refusal
            return self._api(request, parts[2:])
        for length in (2, 1):
            if parts[length : length + 1] == ["resolve"] and len(parts) > length + 2:
                return await self._resolve(
                    request, "/".join(parts[:length]), parts[length + 1], "/".join(parts[length + 2 :])
                )
        if parts[:3] == ["api", "resolve-cache", "models"]:
            return await self._small(request, "/".join(parts[3:5]), parts[5], "/".join(parts[6:]))
        raise _refused(404, None, "Sorry, we can't find the page you are looking for.")

    # About a repository.

    def _api(self, request: aio.Request, parts: list[str]) -> aio.Response:
        length = 1 if len(parts) == 1 or parts[1] in ("revision", "tree") else 2
        repo, what = "/".join(parts[:length]), parts[length : length + 1]
        about = self._readable(request, repo)
        revision = parts[length + 1] if what and len(parts) > length + 1 else "main"
        sha, entries = self._commit(repo, revision)
        if what == ["tree"]:
            return self._tree(request, entries, "/".join(parts[length + 2 :]))
        if what not in ([], ["revision"]):
            raise _refused(404, None, "Not Found")
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        body = {
            "_id": sha[:24], "id": repo, "modelId": repo, "sha": sha, "private": about["private"],
            "gated": "manual" if about["gated"] else False, "disabled": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": siblings,
        }  # fmt: skip
        return aio.json_response(body)

    def _tree(self, request: aio.Request, entries: list[dict[str, Any]], folder: str) -> aio.Response:
        prefix = f"{folder}/" if folder else ""
        inside = [entry for entry in entries if entry["path"].startswith(prefix)]
        if not inside and folder:
            raise _refused(404, "EntryNotFound", f"{folder} does not exist on this revision")
        recursive = request.query.get("recursive") in ("true", "1", "True")
        shown = _folders(inside, prefix) + inside
        if not recursive:
            shown = [entry for entry in shown if "/" not in entry["path"].removeprefix(prefix)]
        shown.sort(key=lambda entry: entry["path"])
        start, limit = int(request.query.get("cursor", "0")), int(request.query.get("limit", str(self.page)))
        headers = {}
        if start + limit < len(shown):
            query = urlencode({**request.query, "limit": str(limit), "cursor": str(start + limit)})
            headers["Link"] = f'<{self.url}{request.rel_url.raw_path}?{query}>; rel="next"'
        return aio.json_response(shown[start : start + limit], headers=headers)

    # The bytes.

    async def _resolve(self, request: aio.Request, repo: str, revision: str, path: str) -> aio.StreamResponse:
        about = self._readable(request, repo)
        self._check_gate(request, repo, about)
        sha, entry = self._entry(repo, revision, path)
        common = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if lfs := entry.get("lfs"):
            linked = {"X-Linked-Etag": f'"{lfs["oid"]}"', "X-Linked-Size": str(lfs["size"])}
            query = urlencode({"Expires": "1", "Policy": repo, "Signature": lfs["oid"]})
            location = f"{self.cdn}/cdn/{lfs['oid']}?{query}"
            return aio.Response(status=302, headers={**common, **linked, "Location": location})
        location = f"/api/resolve-cache/models/{repo}/{sha}/{quote(path)}"
        headers = {**common, "ETag": f'"{entry["oid"]}"', "X-Linked-Size": str(entry["size"]), "Location": location}
        return aio.Response(status=307, headers=headers)

    async def _small(self, request: aio.Request, repo: str, revision: str, path: str) -> aio.StreamResponse:
        self._check_gate(request, repo, self._readable(request, repo))
        sha, entry = self._entry(repo, revision, path)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry["oid"]}"'}
        return await send(request, self.files.stored(repo, entry), headers=headers)

    async def _cdn(self, request: aio.Request) -> aio.StreamResponse:
        oid = request.match_info["oid"]
        if request.headers.get("Authorization"):
            return aio.Response(status=400, text="Only one auth mechanism allowed")
        if request.query.get("Signature") != oid:
            return aio.Response(status=403, text="Access denied")
        file = self.files.repo(request.query["Policy"]) / "blobs" / oid
        before = sum(1 for method, path, _ in self.requests if path == request.path_qs and method == request.method) - 1
        return await send(request, file, self.faults.get(oid, self.faults.get("", NONE)), before)

    # Who may.

    def _readable(self, request: aio.Request, repo: str) -> dict[str, Any]:
        about = self.files.about(repo)
        token = self._token(request)
        if about is not None and (not about["private"] or repo in self.files.tokens().get(token or "", ())):
            return about
        if token is None:
            raise _refused(401, None, "Invalid username or password.")
        raise _refused(404, "RepoNotFound", "Repository not found")

    def _check_gate(self, request: aio.Request, repo: str, about: Mapping[str, Any]) -> None:
        token = self._token(request)
        if not about["gated"] or repo in self.files.tokens().get(token or "", ()):
            return
        if token is None:
            raise _refused(
                401, "GatedRepo", f"Access to model {repo} is restricted. You must have access to it and be"
                " authenticated to access it. Please log in.",
            )  # fmt: skip
        raise _refused(
            403, "GatedRepo", f"Access to model {repo} is restricted and you are not in the authorized list."
            f" Visit {self.url}/{repo} to ask for access.",
        )  # fmt: skip

    def _token(self, request: aio.Request) -> str | None:
        value = request.headers.get("Authorization")
        if value is None:
            return None
        token = value.removeprefix("Bearer ")
        if token not in self.files.tokens():
            raise _refused(401, None, "Invalid credentials in Authorization header")
        return token

    def _commit(self, repo: str, revision: str) -> tuple[str, list[dict[str, Any]]]:
        sha = self.files.resolve(repo, revision)
        entries = self.files.entries(repo, sha) if sha else None
        if sha is None or entries is None:
            raise _refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, entries

    def _entry(self, repo: str, revision: str, path: str) -> tuple[str, dict[str, Any]]:
        sha, entries = self._commit(repo, revision)
        for entry in entries:
            if entry["path"] == path:
                return sha, entry
        raise _refused(404, "EntryNotFound", "Entry not found")


class _Refused(Exception):
    def __init__(self, response: aio.Response) -> None:
        self.response = response


def _refused(status: int, code: str | None, message: str) -> _Refused:
    headers = {"X-Error-Message": message}
    if code is not None:
        headers["X-Error-Code"] = code
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return _Refused(aio.json_response({"error": message}, status=status, headers=headers))


async def _identify(request: aio.Request, response: aio.StreamResponse) -> None:
    response.headers["X-Request-Id"] = "Root=1-00000000-000000000000000000000000"


def _folders(entries: list[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    names = {
        str(parent)
        for entry in entries
        for parent in Path(entry["path"]).parents
        if str(parent).startswith(prefix) and parent != Path()
    }
    return [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in names if f"{name}/" != prefix]


@contextmanager
def hub(root: Path, *, host: str = "127.0.0.1", port: int | None = None, tls: Tls | None = None) -> Iterator[Hub]:
    """In a thread: what it gives is live."""
    ports = [port or Where(host).port(), Where(host).port()]
    origins = [url(host, one, tls) for one in ports]
    running_hub = Hub(origins[0], origins[1], HubFiles(root))
    with in_thread(running_hub.application, host, ports, tls):
        yield running_hub


@contextmanager
def hub_process(
    root: Path, log: Path, *, where: Where = LOOPBACK, port: int | None = None, tls: Tls | None = None
) -> Iterator[Hub]:
    """As a process of its own, anywhere: only ``files`` of what it gives is live."""
    root.mkdir(parents=True, exist_ok=True)
    ports = [port or where.port(), where.port()]
    argv: list[str | Path] = [
        sys.executable, "-m", "tests.servers.hub", root, "--host", where.host,
        "--port", str(ports[0]), "--cdn-port", str(ports[1]),
    ]  # fmt: skip
    if tls:
        argv += ["--certificate", tls.server.certificate, "--key", tls.server.key]
    origins = [url(where.host, one, tls) for one in ports]
    with running("hub", argv, origins[1], log, where, cwd=REPOSITORY):
        yield Hub(origins[0], origins[1], HubFiles(root))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.hub", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cdn-port", type=int, required=True)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    words = parser.parse_args()
    scheme = "https" if words.certificate else "http"
    origins = [f"{scheme}://{words.host}:{port}" for port in (words.port, words.cdn_port)]
    secure = load(words.certificate, words.key) if words.certificate else None
    forever(
        Hub(origins[0], origins[1], HubFiles(words.root)).application(),
        words.host,
        [words.port, words.cdn_port],
        secure,
    )


if __name__ == "__main__":
    main()
