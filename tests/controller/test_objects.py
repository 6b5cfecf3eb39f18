"""Which of two views of an object counts: events may be older than what we wrote ourselves."""

from typing import Any

from lorafleet.controller.objects import parse_adapter


def raw(version: int, generation: int = 1, status: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    """An adapter as the API server shows it."""
    names = [str(number + 1) for number in range(generation)]
    return {
        "metadata": {
            "namespace": "ns",
            "name": "python",
            "uid": "u1",
            "generation": generation,
            "resourceVersion": str(version),
            **meta,
        },
        "spec": {"fleet": "f", "versions": [{"name": n, "source": {"volume": {"path": "x"}}} for n in names]},
        "status": status or {},
    }


def test_an_event_that_was_seen_before_is_not_new() -> None:
    known = parse_adapter(raw(10))
    assert not parse_adapter(raw(10)).after(known)
    assert not parse_adapter(raw(9, generation=2)).after(known)


def test_our_own_write_coming_back_is_not_new() -> None:
    known = parse_adapter(raw(10))
    known.written, known.version = {"stableVersion": "1"}, 11
    assert not parse_adapter(raw(11, status={"stableVersion": "1"})).after(known)
    assert known.seen == 11


def test_a_spec_that_changed_before_our_write_counts_and_its_old_status_does_not() -> None:
    known = parse_adapter(raw(10))
    known.status = known.status.model_copy(update={"stable_version": "1"})
    known.written, known.version = {"stableVersion": "1"}, 12
    event = parse_adapter(raw(11, generation=2))
    assert event.after(known)
    assert event.generation == 2
    assert event.status.stable_version == "1"
    assert event.version == 12


def test_a_status_that_somebody_else_changed_counts() -> None:
    known = parse_adapter(raw(10, status={"stableVersion": "1"}))
    event = parse_adapter(raw(20))
    assert event.after(known)
    assert event.status.stable_version is None


def test_another_object_of_the_same_name_is_new() -> None:
    known = parse_adapter(raw(10))
    assert parse_adapter(raw(5, uid="u2")).after(known)


def test_a_spec_that_cannot_be_read_is_an_error_text_without_the_value() -> None:
    body = raw(1)
    body["spec"]["versions"][0]["source"] = {"volume": {"path": "x"}, "http": {"url": "https://secret@h", "sha256": 1}}
    adapter = parse_adapter(body)
    assert adapter.spec is None
    assert "spec.versions.0.source.http" in adapter.spec_error
    assert "secret" not in adapter.spec_error


def test_a_status_that_cannot_be_read_is_as_none() -> None:
    adapter = parse_adapter(raw(1, status={"versions": "x"}))
    assert adapter.status.versions == ()
    assert adapter.written == {}
