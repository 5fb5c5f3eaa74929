"""index: where a large dump can be cut, by one pass that only frames its records.

A file that is larger than the recipe's `split_bytes` is read in pieces that begin and end where records do, so that one
large file uses all cores and documents do not depend on the number of workers. What cannot be cut is one piece.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from filters.formats.stream import open_stored
from manifests.files import sha256_json
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task
from pipeline.sources import joined_for, reader_for
from pipeline.sources.inputs import Input

STAGE = "index"
OWNED: tuple[str, ...] = ()


def tasks(recipe: Recipe, inputs: list[Input]) -> list[Task]:
    """One task a file that is larger than a split, or of a source whose rows are joined: these are counted."""
    code, made = code_version(__name__), []
    for item in inputs:
        source = recipe.sources[item.source]
        if item.size > recipe.split_bytes or joined_for(source) is not None:
            settings = [source.model_dump(include={"limits", "github"}), recipe.split_bytes]
            fingerprint = sha256_json([code, settings, item.size, item.sha256])
            arguments: dict[str, Any] = {"source": item.source, "file": item.name, "path": item.path}
            arguments |= {"split_bytes": recipe.split_bytes}
            made.append(Task(STAGE, f"{item.source}/{item.name}", fingerprint, item.size, arguments))
    return made


def work(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """The pieces of one file as facts: [start, end, state] each, with the reader's state at its start; of a joined
    source, the file's survey besides. A file that cannot be read is one piece, for `extract` to report."""
    name, split_bytes = task.arguments["source"], task.arguments["split_bytes"]
    source = Source.model_validate(settings["sources"][name])
    joined = joined_for(source)
    try:
        with open_stored(Path(task.arguments["path"])) as stored:
            if joined is not None:
                return Result([], {}, asdict(joined.survey(stored, task.arguments["file"], source, split_bytes)))
            pieces = [list(piece) for piece in reader_for(name, source).pieces(stored, source, split_bytes)]
    except OSError:
        pieces = [[0, task.size, 0]]
    return Result([], {}, {"pieces": pieces, "decoded": 0, "rows": 0, "counts": {}} if joined else {"pieces": pieces})


def pieces_of(indexed: dict[str, Receipt], item: Input) -> list[tuple[int, int, int]]:
    """Where to cut an input: one piece where it was not indexed."""
    receipt = indexed.get(f"{item.source}/{item.name}")
    if receipt is None:
        return [(0, item.size, 0)]
    return [(start, end, state) for start, end, state in receipt.facts["pieces"]]
