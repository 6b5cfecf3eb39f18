"""Where bytes come from: one file per scheme behind one Protocol."""

from collections.abc import Callable, Mapping
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Limits
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.base import Sink, Source, SourceFile
from lorafleet.sources.volume import VolumeSource

__all__ = ["SCHEMES", "Sink", "Source", "SourceFile", "open_source"]

SCHEMES: Mapping[str, Callable[..., Source]] = {"volume": VolumeSource}
"""What opens a source, by the name of its scheme as users write it; each takes its own settings and ``limits``."""


def open_source(scheme: str, settings: Mapping[str, Any], limits: Limits) -> Source:
    """The source of a scheme. Raises ArtifactError (SourceNotSupported) for a scheme that is not here."""
    opener = SCHEMES.get(scheme)
    if opener is None:
        raise ArtifactError(
            Reason.SOURCE_NOT_SUPPORTED,
            f"source {scheme!r} is not supported; expected one of {', '.join(sorted(SCHEMES))}: copy the adapter there",
        )
    return opener(**settings, limits=limits)
