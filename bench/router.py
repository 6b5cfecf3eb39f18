"""Our router between wrk and a backend, the Rust `vllm-router` in its place, and nothing: interleaved in one run.

JSON: chat requests of 250 bytes over 64 connections, answered with 450 bytes. Streams: 64 at a time, 50 chunks each,
one every 20 ms. Ours does all that it does in production: finds the model, picks a version by weight, replaces the name
both ways, picks the least loaded engine, counts requests, times and tokens. The Rust router is run as it comes (its
policy is cache_aware then) and with the cheapest policy it has (round_robin, which looks at nothing). Each round runs
them all, a different one first each time. The figure is requests a second of the Rust router as it comes over ours
(medians); the streams' condition is on streams a second, direct and through ours. How round_robin compares is among the
raw figures.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bench.envoys import envoy
from bench.figure import Figure, median, rounded, say
from bench.process import cpu_seconds, resident_mib
from bench.wrk import Load, backend, wrk
from e2e.cluster import paths
from lorafleet.router.settings import Settings
from lorafleet.router.table import EngineAddress, Route, RoutingTable, Target
from tests.fake_vllm.fleet import address
from tests.harness.plane import until
from tests.harness.replica import free_port

BOUND = 1.0
STREAMS = 0.99
RUST = "vllm-router==0.1.17"
ENGINES = 4
CONNECTIONS = 64

_CHAT = (
    '{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":'
    '"What does the following function do, and how would you test it? def f(x): return x * 2"}],'
    '"model":"MODEL","max_tokens":64,"temperature":0.2STREAM}'
)


def body(model: str, stream: bool = False) -> str:
    """A chat request."""
    return _CHAT.replace("MODEL", model).replace("STREAM", ',"stream":true' if stream else "")


def rust_program() -> Path:
    """The Rust router, in an environment of its own in the cache: its dependencies are not ours."""
    folder = paths.cache_dir() / f"bench-{RUST.replace('==', '-')}"
    program = folder / "bin" / "vllm-router"
    if not program.exists():
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), RUST]
        subprocess.run(install, check=True)
    return program


@asynccontextmanager
async def rust(urls: list[str], log: Path, *options: str) -> AsyncIterator[tuple[str, int]]:
    """Its address and process, once it answers."""
    port = free_port()
    words = [*options, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    words += ["--prometheus-port", str(free_port()), "--worker-urls", *urls]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(str(rust_program()), *words, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as http:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    answer = await http.post(f"{url}/v1/chat/completions", content=body("m"), headers=_JSON)
                    return answer.status_code == 200
                return False

            await until("the Rust router answers", ready)
        yield url, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


_JSON = {"content-type": "application/json"}


def table(hosts: list[str], port: int) -> RoutingTable:
    """One adapter with two versions on all engines."""
    stable, canary = "python/1.0.0-0123456789ab", "python/1.1.0-ba9876543210"
    route = Route("python", (Target(stable, 75), Target(canary, 25)), {"1.0.0": stable, "1.1.0": canary})
    engines = {f"e{number}": EngineAddress(f"e{number}", host, port) for number, host in enumerate(hosts)}
    return RoutingTable({"python": route}, engines, ("acme/base",))


async def measure(quick: bool) -> Figure:
    """Runs it."""
    rounds, seconds, stream_seconds = (1, 1, 2) if quick else (5, 4, 8)
    hosts, port = [address(number) for number in range(ENGINES)], free_port()
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as made:
        folder = Path(made)
        urls = [f"http://{host}:{port}" for host in hosts]
        settings = Settings(address="127.0.0.1", port=free_port(), admin_port=free_port())
        async with (
            backend(hosts, port),
            envoy(table(hosts, port), folder / "envoy", settings) as ours,
            rust(urls, folder / "rust.log") as (rust_url, rust_pid),
            rust(urls, folder / "robin.log", "--policy", "round_robin") as (robin_url, robin_pid),
        ):
            direct = f"http://{hosts[0]}:{port}"
            places = {
                "ours": (ours.url, "python"),
                "rust": (rust_url, "m"),
                "rust_round_robin": (robin_url, "m"),
                "direct": (direct, "m"),
            }
            pids = {"ours": ours.pid, "rust": rust_pid, "rust_round_robin": robin_pid}
            before = {name: resident_mib(pid) for name, pid in pids.items()}
            spent: dict[str, list[float]] = {name: [] for name in pids}
            plain: dict[str, list[Load]] = {name: [] for name in places}
            streams: dict[str, list[Load]] = {name: [] for name in places}
            order = list(places)
            for _ in range(rounds):
                for name in order:
                    url, model = places[name]
                    target = f"{url}/v1/chat/completions"
                    cpu = cpu_seconds(pids[name]) if name in pids else 0
                    one = await wrk(target, [body(model)], CONNECTIONS, seconds, folder)
                    if name in pids:
                        spent[name].append((cpu_seconds(pids[name]) - cpu) / (one.rate * seconds) * 1e6)
                    other = await wrk(target, [body(model, True)], CONNECTIONS, stream_seconds, folder)
                    plain[name].append(one)
                    streams[name].append(other)
                    say(f"  {name}: {one.rate:.0f}/s, p50 {one.p50:.2f} ms; streams p50 {other.p50:.0f} ms")
                order.append(order.pop(0))
            after = {name: resident_mib(pid) for name, pid in pids.items()}
    rate = {name: median([one.rate for one in loads]) for name, loads in plain.items()}
    p50 = {name: median([one.p50 for one in loads]) for name, loads in plain.items()}
    # A stream in flight when wrk ends counts for nothing: by their length they are counted exactly.
    length = {name: median([one.mean for one in loads]) for name, loads in streams.items()}
    kept = length["direct"] / length["ours"]
    failed = sum(one.failed for loads in (*plain.values(), *streams.values()) for one in loads)
    raw = {
        "requests_per_s": {name: rounded([one.rate for one in loads]) for name, loads in plain.items()},
        "p50_ms": {name: rounded([one.p50 for one in loads]) for name, loads in plain.items()},
        "p99_ms": {name: rounded([one.p99 for one in loads]) for name, loads in plain.items()},
        "added_p50_ms": {name: round(p50[name] - p50["direct"], 2) for name in pids},
        "cpu_us_a_request": {name: [round(value, 1) for value in values] for name, values in spent.items()},
        "of_round_robin": round(rate["ours"] / rate["rust_round_robin"], 3),
        "stream_ms": {name: rounded([one.mean for one in loads]) for name, loads in streams.items()},
        "streams_of_direct": round(kept, 4),
        "memory_mib": {name: [round(before[name]), round(after[name])] for name in before},
        "failed": failed,
    }
    also = {f"streams_at_least_{STREAMS}_of_direct": kept >= STREAMS, "no_request_failed": failed == 0}
    return Figure(rate["rust"] / rate["ours"], BOUND, "times our requests a second", raw, also)
