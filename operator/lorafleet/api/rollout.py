"""How a new version reaches the clients: steps, analysis, probes, and fixed shares. What users write of it.

The rules that act on it are in ``rollout``; this module holds the fields, their bounds and their texts.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator

from lorafleet.api.model import ApiModel, Duration, Percent, VersionName, rules, seconds

QueryName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class TrafficTarget(ApiModel):
    """A version and its fixed share of the traffic."""

    version: Annotated[VersionName, Field(description="The name of an entry of versions.")]
    weight: Annotated[Percent, Field(description="Its share of the requests, in percent.")]


class RolloutStep(ApiModel):
    """One step of a rollout: a weight, and how long to stay there."""

    weight: Annotated[Percent, Field(description="The new version's share of the requests, in percent.")]
    pause: Annotated[
        str | dict[str, Any] | None,
        Field(
            description="How long to stay at this weight, such as 10m; {} waits for a person to promote.",
            json_schema_extra={
                "x-kubernetes-preserve-unknown-fields": True,
                "pattern": r"^([0-9]+(h|m|s|ms))+$",
                "maxLength": 32,
                "maxProperties": 0,
            },
        ),
    ] = None

    @field_validator("pause")
    @classmethod
    def _pause_is_a_duration_or_empty(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(value, str):
            seconds(value)
        elif value:
            raise ValueError(f"pause is a duration such as 10m, or {{}} to wait for a person; found {value}")
        return value

    @property
    def waits_for_a_person(self) -> bool:
        """Whether only ``promote`` ends the step."""
        return isinstance(self.pause, dict)

    @property
    def pause_seconds(self) -> float:
        """How long the step lasts; 0 when it ends as soon as the analysis allows."""
        return seconds(self.pause) if isinstance(self.pause, str) else 0.0


class PrometheusQuery(ApiModel):
    """A query whose value must stay within bounds."""

    model_config = ConfigDict(
        json_schema_extra=rules(("has(self.min) || has(self.max)", "a query needs min, max or both to judge by"))
    )

    name: Annotated[QueryName, Field(description="What the query is called in status and messages.")]
    query: Annotated[
        str,
        Field(
            min_length=1,
            max_length=2048,
            description="PromQL that gives one value. {{adapter}}, {{version}}, {{servedName}}, {{stableServedName}},"
            " {{namespace}} and {{fleet}} stand for the rollout's own.",
        ),
    ]
    min: Annotated[float | None, Field(description="The lowest value that passes.")] = None
    max: Annotated[float | None, Field(description="The highest value that passes.")] = None


class Analysis(ApiModel):
    """How a new version is judged while it takes traffic."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.maxErrorRate) || has(self.maxLatencyRatio) || (has(self.queries) && self.queries.size() > 0)",
                "an analysis needs something to judge by: maxErrorRate, maxLatencyRatio or queries",
            )
        )
    )

    interval: Annotated[Duration, Field(description="How often it is judged.")] = "1m"
    min_requests: Annotated[int, Field(ge=1, description="Fewer requests than this decide nothing.")] = 50
    max_error_rate: Annotated[
        float | None, Field(ge=0, le=1, description="The highest error rate that passes, from 0 to 1.")
    ] = None
    max_latency_ratio: Annotated[
        float | None, Field(gt=0, description="The highest ratio of its latency to the stable version's.")
    ] = None
    queries: Annotated[
        tuple[PrometheusQuery, ...],
        Field(
            max_length=16,
            description="Prometheus queries to judge by as well; the fleet's spec.prometheus says where.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    failure_limit: Annotated[int, Field(ge=1, le=100, description="So many failures in a row abort the rollout.")] = 1


class OnDeadline(StrEnum):
    """What becomes of a rollout that makes no progress."""

    ABORT = "Abort"
    PAUSE = "Pause"


class Rollout(ApiModel):
    """How a change of activeVersion reaches the clients."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.analysis) || (has(self.steps) && self.steps.exists(s, s.weight > 0 && s.weight < 100))",
                "an analysis compares two versions: give a step with a weight between 0 and 100",
            )
        )
    )

    steps: Annotated[
        tuple[RolloutStep, ...], Field(max_length=32, description="The weights on the way to 100 percent.")
    ] = ()
    analysis: Annotated[Analysis | None, Field(description="How the new version is judged on the way.")] = None
    progress_deadline: Annotated[
        Duration | None, Field(description="How long a rollout may be without progress; waiting for a person is none.")
    ] = None
    on_deadline: Annotated[
        OnDeadline, Field(description="What happens then: Abort the rollout, or Pause it for a person.")
    ] = OnDeadline.ABORT
    keep_loaded: Annotated[
        int,
        Field(
            ge=0,
            le=8,
            description="How many versions that served before stay loaded for a rollback at once, where there is room.",
        ),
    ] = 0


class GoldenPrompt(ApiModel):
    """A prompt whose answer shows whether an adapter does what it was trained for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.expect) || (has(self.differsFromBase) && self.differsFromBase)",
                "a golden prompt needs expect, differsFromBase: true, or both",
            )
        )
    )

    prompt: Annotated[str, Field(min_length=1, max_length=4096, description="The text to complete.")]
    max_tokens: Annotated[int, Field(ge=1, le=256, description="How many tokens to ask for, at temperature 0.")] = 16
    expect: Annotated[
        str | None, Field(min_length=1, max_length=1024, description="A text that the answer must contain.")
    ] = None
    differs_from_base: Annotated[bool, Field(description="Whether the answer must differ from the base model's.")] = (
        False
    )


class Probe(ApiModel):
    """What a version must answer on every engine before it gets its first weight."""

    enabled: Annotated[
        bool, Field(description="Whether every engine is asked for one token by each new version's served name.")
    ] = True
    prompts: Annotated[tuple[GoldenPrompt, ...], Field(max_length=8, description="Prompts with known answers.")] = ()
    timeout: Annotated[Duration, Field(description="How long one answer may take.")] = "30s"
