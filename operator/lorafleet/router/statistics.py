"""Envoy's numbers of each version, read from its Prometheus text: for the operator, and for Prometheus by our names.

Pure. What is counted, and when, is in `measures`. Fast because fleets are large: one expression over the whole text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorafleet.router.measures import PREFIX

PATTERN = rf"^{PREFIX}\."
"""What to ask Envoy's ``/stats/prometheus?filter=`` for."""

_COUNTERS = re.compile(
    rf"^envoy_{PREFIX}_(requests|whole_ms|first|first_ms|prompt_tokens|completion_tokens)"
    r'\{served="([^" ]*)(?: (\d+) ([^"]*))?"\} (\d+)$',
    re.M,
)
_SERIES = re.compile(
    rf"^envoy_{PREFIX}_(whole|first_token)_(bucket|sum|count)"
    r'\{served="([^"]*)"(?:,le="([^"]*)")?\} (\S+)$',
    re.M,
)
# Envoy's response flags: https://www.envoyproxy.io/docs, "%RESPONSE_FLAGS%". What it answers or cuts by itself.
_OURS = frozenset({"UC", "UF", "UH", "UO", "UR", "UT", "URX", "LR", "SI", "NC", "OM", "DT", "UMSDR", "UPE"})
_LEFT = frozenset({"DC", "DR", "DPE"})
_NAMES = {"prompt_tokens": "prompt", "completion_tokens": "completion"}
_HISTOGRAMS = {"whole": "lorafleet_router_request_seconds", "first_token": "lorafleet_router_first_token_seconds"}
_HELP = {
    "lorafleet_router_requests_total": "Requests by version and result: ok, client (its own fault) or server.",
    "lorafleet_router_tokens_total": "Tokens that answers said they used, by kind: prompt or completion.",
    "lorafleet_router_request_seconds": "From a request's first byte to the last of its answer.",
    "lorafleet_router_first_token_seconds": "From a request's first byte to the first of a streamed answer.",
}


def result(code: int, flags: str) -> str:
    """Whose fault an answer was: ``ok``, ``client`` or ``server``.

    A client that goes away is no fault of a version. 401 and 403 come from an engine that refuses our key; the router's
    own are not counted. A 404 that says that a model is not loaded has become a 503 (``lua/response.lua``).
    """
    set_flags = set(flags.split(","))
    if set_flags & _OURS or code >= 500 or code in (401, 403):
        return "server"
    if set_flags & _LEFT or code >= 400:
        return "client"
    return "ok" if code else "server"


@dataclass
class Numbers:
    """Of one version, since Envoy's start. ``*_ms`` are sums; latency is of requests that went well."""

    requests: dict[str, int] = field(default_factory=lambda: {"ok": 0, "client": 0, "server": 0})
    latency_ms: float = 0
    first: int = 0
    first_ms: float = 0
    tokens: dict[str, int] = field(default_factory=lambda: {"prompt": 0, "completion": 0})

    def json(self) -> dict[str, Any]:
        """As the operator reads it from ``/stats``."""
        return {
            **self.requests,
            "latencyCount": self.requests["ok"],
            "latencyMsSum": self.latency_ms,
            "firstTokenCount": self.first,
            "firstTokenMsSum": self.first_ms,
            "promptTokens": self.tokens["prompt"],
            "completionTokens": self.tokens["completion"],
        }


def numbers(text: str) -> dict[str, Numbers]:
    """What ``text`` says, by served name."""
    found: dict[str, Numbers] = {}
    for name, served, code, flags, value in _COUNTERS.findall(text):
        one = found.get(served)
        if one is None:
            one = found[served] = Numbers()
        _add(one, name, code, flags, int(value))
    return found


def _add(one: Numbers, name: str, code: str, flags: str, value: int) -> None:
    if name == "requests":
        one.requests[result(int(code), flags)] += value
    elif name == "whole_ms":
        if result(int(code), flags) == "ok":
            one.latency_ms += value
    elif name == "first":
        one.first += value
    elif name == "first_ms":
        one.first_ms += value
    else:
        one.tokens[_NAMES[name]] += value


def versions(text: str) -> dict[str, Any]:
    """The ``versions`` of ``/stats``."""
    return {served: one.json() for served, one in numbers(text).items()}


def exposition(text: str) -> str:
    """The same in Prometheus' text form by our names, with the histograms of those versions that have them."""
    found = numbers(text)
    labels = {served: _labels(served) for served in found}
    lines = [
        *_family("lorafleet_router_requests_total", "counter", _requests(found, labels)),
        *_family("lorafleet_router_tokens_total", "counter", _tokens(found, labels)),
    ]
    series: dict[str, list[str]] = {name: [] for name in _HISTOGRAMS.values()}
    for name, part, served, bound, value in _SERIES.findall(text):
        family = _HISTOGRAMS[name]
        series[family].append(_sample(family, part, labels.get(served) or _labels(served), bound, value))
    for family, samples in series.items():
        lines += _family(family, "histogram", samples)
    return "\n".join(lines) + "\n" if lines else ""


def _requests(found: Mapping[str, Numbers], labels: Mapping[str, str]) -> Iterator[str]:
    for served, one in found.items():
        for kind, count in one.requests.items():
            yield f'lorafleet_router_requests_total{{{labels[served]},result="{kind}"}} {count}'


def _tokens(found: Mapping[str, Numbers], labels: Mapping[str, str]) -> Iterator[str]:
    for served, one in found.items():
        for kind, count in one.tokens.items():
            yield f'lorafleet_router_tokens_total{{{labels[served]},kind="{kind}"}} {count}'


def _sample(family: str, part: str, labels: str, bound: str, value: str) -> str:
    if part == "bucket":
        limit = bound if bound == "+Inf" else f"{float(bound) / 1000:g}"
        return f'{family}_bucket{{{labels},le="{limit}"}} {value}'
    if part == "sum":
        return f"{family}_sum{{{labels}}} {float(value) / 1000:g}"
    return f"{family}_count{{{labels}}} {value}"


def _family(name: str, kind: str, samples: Iterable[str]) -> list[str]:
    lines = list(samples)
    return [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}", *lines] if lines else []


def _labels(served: str) -> str:
    adapter, _, rest = served.partition("/")
    return f'adapter="{adapter}",version="{rest.rpartition("-")[0] or rest}",served_name="{served}"'
