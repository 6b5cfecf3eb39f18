"""Load from wrk and a backend that costs next to nothing: what is between them is what gets measured.

wrk is a Debian package, the backend a Go program without dependencies, built once into the cache.
"""

import asyncio
import contextlib
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.debian import require

SOURCE = Path(__file__).parent / "backend"

_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
{request}
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{{"requests":%d,"us":%d,"p50":%d,"p99":%d,"mean":%f,"bad":%d,"broken":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.mean, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw. Milliseconds; ``failed`` counts answers other than 2xx and broken connections."""

    rate: float
    p50: float
    p99: float
    mean: float
    failed: int


async def wrk(url: str, bodies: Sequence[str], connections: int, seconds: float, folder: Path) -> Load:
    """Sends the bodies in turn for so long. Raises RuntimeError when wrk fails."""
    require("wrk")
    script = folder / f"wrk-{hashlib.sha256(''.join(bodies).encode()).hexdigest()[:12]}.lua"
    script.write_text(_SCRIPT.format(request=_request(bodies)))
    words = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    process = await asyncio.create_subprocess_exec(
        "wrk", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"wrk failed: {output.decode()[-500:]}")
    found = json.loads(output.decode().strip().splitlines()[-1])
    return Load(
        rate=found["requests"] / found["us"] * 1e6,
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        mean=found["mean"] / 1000,
        failed=found["bad"] + found["broken"],
    )


def _request(bodies: Sequence[str]) -> str:
    if len(bodies) == 1:
        return f"wrk.body = [==[{bodies[0]}]==]"
    lines = ",\n".join(f"[==[{body}]==]" for body in bodies)
    return (
        f"local bodies, made, at = {{{lines}}}, {{}}, 0\n"
        "init = function() for n, body in ipairs(bodies) do made[n] = wrk.format(nil, nil, nil, body) end end\n"
        "request = function() at = at % #made + 1; return made[at] end"
    )


def backend_program() -> Path:
    """The built backend."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir()))).hexdigest()[:12]
    program = paths.tool_dir() / f"bench-backend-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        part = program.with_suffix(".part")
        subprocess.run(["go", "build", "-o", str(part), "."], cwd=SOURCE, check=True)
        part.rename(program)
    return program


@asynccontextmanager
async def backend(hosts: Sequence[str], port: int, chunks: int = 50, pace: float = 0.02) -> AsyncIterator[None]:
    """One process that listens at all these addresses."""
    listen = ",".join(f"{host}:{port}" for host in hosts)
    words = ["-listen", listen, "-chunks", str(chunks), "-pace", f"{pace * 1000:g}ms"]
    process = await asyncio.create_subprocess_exec(str(backend_program()), *words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise RuntimeError("the backend did not start; is the port taken?")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
