"""What a user types for a source, as a version's entry would name it.

``hf://owner/name[@revision][/subfolder]``, ``s3://``, ``gs://`` and ``az://bucket/folder``,
``oci://registry/repository:tag`` or ``@sha256:…``, ``http(s)://…#sha256=<hex>``; whatever has no scheme is a path here.
Pure: nothing is looked at. Messages never repeat an address as it was typed, because it may hold a token.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from lorafleet.api.sources import Source

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HUB = re.compile(
    r"(?P<repo>[^/@]+(?:/[^/@]+)?)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<subfolder>.+))?"
)
_SHA256 = re.compile(r"(?:sha256=|sha256:)?([0-9a-fA-F]{64})")

FORMS = (
    "hf://owner/name[@revision][/subfolder], s3://, gs:// or az://bucket/folder, oci://registry/repository:tag or"
    " @sha256:…, http(s)://…#sha256=<hex>"
)


class Unusable(Exception):
    """What the user typed cannot be used; the text says what was found, what was expected, and the next move."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a source may need beside its address, by the names of the fields of the spec; None: not given."""

    subfolder: str | None = None
    endpoint: str | None = None
    region: str | None = None
    plain_http: bool | None = None
    secret_name: str | None = None

    def only(self, scheme: str, *taken: str) -> dict[str, Any]:
        """Those that are given. Raises Unusable for one that the scheme does not take."""
        given = {
            field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None
        }
        for name in given:
            if name not in taken:
                option = "--secret" if name == "secret_name" else f"--{name.replace('_', '-')}"
                raise Unusable(f"{option} is given for {scheme}, which does not take it; leave it out")
        return given


def parse(text: str, options: Options) -> Source | None:
    """The source that an address names; None for a path of this machine. Raises Unusable."""
    found = _SCHEME.match(text)
    if found is None:
        return None
    scheme, rest = found[1].lower(), text[found.end() :]
    reader = _READERS.get(scheme)
    if reader is None:
        raise Unusable(f"an address with the scheme {scheme}:// is no source; expected a path, {FORMS}")
    try:
        return Source.model_validate(reader(scheme, rest, options))
    except ValidationError as error:
        raise Unusable(f"the {scheme}:// address cannot be used: {_faults(error)}; expected {FORMS}") from None


def _hub(scheme: str, rest: str, options: Options) -> Mapping[str, Any]:
    given = options.only("hf://", "subfolder", "endpoint", "secret_name")
    found = _HUB.fullmatch(rest.strip("/"))
    if found is None or "/" not in found["repo"]:
        raise Unusable(
            "the hf:// address names no repository; expected hf://owner/name, perhaps with @revision and /subfolder"
        )
    if found["subfolder"] and options.subfolder:
        raise Unusable("the hf:// address names a subfolder and --subfolder another; give one of them")
    revision = {"revision": unquote(found["revision"])} if found["revision"] else {}
    subfolder = {"subfolder": found["subfolder"]} if found["subfolder"] else {}
    return {"huggingFace": {"repo": found["repo"], **revision, **subfolder, **given}}


def _bucket(scheme: str, rest: str, options: Options) -> Mapping[str, Any]:
    regional = ("region",) if scheme == "s3" else ()
    given = options.only(f"{scheme}://", "endpoint", "secret_name", *regional)
    return {"objectStore": {"url": f"{scheme}://{rest}", **given}}


def _registry(scheme: str, rest: str, options: Options) -> Mapping[str, Any]:
    given = options.only("oci://", "subfolder", "plain_http", "secret_name")
    if "secret_name" in given:
        given["pull_secret_name"] = given.pop("secret_name")
    return {"oci": {"reference": rest, **given}}


def _web(scheme: str, rest: str, options: Options) -> Mapping[str, Any]:
    given = options.only(f"{scheme}://", "subfolder", "secret_name")
    address, _, fragment = rest.partition("#")
    sha256 = _SHA256.fullmatch(fragment)
    if sha256 is None:
        host = urlsplit(f"{scheme}://{address}").netloc.rpartition("@")[2]
        raise Unusable(
            f"the address at {host} has no sha256; expected #sha256=<64 hex digits> at its end, the archive's"
            " own: its publisher names it, or `curl -sL … | sha256sum` prints that of what is there now"
        )
    return {"http": {"url": f"{scheme}://{address}", "sha256": sha256[1].lower(), **given}}


_READERS = {
    "hf": _hub, "s3": _bucket, "gs": _bucket, "az": _bucket, "oci": _registry, "http": _web, "https": _web,
}  # fmt: skip


def _faults(error: ValidationError) -> str:
    """What is wrong, without the values: an address may hold a token."""
    return "; ".join(
        f"source.{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    )
