"""Lines that are also elsewhere: CCNet's paragraph de-duplication (Wenzek et al. 2020, section 3.1) on packed hashes.

A line counts once a document, as in CCNet: one that only its own document repeats stays there once; one that two
documents hold is a duplicate in both. A line with nothing left after normalisation (a blank one, say) is no paragraph:
it is never counted and never removed.
"""

import numpy as np
import numpy.typing as npt

from filters.dedup.ccnet import line_hash, line_hashes

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

NO_PARAGRAPH = np.uint64(0)
_EMPTY = np.uint64(line_hash(""))


def paragraph_hashes(text: str) -> Hashes:
    """(lines,) uint64: CCNet's hash of each line of a text, `NO_PARAGRAPH` where there is nothing to hash."""
    hashes = line_hashes(text)
    return np.where(hashes == _EMPTY, NO_PARAGRAPH, hashes)


def repeats(hashes: Hashes, documents: npt.NDArray[np.int64]) -> Mask:
    """(lines,) bool: lines that an earlier line of the same document equals. `documents`: which document each line is
    of, ascending."""
    order = np.lexsort([hashes, documents])  # stable: the earliest line of equal ones comes first
    same = (hashes[order][1:] == hashes[order][:-1]) & (documents[order][1:] == documents[order][:-1])
    found = np.zeros(len(hashes), bool)
    found[order[1:][same]] = True
    return np.asarray(found & (hashes != NO_PARAGRAPH))


def shared(keys: Hashes) -> Mask:
    """(n,) bool: keys that occur more than once."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    same = sorted_keys[1:] == sorted_keys[:-1]
    found = np.zeros(len(keys), bool)
    found[order[1:][same]] = True
    found[order[:-1][same]] = True
    return found


def not_first(keys: Hashes, identities: Hashes, places: npt.NDArray[np.int64]) -> Mask:
    """(n,) bool: keys that an entry with a smaller (identity, place) has as well."""
    order = np.lexsort([places, identities, keys])
    found = np.zeros(len(keys), bool)
    found[order[1:][keys[order][1:] == keys[order][:-1]]] = True
    return found


def keys_in_group(hashes: Hashes, group: int) -> Hashes:
    """The hashes as keys that meet only within one group: see `keys_in_groups`."""
    return keys_in_groups(hashes, np.array([group], np.uint64))


def keys_in_groups(hashes: Hashes, groups: Hashes) -> Hashes:
    """(n,) uint64 keys that are equal where hash and group are, and differ as random ones do elsewhere: each hash
    exclusive-ored with a mix of its group's number (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = (groups + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.asarray(hashes ^ mixed ^ mixed >> np.uint64(31))


def without(text: str, removed: Mask) -> str:
    """The text without the lines of the mask, one a line of it. Around what was taken out, blank lines are closed up:
    none at the ends, one between paragraphs."""
    if not removed.any():
        return text
    kept: list[str] = []
    for line, gone in zip(text.split("\n"), removed.tolist(), strict=True):
        if gone or (not line.strip() and (not kept or not kept[-1].strip())):
            continue
        kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return "\n".join(kept)
