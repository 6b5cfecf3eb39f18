"""Steady traffic of many users through a router, every answer checked to its end; it runs through scenarios and demo.

`load` starts it as a process of its own, in the cluster's network where need be. It asks as fast as its users may,
prints what it has seen several times a second, and ends when its standard input does, after the answers on their way. A
request has failed when a client could tell: another status than 200, no text, a stream without its end, a connection
that broke, an answer that took too long. Which texts are right only the caller knows, so they are counted by text.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
from prometheus_client import Counter, start_http_server

ROOT = Path(__file__).parents[1]
REPORT_SECONDS = 0.2
REASONS_KEPT = 5
CONNECTION_REQUESTS = 25
"""After so many requests a user takes a new connection, as other clients come and go."""


KINDS = ("completions", "chat", "completions-stream", "chat-stream")
Said = tuple[str, str]
"""chat or completions, and what came."""


@dataclass(frozen=True)
class Plan:
    """What is asked. ``people`` are the different values of ``user``; ``users`` ask at the same time.

    With ``metrics``, a port, Prometheus may read there how many answers are one of the ``liked`` texts.
    """

    url: str
    models: tuple[str, ...]
    kinds: tuple[str, ...] = KINDS
    users: int = 6
    people: int = 60
    pause: float = 0.05
    prompt: str = "A small model"
    tokens: int = 8
    timeout: float = 60.0
    headers: dict[str, str] = field(default_factory=dict)
    liked: tuple[str, ...] = ()
    metrics: int = 0


@dataclass(frozen=True)
class Seen:
    """One text that came for one model, by one way of asking. Times are of the machine's monotonic clock, of asking."""

    model: str
    kind: str
    text: str
    count: int
    first: float
    last: float

    @property
    def said(self) -> Said:
        """The text with the way of asking, be it as a stream or not."""
        return self.kind.removesuffix("-stream"), self.text


@dataclass(frozen=True)
class Summary:
    """Everything so far. ``asked`` are requests that have ended, well or not."""

    asked: int = 0
    failed: int = 0
    reasons: tuple[str, ...] = ()
    seen: tuple[Seen, ...] = ()
    slowest: float = 0.0

    @classmethod
    def read(cls, line: str) -> Summary:
        """What the process printed."""
        found = json.loads(line)
        seen = tuple(Seen(**one) for one in found.pop("seen"))
        return cls(**{**found, "seen": seen, "reasons": tuple(found["reasons"])})

    def versions(self, known: Mapping[Said, str], model: str | None = None) -> dict[str, int]:
        """Requests by the version that answered, given what each says; AssertionError for a text of none of them."""
        counts: dict[str, int] = {}
        for one in self.seen:
            if one.said not in known:
                raise AssertionError(f"{one.model} by {one.kind} said {one.text!r} {one.count} times; known: {known}")
            if model in (None, one.model):
                counts[known[one.said]] = counts.get(known[one.said], 0) + one.count
        return counts

    def last(self, known: Mapping[Said, str], version: str) -> float:
        """When a version's last answer was asked for; 0 when it never was."""
        return max((one.last for one in self.seen if known.get(one.said) == version), default=0.0)


