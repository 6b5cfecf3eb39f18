"""A status that was lost, made anew from what engines list: nothing that was not proven gets weight by it.

Engines go on having what they have while the versions' facts are read from the volume again; the version that seems to
have served gets its weight back once its bytes are known to be those that engines list.
"""

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus, VersionPhase, VersionStatus
from lorafleet.api.model import timestamp
from lorafleet.rollout.observed import Observed


def recovered(observed: Observed) -> LoRAAdapterStatus:
    """The status, or where there is none and engines list versions of this adapter, one that remembers these."""
    status, spec = observed.status, observed.spec
    if status.versions or status.stable_version or spec is None or not observed.listed:
        return status
    served = _listed(observed, spec)
    if not served:
        return status
    noted = _version(observed, observed.noted)
    if any(entry.name == noted for entry in spec.versions):
        stable = noted
        served[stable] = observed.noted
    else:
        stable = _stable(spec, tuple(served))
    versions = tuple(
        VersionStatus(
            name=entry.name,
            phase=VersionPhase.PENDING,
            served_name=served[entry.name],
            entry_hash=entry.fingerprint,
            proven_at=timestamp(observed.now) if entry.name == stable else None,
        )
        for entry in spec.versions
        if entry.name in served
    )
    return status.model_copy(update={"versions": versions, "stable_version": stable})


def disproved(before: VersionStatus | None, after: VersionStatus | None) -> bool:
    """Whether a version that is remembered turned out to have other bytes: what served is not what its entry means."""
    remembered = before is not None and before.digest is None and before.served_name is not None
    return bool(remembered and before and after and after.digest and after.served_name != before.served_name)


def _listed(observed: Observed, spec: LoRAAdapterSpec) -> dict[str, str]:
    """Served names by version, in the order of the spec; of two of one version, the one on more engines."""
    found: dict[str, str] = {}
    for name in sorted(observed.listed, key=lambda name: (observed.listed[name], name)):
        found[_version(observed, name)] = name
    return {entry.name: found[entry.name] for entry in spec.versions if entry.name in found}


def _version(observed: Observed, served: str) -> str:
    return served.removeprefix(f"{observed.name}/").rpartition("-")[0]


def _stable(spec: LoRAAdapterSpec, names: tuple[str, ...]) -> str:
    """Where none was noted: the latest that is not the one on its way; the only one, if there is just one."""
    others = [name for name in names if name != spec.active]
    return others[-1] if others else names[-1]
