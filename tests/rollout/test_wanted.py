"""What to do about one name on one engine."""

import pytest

from lorafleet.rollout.wanted import Action, action

SERVED = "python/1-0123456789ab"
PATH = f"/adapters/{SERVED}"


@pytest.mark.parametrize(
    ("path", "kept", "root", "todo"),
    [
        (PATH, False, None, Action.LOAD),
        (PATH, False, PATH, Action.NOTHING),
        (PATH, False, f"/old/mount/{SERVED}", Action.NOTHING),
        (PATH, False, "/elsewhere", Action.REPLACE),
        (None, False, PATH, Action.UNLOAD),
        (None, False, f"/old/mount/{SERVED}", Action.UNLOAD),
        (None, True, PATH, Action.NOTHING),
        (None, False, None, Action.NOTHING),
        (None, False, "/somebody/elses", Action.NOTHING),
    ],
)
def test_a_name_is_loaded_unloaded_or_left(path: str | None, kept: bool, root: str | None, todo: Action) -> None:
    assert action(SERVED, path, kept, root) is todo


@pytest.mark.parametrize("name", ["sql", "team/sql", "team/sql-v1", "a/b/1-0123456789ab"])
def test_what_does_not_look_like_ours_is_left_alone(name: str) -> None:
    assert action(name, None, False, f"/data/{name}") is Action.NOTHING
