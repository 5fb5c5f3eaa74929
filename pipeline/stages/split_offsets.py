"""split_offsets: the hash of each input, and where a large dump can be cut, by one pass that only frames its records.

A file that is larger than the recipe's `split_bytes` is read in pieces that begin and end where records do, so that one
large file uses all cores and documents do not depend on the number of workers. A file that cannot be cut is one piece.

The steps of this stage know a file by its size and time of change, all later ones by its hash.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from filters.formats.stored import open_stored
from manifests.files import sha256_file
from manifests.mirror import StoredDump, is_url
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.quarantine import Place, places_within
from pipeline.beam.step import Keyed, Receipts, Result, Step, Unit
from pipeline.sources.base import code_of, joined_for, reader_for
from pipeline.sources.inputs import Input

STAGE = "split_offsets"
OFFSETS, CHECKSUMS = f"{STAGE}/offsets", f"{STAGE}/checksums"


class Piece(NamedTuple):
    """A piece of an input: stored bytes from `start` to `end`, and the reader's state at the start."""

    start: int
    end: int
    state: int


def offset_step(recipe: Recipe, inputs: list[Input]) -> Step:
    """Return the step with a unit per file that is larger than a split, or of a source whose rows are joined."""
    units = []
    for item in filter(lambda item: is_cut(recipe, item), inputs):
        source = recipe.sources[item.source]
        joined = joined_for(source)
        call = joined.survey if joined is not None else code_of(reader_for(item.source, source), "find_pieces")
        units.append(Unit(unit_of(item), file_of(item), (), item.size, item.source, (call,)))
    by_source = {
        name: {
            "name": name,
            "source": Keyed(source, source.model_dump(include={"kind", "limits", "github", "settings"})),
        }
        for name, source in recipe.sources.items()
    }
    return Step(OFFSETS, find_offsets, units, {"split_bytes": recipe.split_bytes}, by_source, owns=())


def find_offsets(
    corpus: Path, unit: str, *, name: str, source: Source, split_bytes: int, file: str, path: str
) -> Result:
    """Return the hash and the pieces of one file as facts; of a joined source, the file's survey as well."""
    joined = joined_for(source)
    facts = {"sha256": sha256_file(Path(path))}
    with open_stored(Path(path)) as stored:
        if joined is not None:
            return Result([], {}, facts | asdict(joined.survey(stored, file, source, split_bytes)))
        pieces = reader_for(name, source).find_pieces(stored, source, split_bytes)
        return Result([], {}, facts | {"pieces": [list(piece) for piece in pieces]})


def checksum_step(recipe: Recipe, dumps: Iterable[Input], others: Iterable[Input]) -> Step:
    """Return the step with a unit per file of this machine that is not cut. Those of object stores keep their version.

    Args:
        recipe: Recipe of the run.
        dumps: of all sources.
        others: files that a stage trains on.
    """
    items = [*(item for item in dumps if not is_cut(recipe, item)), *others]
    units = [Unit(unit_of(item), file_of(item), (), item.size) for item in items if not is_url(item.path)]
    return Step(CHECKSUMS, hash_input, units, owns=(), omits_code_version=True)  # dumps of object stores have no unit


def hash_input(corpus: Path, unit: str, *, file: str, path: str) -> Result:
    """Return the hash of a file as a fact."""
    return Result([], {}, {"sha256": sha256_file(Path(path))})


def with_checksums(items: Iterable[Input], hashed: Receipts) -> list[Input]:
    """Return inputs with their hashes, from the receipts of both steps."""
    return [
        replace(item, sha256=hashed[unit_of(item)].facts["sha256"]) if unit_of(item) in hashed else item
        for item in items
    ]


def is_cut(recipe: Recipe, item: Input) -> bool:
    """Return True if a file is larger than a split, or of a source whose rows are joined."""
    return item.size > recipe.split_bytes or joined_for(recipe.sources[item.source]) is not None


def unit_of(item: Input) -> str:
    """Return the name of an input's unit."""
    return f"{item.source}/{item.name}"


def file_of(item: Input) -> dict[str, Any]:
    """Return the arguments that name an input: its path counts by size and hash."""
    return {"file": item.name, "path": Keyed(item.path, [item.size, item.key], (item.version,))}


def pieces_of(offsets: Receipts, item: Input) -> Iterator[Piece]:
    """Yield the pieces of an input: all of it where no offsets were looked for."""
    receipt = offsets.get(unit_of(item))
    for piece in receipt.facts["pieces"] if receipt else [(0, item.size, 0)]:
        yield Piece(*piece)


def piece_unit(
    name: str,
    item: Input,
    piece: Piece,
    source: Source,
    calls: tuple[Callable[..., Any], ...],
    quarantine: Iterable[Place],
) -> Unit:
    """Return the unit that reads a piece of an input.

    Of a dump in an object store a task fetches its piece alone, but for readers of users, which may need a buffer.
    """
    arguments, size = {**file_of(item), **piece._asdict()}, piece.end - piece.start
    if is_url(item.path) and size < item.size and ":" not in (source.kind or ""):
        dump = StoredDump(item.path, item.version, item.size)
        arguments["path"] = replace(arguments["path"], value=dump, versions=())
    held = places_within(quarantine, item.source, item.name, piece.start, piece.end)
    return Unit(name, arguments, (), size, item.source, calls, held)
