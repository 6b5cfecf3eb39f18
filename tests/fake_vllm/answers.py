"""The bodies of vLLM's answers, and what a fake model completes."""

import hashlib
import json
import re
from typing import Any

from tests.fake_vllm.wire import Response


def json_answer(status: int, content: object) -> Response:
    return Response(status, json.dumps(content).encode())


def error_answer(status: int, kind: str, message: str, param: str | None = None) -> Response:
    # vLLM hides what looks like a path of its machine (vLLM 0.27.1 and 0.32.0, `sanitize_message`).
    message = re.sub(r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv)(?:/[\w.\-]+)+", "<path>", message)
    message = re.sub(r"(?:/[\w\-]+)+/[\w\-]+\.\w+", "<path>", message)
    return json_answer(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})


def card_answer(name: str, root: str, parent: str | None) -> dict[str, Any]:
    card = {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": root, "parent": parent}
    return {**card, "max_model_len": 256 if parent is None else None, "permission": [{"id": "modelperm-0"}]}


def text_of(model: str, count: int) -> str:
    """What a model of this name completes: the same words every time, other words for other names."""
    digest = hashlib.sha256(model.encode()).hexdigest()
    return "".join(f" {digest[at % 60 : at % 60 + 4]}" for at in range(count))


def completion_answer(model: str, count: int, *, chat: bool, stream: bool, text: str | None = None) -> Response:
    text = text_of(model, count) if text is None else text
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    head = {"id": "fake", "created": 0, "model": model}
    if stream:
        parts = []
        for word in text.split(" ")[1:]:
            piece = {"delta": {"content": f" {word}"}} if chat else {"text": f" {word}"}
            chunk = {**head, "choices": [{"index": 0, "finish_reason": None, **piece}]}
            parts.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        return Response(200, (*parts, b"data: [DONE]\n\n"), "text/event-stream")
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return json_answer(200, {**head, "choices": [{"index": 0, "finish_reason": "length", **said}], "usage": usage})
