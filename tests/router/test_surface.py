"""What of an engine clients can reach: the paths that take a model, and nothing of its administration."""

import json
from pathlib import Path

from lorafleet.router.envoy import ROUTES
from lorafleet.router.files import write
from tests.harness.plane import until
from tests.router.engines import engines
from tests.router.running import BASE, route, router, table

ROUTE = route("python", v1=100)


async def test_when_the_program_fails_no_request_reaches_an_engine(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        routes = json.loads((tmp_path / ROUTES).read_text())
        source = routes["resources"][0]["typed_config"]["default_source_code"]
        # Envoy lets a request go on whose program failed.
        source["inline_string"] += "\nfunction envoy_on_request() error('broken') end\n"
        write(tmp_path, {ROUTES: json.dumps(routes | {"version_info": "broken"}).encode()})

        async def failed() -> bool:
            status, answer = await one.post({"model": "python"})
            return (status, status == 500 and answer["error"]["code"]) == (500, "router_failed")

        await until("the program fails", failed)
        engine.asked.clear()
        for model in ("python", BASE):
            for path in ("/v1/completions", "/v1/load_lora_adapter"):
                status, _ = await one.post({"model": model}, path, x_lorafleet_base="1", x_lorafleet_served="python/v1")
                assert status == 500
    assert engine.asked == []
