"""Reads an HTTP answer up to a size: whoever answers, the operator's memory is not theirs to fill."""

import httpx


class TooLong(ValueError):
    """An answer has more bytes than what was asked for can have."""


async def bounded(answer: httpx.Response, most: int) -> bytes:
    """The body of a streamed answer, ``most`` bytes of it at the most. Raises TooLong and httpx.HTTPError."""
    data = bytearray()
    async for chunk in answer.aiter_bytes():
        data += chunk
        if len(data) > most:
            raise TooLong(f"the answer has more than {most} bytes")
    return bytes(data)
