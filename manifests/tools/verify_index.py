"""The checks of `verify` for `index/`: the order of its entries, and the comparison of the entries with the shards.

Neither the index nor the shards fit in memory, and a lookup of every document would need one random read per document.
Therefore the number of entries and the sum of their hashes are computed for each shard, once from the index and once
from the shard. Single entries are compared only if these values differ.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.errors import UserError
from filters.hashing import Keys
from manifests.index import (
    FOLDER,
    KINDS,
    Index,
    Part,
    PartName,
    checksum_entries,
    id_keys,
    parse_name,
    part_of,
    url_keys,
)
from manifests.manifest import Manifest
from manifests.shard import Shard

ROWS_AT_ONCE = 1 << 14  # Number of rows of a shard in memory at a time.
ENTRIES_AT_ONCE = 1 << 20  # Number of entries of an index file in memory at a time.

# Dict from (kind, shard path) to a (2,) array: the number of entries, and the sum of their hashes.
Sums = dict[tuple[str, str], npt.NDArray[np.uint64]]


def check_index_names(manifest: Manifest) -> list[str]:
    """Check by file names that the index files of every kind and generation are complete. Return the problems."""
    problems, groups = [], set()
    listed = {entry.path for entry in manifest.index}
    for path in sorted(listed):
        name = parse_name(path)
        if name is None:
            problems.append(f"{FOLDER}/{path}: not named as an index file is")
            continue
        groups.add((name.generation, name.parts, name.kind))
        siblings = [PartName(name.kind, name.generation, name.parts, number) for number in range(name.parts)]
        problems += [f"{FOLDER}/{one}: not in the manifest" for one in siblings if str(one) not in listed]
    if groups and {kind for _, _, kind in groups} != set(KINDS):
        problems.append(f"{FOLDER}: it holds not both ids and URLs")
    return sorted(set(problems))


def check_entries(part: Part, known: set[str]) -> list[str]:
    """Check the entries of an index file, and return the problems.

    The entries must be sorted, their keys must be in the range of the file, and they must refer to known shards.

    Args:
        part: the index file.
        known: the paths of all shards.
    """
    found = list(_check_order(part))
    used = {part.paths[number] for number in np.unique(part.shards).tolist() if number < len(part.paths)}
    if len(part.shards) and int(part.shards.max()) >= len(part.paths):
        found.append("an entry of a shard that it does not name")
    return [*found, *(f"entries of {path}, which is not in the manifest" for path in sorted(used - known))]


def _check_order(part: Part) -> Iterator[str]:
    """Check that entries are in strictly ascending order, and that all keys are in the range of the file."""
    for start in range(0, len(part.keys) - 1, ENTRIES_AT_ONCE):
        here = slice(start, start + ENTRIES_AT_ONCE + 1)
        keys, shards, rows = part.keys[here], part.shards[here], part.rows[here]
        later = rows[1:] > rows[:-1]
        later = (shards[1:] > shards[:-1]) | (shards[1:] == shards[:-1]) & later
        later = (keys[1:] > keys[:-1]) | (keys[1:] == keys[:-1]) & later
        if not later.all():
            yield f"not sorted at entry {start + int(np.argmin(later)) + 1}"
            return
    if not part.name.covers(part.keys):
        yield "keys of another file's share"


def checksum_shard(shard: Shard, kind: str) -> npt.NDArray[np.uint64]:
    """Return the (2,) checksum of the entries of one kind that the index must have for a shard."""
    total = np.zeros(2, np.uint64)
    for keys, rows in _index_keys(shard, kind):
        total += checksum_entries(keys, np.zeros(len(keys), np.uint32), rows, 1)[0]
    return total


def checksum_part(part: Part) -> Sums:
    """Return the checksums of the entries of an index file, by kind and shard."""
    totals = np.zeros((len(part.paths), 2), np.uint64)
    for start in range(0, len(part.keys), ENTRIES_AT_ONCE):
        here = slice(start, start + ENTRIES_AT_ONCE)
        totals += checksum_entries(part.keys[here], part.shards[here], part.rows[here], len(part.paths))
    return {(part.name.kind, path): total for path, total in zip(part.paths, totals, strict=True)}


def compare_index(corpus: Path, manifest: Manifest, shards: Iterable[Sums], parts: Iterable[Sums]) -> Iterator[str]:
    """Compare the checksums of the shards with the checksums of the index.

    Args:
        corpus: the folder of the corpus.
        manifest: its manifest.
        shards: checksums computed from the shards.
        parts: checksums computed from the index files.

    Yields:
        For each shard and kind that differs, a message about the first wrong entry.
    """
    held: Sums = defaultdict(lambda: np.zeros(2, np.uint64))
    for sums in parts:
        for key, total in sums.items():
            held[key] += total
    index = Index(corpus, [entry.path for entry in manifest.index])
    wanted = {key: total for sums in shards for key, total in sums.items()}
    for kind, path in sorted(wanted):
        if (held[kind, path] != wanted[kind, path]).any():
            try:
                yield _find_difference(index, kind, path)
            except UserError as error:
                yield str(error)


def _find_difference(index: Index, kind: str, path: str) -> str:
    """Return a message about the first entry in which the index differs from a shard."""
    shard = index.shard(path)
    keys, expected = np.zeros(shard.batch.num_rows, np.uint64), np.zeros(shard.batch.num_rows, bool)
    for found, rows in _index_keys(shard, kind):
        keys[rows], expected[rows] = found, True
    seen = np.zeros(shard.batch.num_rows, np.int64)
    where = ""
    for part in index.parts(kind):
        if path not in part.paths:
            continue
        mine = np.flatnonzero(part.shards == part.paths.index(path))
        where = where or f"{FOLDER}/{part.name}"
        rows = part.rows[mine]
        inside = rows < len(seen)
        wrong = ~inside
        wrong[inside] = ~expected[rows[inside]] | (keys[rows[inside]] != part.keys[mine[inside]])
        if wrong.any():
            row = rows[wrong][0]
            return f"{FOLDER}/{part.name}: an entry points at row {row} of shards/{path}, which has another key"
        np.add.at(seen, rows, 1)
    missing = np.flatnonzero(expected & (seen == 0))
    if not len(missing):
        return f"{where}: an entry of shards/{path} is there twice"
    row = int(missing[0])
    number = {parts: part_of(int(keys[row]), parts) for (of_kind, _), parts in index.groups.items() if of_kind == kind}
    files = ", ".join(f"{kind}-…{part:05d}-of-{parts:05d}" for parts, part in sorted(number.items()))
    return f"{FOLDER}/{files}: no entry for document {row} of shards/{path}"


def _index_keys(shard: Shard, kind: str) -> Iterator[tuple[Keys, npt.NDArray[np.uint32]]]:
    """Yield batches of (keys, rows): the entries of one kind that the index must have for a shard."""
    for start in range(0, shard.batch.num_rows, ROWS_AT_ONCE):
        rows = shard.batch.slice(start, ROWS_AT_ONCE)
        if kind == "urls":
            keys, places = url_keys(rows.column("url"))
            yield keys, places + np.uint32(start)
        else:
            yield id_keys(rows.column("document")), np.arange(start, start + rows.num_rows, dtype=np.uint32)
