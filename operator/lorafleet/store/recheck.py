"""May a version that is published be served by the fleet as it is now?

Its bytes were checked when they were published and are those of its manifest, so every number in them need not be
looked at again; what the fleet expects may have changed.
"""

from dataclasses import replace
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import AdapterInfo, Examination, Expectations, require_base_model
from lorafleet.store.manifest import Manifest

_ONCE = "numbers"


def recheck(folder: Path, manifest: Manifest, expectations: Expectations) -> AdapterInfo:
    """What a published folder holds. Raises ArtifactError with the first thing that the fleet refuses, and OSError."""
    require_base_model(manifest.base_model, expectations.base_models)
    examination = Examination(folder, replace(expectations, base_models=(manifest.model,)))
    for step in examination.steps():
        if step.name != _ONCE:
            step.run()
    if manifest.has_no_effect is not None:
        examination.notices.append((Reason.HAS_NO_EFFECT, manifest.has_no_effect))
    return examination.info()


def no_effect(info: AdapterInfo) -> str | None:
    """Why an adapter has no effect, by what the checks found; None when it has one."""
    return next((text for reason, text in info.notices if reason is Reason.HAS_NO_EFFECT), None)
