"""A report as a termination message, of which Kubernetes keeps 4,096 bytes.

A longer one is packed. So that forty items always fit, texts are cut before facts. Of more items the message has a
part, and the sha256 of the whole, which the operator may have asked the pod for. Pure.
"""

import hashlib
import re

from lorafleet.store.packing import pack
from lorafleet.store.plan import ItemResult, SyncReport

MAX_REPORT_BYTES = 4096
SURE_ITEMS = 40
"""The results of so many items fit in a message."""

_MESSAGE_BYTES = (2000, 1000, 500, 250, 120, 60, 20)
_MODULE_BYTES = (1000, 200, 100, 40, 0)
_NAMES = (1000, 20, 5, 1)
"""How many names of damaged versions and strays are kept."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


def messages(report: SyncReport) -> tuple[bytes, bytes | None]:
    """The termination message of a report; and the whole report in JSON when the message is only a part of it.

    The message then has what is known of the first items, and the sha256 of the whole.
    """
    if len(report.results) <= SURE_ITEMS:
        return encode(report), None
    whole = _dump(report, _MESSAGE_BYTES[0], _MODULE_BYTES[0], _NAMES[0])
    packed = pack(whole)
    if len(packed) <= MAX_REPORT_BYTES:
        return packed, None
    part = _first(report, SURE_ITEMS).model_copy(update={"full": hashlib.sha256(whole).hexdigest()})
    return encode(part), whole


def _first(report: SyncReport, count: int) -> SyncReport:
    """A part of a report."""
    left = len(report.results) - count + (report.left or 0)
    return report.model_copy(update={"results": report.results[:count], "left": left})


def encode(report: SyncReport) -> bytes:
    """The report as JSON in UTF-8, at most 4,096 bytes whatever is in it; packed when it is too long as it is.

    Messages are cut, then target modules and names left out, as little as it takes. What pins and the like make too
    long even so loses its last results: their items are asked for again, and cost nothing when they are done.
    """
    for names in _NAMES:
        for modules in _MODULE_BYTES:
            for length in _MESSAGE_BYTES:
                whole = _dump(report, length, modules, names)
                if len(whole) <= MAX_REPORT_BYTES:
                    return whole
                for one in (report, _without_names(report)):
                    packed = pack(_dump(one, length, modules, names))
                    if len(packed) <= MAX_REPORT_BYTES:
                        return packed
    return encode(_first(report, len(report.results) * 7 // 8))


def _without_names(report: SyncReport) -> SyncReport:
    """Whoever asked for a version knows its name, and makes its served name of that and the digest."""
    results = (one.model_copy(update={"served_name": None}) if one.digest else one for one in report.results)
    return report.model_copy(update={"results": tuple(results)})


def _dump(report: SyncReport, message_bytes: int, module_bytes: int, names: int) -> bytes:
    volume = report.volume
    if volume is not None and volume.strays is not None:
        volume = volume.model_copy(update={"strays": volume.strays[:names]})
    cut = SyncReport(
        results=tuple(_cut_result(result, message_bytes, module_bytes, names) for result in report.results),
        left=report.left,
        full=report.full,
        volume=volume,
        error=_cut_text(report.error, message_bytes),
    )
    return cut.model_dump_json(by_alias=True, exclude_none=True).encode()


def _cut_result(result: ItemResult, message_bytes: int, module_bytes: int, names: int) -> ItemResult:
    kept: list[str] = []
    for module in result.target_modules or ():
        module_bytes -= len(module) + 3
        if module_bytes < 0:
            break
        kept.append(module)
    left_out = len(result.target_modules or ()) - len(kept)
    notices = tuple(
        notice.model_copy(update={"message": _cut_text(notice.message, message_bytes)})
        for notice in result.notices or ()
    )
    return result.model_copy(
        update={
            "message": _cut_text(result.message, message_bytes),
            "target_modules": tuple(kept) if kept else None,
            "more_target_modules": left_out or None,
            "damaged": result.damaged if result.damaged is None else result.damaged[:names],
            "verified_by": _cut_text(result.verified_by, max(message_bytes, 60)),
            "notices": notices or None,
        }
    )


def _cut_text(text: str | None, limit: int) -> str | None:
    """At most ``limit`` bytes of UTF-8 in JSON, without control characters or broken surrogates."""
    if text is None:
        return None
    clean = _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace").decode()
    # A quote or backslash takes two bytes in JSON.
    if len(clean.encode()) + clean.count('"') + clean.count("\\") <= limit:
        return clean
    room = limit - len("…".encode())
    kept = []
    for character in clean:
        room -= 2 if character in '"\\' else len(character.encode())
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"
