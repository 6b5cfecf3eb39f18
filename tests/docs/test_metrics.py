"""docs/metrics.md has a row for each metric of the operator, with its type and labels."""

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from lorafleet.controller import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(lorafleet_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", re.MULTILINE)


def test_each_metric_has_a_row_with_its_type_and_labels() -> None:
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in ROW.findall(PAGE)}
    exposed = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            exposed[name] = (family.type, tuple(metric._labelnames))
    assert documented == exposed
