"""Fake vLLM servers: many in one process, with every fault of the vLLM contract on request."""

from tests.fake_vllm.answers import text_of
from tests.fake_vllm.engine import Event, FakeEngine, Settings
from tests.fake_vllm.fleet import FakeFleet

__all__ = ["Event", "FakeEngine", "FakeFleet", "Settings", "text_of"]
