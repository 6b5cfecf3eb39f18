"""The name of Envoy's start, under which the operator adds up counters."""

from pathlib import Path

from lorafleet.router.instance import Instance


def test_looks_at_one_start_have_one_name(tmp_path: Path) -> None:
    one = Instance("pod", tmp_path / "instance.json")
    assert one.at(1000.2) == one.at(999.4) == one.at(1001.0)
    assert one.at(1000.2).startswith("pod/")


def test_another_start_has_another_name(tmp_path: Path) -> None:
    one = Instance("pod", tmp_path / "instance.json")
    assert one.at(1000.0) != one.at(1010.0)


def test_a_new_process_beside_the_same_envoy_gives_the_same_name(tmp_path: Path) -> None:
    name = Instance("pod", tmp_path / "instance.json").at(1000.0)
    assert Instance("pod", tmp_path / "instance.json").at(1000.9) == name
    assert Instance("pod", tmp_path / "instance.json").at(2000.0) != name


def test_a_file_that_is_not_ours_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text("{")
    one = Instance("pod", tmp_path / "instance.json")
    assert one.at(1000.0) == Instance("pod", tmp_path / "instance.json").at(1000.0)
