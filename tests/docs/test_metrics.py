"""docs/metrics.md has a row for each metric of the operator and of the routers, with its type and labels."""

import re
from pathlib import Path
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

import lorafleet.controller.metrics
import lorafleet.router.metrics
from lorafleet.router.statistics import exposition

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(lorafleet_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", re.MULTILINE)
ENVOY = "".join(
    f'envoy_lorafleet_{name}{{served="sql/v1-0123456789ab"{more}}} 1\n'
    for name, more in [
        ("requests", ',code="200",flags="-"'),
        ("prompt_tokens", ""),
        *((f"{histogram}_{part}", more) for histogram in ("whole", "first_token")
          for part, more in (("bucket", ',le="5"'), ("bucket", ',le="+Inf"'), ("sum", ""), ("count", ""))),
    ]
)  # fmt: skip

Found = dict[str, tuple[str, frozenset[str]]]


def of_the_process(module: ModuleType) -> Found:
    exposed = {}
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            exposed[name] = (family.type, frozenset(metric._labelnames))
    return exposed


def of_envoy() -> Found:
    exposed = {}
    for family in text_string_to_metric_families(exposition(ENVOY)):
        name = family.name + ("_total" if family.type == "counter" else "")
        exposed[name] = (family.type, frozenset(family.samples[0].labels) - {"le"})
    return exposed


def test_each_metric_has_a_row_with_its_type_and_labels() -> None:
    rows = ROW.findall(PAGE)
    documented = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert len(of_envoy()) == 4
    exposed = of_the_process(lorafleet.controller.metrics) | of_the_process(lorafleet.router.metrics) | of_envoy()
    assert documented == exposed
