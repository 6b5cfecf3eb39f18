"""Which cluster a command asks, and what it says when there is none; never with what is secret in a kubeconfig."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import Answer, lorafleet

SECRET = "tok-0123456789-very-secret"


def config(server: str = "https://127.0.0.1:1", **changes: Any) -> dict[str, Any]:
    """A kubeconfig with one context."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        **changes,
    }


def get(folder: Path, text: str | dict[str, Any], *words: str) -> Answer:
    """``get`` with this kubeconfig."""
    file = folder / "kubeconfig"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    answer = lorafleet("get", *words, KUBECONFIG=str(file), HOME=str(folder))
    assert answer.out == ""
    assert SECRET not in answer.err
    assert "Traceback" not in answer.err
    assert answer.code == 2
    return answer


def test_no_kubeconfig_is_said_with_where_it_was_looked_for(tmp_path: Path) -> None:
    answer = lorafleet("get", KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert answer.code == 2
    where = f"there is no kubeconfig at {tmp_path}/none"
    assert answer.err == f"error: {where}, so no cluster is known; name yours with --kubeconfig or KUBECONFIG\n"


def test_a_file_that_is_named_is_asked_in_the_place_of_all_others(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(json.dumps(config(**{"current-context": "there"})))
    said = get(tmp_path, config(), "--kubeconfig", str(other)).err
    assert said == f"error: the kubeconfig {other} has no context there; there are: here\n"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            "none",
            "there is no kubeconfig at 'none', so no cluster is known; name yours with --kubeconfig or KUBECONFIG",
        ),
        ("", "there is no kubeconfig at '', so no cluster is known; name yours with --kubeconfig or KUBECONFIG"),
        ("/", "the kubeconfig / cannot be read: Is a directory"),
        (os.devnull, "the file /dev/null is no kubeconfig; name yours with --kubeconfig or KUBECONFIG"),
    ],
)
def test_nothing_else_is_asked_when_the_named_file_cannot_be(tmp_path: Path, typed: str, says: str) -> None:
    assert get(tmp_path, config(), "--kubeconfig", typed).err == f"error: {says}\n"


def test_an_unknown_context_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    assert "has no context there; there are: here" in get(tmp_path, config(), "--context", "there").err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not YAML"),
        ("- a", "is no kubeconfig"),
        ("contexts: [a]", "is no kubeconfig"),
        (config(contexts=[], **{"current-context": ""}), "has no current context"),
        (config(clusters=[]), "cannot be used for context here"),
        (
            config(clusters=[{"name": "c", "cluster": {"certificate-authority": "/none", "server": "https://x"}}]),
            "cannot",
        ),
        (config(users=[{"name": "u", "user": {"client-certificate": "/none", "token": SECRET}}]), "cannot be used"),
        (config(users=[{"name": "u", "user": {"auth-provider": {"name": "oidc", "k": SECRET}}}]), "cannot be used"),
        (config(users=[{"name": "u", "user": {"auth-provider": {"name": "gcp", "k": SECRET}}}]), "cannot be used"),
        (config(users=[{"user": {"token": SECRET}}]), "cannot be used"),
        (config(users=[{"name": "u", "token": SECRET}]), "cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_said_without_its_content(
    tmp_path: Path, text: str | dict[str, Any], says: str
) -> None:
    assert says in get(tmp_path, text).err


def test_no_answer_names_the_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = get(tmp_path, config(f"https://127.0.0.1:{port}"))
    assert f"no answer from the API server at https://127.0.0.1:{port} (context here)" in answer.err


def test_a_server_that_is_none_of_kubernetes_is_said_to_be_none(tmp_path: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answer = get(tmp_path, config(f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            thread.join()
    assert "does not answer as an API server of Kubernetes does" in answer.err


def test_a_user_in_the_servers_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    answer = get(tmp_path, config(f"https://me:{SECRET}@127.0.0.1:1"))
    assert "the server 127.0.0.1:1 of context here has a user in its address" in answer.err


def test_a_failing_credential_plugin_tells_nothing_of_its_output(tmp_path: Path) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh"}
    args = {"args": ["-c", f"echo {SECRET}; echo {SECRET} >&2; exit 1"]}
    user = {"exec": {**plugin, **args, "interactiveMode": "Never"}}
    get(tmp_path, config(users=[{"name": "u", "user": user}]))
