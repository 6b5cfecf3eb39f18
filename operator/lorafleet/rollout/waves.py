"""Which adapters of a fleet may begin a rollout: wave after wave, and so many at once. Pure.

Only the begin of a rollout that has steps takes a turn; whoever has begun is never stopped by it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus, VersionPhase
from lorafleet.api.fleet import Rollouts
from lorafleet.rollout.draft import target
from lorafleet.rollout.split import fixed


@dataclass(frozen=True)
class Standing:
    """One adapter of a fleet: whether it rolls out, and whether it has a rollout to begin."""

    name: str
    labels: Mapping[str, str]
    rolls: bool
    waits: bool


@dataclass(frozen=True)
class Line:
    """A fleet's adapters as those that wait for a turn see them; made once for many questions.

    ``rolling``: the names of those that roll out. ``busy``: for each wave the name of one with a rollout to do, if any.
    """

    rollouts: Rollouts
    rolling: frozenset[str]
    busy: tuple[str | None, ...]

    def turn(self, labels: Mapping[str, str]) -> str:
        """Why an adapter with these labels may not begin a rollout yet, in a sentence; empty when it may."""
        for number in range(wave_of(labels, self.rollouts)):
            name = self.busy[number]
            if name is not None:
                return f"wave {number + 1} of the fleet's spec.rollouts comes first: adapter {name} has a rollout to do"
        most = self.rollouts.max_concurrent
        if most is not None and len(self.rolling) >= most:
            names = ", ".join(sorted(self.rolling)[:3]) + (", …" if len(self.rolling) > 3 else "")
            return f"as many adapters roll out as spec.rollouts.maxConcurrent allows, {most}: {names}"
        return ""


def wave_of(labels: Mapping[str, str], rollouts: Rollouts) -> int:
    """The number of the first wave that the labels fit, from 0; one more than the last when they fit none."""
    for number, wave in enumerate(rollouts.waves):
        if wave.match_labels.items() <= labels.items():
            return number
    return len(rollouts.waves)


def line(adapters: Iterable[Standing], rollouts: Rollouts) -> Line:
    """The adapters of a fleet in line."""
    busy: list[str | None] = [None] * (len(rollouts.waves) + 1)
    rolling = set()
    for one in adapters:
        if one.rolls:
            rolling.add(one.name)
        if one.rolls or one.waits:
            number = wave_of(one.labels, rollouts)
            busy[number] = busy[number] or one.name
    return Line(rollouts, frozenset(rolling), tuple(busy))


def standing(name: str, labels: Mapping[str, str], spec: LoRAAdapterSpec | None, status: LoRAAdapterStatus) -> Standing:
    """Where an adapter stands, also before its own decision has seen a change of its spec.

    One that is suspended, or whose new version will not be published without a person's doing, keeps nobody waiting.
    """
    rollout = status.rollout
    rolls = rollout is not None and bool(rollout.steps_hash) and bool(rollout.steps) and not rollout.full
    waits = spec is not None and not spec.suspend and not rolls and _has_one(spec, status)
    return Standing(name, labels, rolls, waits)


def _has_one(spec: LoRAAdapterSpec, status: LoRAAdapterStatus) -> bool:
    if fixed(spec) or spec.rollout is None or not spec.rollout.steps or status.stable_version is None:
        return False
    wanted = target(spec, status.aborted, status.stable_version)
    if wanted == status.stable_version or (status.rollout and status.rollout.full):
        return False
    version = next((version for version in status.versions if version.name == wanted), None)
    if version is None:
        return True
    failed = version.phase is VersionPhase.FAILED and not version.retry_at
    return not failed and version.proven_at is None
