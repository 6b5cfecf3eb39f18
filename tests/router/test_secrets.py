"""Keys come from mounted Secrets, and their values stay out of what is said."""

from pathlib import Path

import pytest

from lorafleet.router.environment import Environment
from lorafleet.router.secrets import SecretsError, read_secrets

KEY = "sk-very-secret"


def mounted(folder: Path, **keys: str) -> Path:
    """A Secret as the kubelet mounts it: links into a folder that changes by a rename."""
    (folder / "..2026").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026")
    for name, value in keys.items():
        (folder / "..2026" / name).write_text(value)
        (folder / name).symlink_to(Path("..data") / name)
    return folder


def test_each_key_of_the_secret_is_a_clients_key(tmp_path: Path) -> None:
    folder = mounted(tmp_path / "keys", alice="a-key\n", bob="b-key")
    assert read_secrets(Environment(fleet="x", client_keys_directory=folder)).client_keys == ("a-key", "b-key")


def test_the_engines_key_is_read_without_the_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_secrets(Environment(fleet="x", engine_key_file=file)).engine_key == KEY


def test_without_places_there_are_no_keys() -> None:
    found = read_secrets(Environment(fleet="x"))
    assert (found.client_keys, found.engine_key) == ((), None)


@pytest.mark.parametrize("content", ["", "\n", f"{KEY}\nanother", f"{KEY}\x00"])
def test_a_file_that_holds_no_key_is_refused_without_its_content(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(SecretsError) as raised:
        read_secrets(Environment(fleet="x", engine_key_file=file))
    assert str(file) in str(raised.value) and KEY not in str(raised.value)


def test_an_empty_secret_lets_nobody_in_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretsError, match="at least one key"):
        read_secrets(Environment(fleet="x", client_keys_directory=mounted(tmp_path / "keys")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretsError, match=str(tmp_path / "none")):
        read_secrets(Environment(fleet="x", engine_key_file=tmp_path / "none"))
