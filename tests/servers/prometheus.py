"""A real Prometheus that scrapes what it is told, on loopback or in the cluster's network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.servers.process import LOOPBACK, ServerError, Where, program, running

SCRAPE_SECONDS = 1
_PAUSE = 0.05


@dataclass(frozen=True)
class Prometheus:
    """A running one. ``url`` is what goes into a fleet's ``spec.prometheus``."""

    url: str
    where: Where
    targets_file: Path

    def scrape(self, targets: Sequence[str]) -> None:
        """From now on it scrapes these, ``host:port`` each, instead of those before; it takes about five seconds."""
        part = self.targets_file.with_suffix(".part")
        part.write_text(json.dumps([{"targets": list(targets)}]))
        part.rename(self.targets_file)

    def ready(self, deadline: float = 30.0) -> None:
        """Waits until it answers queries; it listens before that, and says 503."""
        end = time.monotonic() + deadline
        while True:
            try:
                self.where.curl(f"{self.url}/-/ready")
                return
            except ServerError:
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)

    def query(self, promql: str) -> list[Any]:
        """The result of an instant query, as the API gives it; raises ServerError with Prometheus' own words."""
        # Not `curl`, which would keep the answer of a 400 to itself.
        words = self.where.run("curl", "-sS", "--noproxy", "*", f"{self.url}/api/v1/query?query={quote(promql)}")
        answer = json.loads(words)
        if answer["status"] != "success":
            raise ServerError(f"Prometheus refuses {promql}: {answer['error']}")
        return list(answer["data"]["result"])

    def value(self, promql: str) -> float | None:
        """The value of a query that gives one, None where it gives none."""
        found = self.query(promql)
        return float(found[0]["value"][1]) if found else None

    def wait(self, promql: str, deadline: float = 30.0) -> float:
        """Waits until a query gives a value; raises ServerError with the targets' errors."""
        end = time.monotonic() + deadline
        while (found := self.value(promql)) is None:
            if time.monotonic() > end:
                raise ServerError(f"Prometheus has no value for {promql}; what it scrapes: {self.targets()}")
            time.sleep(_PAUSE)
        return found

    def targets(self) -> dict[str, str]:
        """What it scrapes, with the last error of each; an empty one when all is well."""
        active = json.loads(self.where.curl(f"{self.url}/api/v1/targets?state=active"))["data"]["activeTargets"]
        return {one["scrapeUrl"]: one["lastError"] for one in active}


@contextmanager
def prometheus(
    folder: Path, targets: Sequence[str] = (), *, where: Where = LOOPBACK, port: int | None = None
) -> Iterator[Prometheus]:
    """A Prometheus while the block runs; ``targets`` are ``host:port`` with ``/metrics``, scraped every second."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "targets.json"
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [
            {
                "job_name": "routers",
                "file_sd_configs": [{"files": [str(files)], "refresh_interval": f"{SCRAPE_SECONDS}s"}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = port or where.port()
    url = f"http://{where.host}:{port}"
    argv: list[str | Path] = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={where.host}:{port}",
        "--log.level=warn",
    ]
    one = Prometheus(url, where, files)
    one.scrape(targets)
    with running("prometheus", argv, url, folder / "prometheus.log", where):
        one.ready()
        yield one
