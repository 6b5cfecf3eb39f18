"""Sending a file by HTTP, by sendfile where nothing is wrong, or in one of the ways in which servers misbehave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

_PIECE = 64 * 1024
# TLS knows no sendfile; large pieces make up for it.
_TLS_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Faults:
    """How requests for a file go wrong. A count of None means each time, otherwise only the first so many."""

    cut_after: int | None = None
    """The connection ends after so many bytes of a body …"""
    cuts: int | None = None
    """… this often."""
    status: int | None = None
    """The answer is this status …"""
    failures: int | None = None
    """… this often …"""
    retry_after: str | None = None
    """… with this Retry-After."""
    ranges: bool = True
    """Whether Range is heeded; when not, all of the file is sent with 200."""
    head: bool = True
    """Whether HEAD is answered; when not, 405."""
    length: bool = True
    """Whether the length is said beforehand; when not, in chunks."""
    more: int = 0
    """Content-Length says so many bytes more than there are; the connection then ends."""
    etag: bool = True
    """Whether there is an ETag."""
    changes_after: int | None = None
    """The ETag is another one after so many requests."""
    pace: int | None = None
    """So many bytes a second."""
    location: str | None = None
    """The answer is a redirect to there."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a request must carry: 401 without, 403 with other values."""

    @property
    def sends_plainly(self) -> bool:
        """Whether a file goes out as it is."""
        return self == Faults(status=self.status, failures=self.failures, headers=self.headers)


NONE = Faults()


async def send(
    request: web.Request, file: Path, faults: Faults = NONE, before: int = 0, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Answers a GET or HEAD with a file. ``before``: how many requests for it there were; ``headers``: more of them."""
    given = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **(headers or {})}
    if (refusal := _refusal(request, faults, before)) is not None:
        return refusal
    if not file.is_file():
        return web.Response(status=404, text="not found\n")
    if faults.sends_plainly and "ETag" not in given:
        return web.FileResponse(file, headers=given, chunk_size=_TLS_PIECE)
    return await _send_badly(request, file, faults, before, given)


def _refusal(request: web.Request, faults: Faults, before: int) -> web.Response | None:
    for name, value in faults.headers.items():
        if (found := request.headers.get(name)) != value:
            return web.Response(status=401 if found is None else 403, text="not for you\n")
    if faults.status is not None and (faults.failures is None or before < faults.failures):
        retry = {} if faults.retry_after is None else {"Retry-After": faults.retry_after}
        return web.Response(status=faults.status, text="not now\n", headers=retry)
    if faults.location is not None:
        return web.Response(status=302, headers={"Location": faults.location})
    if request.method == "HEAD" and not faults.head:
        return web.Response(status=405)
    return None


async def _send_badly(
    request: web.Request, file: Path, faults: Faults, before: int, headers: dict[str, str]
) -> web.StreamResponse:
    stat = file.stat()
    size, start, end, status = stat.st_size, 0, stat.st_size, 200
    if faults.etag and "ETag" not in headers:
        changed = faults.changes_after is not None and before >= faults.changes_after
        headers["ETag"] = f'"{stat.st_mtime_ns:x}-{size:x}{"-changed" if changed else ""}"'
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    same = request.headers.get("If-Range", headers.get("ETag")) == headers.get("ETag")
    if request.headers.get("If-Match", headers.get("ETag")) not in (headers.get("ETag"), "*"):
        return web.Response(status=412)
    if faults.ranges and asked and same:
        start, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else size, size)
        if start >= size:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if not faults.ranges:
        del headers["Accept-Ranges"]
    response = web.StreamResponse(status=status, headers=headers)
    if faults.length:
        response.content_length = end - start + faults.more
    else:
        response.enable_chunked_encoding()
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    cut = faults.cut_after is not None and (faults.cuts is None or before < faults.cuts)
    last = min(end, start + (faults.cut_after or 0)) if cut else end
    await _copy(response, file, start, last, faults.pace)
    if cut or faults.more:
        response.force_close()
        if request.transport is not None:
            request.transport.close()
    return response


async def _copy(response: web.StreamResponse, file: Path, start: int, end: int, pace: int | None) -> None:
    """Writes a part of a file, at a pace if there is one."""
    piece = _PIECE if pace is None else max(1, min(_PIECE, pace // 20))
    with file.open("rb") as opened:
        opened.seek(start)
        while start < end and (data := opened.read(min(piece, end - start))):
            start += len(data)
            await response.write(data)
            if pace is not None:
                await asyncio.sleep(len(data) / pace)
