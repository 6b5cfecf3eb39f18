"""Prometheus queries of an analysis with the names of a rollout filled in."""

import re
from collections.abc import Mapping

from lorafleet.api.rollout import Analysis
from lorafleet.rollout.draft import Draft
from lorafleet.rollout.observed import Observed, Query

_PLACE = re.compile(r"\{\{\s*([A-Za-z]+)\s*\}\}")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "'": "\\'", "`": "", "\n": "\\n", "\r": "\\r"})


def render(template: str, values: Mapping[str, str]) -> str:
    """PromQL with ``{{name}}`` replaced by values that cannot end the string literal they stand in.

    An unknown name stays as it is: Prometheus refuses the query and says where.
    """

    def value(found: re.Match[str]) -> str:
        return values[found[1]].translate(_ESCAPES) if found[1] in values else found[0]

    return _PLACE.sub(value, template)


def queries(analysis: Analysis, draft: Draft, observed: Observed) -> tuple[Query, ...]:
    """The queries to ask for a rollout's next judgement."""
    assert draft.rollout is not None and observed.spec is not None
    version = draft.versions[draft.rollout.version]
    stable = draft.versions.get(draft.stable or "")
    values = {
        "adapter": observed.name,
        "version": version.name,
        "servedName": version.served_name or "",
        "stableServedName": (stable.served_name if stable else None) or "",
        "namespace": observed.namespace,
        "fleet": observed.spec.fleet,
    }
    return tuple(Query(query.name, render(query.query, values)) for query in analysis.queries)
