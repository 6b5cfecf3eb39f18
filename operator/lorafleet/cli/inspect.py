"""``lorafleet inspect``: what publishing would say about an adapter, without a cluster.

The same code as in the sync Job fetches, unpacks, verifies and checks, on a volume of its own that is removed in the
end. Unlike the Job this goes on after a refusal with every check that can still be made, and says which could not.
"""

import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Examination
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import PICKLE_FILES, SIGNATURE_FILE, WEIGHTS_FILE
from lorafleet.artifacts.memory import fleet_slot_bytes
from lorafleet.cli.address import Unusable
from lorafleet.cli.entry import entry
from lorafleet.cli.question import Question
from lorafleet.cli.report import Check, File, Inspection, Memory, Notice, Result, show
from lorafleet.cli.terminal import bar, console, document
from lorafleet.sources import Listing
from lorafleet.store.attempts import Attempt, attempt
from lorafleet.store.build import Fetched, How, Request, convert, receive, require_pinned
from lorafleet.store.fs import POSIX
from lorafleet.store.layout import Layout, prepare
from lorafleet.store.proof import verify_signature
from lorafleet.store.transfer import Progress, no_progress
from lorafleet.store.volume import Volume

_SAYS_ENOUGH = "engine version"
"""The check that passes only for what every engine serves when it is not known which ones there are."""
_LOCAL_TROUBLE = frozenset({Reason.VOLUME_FULL, Reason.VOLUME_ERROR, Reason.QUOTA_EXCEEDED})


