"""The Prometheus of the tests is a real one: it scrapes, computes, and says why it cannot."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from tests.servers.own import in_thread
from tests.servers.process import LOOPBACK, ServerError
from tests.servers.prometheus import Prometheus, prometheus

ROUTER = """\
# TYPE lorafleet_router_requests_total counter
lorafleet_router_requests_total{adapter="python",version="1",result="ok"} 90
lorafleet_router_requests_total{adapter="python",version="1",result="server"} 10
"""


@contextmanager
def metrics(text: str) -> Iterator[str]:
    """Something that is scraped; its ``host:port``."""

    def build() -> web.Application:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text=text)

        application = web.Application()
        application.router.add_get("/metrics", answer)
        return application

    port = LOOPBACK.port()
    with in_thread(build, "127.0.0.1", [port]):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as one:
        yield one


def test_it_computes_over_what_it_scraped(server: Prometheus) -> None:
    with metrics(ROUTER) as target:
        server.scrape([target])
        share = 'sum(lorafleet_router_requests_total{result="server"}) / sum(lorafleet_router_requests_total)'
        assert server.wait(share) == pytest.approx(0.1)
        assert server.targets() == {f"http://{target}/metrics": ""}


def test_no_data_is_no_value(server: Prometheus) -> None:
    assert server.value("lorafleet_router_requests_of_nobody") is None


def test_a_wrong_query_is_an_error_in_its_own_words(server: Prometheus) -> None:
    with pytest.raises(ServerError, match="parse error"):
        server.query("sum(")


def test_it_says_why_a_target_is_not_scraped(server: Prometheus) -> None:
    server.scrape(["127.0.0.1:1"])
    assert server.wait('up{instance="127.0.0.1:1"} == 0') == 0
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1/metrics.*connection refused"):
        server.wait("lorafleet_router_requests_of_nobody", deadline=0)
