"""Stretches of time and shares for people. Pure: the clock is a parameter."""

from datetime import datetime

from lorafleet.api.model import moment

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def length(seconds: float) -> str:
    """A stretch of time in its two largest units: ``2d3h``, ``4m10s``, ``0s``."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return "".join(parts) or "0s"


def short(seconds: float) -> str:
    """A stretch of time in one unit, as kubectl shows an age: ``3d``."""
    left = max(0, int(seconds))
    for unit, size in _UNITS:
        if left >= size:
            return f"{left // size}{unit}"
    return "0s"


def since(text: str | None, now: datetime) -> float | None:
    """Seconds since a Kubernetes timestamp; None when there is none, or it is none."""
    try:
        return (now - moment(text)).total_seconds() if text else None
    except (ValueError, TypeError):
        return None


def age(text: str | None, now: datetime) -> str:
    """How long ago a timestamp is, in one unit; empty when there is none."""
    seconds = since(text, now)
    return "" if seconds is None else short(seconds)


def clock(text: str | None) -> str:
    """A Kubernetes timestamp to the second, in UTC: ``2026-01-02 03:04:05``."""
    return (text or "")[:19].replace("T", " ")


def percent(share: float | None) -> str:
    """A share from 0 to 1: ``0%``, ``0.12%``, ``4.2%``, ``37%``; empty when it is not known."""
    if share is None:
        return ""
    value = share * 100
    if value and value < 0.01:
        return "<0.01%"
    digits = 0 if value == round(value) or value >= 10 else 1 if value >= 1 else 2
    return f"{value:.{digits}f}%"


def milliseconds(value: float | None) -> str:
    """A time to answer: ``84 ms``, ``1.3 s``; empty when it is not known."""
    if value is None:
        return ""
    return f"{value:.0f} ms" if value < 999.5 else f"{value / 1000:.1f} s"
