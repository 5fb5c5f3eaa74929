"""Test the checks of an index file: an unsorted entry, an unknown shard, and a key of another file are reported."""

from dataclasses import replace

import numpy as np
import pytest

from manifests.index import Part, PartName
from manifests.tools import verify_index
from manifests.tools.verify_index import check_entries, checksum_part

PATHS = ("web/a.arrow", "web/b.arrow")
HALF = 1 << 63  # The first key of the second of two index files.


def part(keys: list[int], shards: list[int], rows: list[int]) -> Part:
    columns = np.array(keys, np.uint64), np.array(shards, np.uint32), np.array(rows, np.uint32)
    return Part(PartName("ids", 0, 2, 0), *columns, PATHS)


GOOD = part([1, 5, 5, 5, 9], [0, 0, 0, 1, 1], [3, 0, 2, 1, 0])
WRONG = {
    "keys": (part([1, 5, 5, 9, 5], [0, 0, 0, 1, 1], [3, 0, 2, 1, 0]), ["not sorted at entry 4"]),
    "shards of a key": (part([1, 5, 5, 5, 9], [0, 0, 1, 0, 1], [3, 0, 2, 1, 0]), ["not sorted at entry 3"]),
    "rows of a shard": (part([1, 5, 5, 5, 9], [0, 0, 0, 1, 1], [3, 2, 0, 1, 0]), ["not sorted at entry 2"]),
    "an entry twice": (part([1, 1], [0, 0], [3, 3]), ["not sorted at entry 1"]),
    "share": (part([1, HALF], [0, 0], [3, 4]), ["keys of another file's share"]),
    "shard": (part([1, 2], [0, 2], [3, 4]), ["an entry of a shard that it does not name"]),
}


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_sorted_entries_of_known_shards_are_right(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(verify_index, "ENTRIES_AT_ONCE", at_once)
    assert check_entries(GOOD, set(PATHS)) == []
    assert check_entries(GOOD, {PATHS[0]}) == [f"entries of {PATHS[1]}, which is not in the manifest"]


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_entry_is_named(monkeypatch: pytest.MonkeyPatch, kind: str, at_once: int) -> None:
    monkeypatch.setattr(verify_index, "ENTRIES_AT_ONCE", at_once)
    wrong, words = WRONG[kind]
    assert check_entries(wrong, set(PATHS)) == words


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_a_checksum_depends_on_each_entry_and_not_on_how_many_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    whole = checksum_part(GOOD)
    monkeypatch.setattr(verify_index, "ENTRIES_AT_ONCE", at_once)
    found = checksum_part(GOOD)
    assert list(found) == [("ids", path) for path in PATHS]
    assert all((found[key] == whole[key]).all() for key in whole)
    assert [int(total[0]) for total in found.values()] == [3, 2]
    for column in ("keys", "rows"):
        for entry in range(len(GOOD.keys)):
            changed = getattr(GOOD, column).copy()
            changed[entry] += 7
            other = checksum_part(replace(GOOD, **{column: changed}))
            assert any((other[key] != whole[key]).any() for key in whole), (column, entry)
