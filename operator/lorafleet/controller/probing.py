"""What engines answered to versions' probes, as far as it is known: lost on a restart, asked again then. Plain data."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorafleet.api.rollout import Probe
from lorafleet.rollout.observed import Probed, Refusal

if TYPE_CHECKING:
    from lorafleet.controller.state import Engine


@dataclass
class Answered:
    """One engine container's answers: it passed, failed for good, or is asked again at ``due`` (monotonic clock)."""

    instance: tuple[str, str, int]
    passed: bool = False
    failure: Refusal | None = None
    tries: int = 0
    due: float = 0.0

    @property
    def decided(self) -> bool:
        """Whether it need not be asked again."""
        return self.passed or self.failure is not None


@dataclass
class Probing:
    """A version's probe and the answers to it, by engine."""

    probe: Probe
    answers: dict[str, Answered] = field(default_factory=dict)

    def of(self, engine: "Engine") -> Answered:
        """What this start of an engine's container answered so far."""
        found = self.answers.get(engine.name)
        if found is None or found.instance != engine.facts.instance:
            found = self.answers[engine.name] = Answered(engine.facts.instance)
        return found

    def probed(self, engines: Iterable["Engine"]) -> Probed:
        """What usable engines answered."""
        found = [self.of(engine) for engine in engines if engine.usable]
        failures = tuple(one.failure for one in found if one.failure is not None)
        return Probed(passed=sum(one.passed for one in found), failures=failures)

    def decided(self, engines: Iterable["Engine"]) -> bool:
        """Whether every usable engine has answered."""
        return all(self.of(engine).decided for engine in engines if engine.usable)
