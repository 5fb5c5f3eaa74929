"""Functions on arrays of 64-bit keys: mixing, combining with a group number, runs of equal values, duplicates."""

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: an odd multiplier (Knuth, TAOCP 6.4)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


def mix(values: Keys) -> Keys:
    """Hash 64-bit values with the finalizer of MurmurHash3 (Appleby, public domain).

    Args:
        values: uint64, any shape. The array is not changed.

    Returns:
        A uint64 array of the same shape. The mapping is a bijection, so different values have different results.
    """
    values = values ^ (values >> np.uint64(33))
    values = values * _MIX_1
    values = values ^ (values >> np.uint64(33))
    values = values * _MIX_2
    return values ^ (values >> np.uint64(33))


def group_keys(hashes: Keys, groups: int | Keys) -> Keys:
    """Combine each hash with its group number into one key.

    Entries with the same hash and group have the same key. The keys of all other entries differ like random numbers.

    Args:
        hashes: (n,) uint64.
        groups: (n,) uint64, the group of each hash, or one group for all hashes.

    Returns:
        (n,) uint64.
    """
    numbers = np.atleast_1d(np.asarray(groups, np.uint64)) + np.uint64(1)  # mix(0) is 0
    return np.asarray(hashes ^ mix(numbers * GOLDEN))


def run_starts(*columns: npt.NDArray[Any]) -> Mask:
    """Return a mask that is True for each row that differs from the previous row, and for the first row.

    Args:
        columns: arrays of equal length. Row i consists of element i of each array. The rows are sorted.
    """
    starts = np.ones(len(columns[0]), np.bool_)
    np.not_equal(columns[0][1:], columns[0][:-1], out=starts[1:])
    for column in columns[1:]:
        starts[1:] |= column[1:] != column[:-1]
    return starts


def drop_repeats(ordered: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values of a sorted array.

    This is an alternative to `numpy.unique`, which hashes integers since NumPy 2.3. For millions of integers that takes
    several times longer than sorting.
    """
    starts = run_starts(ordered)
    return ordered if starts.all() else ordered[starts]


def sort_distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sort an array in place and return its distinct values."""
    values.sort()
    return drop_repeats(values)


def duplicate_mask(keys: Keys) -> Mask:
    """Return a mask that is True for each key that occurs more than once."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    found = np.zeros(len(keys), np.bool_)
    found[order[1:][same]] = True
    found[order[:-1][same]] = True
    return found
