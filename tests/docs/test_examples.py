"""The manifests in docs/examples are accepted by the models, field by field, and show what they say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafleet.api.adapter import LoRAAdapterSpec
from lorafleet.api.crd import crds
from lorafleet.api.fleet import PicklePolicy, SpecialistFleetSpec
from lorafleet.api.names import ADAPTER_KIND, API_VERSION, FLEET_KIND
from lorafleet.api.sources import Source
from lorafleet.api.verification import SignatureTrust, VerificationPolicy
from lorafleet.engines.diagnosis import Expectations, diagnose
from lorafleet.engines.facts import engine_facts

DOCS = Path(__file__).parents[2] / "docs"
MODELS = {ADAPTER_KIND: LoRAAdapterSpec, FLEET_KIND: SpecialistFleetSpec}
YAML_BLOCK = re.compile(r"^( *)```yaml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def objects() -> list[tuple[str, dict[str, Any]]]:
    """All objects of ours in examples and in the pages, with where they are."""
    texts = [(file.name, file.read_text()) for file in sorted((DOCS / "examples").glob("*.yaml"))]
    for page in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))):
        texts += [(page.name, match[2]) for match in YAML_BLOCK.finditer(page.read_text())]
    found = [(where, item) for where, text in texts for item in yaml.safe_load_all(text)]
    return [(where, item) for where, item in found if item.get("kind") in MODELS]


def unknown(given: Any, schema: dict[str, Any], where: str = "spec") -> list[str]:
    """Fields that the CRD's schema does not have: the API server would drop them."""
    if isinstance(given, list):
        return [name for item in given for name in unknown(item, schema.get("items", {}), where)]
    if not isinstance(given, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    return [
        name
        for key, value in given.items()
        for name in (unknown(value, known[key], f"{where}.{key}") if key in known else [f"{where}.{key}"])
    ]


OBJECTS = objects()


def test_there_is_an_example_of_each_kind() -> None:
    assert {item["kind"] for where, item in OBJECTS if where.endswith(".yaml")} == set(MODELS)


@pytest.mark.parametrize(("where", "item"), OBJECTS, ids=[f"{where}-{item['kind']}" for where, item in OBJECTS])
def test_models_accept_the_example(where: str, item: dict[str, Any]) -> None:
    assert item["apiVersion"] == API_VERSION
    MODELS[item["kind"]].model_validate(item["spec"])
    (crd,) = [crd for crd in crds().values() if crd["spec"]["names"]["kind"] == item["kind"]]
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert unknown(item["spec"], schema) == []


def spec_of(file: str, kind: str) -> dict[str, Any]:
    return next(dict(item["spec"]) for where, item in OBJECTS if where == file and item["kind"] == kind)


def test_example_of_what_is_not_acted_on_sets_such_fields() -> None:
    spec = LoRAAdapterSpec.model_validate(spec_of("adapter-not-acted-on.yaml", ADAPTER_KIND))
    assert set(spec.not_acted_on()) == {"spec.domains"}


def specs(kind: str) -> list[dict[str, Any]]:
    return [item["spec"] for where, item in OBJECTS if item["kind"] == kind and where.endswith(".yaml")]


def test_there_is_an_example_of_each_source() -> None:
    adapters = [LoRAAdapterSpec.model_validate(spec) for spec in specs(ADAPTER_KIND)]
    shown = {version.source.scheme for spec in adapters for version in spec.versions}
    assert shown == {field.alias for field in Source.model_fields.values()}


def test_there_is_an_example_of_each_policy_and_each_way_to_verify() -> None:
    fleets = [SpecialistFleetSpec.model_validate(spec) for spec in specs(FLEET_KIND)]
    assert {spec.verification.policy for spec in fleets} == set(VerificationPolicy)
    shown = {way for spec in fleets if spec.verification.signature for way in spec.verification.signature.to_json()}
    assert shown == {field.alias for field in SignatureTrust.model_fields.values()}


def test_there_is_an_example_of_each_thing_that_a_fleet_may_ask_for() -> None:
    fleets = [SpecialistFleetSpec.model_validate(spec) for spec in specs(FLEET_KIND)]
    assert {spec.artifacts.pickle for spec in fleets} == set(PicklePolicy)
    for name in ("config", "volume"):
        assert any(getattr(spec.base_model, name) for spec in fleets), name
    for name in ("quota", "scrub"):
        assert any(getattr(spec.storage, name) for spec in fleets), name


def test_each_example_is_named_in_the_pages() -> None:
    pages = "".join(page.read_text() for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")))
    for file in (DOCS / "examples").glob("*.yaml"):
        assert file.name in pages, file.name


def test_engines_of_the_examples_suit_the_fleet_of_the_examples() -> None:
    fleet = SpecialistFleetSpec.model_validate(spec_of("fleet.yaml", FLEET_KIND))
    template = yaml.safe_load((DOCS / "examples" / "engines.yaml").read_text())["spec"]["template"]
    assert fleet.engines.selector.match_labels.items() <= template["metadata"]["labels"].items()
    facts = engine_facts(json.loads(json.dumps(template)), fleet.engines.port)
    assert facts.model
    expectations = Expectations(
        base_names=fleet.base_model.names,
        mount_path=fleet.storage.mount_path,
        engine_model=facts.model,
        expects_api_key=fleet.engines.api_key is not None,
    )
    assert diagnose(facts, bases=[(facts.model, facts.model)], version="0.32.0", expectations=expectations) == ()
