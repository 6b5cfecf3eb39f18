"""A configuration is in force when Envoy has each of its files in that version or a later one."""

from lorafleet.router.inforce import MOST, Pending, Written


def written(number: int, **files: str) -> Written:
    return Written(files, number, 0.0, 0.0)


def settled(pending: Pending, *running: str) -> list[int]:
    return [one.resource_version for one in pending.settle(frozenset(running))]


def pending(*all_of_them: Written) -> Pending:
    one = Pending()
    for item in all_of_them:
        one.add(item)
    return one


def test_nothing_is_in_force_while_one_file_is_older() -> None:
    one = pending(written(1, routes="r1", engines="e1"))
    assert settled(one, "r1", "e0") == []
    assert one


def test_a_configuration_is_in_force_when_all_its_files_are() -> None:
    one = pending(written(1, routes="r1", engines="e1"))
    assert settled(one, "r1", "e1", "other") == [1]
    assert not one


def test_a_file_that_is_newer_already_counts() -> None:
    one = pending(written(1, routes="r1", engines="e1"), written(2, routes="r2", engines="e2"))
    assert settled(one, "r2", "e1") == [1]
    assert one.oldest.resource_version == 2


def test_the_newest_in_force_settles_those_before_it() -> None:
    one = pending(*(written(number, routes=f"r{number}", engines="e1") for number in (1, 2, 3)))
    assert settled(one, "r2", "e1") == [1, 2]
    assert settled(one, "r2", "e1") == []
    assert settled(one, "r3", "e1") == [3]


def test_while_envoy_takes_nothing_it_is_not_remembered_without_end() -> None:
    one = pending(*(written(number, routes=f"r{number}", tls="new") for number in range(5 * MOST)))
    assert one.oldest.resource_version == 0
    assert settled(one, f"r{5 * MOST - 1}", "old") == []
    assert len(settled(one, f"r{5 * MOST - 1}", "new")) == MOST
    assert not one


def test_a_table_that_went_back_to_an_earlier_one_is_in_force_at_once() -> None:
    one = pending(written(1, routes="a"), written(2, routes="b"), written(3, routes="a"))
    assert settled(one, "a") == [1, 2, 3]


def test_a_file_that_came_later_is_not_waited_for_by_earlier_ones() -> None:
    one = pending(written(1, routes="r1"), written(2, routes="r1", secret="s1"))
    assert settled(one, "r1") == [1]
    assert settled(one, "r1", "s1") == [2]
