"""A signal ends the operator with 0, whoever has the handlers at that moment."""

import asyncio
import os
import signal
from typing import Any

import kopf
import pytest

from lorafleet.controller.app import Operator
from lorafleet.controller.settings import Settings
from tests.harness.plane import Plane, connect
from tests.harness.replica import free_port


async def _as_kopf_with_a_signal(**_: Any) -> None:
    """What kopf does from its start on: it takes the signals, and one of them ends it without an error."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await told.wait()


async def _as_kopf_with_an_error(**_: Any) -> None:
    raise RuntimeError("a watch died")


@pytest.mark.parametrize(("kopf_does", "code"), [(_as_kopf_with_a_signal, 0), (_as_kopf_with_an_error, 1)])
async def test_a_signal_that_kopf_takes_ends_the_operator_as_it_does_later(
    plane: Plane, namespace: str, monkeypatch: pytest.MonkeyPatch, kopf_does: Any, code: int
) -> None:
    monkeypatch.setattr(kopf, "operator", kopf_does)
    settings = Settings(namespace=namespace, watch_namespaces=namespace, http_host="127.0.0.1", http_port=free_port())
    operator = Operator(settings, await connect(plane.kubeconfig))
    assert await asyncio.wait_for(operator.run(), 60) == code
