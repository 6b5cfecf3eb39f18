"""The verbs against the real operator, with fake engines: what is asked for happens, and is shown."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.cli.commands import Answer, lorafleet
from tests.cli.standin import kubeconfig
from tests.harness.plane import Plane
from tests.harness.stage import stage


async def test_a_rollout_from_the_first_weight_to_rollback_and_retry(
    plane: Plane, namespace: str, tmp_path: Path
) -> None:
    file = kubeconfig(plane, tmp_path, namespace)

    async def ask(*words: str) -> Answer:
        return await asyncio.to_thread(lorafleet, *words, KUBECONFIG=file)

    async def traffic() -> dict[str, int]:
        shown: Any = json.loads((await ask("status", "python", "-o", "json")).out)
        return {one["version"]: one["weight"] for one in shown["traffic"]}

    steps = {"steps": [{"weight": 10, "pause": {}}, {"weight": 50, "pause": {}}], "keepLoaded": 1}
    async with stage(plane, namespace, tmp_path) as world:
        await plane.fleet(namespace)
        await world.engine("vllm-0")
        for version in ("1", "2"):
            world.source(version)
        await plane.adapter(namespace, "python", "1", rollout=steps)
        ready = await ask("status", "python", "--wait", "--timeout", "60")
        assert ready.code == 0, ready.err + ready.out
        await plane.adapter(namespace, "python", "1", "2", rollout=steps)
        await plane.condition(namespace, "python", "Reconciling", "WaitingForPromotion")
        assert await traffic() == {"1": 90, "2": 10}
        assert "lorafleet promote python " in (await ask("explain", "python")).out

        for verb, code in (("resume", 1), ("pause", 0), ("promote", 1), ("resume", 0), ("promote", 0)):
            answer = await ask(verb, "python")
            assert answer.code == code, (verb, answer.out, answer.err)
        await plane.condition(namespace, "python", "Reconciling", "WaitingForPromotion")
        assert await traffic() == {"1": 50, "2": 50}
        assert (await ask("promote", "python", "--full")).code == 0
        assert (await ask("status", "python", "--wait", "--timeout", "30")).code == 0
        assert await traffic() == {"2": 100}

        assert (await ask("rollback", "python", "--to", "1")).code == 0
        assert (await ask("status", "python", "--wait", "--timeout", "30")).code == 1
        assert await traffic() == {"1": 100}
        assert "lorafleet retry python " in (await ask("explain", "python")).out
        told: Any = json.loads((await ask("history", "python", "-o", "json")).out)
        assert [(one["version"], one["what"]) for one in told["history"]] == [
            ("1", "Served"), ("2", "Started"), ("2", "Promoted"), ("2", "RolledBack"),
        ]  # fmt: skip
        assert (await ask("retry", "python")).code == 0
        await plane.condition(namespace, "python", "Reconciling", "WaitingForPromotion")
        assert await traffic() == {"1": 90, "2": 10}
        assert (await ask("load-matrix", "fleet")).out.count("●") == 3
