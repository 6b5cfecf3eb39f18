"""JSON in a text that takes little room and that JSON takes as it is: ``{"packed": "…"}``.

For the plans and reports that travel where Kubernetes and Linux have no more room. Pure.
"""

import base64
import json
import re
import zlib
from typing import Any

_UNPACKED_BYTES = 4 * 1024 * 1024
_HASH = {64: b"\x01", 40: b"\x02"}
"""What stands for a hash of so many digits: JSON never holds such a byte."""
_HASH_DIGITS = {mark: digits for digits, mark in _HASH.items()}
_HEX = re.compile(rb"([0-9a-f]{65,})|[0-9a-f]{64}|[0-9a-f]{40}")
_HASHED = re.compile(rb"[\x01\x02]")


def pack(text: bytes) -> bytes:
    """The packed form of JSON: compressed, but for hashes, which do not compress and travel as bytes behind it."""
    hashes: list[bytes] = []

    def take(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return match[0]
        hashes.append(bytes.fromhex(match[0].decode()))
        return _HASH[len(match[0])]

    rest = zlib.compress(_HEX.sub(take, text), 9)
    return b'{"packed":"' + base64.b85encode(rest + b"".join(hashes)) + b'"}'


def unpacked(found: Any) -> Any:
    """What was packed, or ``found`` itself when it is not in that form. Raises ValueError when it is damaged."""
    if not isinstance(found, dict) or not isinstance(found.get("packed"), str):
        return found
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(base64.b85decode(found["packed"]), _UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"what was packed is damaged: {error}") from None
    hashes, at = inflater.unused_data, 0

    def put(match: re.Match[bytes]) -> bytes:
        nonlocal at
        count = _HASH_DIGITS[match[0]] // 2
        at += count
        return hashes[at - count : at].hex().encode()

    return json.loads(_HASHED.sub(put, text))
