"""A repository on a Hugging Face hub: what is there is asked by huggingface_hub, the bytes come by our own reader.

The library's requests all go through ``sources.web``, so authorities, proxies, timeouts, redirects and errors are the
same as everywhere. The token is added there, for the hub's own origin alone: the library never has it, so neither its
messages nor the hosts that a hub sends downloads to can.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

# Read by the library when it is imported. Telemetry would ask the public hub for things of its own.
for _name in ("TELEMETRY", "PROGRESS_BARS", "XET", "IMPLICIT_TOKEN"):
    os.environ[f"HF_HUB_DISABLE_{_name}"] = "1"

import httpx2  # noqa: E402
from huggingface_hub import HfApi, set_client_factory  # noqa: E402
from huggingface_hub.errors import (  # noqa: E402
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile  # noqa: E402

from lorafleet.api.reasons import Reason  # noqa: E402
from lorafleet.api.sources import HuggingFaceSource as HuggingFaceSpec  # noqa: E402
from lorafleet.artifacts.errors import ArtifactError  # noqa: E402
from lorafleet.artifacts.files import Wanted, check_entries, select  # noqa: E402
from lorafleet.sources.base import Checksum, Chunk, Listing, SourceFile  # noqa: E402
from lorafleet.sources.remote import check_subfolder, corrupt, refused, unreachable  # noqa: E402
from lorafleet.sources.secret import CA_KEY, Secret  # noqa: E402
from lorafleet.sources.web import Web, origin  # noqa: E402

TOKEN_KEY = "token"
"""The key of the Secret that reads private and gated repositories."""

_ANSWER_BYTES = 16 * 1024 * 1024
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TOLD = (400, 401, 403, 404)
"""Statuses that a hub explains in headers, which the library reads."""


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """The folder of ``spec``; ``pin`` is the commit that its revision was when it was first asked."""

    spec: HuggingFaceSpec
    secret: Secret
    wanted: Wanted
    pin: str | None = None
    _web: Web = field(init=False, repr=False)
    _api: HfApi = field(init=False, repr=False)
    _credentials: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises ArtifactError (SecretInvalid, SourceInvalid)."""
        check_subfolder(self.spec.subfolder, self._where)
        object.__setattr__(self, "_web", Web(self.secret))
        endpoint = self.spec.endpoint.rstrip("/") if self.spec.endpoint else None
        object.__setattr__(self, "_api", HfApi(endpoint=endpoint, token=False))
        object.__setattr__(self, "_credentials", self._read_token())

    def describe(self) -> Mapping[str, str]:
        """Scheme, repository, revision, and endpoint and folder if they are named."""
        named = {"subfolder": self.spec.subfolder, "endpoint": self.spec.endpoint}
        return {
            "scheme": "huggingFace",
            "repo": self.spec.repo,
            "revision": self.spec.revision,
            **{key: value for key, value in named.items() if value},
        }

    def listing(self) -> Listing:
        """The adapter's files in the folder, each with its hash. Raises ArtifactError."""
        with self._asking():
            commit = self.pin or self._commit()
            found = {file.path: file for file in self._files(commit)}
        chosen = select(((name, file.size) for name, file in found.items()), self.wanted, self._where)
        return Listing(commit, tuple(found[name] for name in chosen))

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of a file of the listed commit. Raises ArtifactError."""
        where = f"{file.path} of {self._where}"
        try:
            yield from self._web.read(file.locator, start, where, size=file.size, credentials=self._credentials)
        except ArtifactError as error:
            if error.reason is Reason.SOURCE_CHANGED:
                raise corrupt(where, "the hub sends another size than it lists for this commit") from None
            if error.reason is Reason.SOURCE_DENIED:
                raise ArtifactError(error.reason, f"{error.message}; {self._gate}") from None
            raise

    def confirm(self, listing: Listing) -> None:
        """Nothing: a commit does not change, and each file's hash was checked."""

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """What the hub says to a request of the library. Raises ArtifactError, but for what the library explains."""
        url = str(request.url)
        if origin(url) != origin(self._api.endpoint):
            raise ArtifactError(
                Reason.SOURCE_INVALID,
                f"{self._where} goes on at another server ({request.url.host}), from which nothing is taken: correct"
                " the mirror, or name the hub itself as source.huggingFace.endpoint in a new version",
            )
        with self._web.ask(
            url, self._where, method=request.method, credentials=self._credentials, allow=_TOLD.__contains__
        ) as answer:
            kept = {
                name: answer.headers[name]
                for name in ("X-Error-Code", "X-Error-Message", "Link")
                if name in answer.headers
            }
            return httpx2.Response(answer.status, headers=kept, content=answer.document(_ANSWER_BYTES), request=request)

    def _commit(self) -> str:
        commit = self._api.model_info(self.spec.repo, revision=self.spec.revision).sha
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise ValueError("no commit")
        return commit

    def _files(self, commit: str) -> Iterator[SourceFile]:
        """The files directly in the folder."""
        folder = f"{self.spec.subfolder}/" if self.spec.subfolder else ""
        tree = self._api.list_repo_tree(self.spec.repo, self.spec.subfolder, revision=commit, expand=False)
        for number, item in enumerate(tree, 1):
            check_entries(number, self.wanted.limits)
            name = item.path.removeprefix(folder)
            if isinstance(item, RepoFile) and item.path == folder + name:
                yield self._file(commit, name, item)

    def _file(self, commit: str, name: str, item: RepoFile) -> SourceFile:
        checksum = Checksum("sha256", item.lfs.sha256) if item.lfs else Checksum("git", item.blob_id)
        if not re.fullmatch(r"[0-9a-f]{64}" if item.lfs else r"[0-9a-f]{40}", checksum.value) or item.size < 0:
            raise ValueError("no hash")
        url = f"{self._api.endpoint}/{self.spec.repo}/resolve/{commit}/{quote(item.path, safe='/')}"
        return SourceFile(name, item.size, f"{checksum.algorithm}:{checksum.value}", url, checksum)

    def _read_token(self) -> Mapping[str, str]:
        token = self.secret.text(TOKEN_KEY)
        if token is None and self.secret.name and CA_KEY not in self.secret.names():
            raise self.secret.invalid(
                f"has no key {TOKEN_KEY!r}", f"put the hub's token under {TOKEN_KEY!r}, or authorities under {CA_KEY!r}"
            )
        return {"Authorization": f"Bearer {token}"} if token else {}

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Within it the library's requests are this source's, and its errors are ArtifactErrors."""
        entered = _asking.set(self)
        try:
            yield
        except HFValidationError:
            raise ArtifactError(
                Reason.SOURCE_INVALID,
                f"source.huggingFace.repo {self.spec.repo!r} cannot be the name of a repository: correct it in a new"
                " version",
            ) from None
        except HfHubHTTPError as error:
            self._refuse(error)
        except (ValueError, KeyError, TypeError, AttributeError, httpx2.InvalidURL):
            raise unreachable(self._where, "the answer is not one of a hub (look at the endpoint)") from None
        finally:
            _asking.reset(entered)

    def _refuse(self, error: HfHubHTTPError) -> NoReturn:
        """The library's error in our words; its own text is dropped, since it holds what the server answered."""
        status = error.response.status_code
        note = f"the hub answered {status}"
        if isinstance(error, GatedRepoError):
            text = f"{self._where} is gated ({note}): {self._gate}"
            raise ArtifactError(Reason.SOURCE_DENIED, text) from None
        if isinstance(error, DisabledRepoError):
            text = f"{self._where} was disabled by the hub ({note}): name another repository in a new version"
            raise ArtifactError(Reason.SOURCE_DENIED, text) from None
        # Whoever has no token is answered 401 for what is missing, too.
        if isinstance(error, RepositoryNotFoundError) or (status == 401 and not self._credentials):
            reason = Reason.SOURCE_DENIED if status == 401 and self._credentials else Reason.SOURCE_NOT_FOUND
            text = (
                f"{self._where} does not exist, or is private, which a hub does not tell apart ({note}): correct"
                f" the name in a new version, or {self._gate}"
            )
            raise ArtifactError(reason, text) from None
        if isinstance(error, RevisionNotFoundError):
            missing = (
                f"the commit {self.pin}, which it was first fetched at" if self.pin else "such a branch, tag or commit"
            )
            move = (
                "restore it, or append a new version"
                if self.pin
                else "push it, or correct the revision in a new version"
            )
            raise ArtifactError(Reason.SOURCE_NOT_FOUND, f"{self._where} has no {missing} ({note}): {move}") from None
        if isinstance(error, EntryNotFoundError):
            text = (
                f"{self._where} does not have that folder ({note}): push it, or correct the subfolder in a new version"
            )
            raise ArtifactError(Reason.SOURCE_NOT_FOUND, text) from None
        raise refused(status, self._where, secret=self.secret) from None

    @property
    def _gate(self) -> str:
        """The next move for who may not read."""
        if self._credentials:
            return (
                f"give the token in Secret {self.secret.name} read access to it, and accept its terms at the hub with"
                " the token's account when it is gated"
            )
        return (
            f"put a token that may read it under {TOKEN_KEY!r} into a Secret of this namespace, and name the Secret in"
            " source.huggingFace.secretName"
        )

    @property
    def _where(self) -> str:
        folder = f", folder {self.spec.subfolder}," if self.spec.subfolder else ""
        at = f" at {self.spec.endpoint}" if self.spec.endpoint else " at the hub"
        return f"repository {self.spec.repo}@{self.spec.revision}{folder}{at}"


_asking: ContextVar[HuggingFaceSource | None] = ContextVar("_asking", default=None)


class _Transport(httpx2.BaseTransport):
    """Carries the library's requests for whichever source is asking in this thread."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        source = _asking.get()
        if source is None:
            raise httpx2.ConnectError("nothing but a source asks a hub", request=request)
        return source.answer(request)


def _client(**_: Any) -> httpx2.Client:
    return httpx2.Client(transport=_Transport(), trust_env=False)


set_client_factory(_client)
