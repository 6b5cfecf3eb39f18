"""Renders the CRDs from the pydantic models, so that the API server refuses what the models would.

A structural schema has no references, no null types and a type everywhere (KEP-2335); this module turns pydantic's
JSON schema into one and adds what Kubernetes needs around it: names, printer columns, the status subresource.
``python -m lorafleet.api.crd DIR…`` writes the files; ``--check`` fails when they are stale.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from lorafleet.api import names
from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus
from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.api.fleetstatus import SpecialistFleetStatus
from lorafleet.api.model import ApiModel

_KEPT = {
    "description", "type", "format", "pattern", "enum", "default", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "required", "properties", "items", "additionalProperties",
}  # fmt: skip
_INT32_MAX = 2**31 - 1


def _column(name: str, path: str, kind: str = "string", priority: int = 0, **more: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "jsonPath": path,
        **({"priority": priority} if priority else {}),
        **more,
    }


_READY = _column("Ready", '.status.conditions[?(@.type=="Ready")].status')
_REASON = _column("Reason", '.status.conditions[?(@.type=="Ready")].reason')
_MESSAGE = _column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1)
_AGE = _column("Age", ".metadata.creationTimestamp", "date")


def _structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """One node of pydantic's schema as a node of a structural schema."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        schema = {key: value for key, value in schema.items() if key != "anyOf"}
    elif "anyOf" in schema:
        (choice,) = (option for option in schema["anyOf"] if option.get("type") != "null")
        schema = {**choice, **{key: value for key, value in schema.items() if key != "anyOf"}}
        return _structural(schema, definitions)
    node = {key: value for key, value in schema.items() if key in _KEPT or key.startswith("x-kubernetes-")}
    if "const" in schema:
        node["enum"] = [schema["const"]]
    if "exclusiveMinimum" in schema:
        node.update(minimum=schema["exclusiveMinimum"], exclusiveMinimum=True)
    _say_default(node)
    if node.get("type") == "integer":
        node["format"] = "int64"
    if "properties" in node:
        node["properties"] = {key: _structural(value, definitions) for key, value in node["properties"].items()}
    if "items" in node:
        node["items"] = _structural(node["items"], definitions)
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    if node.get("type") == "array" and not any(key == "x-kubernetes-list-type" for key in node):
        node["x-kubernetes-list-type"] = "atomic"
    return node


def _say_default(node: dict[str, Any]) -> None:
    """A default is said and not set: what the API server adds to an entry of a list is drift to Argo CD."""
    default = node.pop("default", None)
    if default not in (None, "", [], {}) and not isinstance(default, dict) and "description" in node:
        text = str(default).lower() if isinstance(default, bool) else str(default)
        node["description"] += f" Default: {text}."


def schema_of(model: type[ApiModel]) -> dict[str, Any]:
    """The structural schema of a model."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.pop("$defs", {}))


def _crd(
    kind: str, plural: str, short: list[str], spec: type[ApiModel], status: type[ApiModel],
    about: str, columns: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    rules = [
        {
            "rule": "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",
            "message": "metadata.name is part of names on engines: at most 63 lower-case letters, digits and hyphens",
        }
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short,
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "description": about,
                            "type": "object",
                            "required": ["spec"],
                            "x-kubernetes-validations": rules,
                            "properties": {
                                "apiVersion": {
                                    "type": "string",
                                    "description": "The version of the API, lorafleet.dev/v1alpha1.",
                                },
                                "kind": {"type": "string", "description": f"The kind, {kind}."},
                                "metadata": {"type": "object"},
                                "spec": schema_of(spec),
                                "status": schema_of(status),
                            },
                        }
                    },
                }
            ],
        },
    }


def crds() -> dict[str, dict[str, Any]]:
    """The CRDs by file name."""
    adapter = _crd(
        names.ADAPTER_KIND, names.ADAPTER_PLURAL, ["lora", "loras"], LoRAAdapterSpec, LoRAAdapterStatus,
        "An adapter, its versions, and which of them serves.",
        [
            _column("Fleet", ".spec.fleet"),
            _column("Active", ".status.activeVersion"),
            _column("Serving", ".status.stableVersion"),
            _column("Loaded", ".status.loaded"),
            _READY, _REASON, _MESSAGE, _AGE,
        ],
    )  # fmt: skip
    fleet = _crd(
        names.FLEET_KIND, names.FLEET_PLURAL, ["lfleet", "lfleets"], SpecialistFleetSpec, SpecialistFleetStatus,
        "The vLLM engines that serve one base model, and the volume they share.",
        [
            _column("Base", ".spec.baseModel.name"),
            _column("Engines", ".status.totalEngines", "integer"),
            _column("Usable", ".status.readyEngines", "integer"),
            _column("Adapters", ".status.adapters", "integer"),
            _READY, _REASON, _MESSAGE, _AGE,
        ],
    )  # fmt: skip
    return {f"{crd['metadata']['name']}.yaml": crd for crd in (adapter, fleet)}


def render() -> dict[str, str]:
    """The text of each CRD file by its name."""
    head = "# Generated by `make generate` from operator/lorafleet/api; do not edit.\n"
    return {
        name: head + yaml.safe_dump(crd, sort_keys=False, width=110, allow_unicode=True) for name, crd in crds().items()
    }


def main() -> int:
    """Writes the CRD files, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="where the files are kept")
    parser.add_argument("--check", action="store_true", help="fail when a file is stale; write nothing")
    options = parser.parse_args()
    stale = []
    for path, text in ((folder / name, text) for folder in options.folders for name, text in render().items()):
        if options.check:
            stale += [path] if not path.exists() or path.read_text() != text else []
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        sys.stderr.write(f"stale: {', '.join(map(str, stale))}; run `make generate` and commit the result\n")
    return bool(stale)


if __name__ == "__main__":
    raise SystemExit(main())
