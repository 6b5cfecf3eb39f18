"""Which shares there shall be, and which can be: no weight is given to a version that is not loaded everywhere.

What has weight keeps it until the new shares are possible, so a split is replaced as a whole or not at all.
"""

from collections.abc import Mapping

from lorafleet.api.adapter import LoRAAdapterSpec, ServedTraffic, VersionPhase, VersionStatus
from lorafleet.rollout.draft import Draft
from lorafleet.rollout.versions import ON_ENGINES

Shares = Mapping[str, int]
"""Weights by version, without those that are 0."""


def fixed(spec: LoRAAdapterSpec) -> Shares:
    """The shares that ``spec.traffic`` asks for; empty when it asks for none."""
    return {share.version: share.weight for share in spec.traffic if share.weight}


def shares_of(traffic: tuple[ServedTraffic, ...]) -> Shares:
    """The shares of a written status."""
    return {share.version: share.weight for share in traffic if share.weight}


def serving(draft: Draft) -> frozenset[str]:
    """Versions that have weight and whose engines still are to have them: they keep it until others take over."""
    return frozenset(
        share.version for share in draft.traffic if share.weight and _same(share, draft.versions.get(share.version))
    )


def possible(draft: Draft, wanted: Shares, ready: frozenset[str]) -> bool:
    """Whether shares can be given now. ``ready``: versions that are probed, or need no probe.

    What serves may keep its share or less of it wherever it is loaded, and the stable version takes what others lose.
    """
    has = {name: 100 if name == draft.stable else shares_of(draft.traffic)[name] for name in serving(draft)}
    return bool(wanted) and all(
        share <= has.get(name, 0) or (name in ready and _loaded(draft.versions.get(name)))
        for name, share in wanted.items()
    )


def in_force(draft: Draft, wanted: Shares, ready: frozenset[str]) -> tuple[ServedTraffic, ...]:
    """The wanted shares if they are possible, else the former ones, else all to the stable version, else none."""
    if possible(draft, wanted, ready):
        return _traffic(draft, wanted)
    if draft.traffic and serving(draft) == frozenset(shares_of(draft.traffic)):
        return draft.traffic
    if draft.stable and possible(draft, {draft.stable: 100}, ready | {draft.stable}):
        return _traffic(draft, {draft.stable: 100})
    return ()


def _loaded(version: VersionStatus | None) -> bool:
    return version is not None and version.phase is VersionPhase.LOADED


def _same(share: ServedTraffic, version: VersionStatus | None) -> bool:
    return version is not None and version.phase in ON_ENGINES and version.served_name == share.served_name


def _traffic(draft: Draft, wanted: Shares) -> tuple[ServedTraffic, ...]:
    result = []
    for name, weight in wanted.items():
        served = draft.versions[name].served_name
        assert served
        result.append(ServedTraffic(version=name, served_name=served, weight=weight))
    return tuple(result)
