"""When a rollout is judged, and what its status keeps of it: at each interval while the new version has a share."""

from datetime import datetime, timedelta

from lorafleet.api.model import moment, seconds, timestamp
from lorafleet.api.rollout import Analysis
from lorafleet.api.rolloutstatus import AnalysisStatus
from lorafleet.rollout.draft import Draft, Todo
from lorafleet.rollout.evidence import Record
from lorafleet.rollout.judge import FAILED, PASSED, UNDECIDED, Judgement, judge, judges
from lorafleet.rollout.observed import Observed
from lorafleet.rollout.queries import queries

GRACE = 10.0
"""Seconds that a due judgement waits for counts and answers from after it was due."""
SOON = 1.0


def configured(observed: Observed) -> Analysis | None:
    """The analysis of the spec, if there is one to judge by."""
    rollout = observed.spec.rollout if observed.spec else None
    return judges(rollout.analysis) if rollout else None


def fresh(draft: Draft, observed: Observed) -> AnalysisStatus | None:
    """The state of judging at the begin of a step: nothing is decided; failures in a row go on counting."""
    assert draft.rollout is not None
    if configured(observed) is None or not 0 < draft.rollout.weight < 100:
        return None
    now = timestamp(observed.now)
    failures = draft.rollout.analysis.failures if draft.rollout.analysis else 0
    return AnalysisStatus(at=now, since=now, verdict=UNDECIDED, failures=failures)


def assess(draft: Draft, observed: Observed, todo: Todo) -> tuple[Draft, str | None]:
    """Judges if it is time to; also, in words, the failure that is one too many."""
    assert draft.rollout is not None
    analysis = configured(observed)
    if analysis is None or not 0 < draft.rollout.weight < 100:
        return (draft.rolls(analysis=None) if draft.rollout.analysis else draft), None
    if draft.rollout.analysis is None:
        draft = draft.rolls(analysis=fresh(draft, observed))
    assert draft.rollout is not None and draft.rollout.analysis is not None
    last = draft.rollout.analysis
    due = moment(last.at) + timedelta(seconds=seconds(analysis.interval))
    if observed.now < due:
        _ask_at(due, observed, todo)
        return draft, None
    if not _known(analysis, observed, due) and observed.now < due + timedelta(seconds=GRACE):
        todo.statistics = 0.0
        todo.queries = queries(analysis, draft, observed)
        todo.look.append(observed.now + timedelta(seconds=SOON))
        return draft, None
    found = _judge(analysis, draft, observed, due)
    failures = last.failures + 1 if found.verdict == FAILED else 0 if found.verdict == PASSED else last.failures
    now = timestamp(observed.now)
    draft = draft.rolls(
        analysis=AnalysisStatus(
            at=now,
            since=last.since if found.verdict == UNDECIDED else now,
            verdict=found.verdict,
            failures=failures,
            passed=found.verdict == PASSED or (found.verdict == UNDECIDED and last.passed),
            requests=found.requests,
            measures=found.measures,
        )
    )
    if found.verdict == PASSED:
        draft = draft.rolls(progress_at=now)
    _ask_at(observed.now + timedelta(seconds=seconds(analysis.interval)), observed, todo)
    return draft, found.message if found.verdict == FAILED and failures >= analysis.failure_limit else None


def _ask_at(due: datetime, observed: Observed, todo: Todo) -> None:
    todo.look.append(due)
    todo.statistics = max((due - observed.now).total_seconds(), 0.0)


def _known(analysis: Analysis, observed: Observed, due: datetime) -> bool:
    """Whether what the judgement is made of is from after it was due."""
    counted = analysis.max_error_rate is not None or analysis.max_latency_ratio is not None
    newest = [record.moments[-1][0] for record in observed.statistics.values() if record.moments]
    if counted and observed.routers and not any(at >= due for at in newest):
        return False
    answers = [observed.queries.get(query.name) for query in analysis.queries]
    return all(answer is not None and answer.at >= due for answer in answers)


def _judge(analysis: Analysis, draft: Draft, observed: Observed, due: datetime) -> Judgement:
    assert draft.rollout is not None and draft.rollout.analysis is not None
    since = moment(draft.rollout.analysis.since)
    canary, stable = (
        observed.statistics.get(draft.versions[name].served_name or "", Record()).since(since)
        for name in (draft.rollout.version, draft.stable or draft.rollout.version)
    )
    return judge(analysis, canary, stable, observed.queries, due)