class Tally:
    """What the process counts."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], tuple[int, float, float]] = {}
        self._reasons: list[str] = []
        self._asked = self._failed = 0
        self._slowest = 0.0

    def answered(self, model: str, kind: str, text: str, began: float) -> None:
        """A complete answer."""
        self._asked += 1
        self._slowest = max(self._slowest, time.monotonic() - began)
        count, first, last = self._seen.get((model, kind, text), (0, began, began))
        self._seen[model, kind, text] = (count + 1, min(first, began), max(last, began))

    def failed(self, why: str) -> None:
        """No answer, or half of one."""
        self._asked += 1
        self._failed += 1
        if len(self._reasons) < REASONS_KEPT:
            self._reasons.append(why)

    def summary(self) -> Summary:
        """As it is now."""
        seen = tuple(Seen(*key, *value) for key, value in sorted(self._seen.items()))
        return Summary(self._asked, self._failed, tuple(self._reasons), seen, round(self._slowest, 3))


class Incomplete(Exception):
    """An answer that a client cannot use; the text says what is wrong with it."""


async def ask(http: httpx.AsyncClient, plan: Plan, model: str, person: str, kind: str) -> str:
    """One request; the text of its answer. ``kind`` is completions or chat, with ``-stream`` for streams."""
    chat, stream = kind.startswith("chat"), kind.endswith("-stream")
    body: dict[str, Any] = {"model": model, "max_tokens": plan.tokens, "temperature": 0, "user": person}
    body |= {"messages": [{"role": "user", "content": plan.prompt}]} if chat else {"prompt": plan.prompt}
    where = "/v1/chat/completions" if chat else "/v1/completions"
    if not stream:
        answer = await http.post(where, json=body)
        if answer.status_code != 200:
            raise Incomplete(f"status {answer.status_code}: {answer.text[:300]}")
        return text_of(answer.json(), chat)
    parts: list[str] = []
    async with http.stream("POST", where, json=body | {"stream": True}) as events:
        if events.status_code != 200:
            raise Incomplete(f"status {events.status_code}: {(await events.aread())[:300]!r}")
        async for line in events.aiter_lines():
            if line == "data: [DONE]":
                return "".join(parts)
            if line.startswith("data: "):
                parts.append(piece_of(json.loads(line.removeprefix("data: ")), chat))
    raise Incomplete(f"the stream ended without [DONE] after {len(parts)} events")


def text_of(answer: Any, chat: bool) -> str:
    """The text of a whole answer."""
    try:
        choice = answer["choices"][0]
        return str(choice["message"]["content"] if chat else choice["text"])
    except (KeyError, IndexError, TypeError):
        raise Incomplete(f"no text in the answer {json.dumps(answer)[:300]}") from None


def piece_of(event: Any, chat: bool) -> str:
    """The text of one event of a stream; empty for those that carry none, such as the usage."""
    if "error" in event:
        raise Incomplete(f"an error in the stream: {json.dumps(event['error'])[:300]}")
    choices = event.get("choices") or [{}]
    return str((choices[0].get("delta", {}).get("content") if chat else choices[0].get("text")) or "")


async def _user(plan: Plan, tally: Tally, likes: Likes, ended: asyncio.Event, number: int) -> None:
    choose = random.Random(number)
    while not ended.is_set():
        async with httpx.AsyncClient(
            base_url=plan.url, timeout=plan.timeout, headers=plan.headers, trust_env=False
        ) as http:
            for _ in range(CONNECTION_REQUESTS):
                model, kind = choose.choice(plan.models), choose.choice(plan.kinds)
                person = f"person-{choose.randrange(plan.people)}"
                began = time.monotonic()
                try:
                    text = await ask(http, plan, model, person, kind)
                    tally.answered(model, kind, text, began)
                    likes.answered(text)
                except (httpx.HTTPError, ValueError, Incomplete) as error:
                    words = f"{model} by {kind} after {time.monotonic() - began:.2f} s"
                    tally.failed(f"{time.strftime('%H:%M:%S')} {words}: {type(error).__name__} {error}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), plan.pause)
                if ended.is_set():
                    return


class Likes:
    """What people would say of the answers, as an application tells Prometheus."""

    def __init__(self, plan: Plan) -> None:
        self._liked = frozenset(plan.liked)
        self._answers = Counter("people_answers", "Answers by whether people like them.", ["liked"])
        for known in ("yes", "no"):
            self._answers.labels(known)
        if plan.metrics:
            start_http_server(plan.metrics)

    def answered(self, text: str) -> None:
        """One more answer."""
        self._answers.labels("yes" if text in self._liked else "no").inc()


async def _run(plan: Plan) -> None:
    tally, likes, ended = Tally(), Likes(plan), asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        # Nothing is ever written to it: it ends when whoever holds the other end says so, or is gone.
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    loop.add_reader(sys.stdin.fileno(), read)

    async def report() -> None:
        while True:
            print(json.dumps(asdict(tally.summary())), flush=True)
            await asyncio.sleep(REPORT_SECONDS)

    reports = asyncio.create_task(report())
    await asyncio.gather(*(_user(plan, tally, likes, ended, number) for number in range(plan.users)))
    reports.cancel()
    print(json.dumps(asdict(tally.summary())), flush=True)


class Load:
    """Traffic that runs. Any thread may ask for its summary."""

    def __init__(self, process: subprocess.Popen[str], log: TextIO) -> None:
        self._process = process
        self._log = log
        self._lock = threading.Lock()
        self._latest = Summary()
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            found = Summary.read(line)
            with self._lock:
                self._latest = found

    def summary(self) -> Summary:
        """What was seen up to a fraction of a second ago; AssertionError when the process has ended by itself."""
        if self._process.poll() is not None:
            raise AssertionError(f"the load generator ended with {self._process.returncode}: {self._words()}")
        with self._lock:
            return self._latest

    def after(self, count: int, deadline: float = 120.0) -> Summary:
        """Waits until so many more requests have ended."""
        end, before = time.monotonic() + deadline, self.summary().asked
        while (now := self.summary()).asked < before + count:
            if time.monotonic() > end:
                raise AssertionError(f"{now.asked - before} of {count} requests ended within {deadline:g} s: {now}")
            time.sleep(REPORT_SECONDS / 2)
        return now

    def stop(self, deadline: float = 90.0) -> Summary:
        """Asks nothing new, waits for the answers on their way; the final summary."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(deadline)
        self._reader.join(deadline)
        if self._process.returncode:
            raise AssertionError(f"the load generator ended with {self._process.returncode}: {self._words()}")
        return self._latest

    def _words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]


@contextlib.contextmanager
def load(plan: Plan, log: Path, enter: Sequence[str] = ()) -> Iterator[Load]:
    """Traffic while the block runs, and no longer; ``enter`` are the words that start a command where the router is."""
    argv = [*enter, sys.executable, "-m", "e2e.load", json.dumps(asdict(plan))]
    with log.open("w+") as words:
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True
        )
        try:
            yield Load(process, words)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def main() -> None:
    """In the process: asks what its argument says until its standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m e2e.load", description=__doc__)
    parser.add_argument("plan", help="a Plan as JSON")
    given = json.loads(parser.parse_args().plan)
    lists = {name: tuple(given[name]) for name in ("models", "kinds", "liked")}
    asyncio.run(_run(Plan(**{**given, **lists})))


if __name__ == "__main__":
    main()
