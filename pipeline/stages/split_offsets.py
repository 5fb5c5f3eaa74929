"""split_offsets: hash each input, and find the offsets where a large dump can be cut into pieces.

The offsets are found in one pass, which only finds where records begin and end. A file that is larger than the recipe's
`split_bytes` is read in pieces that begin and end at record boundaries. So one large file uses all cores, and documents
do not depend on the number of workers. A file that cannot be cut is one piece.

In the cache keys of this stage, a file is identified by its size and modification time; in the keys of all later
stages, by its hash.
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
    """A piece of an input.

    Attributes:
        start: Offset of the first stored byte.
        end: Offset after the last stored byte.
        state: State of the reader at `start`.
    """

    start: int
    end: int
    state: int


def offset_step(recipe: Recipe, inputs: list[Input]) -> Step:
    """Return the step that finds offsets, with a unit per file for which `is_cut` is true."""
    units = []
    for item in filter(lambda item: is_cut(recipe, item), inputs):
        source = recipe.sources[item.source]
        joined = joined_for(source)
        call = joined.survey if joined is not None else code_of(reader_for(item.source, source), "find_pieces")
        units.append(Unit(unit_name(item), input_arguments(item), (), item.size, item.source, (call,)))
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
    """Return the hash of one file and its pieces as facts. For a joined source, return the hash and the survey."""
    joined = joined_for(source)
    facts = {"sha256": sha256_file(Path(path))}
    with open_stored(Path(path)) as stored:
        if joined is not None:
            return Result([], {}, facts | asdict(joined.survey(stored, file, source, split_bytes)))
        pieces = reader_for(name, source).find_pieces(stored, source, split_bytes)
        return Result([], {}, facts | {"pieces": [list(piece) for piece in pieces]})


def checksum_step(recipe: Recipe, dumps: Iterable[Input], others: Iterable[Input]) -> Step:
    """Return the step that hashes files, with a unit per local file that is not cut.

    Files in object stores are not hashed, because that would need a complete download. They are identified by their
    version.

    Args:
        recipe: Recipe of the run.
        dumps: Dumps of all sources.
        others: Files that a stage trains on.
    """
    items = [*(item for item in dumps if not is_cut(recipe, item)), *others]
    units = [Unit(unit_name(item), input_arguments(item), (), item.size) for item in items if not is_url(item.path)]
    return Step(CHECKSUMS, hash_input, units, owns=(), omits_code_version=True)


def hash_input(corpus: Path, unit: str, *, file: str, path: str) -> Result:
    """Return the SHA-256 of a file as a fact."""
    return Result([], {}, {"sha256": sha256_file(Path(path))})


def with_checksums(items: Iterable[Input], hashed: Receipts) -> list[Input]:
    """Return the inputs with their hashes. `hashed` has the receipts of both steps of this stage."""
    return [
        replace(item, sha256=hashed[unit_name(item)].facts["sha256"]) if unit_name(item) in hashed else item
        for item in items
    ]


def is_cut(recipe: Recipe, item: Input) -> bool:
    """Return True if a file is larger than a split, or belongs to a source whose rows are joined."""
    return item.size > recipe.split_bytes or joined_for(recipe.sources[item.source]) is not None


def unit_name(item: Input) -> str:
    """Return the name of an input's unit."""
    return f"{item.source}/{item.name}"


def input_arguments(item: Input) -> dict[str, Any]:
    """Return the arguments of a task that reads an input. The cache key covers its size and hash, not its path."""
    return {"file": item.name, "path": Keyed(item.path, [item.size, item.key], (item.version,))}


def pieces_of(offsets: Receipts, item: Input) -> Iterator[Piece]:
    """Yield the pieces of an input. If the input was not cut, the only piece is the whole file."""
    receipt = offsets.get(unit_name(item))
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
    """Return the unit that reads one piece of an input.

    If the dump is in an object store, the task downloads only its piece. Readers that users wrote get a copy of the
    whole dump, because they may need a buffer.

    Args:
        name: Name of the unit.
        item: The input.
        piece: The piece to read.
        source: Settings of the source.
        calls: Functions and classes of the reader, whose code is part of the cache key.
        quarantine: Places of records that the reader drops without reading them.
    """
    arguments, size = {**input_arguments(item), **piece._asdict()}, piece.end - piece.start
    if is_url(item.path) and size < item.size and ":" not in (source.kind or ""):
        dump = StoredDump(item.path, item.version, item.size)
        arguments["path"] = replace(arguments["path"], value=dump, versions=())
    held = places_within(quarantine, item.source, item.name, piece.start, piece.end)
    return Unit(name, arguments, (), size, item.source, calls, held)
