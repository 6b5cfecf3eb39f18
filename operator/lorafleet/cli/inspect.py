"""``lorafleet inspect``: what publishing would say about an adapter, without a cluster.

The same code as in the sync Job fetches, unpacks, verifies and checks, on a volume of its own that is removed in the
end. Unlike the Job this goes on after a refusal with every check that can still be made, and says which could not.
"""

import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Examination
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import PICKLE_FILES, SIGNATURE_FILE, WEIGHTS_FILE, Wanted
from lorafleet.artifacts.memory import fleet_slot_bytes
from lorafleet.cli.address import Unusable
from lorafleet.cli.entry import entry
from lorafleet.cli.question import Question
from lorafleet.cli.report import Check, File, Inspection, Memory, Notice, Result, show
from lorafleet.cli.terminal import bar, console, document
from lorafleet.sources import Listing
from lorafleet.store.attempts import Attempt, attempt
from lorafleet.store.build import Fetched, How, Request, convert, receive, require_pinned
from lorafleet.store.fs import POSIX, remove_tree
from lorafleet.store.layout import Layout, prepare
from lorafleet.store.proof import verify_signature
from lorafleet.store.transfer import Progress, no_progress
from lorafleet.store.volume import Volume

_REFUSE_UNASKED = frozenset({"base model", "engine version"})
"""Checks that refuse what they have nothing to compare with, where all others accept it."""


class End:
    """Ends the command by a signal, so that nothing is left of it.

    While other threads fetch, they have to end first: then the signal is told to them, and only a second one is not
    waited for.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._threads = False

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """What the process does on a signal."""
        again, self._number = self._number is not None, number
        if again or not self._threads:
            sys.exit(128 + number)

    @contextmanager
    def threads(self, progress: Progress) -> Iterator[Progress]:
        """While the block runs, threads fetch and call what it is given."""

        def told(done: int, total: int | None) -> None:
            if self._number is not None:
                sys.exit(128 + self._number)
            progress(done, total)

        self._threads = True
        try:
            yield told
        finally:
            self._threads = False
        if self._number is not None:
            sys.exit(128 + self._number)


def inspect(question: Question, progress: Progress = no_progress, end: End | None = None) -> Inspection:
    """All that can be said of an adapter. Raises Unusable for trouble with the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="lorafleet-") as folder:
        layout = Layout(Path(folder))
        try:
            prepare(layout, POSIX)
            with attempt(layout, "inspect", "0", POSIX, resume=False) as one:
                return _Inspector(question, Volume(layout), one, progress, end or End()).run()
        except OSError as error:
            raise _no_room(Path(folder), error.strerror or str(error)) from None


def run(question: Question, form: str) -> int:
    """Inspect and print; 0 when the adapter is accepted, 1 when it is refused."""
    end = End()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end.ask)
    with bar("fetching") as progress:
        found = inspect(question, progress, end)
    if form == "text":
        show(found, console(sys.stdout))
    else:
        sys.stdout.write(document(found.to_json(), form))
    return 0 if found.accepted else 1


