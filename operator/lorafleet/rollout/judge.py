"""Whether a new version is as good as it must be: what routers counted and Prometheus said, against the bounds.

Too few requests or no data are no verdict: they never pass and never fail. A request that the client itself got wrong
(4xx) is no evidence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lorafleet.api.rollout import Analysis, PrometheusQuery
from lorafleet.api.rolloutstatus import Measure
from lorafleet.rollout.evidence import Counts
from lorafleet.rollout.observed import QueryResult

PASSED = "Passed"
FAILED = "Failed"
UNDECIDED = "Undecided"

_Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, the requests that it is about, and the values it was made of."""

    verdict: str
    requests: int
    measures: tuple[Measure, ...]

    @property
    def message(self) -> str:
        """What decided it, in a sentence."""
        about = [measure.message for measure in self.measures if measure.verdict == self.verdict]
        return "; ".join(about)


def judges(analysis: Analysis | None) -> Analysis | None:
    """The analysis, if it has any bound to judge by."""
    bounds = analysis and (analysis.max_error_rate, analysis.max_latency_ratio, analysis.queries or None)
    return analysis if bounds and any(bound is not None for bound in bounds) else None


def wilson(errors: int, requests: int) -> tuple[float, float]:
    """The 95 % interval of an error rate by E. B. Wilson (1927); (0, 1) when there were no requests."""
    if requests <= 0:
        return 0.0, 1.0
    rate = min(errors / requests, 1.0)
    square = _Z * _Z
    middle = rate + square / (2 * requests)
    half = _Z * math.sqrt(rate * (1 - rate) / requests + square / (4 * requests * requests))
    whole = 1 + square / requests
    return max((middle - half) / whole, 0.0), min((middle + half) / whole, 1.0)


def judge(
    analysis: Analysis, canary: Counts, stable: Counts, answers: Mapping[str, QueryResult], due: datetime
) -> Judgement:
    """The verdict on what was counted; one failed measure fails it, one undecided one leaves it open.

    ``answers`` are the queries' by name; one from before ``due`` is about something else and counts as none.
    """
    measures = []
    if analysis.max_error_rate is not None:
        measures.append(_error_rate(analysis, analysis.max_error_rate, canary))
    if analysis.max_latency_ratio is not None:
        measures.append(_latency(analysis, analysis.max_latency_ratio, canary, stable))
    for query in analysis.queries:
        answer = answers.get(query.name)
        measures.append(_query(query, answer if answer and answer.at >= due else None))
    found = {measure.verdict for measure in measures}
    verdict = FAILED if FAILED in found else UNDECIDED if UNDECIDED in found else PASSED
    return Judgement(verdict, _judged(canary), tuple(measures))


def _judged(counts: Counts) -> int:
    return max(counts.requests - counts.refused, 0)


def _error_rate(analysis: Analysis, most: float, canary: Counts) -> Measure:
    requests = _judged(canary)
    rate = min(canary.errors / requests, 1.0) if requests else None
    lowest, _ = wilson(canary.errors, requests)
    found = f"{canary.errors} of {requests} requests failed"
    if rate is None or requests < analysis.min_requests:
        verdict, text = UNDECIDED, f"{found}; fewer than minRequests {analysis.min_requests} decide nothing"
    elif lowest > most:
        verdict, text = FAILED, f"{found}: an error rate of at least {lowest:.4f}, above maxErrorRate {most:g}"
    elif rate <= most:
        verdict, text = PASSED, f"{found}, not more than maxErrorRate {most:g}"
    else:
        verdict, text = UNDECIDED, f"{found}: above maxErrorRate {most:g}, and may be chance"
    return Measure(name="errorRate", value=_rounded(rate), bound=f"<= {most:g}", verdict=verdict, message=text)


def _latency(analysis: Analysis, most: float, canary: Counts, stable: Counts) -> Measure:
    name, bound = "latencyRatio", f"<= {most:g}"
    for counts, who in ((canary, "the new version"), (stable, "the stable version")):
        if counts.latency_count < analysis.min_requests:
            text = f"{who} has {counts.latency_count} measured answers; fewer than minRequests decide nothing"
            return Measure(name=name, bound=bound, verdict=UNDECIDED, message=text)
    mine, other = canary.latency_ms / canary.latency_count, stable.latency_ms / stable.latency_count
    if other <= 0:
        text = "the stable version's answers took no time that could be measured"
        return Measure(name=name, bound=bound, verdict=UNDECIDED, message=text)
    ratio = mine / other
    text = f"answers take {mine:.0f} ms, the stable version's {other:.0f} ms: {ratio:.2f} times as long"
    if ratio > most:
        text += f", above maxLatencyRatio {most:g}"
    verdict = FAILED if ratio > most else PASSED
    return Measure(name=name, value=_rounded(ratio), bound=bound, verdict=verdict, message=text)


def _query(query: PrometheusQuery, answer: QueryResult | None) -> Measure:
    parts = [f">= {query.min:g}" if query.min is not None else "", f"<= {query.max:g}" if query.max is not None else ""]
    bound = " and ".join(part for part in parts if part)
    value = answer.value if answer else None
    if answer is None or value is None or math.isnan(value):
        why = (answer.error if answer else "no answer from Prometheus") or "no data"
        text = f"query {query.name}: {why}"[:1024]
        return Measure(name=query.name, bound=bound, verdict=UNDECIDED, message=text)
    low = query.min is not None and value < query.min
    high = query.max is not None and value > query.max
    verdict = FAILED if low or high else PASSED
    text = f"query {query.name} gave {value:g}, expected {bound}"
    shown = None if math.isinf(value) else _rounded(value)  # JSON has no infinity
    return Measure(name=query.name, value=shown, bound=bound, verdict=verdict, message=text)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
