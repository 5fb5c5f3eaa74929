"""The documents that one of two corpora alone has, by merging their sorted indexes a piece at a time."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from manifests.index import ENTRY, Entries, Index

ENTRIES_AT_ONCE = 1 << 18
"""of each generation of each index, that are held"""

Count = dict[str, int]
"""`documents` and `tokens`"""


def only(a: Index, b: Index) -> tuple[dict[str, Count], dict[str, Count]]:
    """Documents that `a` alone and `b` alone has, and their tokens, by shard. Documents are the same if the first 64
    bits of their ids are. Memory does not grow with the corpora. Raises UserError for a file that cannot be read."""
    sides = _Side(a), _Side(b)
    while any(side.more() for side in sides):
        bound = min(side.bound() for side in sides)
        pieces = [side.take(bound) for side in sides]
        for side, mine, theirs in zip(sides, pieces, reversed(pieces), strict=True):
            side.count(mine[~np.isin(mine["key"], theirs["key"], kind="sort")])
    return sides[0].found, sides[1].found


class _Side:
    """The entries of one index's ids in the order of their keys, over all its generations, a piece at a time."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.paths: list[str] = []
        self.numbers: dict[str, int] = {}
        generations = sorted(generation for kind, generation in index.groups if kind == "ids")
        self.streams = [self._pieces(generation) for generation in generations]
        self.held: list[Entries] = [np.empty(0, ENTRY) for _ in self.streams]
        self.found: dict[str, Count] = {}
        self._fill()

    def more(self) -> bool:
        """Whether any entry is left."""
        return any(len(piece) for piece in self.held)

    def bound(self) -> int:
        """The key up to which everything is at hand."""
        return min((int(piece["key"][-1]) for piece in self.held if len(piece)), default=(1 << 64) - 1)

    def take(self, bound: int) -> Entries:
        """All entries up to a key, inclusive."""
        taken = []
        for number, piece in enumerate(self.held):
            cut = int(np.searchsorted(piece["key"], np.uint64(bound), side="right"))
            taken.append(piece[:cut])
            self.held[number] = piece[cut:]
        self._fill()
        return np.concatenate(taken) if taken else np.empty(0, ENTRY)

    def count(self, entries: Entries) -> None:
        """Count entries, and the tokens of their documents, under their shards."""
        for number in np.unique(entries["shard"]).tolist():
            path = self.paths[number]
            rows = entries["row"][entries["shard"] == number].astype(np.int64)
            offsets = self.index.shard(path).offsets
            count = self.found.setdefault(path, {"documents": 0, "tokens": 0})
            count["documents"] += len(rows)
            count["tokens"] += int((offsets[rows + 1] - offsets[rows]).sum())

    def _fill(self) -> None:
        """Read on where a stream's piece is used up."""
        for number, stream in enumerate(self.streams):
            while not len(self.held[number]) and (piece := next(stream, None)) is not None:
                self.held[number] = piece

    def _pieces(self, generation: int) -> Iterator[Entries]:
        for part in self.index.parts("ids"):
            if part.name.generation != generation:
                continue
            places = np.array([self._number(path) for path in part.paths], np.uint32)
            start = 0
            while start < len(part.keys):
                end = min(start + ENTRIES_AT_ONCE, len(part.keys))
                # equal keys stay together, so that no piece ends between them
                end = int(np.searchsorted(part.keys, part.keys[end - 1], side="right"))
                piece: npt.NDArray[np.void] = np.empty(end - start, ENTRY)
                piece["key"], piece["row"] = part.keys[start:end], part.rows[start:end]
                piece["shard"] = places[part.shards[start:end]]
                yield piece
                start = end

    def _number(self, path: str) -> int:
        if path not in self.numbers:
            self.numbers[path] = len(self.paths)
            self.paths.append(path)
        return self.numbers[path]
