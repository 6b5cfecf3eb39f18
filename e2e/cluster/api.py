"""The few questions asked of an API server while it comes up, without starting a kubectl for each."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Api:
    """A reader with the administrator's certificate, which `folder` holds beside the authority's."""

    def __init__(self, server: str, folder: Path) -> None:
        self.server = server
        self._folder = folder

    def get(self, path: str) -> Any | None:
        """The answer's JSON (its text where it is none), or None for any failure at all."""
        try:
            context = ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
            context.load_cert_chain(self._folder / "admin.crt", self._folder / "admin.key")
            with urllib.request.urlopen(self.server + path, timeout=3, context=context) as answer:
                body = answer.read().decode()
        except (OSError, urllib.error.URLError, ssl.SSLError):
            return None
        try:
            return json.loads(body)
        except json.JSONDecodeError:
            return body

    def ready(self) -> bool:
        return self.get("/readyz") == "ok"

    def service_account(self, namespace: str = "default") -> bool:
        """Without it pods are refused; its coming also proves that the controllers work."""
        return self.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default") is not None

    def node_ready(self, name: str) -> bool:
        node = self.get(f"/api/v1/nodes/{name}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def answers(url: str) -> bool:
    """Whether a plain health endpoint says 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
