"""What all tests share: one real control plane per run, and a namespace per test."""

import itertools
import signal
from collections.abc import AsyncIterator, Iterator

import hypothesis  # imported late by its pytest plugin, it trips over a bug of Python 3.11's ast module
import pytest

from tests.harness import plane as planes

_numbers = itertools.count(1)

# Machines are noisy: how long it takes to make an example is no test's business. CI takes Hypothesis' profile `ci`.
hypothesis.settings.register_profile("noisy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("noisy")

# Whoever runs the tests in the background of a shell has Ctrl-C ignored, also in all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    """The kubeconfig of a control plane that lives as long as the test run."""
    name = planes.control_plane_name()
    try:
        yield planes.start(name)
    finally:
        planes.stop(name)


@pytest.fixture
async def plane(kubeconfig: str) -> AsyncIterator[planes.Plane]:
    """The control plane with our CRDs."""
    kube = await planes.connect(kubeconfig)
    one = planes.Plane(kube, kubeconfig)
    await one.install_crds()
    yield one
    await kube.close()


@pytest.fixture
async def namespace(plane: planes.Plane) -> str:
    """A namespace of the test's own."""
    return await plane.namespace(f"t{next(_numbers)}")
