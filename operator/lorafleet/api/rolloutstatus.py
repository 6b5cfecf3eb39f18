"""What the operator reports of a rollout and of the requests that versions got. Written by the operator alone."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from lorafleet.api.model import ApiModel, Percent


class RolloutPhase(StrEnum):
    """Where a rollout is."""

    WAITING = "Waiting"
    """Its turn, its bytes, its place, its load or its probes have not come yet: weight 0."""
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    """By a step's ``pause: {}``, the pause verb, or the progress deadline; ``held`` says which."""


class Measure(ApiModel):
    """One value that a judgement was made of."""

    name: Annotated[str, Field(description="errorRate, latencyRatio, or the name of a query.")]
    value: Annotated[float | None, Field(description="What was measured; not set when nothing could be.")] = None
    bound: Annotated[str, Field(description="What passes, such as <= 0.05.")] = ""
    verdict: Annotated[str, Field(description="Passed, Failed or Undecided.")]
    message: Annotated[str, Field(max_length=1024, description="What was found, in a sentence.")] = ""


class AnalysisStatus(ApiModel):
    """The last judgement of a rollout."""

    at: Annotated[str, Field(description="When it was made.")]
    since: Annotated[str, Field(description="From when on requests count for the next one.")]
    verdict: Annotated[str, Field(description="Passed, Failed or Undecided.")]
    failures: Annotated[int, Field(description="Failed judgements in a row.")] = 0
    passed: Annotated[bool, Field(description="Whether the last one of this step that decided anything passed.")] = (
        False
    )
    requests: Annotated[int, Field(description="The new version's requests that it is about.")] = 0
    measures: Annotated[
        tuple[Measure, ...],
        Field(description="The values it was made of.", json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()


class RolloutStatus(ApiModel):
    """A rollout that has not ended."""

    version: Annotated[str, Field(description="The version that is on its way to all traffic.")]
    phase: Annotated[RolloutPhase, Field(description="Where it is.")]
    step: Annotated[int, Field(description="The step it is at, from 1; 0 before the first.")] = 0
    steps: Annotated[int, Field(description="How many steps there are.")] = 0
    weight: Annotated[Percent, Field(description="The new version's share of the requests, in percent.")] = 0
    steps_hash: Annotated[str, Field(description="Which steps it follows, should they be changed.")] = ""
    started_at: Annotated[str, Field(description="When it began.")]
    step_since: Annotated[
        str | None, Field(description="Since when the step counts: the version has been loaded everywhere since then.")
    ] = None
    step_done: Annotated[
        float,
        Field(description="Seconds of the step's pause that were over when it was last held."),
    ] = 0.0
    progress_at: Annotated[str, Field(description="When it last came further; the progress deadline runs from here.")]
    paused: Annotated[bool, Field(description="Whether a person, or the deadline, has paused it.")] = False
    full: Annotated[bool, Field(description="Whether a person asked for all traffic without further steps.")] = False
    held: Annotated[str | None, Field(description="Why it does not go on, in one word.")] = None
    message: Annotated[str | None, Field(description="Why it does not go on, and what to do.")] = None
    analysis: Annotated[AnalysisStatus | None, Field(description="The last judgement.")] = None


class AbortedVersion(ApiModel):
    """A version that was taken back and never returns by itself."""

    version: Annotated[str, Field(description="The version's name.")]
    entry_hash: Annotated[str, Field(description="Which entry of that name.")]
    at: Annotated[str, Field(description="When.")]
    reason: Annotated[str, Field(description="Why, in one word.")]
    message: Annotated[str, Field(max_length=2048, description="Why, and what to do.")]


class HistoryEntry(ApiModel):
    """One thing that happened to which version serves."""

    at: Annotated[str, Field(description="When.")]
    version: Annotated[str, Field(description="The version it is about.")]
    what: Annotated[str, Field(description="Served, Started, Promoted, Aborted, RolledBack, Superseded or Retried.")]
    message: Annotated[str, Field(max_length=512, description="More about it.")] = ""


class VersionStatistics(ApiModel):
    """What the routers saw of a version's requests, within a rolling window."""

    request_count: Annotated[int, Field(description="Requests since the version was first seen by the routers.")] = 0
    success_rate: Annotated[
        float | None, Field(description="Share of requests without an error of ours, of the last 10 minutes, 0 to 1.")
    ] = None
    average_latency_ms: Annotated[
        float | None, Field(description="Exponential moving average of the time of a whole answer.")
    ] = None
    average_first_token_ms: Annotated[
        float | None, Field(description="Exponential moving average of the time to the first bytes of an answer.")
    ] = None
    prompt_tokens: Annotated[int | None, Field(description="Tokens of prompts, where answers tell.")] = None
    completion_tokens: Annotated[int | None, Field(description="Tokens of answers, where answers tell.")] = None
    last_used: Annotated[str | None, Field(description="When the last request was seen.")] = None
