"""One replica of the operator as a process of its own: started, asked for its metrics, stopped or killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.harness.plane import ROOT, until


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Replica:
    """A running ``lorafleet operator``."""

    def __init__(self, kubeconfig: str, log: Path, **settings: object) -> None:
        self.port = free_port()
        self.log = log
        env = {
            **os.environ,
            "KUBECONFIG": kubeconfig,
            "LORAFLEET_HTTP_HOST": "127.0.0.1",
            "LORAFLEET_HTTP_PORT": str(self.port),
            "LORAFLEET_LEASE_DURATION": "3",
            "LORAFLEET_LEASE_RENEW": "2",
            "LORAFLEET_LEASE_RETRY": "0.3",
            **{f"LORAFLEET_{name.upper()}": str(value) for name, value in settings.items()},
        }
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lorafleet", "operator"], cwd=ROOT, env=env, stdout=out, stderr=out
            )

    def kill(self) -> None:
        """SIGKILL: no clean-up of any kind."""
        self.process.kill()
        self.process.wait()

    def stop(self, deadline: float = 15.0) -> int:
        """SIGTERM, as a kubelet sends it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    async def metrics(self) -> dict[str, float]:
        """All samples by name and labels, as Prometheus would see them."""
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"http://127.0.0.1:{self.port}/metrics")).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    async def leading(self, deadline: float = 20.0) -> "Replica":
        """Waits until this replica leads."""

        async def leads() -> bool:
            assert self.process.poll() is None, f"the operator ended:\n{self.log.read_text()[-4000:]}"
            with contextlib.suppress(httpx.HTTPError):
                return (await self.metrics()).get("lorafleet_leader") == 1.0
            return False

        await until("the replica leads", leads, deadline)
        return self


@contextlib.asynccontextmanager
async def replica(kubeconfig: str, log: Path, **settings: object) -> AsyncIterator[Replica]:
    """A leading replica while the block runs."""
    one = Replica(kubeconfig, log, **settings)
    try:
        yield await one.leading()
    finally:
        if one.process.poll() is None:
            assert await asyncio.to_thread(one.stop) == 0, f"no clean end:\n{log.read_text()[-3000:]}"
