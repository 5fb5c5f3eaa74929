"""What `verify` asks of `index/`: sorted files, and entries for exactly the documents and URLs of the shards.

Neither side fits memory, and looking every document up would be a random read each. So each side gives, by shard, how
many entries there are and the sum of their mixed keys; only where two sums differ are the entries themselves compared.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import UserError
from manifests.index import FOLDER, KINDS, Index, Part, open_part, parse_name, part_of
from manifests.manifest import IndexEntry, Manifest
from manifests.shard import Shard
from manifests.tools.check_shard import ROWS_AT_ONCE, Checked, Sum, check_file, entries_of, mixed

ENTRIES_AT_ONCE = 1 << 20


def check_part(corpus: Path, known: set[str], entry: IndexEntry, fast: bool) -> Checked:
    """One file of the index: its bytes, its count, its order, and the sums of its entries by shard. `known`: the
    shards' paths."""
    name = f"{FOLDER}/{entry.path}"
    problems = check_file(corpus / FOLDER / entry.path, name, entry.bytes, entry.sha256, fast)
    if problems:
        return Checked(problems)
    try:
        part = open_part(corpus / FOLDER / entry.path)
    except (OSError, ValueError, pa.ArrowException) as error:
        return Checked([f"{name}: not a readable index file ({' '.join(str(error).split())})"])
    if len(part.keys) != entry.rows:
        return Checked([f"{name}: {len(part.keys)} entries, the manifest says {entry.rows}"])
    if fast:
        return Checked()
    found = _order(part)
    used = {part.paths[number] for number in np.unique(part.shards).tolist() if number < len(part.paths)}
    if len(part.shards) and int(part.shards.max()) >= len(part.paths):
        found.append("an entry of a shard that it does not name")
    found += [f"entries of {path}, which is not in the manifest" for path in sorted(used - known)]
    return Checked([f"{name}: {what}" for what in found], {} if found else _sums(part))


def check_names(manifest: Manifest) -> list[str]:
    """Whether the index's files are all there: every part of every kind and generation, by their names."""
    problems, groups = [], set()
    listed = {entry.path for entry in manifest.index}
    for path in sorted(listed):
        name = parse_name(path)
        if name is None:
            problems.append(f"{FOLDER}/{path}: not named as an index file is")
            continue
        groups.add((name.generation, name.parts, name.kind))
        siblings = [type(name)(name.kind, name.generation, name.parts, number) for number in range(name.parts)]
        problems += [f"{FOLDER}/{one}: not in the manifest" for one in siblings if str(one) not in listed]
    if groups and {kind for _, _, kind in groups} != set(KINDS):
        problems.append(f"{FOLDER}: it holds not both ids and URLs")
    return sorted(set(problems))


def compare(corpus: Path, manifest: Manifest, wanted: Mapping[tuple[str, str], Sum], held: list[Checked]) -> list[str]:
    """Whether the index holds what the shards ask for. `wanted`: by (kind, shard), as `check_shard` gives it."""
    sums: dict[tuple[str, str], Sum] = {}
    for checked in held:
        for key, (count, total) in checked.sums.items():
            before = sums.get(key, (0, 0))
            sums[key] = before[0] + count, (before[1] + total) % (1 << 64)
    index = Index(corpus, [entry.path for entry in manifest.index])
    problems = []
    for (kind, path), asked in sorted(wanted.items()):
        if sums.get((kind, path), (0, 0)) != asked:
            try:
                problems.append(_difference(index, kind, path))
            except UserError as error:
                problems.append(str(error))
    return problems


def _order(part: Part) -> list[str]:
    """Each entry above the one before, all within the file's share of the keys."""
    for start in range(0, len(part.keys) - 1, ENTRIES_AT_ONCE):
        here = slice(start, start + ENTRIES_AT_ONCE + 1)
        keys, shards, rows = part.keys[here], part.shards[here], part.rows[here]
        later = rows[1:] > rows[:-1]
        later = (shards[1:] > shards[:-1]) | (shards[1:] == shards[:-1]) & later
        later = (keys[1:] > keys[:-1]) | (keys[1:] == keys[:-1]) & later
        if not later.all():
            return [f"not sorted at entry {start + int(np.argmin(later)) + 1}"]
    return [] if part.name.holds(part.keys) else ["keys of another file's share"]


def _sums(part: Part) -> dict[tuple[str, str], Sum]:
    totals, counts = np.zeros(len(part.paths), np.uint64), np.zeros(len(part.paths), np.int64)
    for start in range(0, len(part.keys), ENTRIES_AT_ONCE):
        here = slice(start, start + ENTRIES_AT_ONCE)
        np.add.at(totals, part.shards[here], mixed(part.keys[here], part.rows[here]))
        counts += np.bincount(part.shards[here], minlength=len(counts))
    return {
        (part.name.kind, path): (int(count), int(total))
        for path, count, total in zip(part.paths, counts, totals, strict=True)
        if count
    }


def _difference(index: Index, kind: str, path: str) -> str:
    """In which entry the index differs from what one shard asks for."""
    shard = index.shard(path)
    keys, has = _expected(shard, kind)
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
        wrong[inside] = ~has[rows[inside]] | (keys[rows[inside]] != part.keys[mine[inside]])
        if wrong.any():
            return (
                f"{FOLDER}/{part.name}: an entry points at row {rows[wrong][0]} of shards/{path}, which has another key"
            )
        np.add.at(seen, rows, 1)
    missing = np.flatnonzero(has & (seen == 0))
    if not len(missing):
        return f"{where}: an entry of shards/{path} stands twice"
    row = int(missing[0])
    number = {parts: part_of(int(keys[row]), parts) for (of_kind, _), parts in index.groups.items() if of_kind == kind}
    files = ", ".join(f"{kind}-…{part:05d}-of-{parts:05d}" for parts, part in sorted(number.items()))
    return f"{FOLDER}/{files}: no entry for document {row} of shards/{path}"


def _expected(shard: Shard, kind: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """By row, the key that it must have in the index, and whether it must have one."""
    keys, has = np.zeros(shard.batch.num_rows, np.uint64), np.zeros(shard.batch.num_rows, bool)
    for start in range(0, len(keys), ROWS_AT_ONCE):
        found, rows = entries_of(shard, kind, start)
        keys[rows], has[rows] = found, True
    return keys, has
