"""The functional gate: no version gets its first weight before every usable engine answered its probe as expected."""

from dataclasses import dataclass
from enum import StrEnum

from lorafleet.api.adapter import VersionPhase, VersionStatus
from lorafleet.rollout.draft import Draft, proven
from lorafleet.rollout.observed import Observed, Probed
from lorafleet.rollout.split import serving
from lorafleet.rollout.versions import change


class Gate(StrEnum):
    """Whether a version may get its first weight."""

    OPEN = "open"
    WAITS = "waits"
    SHUT = "shut"
    """An engine answered wrongly: asking again will not help."""


@dataclass(frozen=True)
class Probing:
    """Where a version stands, with a sentence for whoever waits for it."""

    gate: Gate
    message: str = ""


def needs_probe(draft: Draft, name: str, observed: Observed) -> bool:
    """Whether a version on engines is to be asked: it has never had weight, and has not served all before."""
    assert observed.spec is not None
    return observed.spec.probe.enabled and not proven(draft, name) and name not in serving(draft)


def probing(version: VersionStatus, observed: Observed) -> Probing:
    """What the probes of a version that needs them came to. Only engines that have it loaded can be asked."""
    usable = observed.fleet.usable_engines if observed.fleet else 0
    found = observed.probes.get(version.served_name or "", Probed())
    final = next((failure for failure in found.failures if failure.final), None)
    if final is not None:
        text = f"version {version.name} failed its probe on engine {final.engine}: {final.message}"
        return Probing(Gate.SHUT, text)
    if version.phase is VersionPhase.LOADED and usable and found.passed >= usable:
        return Probing(Gate.OPEN)
    text = f"version {version.name} answered its probe on {found.passed} of {usable} usable engines"
    if found.failures:
        failure = found.failures[0]
        text += f"; engine {failure.engine}: {failure.message}"
    return Probing(Gate.WAITS, text)


def count(version: VersionStatus, observed: Observed) -> VersionStatus:
    """With the number of engines that passed, while the version is being probed."""
    found = observed.probes.get(version.served_name or "", Probed())
    return change(version, probed_engines=found.passed)
