"""Runs the Helm that the end-to-end world builds, or the one on the PATH, on the charts of this repository."""

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import paths

REPOSITORY = Path(__file__).parents[2]
CHARTS = REPOSITORY / "charts"

Object = dict[str, Any]


@functools.cache
def helm() -> str:
    """Helm's path. A test without Helm fails and says what to do: a chart that nobody renders is not tested."""
    built = paths.bin_dir() / "helm"
    found = str(built) if built.exists() else shutil.which("helm")
    if found is None:
        pytest.fail("helm is not installed: run `make setup`, or `python -m e2e.cluster build`")
    return found


def _run(*words: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    given = ["--values", "-"] if values else []
    return subprocess.run(
        [helm(), *words, *given],
        input=json.dumps(values) if values else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@functools.cache
def _render(chart: str, release: str, namespace: str, values: str) -> str:
    done = _run("template", release, str(CHARTS / chart), "--namespace", namespace, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(chart: str, values: Object | None = None, release: str = "x", namespace: str = "here") -> list[Object]:
    """The objects that a chart renders."""
    text = _render(chart, release, namespace, json.dumps(values or {}))
    return [item for item in yaml.safe_load_all(text) if item]


def refusal(chart: str, values: Object) -> str:
    """What Helm says about values that it refuses."""
    done = _run("template", "x", str(CHARTS / chart), values=values)
    assert done.returncode != 0, "the values were accepted"
    return done.stderr


def lint(chart: str, values: Object) -> str:
    """What a strict lint says; empty when nothing is wrong."""
    done = _run("lint", "--strict", str(CHARTS / chart), values=values)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of some kinds."""
    return [item for item in objects if item["kind"] in kinds]


def one(objects: list[Object], kind: str) -> Object:
    """The only object of a kind."""
    (found,) = of_kind(objects, kind)
    return found
