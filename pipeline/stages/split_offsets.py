"""split_offsets: where a large dump can be cut, by one pass that only frames its records.

A file that is larger than the recipe's `split_bytes` is read in pieces that begin and end where records do, so that one
large file uses all cores and documents do not depend on the number of workers. A file that cannot be cut is one piece.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from filters.formats.stream import open_stored
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.step import Keyed, Receipts, Result, Step, Unit
from pipeline.sources.base import cutter_of, joined_for, reader_for
from pipeline.sources.inputs import Input

STEP = "split_offsets"


class Piece(NamedTuple):
    """A piece of an input: stored bytes from `start` to `end`, and the reader's state at the start."""

    start: int
    end: int
    state: int


def offset_step(recipe: Recipe, inputs: list[Input]) -> Step:
    """Return the step with a unit per file that is larger than a split, or of a source whose rows are joined."""
    units = []
    for item in inputs:
        source = recipe.sources[item.source]
        joined = joined_for(source)
        if item.size > recipe.split_bytes or joined is not None:
            call = joined.survey if joined is not None else cutter_of(reader_for(item.source, source))
            units.append(Unit(f"{item.source}/{item.name}", file_of(item), (), item.size, item.source, (call,)))
    by_source = {
        name: {
            "name": name,
            "source": Keyed(source, source.model_dump(include={"kind", "limits", "github", "settings"})),
        }
        for name, source in recipe.sources.items()
    }
    return Step(STEP, find_offsets, units, {"split_bytes": recipe.split_bytes}, by_source, owns=())


def find_offsets(
    corpus: Path, unit: str, *, name: str, source: Source, split_bytes: int, file: str, path: str
) -> Result:
    """Return the pieces of one file as facts; of a joined source, the file's survey as well."""
    joined = joined_for(source)
    with open_stored(Path(path)) as stored:
        if joined is not None:
            return Result([], {}, asdict(joined.survey(stored, file, source, split_bytes)))
        pieces = reader_for(name, source).find_pieces(stored, source, split_bytes)
        return Result([], {}, {"pieces": [list(piece) for piece in pieces]})


def file_of(item: Input) -> dict[str, Any]:
    """Return the arguments that name an input: its path counts by size and hash."""
    return {"file": item.name, "path": Keyed(item.path, [item.size, item.sha256])}


def pieces_of(offsets: Receipts, item: Input) -> Iterator[Piece]:
    """Yield the pieces of an input: all of it where no offsets were looked for."""
    receipt = offsets.get(f"{item.source}/{item.name}")
    for piece in receipt.facts["pieces"] if receipt else [(0, item.size, 0)]:
        yield Piece(*piece)
