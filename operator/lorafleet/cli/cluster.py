"""The user's cluster: which one, which namespace, and the objects in it. All errors become texts for people.

A kubeconfig is only ever read. Texts of the client library are not repeated: some hold the whole entry of a user, with
the token in it.
"""

import difflib
import logging
import os
import re
import shlex
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.aio import client, config

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL, GROUP
from lorafleet.cli.outcome import Ended, cannot_ask, no
from lorafleet.kube import Kube, KubeError, Object, path
from lorafleet.watch import list_and_watch

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_YOURS = "name yours with --kubeconfig or KUBECONFIG"
_CANNOT = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')
WORDS = {ADAPTER_PLURAL: "adapter", FLEET_PLURAL: "fleet"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which cluster and namespace, as far as the user typed it."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    def __str__(self) -> str:
        """The same as options, each after a space."""
        options = {"--kubeconfig": self.kubeconfig, "--context": self.context, "-n": self.namespace}
        return "".join(f" {option} {shlex.quote(value)}" for option, value in options.items() if value)


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster and namespace: what the user typed, completed by the kubeconfig.

    ``options``: what a command has to be given to ask there, too.
    """

    context: str | None
    namespace: str
    server: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.server} (context {self.context})" if self.context else self.server


class Cluster:
    """A connection for one command."""

    def __init__(self, kube: Kube, place: Place) -> None:
        self.kube = kube
        self.place = place

    async def one(self, plural: str, name: str) -> Object:
        """The object of that name. Raises Ended with names that are near, when there is none."""
        try:
            return await self.kube.get(self.where(plural, name))
        except KubeError as error:
            if not error.not_found:
                raise self.ended(error, "get", plural) from None
        raise await self.unknown(plural, [name])

    async def all(self, plural: str, *, everywhere: bool = False, **query: str) -> Object:
        """The list of a kind, in the namespace or in all. Raises Ended."""
        where = path(API_VERSION, plural) if everywhere else self.where(plural)
        try:
            return await self.kube.list(where, **query)
        except KubeError as error:
            raise self.ended(error, "list", plural) from None

    async def unknown(self, plural: str, names: Sequence[str], known: Iterable[str] | None = None) -> Ended:
        """The error for names that are not there; it names near ones, as far as the user may list them."""
        if known is None:
            try:
                known = [item["metadata"]["name"] for item in (await self.kube.list(self.where(plural)))["items"]]
            except KubeError as error:
                if error.not_found:
                    return self.ended(error, "list", plural)
                known = ()
        return no(not_there(WORDS[plural], names, tuple(known), self.place.namespace))

    async def changes(
        self, plural: str, listing: Object | None = None, **query: str
    ) -> AsyncGenerator[Object | None, None]:
        """The objects now, then each as it changes; None while there is no answer. ``query`` selects.

        A deleted object comes once more, with ``deleted: true`` beside its metadata. Raises Ended for what does not
        pass by itself.
        """
        async for kind, item in list_and_watch(self.kube, self.where(plural), listing, longest=5.0, **query):
            if isinstance(item, KubeError):
                if not item.unreachable and item.status < 500:
                    raise self.ended(item, "watch", plural)
                yield None
            elif kind not in ("LISTED", "OPENED"):
                yield {**item, "deleted": True} if kind == "DELETED" else item

    def where(self, plural: str, name: str = "") -> str:
        """The path of a kind, or of an object, in the namespace."""
        return path(API_VERSION, plural, self.place.namespace, name)

    def ended(self, error: KubeError, verb: str, plural: str) -> Ended:
        """A refusal of the API server in words."""
        resource = f"{plural}.{GROUP}"
        if error.unreachable:
            return cannot_ask(
                f"no answer from the API server at {self.place}: is it running, and does a VPN lead there?"
            )
        if error.status == 401:
            return cannot_ask(f"the API server at {self.place} does not accept these credentials; log in again")
        if error.status == 403:
            asked = _CANNOT.search(error.message)
            verb = asked["verb"] if asked else verb
            everywhere = "at the cluster scope" in error.message
            where = "in all namespaces" if everywhere else f"in namespace {self.place.namespace}"
            role = "ClusterRole" if everywhere else "Role"
            return cannot_ask(
                f"you may not {verb} {resource} {where} at {self.place}: ask its administrator for a {role} with the"
                f" verb {verb} on {plural} of the API group {GROUP}"
            )
        if error.not_found:
            return cannot_ask(
                f"the cluster at {self.place} does not know {resource}: install the chart lorafleet, or use another"
                " --context"
            )
        return cannot_ask(f"the API server at {self.place} refuses to {verb} {resource}: {error.message[:500]}")


def not_there(word: str, names: Sequence[str], known: Sequence[str], namespace: str) -> str:
    """That these names are not there, and which near ones are."""
    lines = []
    for name in names:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
        hint = f"did you mean {' or '.join(near)}?" if near else _known(word, known)
        lines.append(f"no {word} {name} in namespace {namespace}; {hint}")
    return "\nerror: ".join(lines)


def _known(word: str, known: Sequence[str]) -> str:
    if not known:
        return f"`lorafleet get {word}s -A` lists those of all namespaces that you may see"
    more = f" and {len(known) - 5} more" if len(known) > 5 else ""
    return f"there are {', '.join(sorted(known)[:5])}{more}"


@asynccontextmanager
async def connected(asked: Asked) -> AsyncIterator[Cluster]:
    """The cluster of the user's kubeconfig, else of the pod that this runs in. Raises Ended."""
    for name in ("kubernetes", "asyncio"):
        # They say on standard error what may hold a credential, and what the texts here say better.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    configuration = client.Configuration()
    files = _kubeconfigs(asked.kubeconfig)
    if asked.kubeconfig is None and asked.context is None and not files and (_POD / "token").exists():
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        named, ours = None, (_POD / "namespace").read_text().strip()
    else:
        named, ours = _context(files, asked)
        await _load(files, named, asked, configuration)
    server = urlsplit(configuration.host)
    user, _, host = server.netloc.rpartition("@")
    if user:
        raise cannot_ask(f"the server {host} of context {named} has a user in its address; name it below users")
    place = Place(named, asked.namespace or ours, f"{server.scheme}://{host}", str(asked))
    try:
        kube = Kube(configuration)
    except (OSError, ssl.SSLError, ValueError):
        raise cannot_ask(f"the certificates of {place} cannot be used; look at its entries in the kubeconfig") from None
    try:
        yield Cluster(kube, place)
    finally:
        await kube.close()


def _kubeconfigs(typed: str | None) -> list[Path]:
    """The kubeconfig files that exist: the one that was typed, those of KUBECONFIG, or the one in the home folder."""
    if typed is not None:
        return [file] if typed and (file := Path(typed).expanduser()).exists() else []
    named = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return [file for part in named.split(os.pathsep) if part and (file := Path(part).expanduser()).exists()]


def known_contexts(typed: str | None) -> list[str]:
    """The names of all contexts of the usual kubeconfig, or of the one that was typed. Raises Ended."""
    return [str(entry.get("name")) for file in _kubeconfigs(typed) for entry in _parsed(file).get("contexts") or ()]


def _context(files: Sequence[Path], asked: Asked) -> tuple[str, str]:
    """The name of the context, and its namespace. Raises Ended."""
    if not files:
        named = repr(asked.kubeconfig) if asked.kubeconfig is not None else os.environ.get("KUBECONFIG")
        raise cannot_ask(f"there is no kubeconfig at {named or '~/.kube/config'}, so no cluster is known; {_YOURS}")
    contexts: dict[str, dict[str, Any]] = {}
    current = None
    for file in files:
        parsed = _parsed(file)
        current = current or parsed.get("current-context")
        for entry in parsed.get("contexts") or ():
            contexts.setdefault(str(entry.get("name")), entry.get("context") or {})
    name = asked.context or current
    where = ", ".join(map(str, files))
    if not name:
        raise cannot_ask(f"the kubeconfig {where} has no current context; name one with --context")
    if name not in contexts:
        there = ", ".join(sorted(contexts)) or "none"
        raise cannot_ask(f"the kubeconfig {where} has no context {name}; there are: {there}")
    return name, contexts[name].get("namespace") or "default"


def _parsed(file: Path) -> dict[str, Any]:
    """A kubeconfig; errors without its content."""
    try:
        parsed = yaml.safe_load(file.read_text())
    except OSError as error:
        raise cannot_ask(f"the kubeconfig {file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise cannot_ask(f"the kubeconfig {file} is not YAML; {_YOURS}") from None
    if not isinstance(parsed, dict) or not all(isinstance(one, dict) for one in parsed.get("contexts") or ()):
        raise cannot_ask(f"the file {file} is no kubeconfig; {_YOURS}")
    return parsed


async def _load(files: Sequence[Path], context: str, asked: Asked, configuration: client.Configuration) -> None:
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.pathsep.join(map(str, files)),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except Exception as error:
        where = ", ".join(map(str, files))
        raise cannot_ask(
            f"the kubeconfig {where} cannot be used for context {context} ({type(error).__name__}); what does"
            f" `kubectl{Asked(asked.kubeconfig, context)} get namespaces` say?"
        ) from None