def inspect(question: Question, progress: Progress = no_progress) -> Inspection:
    """All that can be said of an adapter. Raises Unusable for trouble with the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="lorafleet-") as folder:
        layout = Layout(Path(folder))
        try:
            prepare(layout, POSIX)
            with attempt(layout, "inspect", "0", POSIX, resume=False) as one:
                return _Inspector(question, Volume(layout), one, progress).run()
        except OSError as error:
            raise _no_room(Path(folder), error.strerror or str(error)) from None


def run(question: Question, form: str) -> int:
    """Inspect and print; 0 when the adapter is accepted, 1 when it is refused."""
    signal.signal(signal.SIGTERM, _end)
    with bar("fetching") as progress:
        found = inspect(question, progress)
    if form == "text":
        show(found, console(sys.stdout))
    else:
        sys.stdout.write(document(found.to_json(), form))
    return 0 if found.accepted else 1


class _Inspector:
    """One inspection: the checks so far, and what they learnt."""

    def __init__(self, question: Question, volume: Volume, into: Attempt, progress: Progress) -> None:
        self._question = question
        self._volume = volume
        self._into = into
        self._how = How(progress=progress)
        self._request = Request(
            adapter="inspect",
            version="0",
            model="",
            expectations=question.expectations,
            digest=question.digest,
            wanted=question.wanted,
            subfolder=question.subfolder,
        )
        self._checks: dict[str, Check] = {}
        self._about: dict[str, str] = {}
        self._listing = Listing("", ())
        self._fetched: Fetched | None = None
        self._signed_by: str | None = None
        self._notices: list[Notice] = []
        self._examination = Examination(into.tree, question.expectations)

    def run(self) -> Inspection:
        """Make all checks."""
        self._check("source", self._fetch)
        self._check("digest", self._prove_digest, ("source",))
        self._check("signature", self._prove_signature, ("source",))
        if self._has_only_pickle():
            self._check("pickle", self._convert, ("source",))
        for step in self._examination.steps():
            self._check(step.name, step.run, step.after or tuple(self._checks.keys() & {"source", "pickle"}))
        return self._answer()

    def _check(self, name: str, run: Callable[[], None], after: tuple[str, ...] = ()) -> None:
        """Make a check if those before it passed."""
        self._checks[name] = self._made(name, run, after)

    def _made(self, name: str, run: Callable[[], None], after: tuple[str, ...]) -> Check:
        missing = next((one for one in after if self._checks[one].result is not Result.PASSED), None)
        if missing is not None:
            return Check(name=name, result=Result.NOT_CHECKED, message=f"{missing} has to pass first")
        why_not = self._question.not_asked.get(name)
        try:
            run()
        except ArtifactError as error:
            if why_not is not None:
                return Check(name=name, result=Result.NOT_CHECKED, message=why_not)
            return Check(name=name, result=Result.REFUSED, reason=error.reason.value, message=error.message)
        if why_not is not None and name != _SAYS_ENOUGH:
            return Check(name=name, result=Result.NOT_CHECKED, message=why_not)
        return Check(name=name, result=Result.PASSED)

    def _fetch(self) -> None:
        source = self._question.open()
        self._about = dict(source.describe())
        self._listing = self._how.pace.again(source.listing, threading.Event())
        try:
            files = receive(self._volume, self._request, source, self._listing, self._into, self._how)
        except ArtifactError as error:
            if error.reason in _LOCAL_TROUBLE:
                raise _no_room(self._volume.layout.root, error.message) from None
            raise
        adapter = tuple(file for file in files if file.path != SIGNATURE_FILE)
        self._fetched = Fetched(self._listing.pin, adapter, digest(adapter), None)

    def _prove_digest(self) -> None:
        require_pinned(self._request, self._files.digest)

    def _prove_signature(self) -> None:
        trust = self._question.trust
        if trust is not None:
            self._signed_by = verify_signature(self._into.tree, self._files.files, trust)
            self._volume.fs.remove_file(self._into.tree / SIGNATURE_FILE)

    def _convert(self) -> None:
        _, converted = convert(self._request, self._files, self._into)
        self._notices.append(
            Notice(
                reason=Reason.PICKLE_CONVERTED.value,
                message=f"{converted} is a pickle; publishing converts it to {WEIGHTS_FILE}, which is checked here",
            )
        )

    def _has_only_pickle(self) -> bool:
        names = {file.path for file in self._fetched.files} if self._fetched else set()
        return WEIGHTS_FILE not in names and any(name in names for name in PICKLE_FILES)

    @property
    def _files(self) -> Fetched:
        assert self._fetched is not None
        return self._fetched

    def _archive_sha256(self) -> str | None:
        """The sha256 of an archive of this machine, which whoever serves it has to write into the entry."""
        source = self._question.source
        if not isinstance(source, Path) or source.is_dir():
            return None
        return hash_file(source.parent, source.name).sha256

    def _answer(self) -> Inspection:
        checks = tuple(self._checks.values())
        accepted = all(check.result is not Result.REFUSED for check in checks)
        config, weights = self._examination.config, self._examination.weights
        answer = Inspection(
            accepted=accepted,
            source=self._about,
            pin=self._listing.pin or None,
            checks=checks,
            notices=tuple(self._notices),
            base_model=config.base_model if config else None,
            rank=config.max_rank if config else None,
            target_modules=weights.target_modules if weights else (),
            dtype="+".join(weights.dtypes) if weights else None,
            min_engine=".".join(map(str, config.min_engine)) if config and config.min_engine else None,
            signed_by=self._signed_by,
            memory=self._memory(),
        )
        if self._fetched is None:
            return answer
        files = self._fetched.files
        pinned = entry(self._question.source, self._listing.pin, self._fetched.digest, self._archive_sha256())
        return answer.model_copy(
            update={
                "digest": self._fetched.digest,
                "size_bytes": sum(file.size for file in files),
                "files": tuple(File(path=file.path, size=file.size, sha256=file.sha256) for file in files),
                "entry": pinned if accepted else None,
            }
        )

    def _memory(self) -> Memory | None:
        question = self._question
        rank, gpus = question.expectations.max_rank, question.tensor_parallel_size
        slot = fleet_slot_bytes(question.base_config, rank, gpus)
        if slot is None:
            return None
        return Memory(
            fleet_slot_bytes=slot,
            preallocated_bytes=slot * question.max_loras if question.max_loras else None,
            max_loras=question.max_loras,
            max_lora_rank=rank,
            tensor_parallel_size=gpus,
        )


def _no_room(folder: Path, what: str) -> Unusable:
    return Unusable(
        f"the temporary folder {folder.parent} cannot be used ({what}); expected room for the adapter and its archive:"
        " set TMPDIR to a folder that has it"
    )


def _end(number: int, frame: FrameType | None) -> None:
    """What is fetched is removed on the way out."""
    sys.exit(128 + number)
