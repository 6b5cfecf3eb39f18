"""The charts' READMEs list every value with its default and meaning, and every default has a description."""

import json
import re

import pytest
import yaml

from tests.charts.helm import CHARTS, of_kind, render
from tests.charts.readme import NAMES, table


@pytest.mark.parametrize("chart", NAMES)
def test_readme_has_the_table_of_values(chart: str) -> None:
    assert table(chart) in (CHARTS / chart / "README.md").read_text(), "run `python -m tests.charts.readme`"


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_has_a_default_and_the_schema_knows_no_other(chart: str) -> None:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) - {"global"} == set(defaults)


def test_values_in_the_readme_render_a_fleet_with_engines() -> None:
    text = (CHARTS / "lorafleet-fleet" / "README.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        objects = render("lorafleet-fleet", yaml.safe_load(block))
        assert of_kind(objects, "SpecialistFleet") and of_kind(objects, "StatefulSet")
