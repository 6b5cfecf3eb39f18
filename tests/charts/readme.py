"""The table of values in a chart's README, from its schema and defaults. ``python -m tests.charts.readme`` writes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.charts.helm import CHARTS

NAMES = ("lorafleet", "lorafleet-fleet")
TABLE = re.compile(r"\| value \| default \| meaning \|\n(?:\|.*\n)+")


def _rows(schema: dict[str, Any], defaults: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, part in schema["properties"].items():
        if name == "global":
            continue
        default = defaults.get(name)
        # Parts of Kubernetes' own types and of adapters are described where they belong.
        deeper = part.get("type") == "object" and part.get("properties") and isinstance(default, dict)
        if deeper and set(part["properties"]) <= set(default):
            yield from _rows(part, default, f"{before}{name}.")
        else:
            text = json.dumps(default, ensure_ascii=False)
            yield f"| `{before}{name}` | `{text}` | {part['description']} |\n"


def table(chart: str) -> str:
    """The whole table."""
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    return "| value | default | meaning |\n|---|---|---|\n" + "".join(_rows(schema, defaults))


def main() -> None:
    """Writes the tables."""
    for chart in NAMES:
        page = CHARTS / chart / "README.md"
        page.write_text(TABLE.sub(lambda _: table(chart), page.read_text()))  # noqa: B023


if __name__ == "__main__":
    main()
