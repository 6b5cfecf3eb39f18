"""One real vLLM as a plain process: its command line and environment, started and awaited, ended by its process group.

The same words start vLLM in a pod: `command` and `environment` know nothing of this machine but the cache's folder.
Nothing here talks to Kubernetes or loads adapters.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.shell import ClusterError
from e2e.engine.vllm_env import python_of

READY_SECONDS = 300.0


@dataclass(frozen=True)
class Options:
    """How a server is started. ``resolver_dir`` must exist; None leaves the filesystem resolver out."""

    version: str
    model: Path
    port: int = 8000
    host: str = "127.0.0.1"
    served_names: tuple[str, ...] = ()
    max_loras: int = 2
    max_cpu_loras: int = 8
    max_lora_rank: int = 16
    enable_lora: bool = True
    runtime_updating: bool = True
    resolver_dir: Path | None = None
    api_key: str | None = None
    extra: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def command(options: Options) -> list[str]:
    """The words that start vLLM. `vllm serve` finds no metadata in the CPU build, so it is the module that is run."""
    words = [str(python_of(options.version)), "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--model", str(options.model), "--host", options.host, "--port", str(options.port)]
    if options.served_names:
        words += ["--served-model-name", *options.served_names]
    if options.enable_lora:
        words += ["--enable-lora", "--max-loras", str(options.max_loras)]
        words += ["--max-cpu-loras", str(options.max_cpu_loras), "--max-lora-rank", str(options.max_lora_rank)]
    words += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "8"]
    return [*words, *options.extra]


def environment(options: Options, scratch: str = "/tmp") -> dict[str, str]:
    """The variables that vLLM needs. Only ``scratch`` is written to, so everything else may be read-only."""
    env = {
        "HOME": scratch,
        "TMPDIR": scratch,
        "VLLM_CACHE_ROOT": f"{scratch}/vllm",
        "VLLM_CONFIG_ROOT": f"{scratch}/vllm-config",
        "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor",
        "TRITON_CACHE_DIR": f"{scratch}/triton",
        "HF_HOME": f"{scratch}/hf",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # What the names of the user and the host would be asked for, which a pod of any user has not.
        "USER": "vllm",
        "LOGNAME": "vllm",
    }
    if options.runtime_updating:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "true"
    if options.resolver_dir is not None:
        env["VLLM_PLUGINS"] = "lora_filesystem_resolver"
        env["VLLM_LORA_RESOLVER_CACHE_DIR"] = str(options.resolver_dir)
    if options.api_key is not None:
        env["VLLM_API_KEY"] = options.api_key
    return {**env, **options.env}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Server:
    """A started server. Use it as a context manager, so that its whole process group ends with the block."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.url = f"http://{options.host}:{options.port}"
        self.log = folder / f"vllm-{options.port}.log"
        self.seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = READY_SECONDS) -> Server:
        """Starts it and waits until it is healthy; raises ClusterError with the end of its log."""
        scratch = self.folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self.options),
                env={"PATH": os.environ.get("PATH", ""), **environment(self.options, str(scratch))},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self.healthy():
            if self._process.poll() is not None:
                raise ClusterError(f"vLLM ended with {self._process.returncode}; its log {self.log}:\n{self.tail()}")
            if time.monotonic() - begun > seconds:
                self.stop()
                raise ClusterError(f"vLLM was not ready within {seconds:.0f} s; its log {self.log}:\n{self.tail()}")
            time.sleep(0.25)
        self.seconds = time.monotonic() - begun
        return self

    def healthy(self) -> bool:
        """Whether it says so itself."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, grace: float = 15.0) -> None:
        """Ends the process group: the API server and the engine that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                continue
            if number is signal.SIGTERM and not _group_alive(process.pid, 3.0):
                break

    def restart(self) -> Server:
        """Stops it and starts it again with the same words."""
        self.stop()
        return self.start()

    def __enter__(self) -> Server:
        return self.start() if self._process is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _group_alive(group: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True
