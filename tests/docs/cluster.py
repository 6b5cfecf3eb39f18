"""The cluster that docs/cli.md shows: a namespace with a fleet and four adapters, and who answers the verbs."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorafleet.kube import KubeError
from tests.cli import objects
from tests.cli.standin import kubeconfig, operator, put
from tests.harness import plane as planes

NAMESPACE = "specialists"
_READY = 60.0


@contextmanager
def cluster(admin: str, folder: Path) -> Iterator[None]:
    """While the block runs, ``kubeconfig`` in the folder leads there. ``admin``: a control plane's own kubeconfig."""
    ready, done = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_serve(admin, folder, ready, done))
        except BaseException as error:
            errors.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(_READY)
        assert not errors, errors
        yield
    finally:
        done.set()
        thread.join()


async def _serve(admin: str, folder: Path, ready: threading.Event, done: threading.Event) -> None:
    kube = await planes.connect(admin)
    plane = planes.Plane(kube, admin)
    try:
        await plane.install_crds()
        try:
            await plane.namespace(NAMESPACE)
        except KubeError as error:
            if not error.conflict:
                raise
        ill = objects.engine("vllm-2", False, 0, 5, reason="LoRADisabled", message=_ILL)
        usable = [objects.engine(name, loaded=5, wanted=5) for name in ("vllm-0", "vllm-1")]
        stalled = objects.conditions("stalled", "LoRADisabled", f"2 of 3 engines are usable; {_ILL}")
        await put(plane, NAMESPACE, objects.fleet(*usable, ill, rollingOut=2, conditions=stalled))
        await put(plane, NAMESPACE, objects.serving(), "sql-lora")
        await put(plane, NAMESPACE, objects.aborted(), "bad-lora")
        for item, name in ((objects.rolling(), "python-lora"), (objects.waiting(), "rust-lora")):
            item["metadata"]["labels"] = {"team": "search"}
            await put(plane, NAMESPACE, item, name)
        kubeconfig(plane, folder, NAMESPACE)
        async with operator(plane, NAMESPACE, _answer):
            ready.set()
            await asyncio.to_thread(done.wait)
    finally:
        await kube.close()


_ILL = "engine vllm-2 was started without --enable-lora; add it and restart"


def _answer(name: str, verb: str) -> str:
    """As ``rollout.verbs`` would say it."""
    if name not in ("python-lora", "rust-lora"):
        return f"{verb} was refused: no rollout is under way"
    share = "25" if name == "python-lora" else "50"
    said = {"promote": "goes on with its next step", "pause": f"is paused at {share} %"}
    return f"the rollout of version 1.2.0 {said[verb]}"