class _Inspector:
    """One inspection: the checks so far, and what they learnt."""

    def __init__(self, question: Question, volume: Volume, into: Attempt, progress: Progress, end: End) -> None:
        self._question = question
        self._volume = volume
        self._into = into
        self._progress = progress
        self._end = end
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
        self._unsigned: ArtifactError | None = None
        self._converted: str | None = None
        self._examination = Examination(into.tree, question.expectations)

    def run(self) -> Inspection:
        """Make all checks."""
        self._check("source", self._fetch)
        self._check("digest", self._prove_digest, ("source",))
        self._check("signature", self._prove_signature, ("source",))
        ready: tuple[str, ...] = ("source",)
        if self._has_only_pickle():
            self._check("pickle", self._convert, ready)
            ready += ("pickle",)
        for step in self._examination.steps():
            self._check(step.name, step.run, step.after or ready)
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
            if why_not is not None and name in _REFUSE_UNASKED:
                return Check(name=name, result=Result.NOT_CHECKED, message=why_not)
            return Check(name=name, result=Result.REFUSED, reason=error.reason.value, message=error.message)
        if why_not is None and name == "shapes":
            why_not = self._shapes_not_checked()
        if why_not is not None and name not in _REFUSE_UNASKED:
            return Check(name=name, result=Result.NOT_CHECKED, message=why_not)
        return Check(name=name, result=Result.PASSED)

    def _shapes_not_checked(self) -> str | None:
        """Why the base model's config.json was of no use; None when it was."""
        notices = dict(self._examination.notices)
        return notices.get(Reason.SHAPES_NOT_CHECKED)

    def _fetch(self) -> None:
        wanted = self._question.wanted
        try:
            self._receive(wanted)
        except ArtifactError as error:
            if error.reason is not Reason.SIGNATURE_MISSING:
                raise
            # The check of the signature says so; all others can be made without one.
            self._unsigned = error
            remove_tree(self._into.fs, self._into.parts)
            self._receive(replace(wanted, signature=False))

    def _receive(self, wanted: Wanted) -> None:
        source = self._question.open(wanted)
        self._about = dict(source.describe())
        self._listing = How().pace.again(source.listing, threading.Event())
        request = replace(self._request, wanted=wanted)
        try:
            with self._end.threads(self._progress) as progress:
                files = receive(self._volume, request, source, self._listing, self._into, How(progress=progress))
        except ArtifactError as error:
            if error.reason is Reason.VOLUME_FULL:
                raise _no_room(self._volume.layout.root, error.message) from None
            raise
        adapter = tuple(file for file in files if file.path != SIGNATURE_FILE)
        self._fetched = Fetched(self._listing.pin, adapter, digest(adapter), None)

    def _prove_digest(self) -> None:
        require_pinned(self._request, self._files.digest)

    def _prove_signature(self) -> None:
        if self._unsigned is not None:
            raise self._unsigned
        trust = self._question.trust
        if trust is not None:
            try:
                self._signed_by = verify_signature(self._into.tree, self._files.files, trust)
            except ArtifactError as error:
                named = trust.spec.config_map_ref
                here = error.message.replace(f"key {named.key!r} of ConfigMap {named.name}", str(trust.file))
                raise ArtifactError(error.reason, here) from None
            self._volume.fs.remove_file(self._into.tree / SIGNATURE_FILE)

    def _convert(self) -> None:
        _, self._converted = convert(self._request, self._files, self._into)

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
        if not isinstance(source, Path) or not source.is_file():
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
            notices=self._notices(),
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

    def _notices(self) -> tuple[Notice, ...]:
        """What was found beside the checks; that shapes were not checked is with its check."""
        found = [pair for pair in self._examination.notices if pair[0] is not Reason.SHAPES_NOT_CHECKED]
        if self._converted is not None:
            text = f"{self._converted} is a pickle; publishing converts it to {WEIGHTS_FILE}, which was checked here"
            found.append((Reason.PICKLE_CONVERTED, text))
        return tuple(Notice(reason=reason.value, message=text) for reason, text in found)

    def _slot_bytes(self) -> int | None:
        passed = all(self._checks[step.name].result is not Result.REFUSED for step in self._examination.steps())
        return self._examination.info().slot_bytes if passed and self._examination.weights else None

    def _memory(self) -> Memory | None:
        question = self._question
        rank, gpus = question.expectations.max_rank, question.expectations.tensor_parallel_size
        own, slot = self._slot_bytes(), fleet_slot_bytes(question.expectations.base_config, rank, gpus)
        if own is None and slot is None:
            return None
        return Memory(
            slot_bytes=own,
            fleet_slot_bytes=slot,
            preallocated_bytes=slot * question.max_loras if slot and question.max_loras else None,
            max_loras=question.max_loras,
            max_lora_rank=rank,
            tensor_parallel_size=gpus,
        )


def _no_room(folder: Path, what: str) -> Unusable:
    return Unusable(
        f"the temporary folder {folder.parent} cannot be used ({what}); expected room for the adapter and its archive:"
        " set TMPDIR to a folder that has it"
    )
