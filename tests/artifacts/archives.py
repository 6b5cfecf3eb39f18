"""Archives for tests: of plain files in every format, and tars of members of any kind."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

import zstandard

from tests.adapters import config, tensors

FORMATS = ("tar", "tar.gz", "tar.zst", "zip", "zip-stored", "zip-streamed", "tar-ustar", "tar-gnu")


def adapter_files(**more: bytes) -> dict[str, bytes]:
    """The files of a small adapter."""
    import json

    from safetensors.numpy import save

    return {
        "adapter_config.json": json.dumps(config()).encode(),
        "adapter_model.safetensors": save(tensors()),
        "README.md": b"An adapter.\n",
    } | more


def pack(files: Mapping[str, bytes], form: str = "tar") -> bytes:
    """An archive of these files, as the usual tools write it."""
    if form.startswith("zip"):
        return _zip(files, form)
    formats = {"tar-ustar": tarfile.USTAR_FORMAT, "tar-gnu": tarfile.GNU_FORMAT}
    plain = tar(((name, tarfile.REGTYPE, content) for name, content in files.items()), formats.get(form))
    return compress(plain, form)


def compress(plain: bytes, form: str) -> bytes:
    """A tar as ``form`` says."""
    if form == "tar.gz":
        return gzip.compress(plain, mtime=0)
    return zstandard.ZstdCompressor(write_checksum=True).compress(plain) if form == "tar.zst" else plain


def tar(members: Iterable[tuple[str, bytes, bytes]], form: int | None = None) -> bytes:
    """A tar of (name, type, content); the content of a link is where it leads."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT if form is None else form) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content.decode()
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class _Pipe(io.RawIOBase):
    """Where a zip is written to without going back, which puts sizes behind the members."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        self.data += data
        return len(data)


def _zip(files: Mapping[str, bytes], form: str) -> bytes:
    out = _Pipe() if form == "zip-streamed" else io.BytesIO()
    method = zipfile.ZIP_STORED if form == "zip-stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w", method) as archive:  # type: ignore[arg-type]
        archive.comment = b"made for tests" if form == "zip-stored" else b""
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return bytes(out.data) if isinstance(out, _Pipe) else out.getvalue()
