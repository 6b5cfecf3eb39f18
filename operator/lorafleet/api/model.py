"""The base of all API models and the scalar types they share: durations, names, digests, ports.

Models are frozen and read camelCase, as Kubernetes writes it. Bounds stand here once and reach both pydantic
and the OpenAPI schema of the CRDs. Nothing here knows a kind.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_DURATION = r"^([0-9]+(h|m|s|ms))+$"
_DURATION_PART = re.compile(r"([0-9]+)(h|ms|m|s)")
_YEAR = 365 * 86400.0
_QUANTITY = re.compile(r"([0-9]+)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_POWERS = "kMGTP"
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

DnsName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
VersionName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")]
Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Duration = Annotated[str, Field(max_length=32, pattern=_DURATION)]
Quantity = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$")]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Percent = Annotated[int, Field(ge=0, le=100)]


class ApiModel(BaseModel):
    """Part of an object as users write it or as the operator reports it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The JSON form, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    """CEL rules as (expression, message), for ``json_schema_extra`` (KEP-2876)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in pairs], **more}


def seconds(duration: str) -> float:
    """Seconds of a duration such as ``10m`` or ``1h30m``, a year at most; ValueError on anything else."""
    if not re.match(_DURATION, duration):
        raise ValueError(f"{duration!r} is no duration: expected numbers with h, m, s or ms, such as 1h30m")
    total = sum(int(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))
    return min(total, _YEAR)


def quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity such as ``100Gi``, whole numbers only; ValueError on anything else."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity of bytes: expected a whole number with a unit, such as 100Gi")
    unit = match[2] or ""
    if not unit:
        return int(match[1])
    base = 1024 if unit.endswith("i") else 1000
    return int(match[1]) * int(base ** (_POWERS.index(unit[0].replace("K", "k")) + 1))


def timestamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it, in UTC with microseconds: two of one second stay in order."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """The moment of a Kubernetes timestamp, with or without fractions of a second."""
    return datetime.fromisoformat(text)
