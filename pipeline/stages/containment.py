"""containment: documents that are almost whole in another of their source (LLaMA section 2.1, for books).

Two steps: `sketches` keeps of each document the shingle hashes below a common bound; `compare` finds candidates by them
and measures these exactly, on texts read again. Earlier corpora take no part.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.dedup.containment import find_candidates, verify_candidates
from filters.dedup.containment import sketch as sketch_of
from filters.dedup.minhash import wide_shingle_hashes
from manifests.files import atomic_path, sha256_json
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import read_rows
from pipeline.beam.task import Receipt, Result, Task
from pipeline.stages.corpora import Split
from pipeline.stages.signatures import ROW_BITS, Rows

STAGE = "containment"
SKETCHES, COMPARE = f"{STAGE}/sketches", f"{STAGE}/compare"
OWNED = {SKETCHES: (f"blocks/{SKETCHES}",), COMPARE: (f"blocks/{COMPARE}",)}

SKETCH_SCHEMA = pa.schema([("hashes", pa.large_list(pa.uint64()))])
CONTAINED_SCHEMA = pa.schema([("inner", pa.int64()), ("outer", pa.int64()), ("share", pa.float64())])
TEXTS_AT_ONCE = 64
"""shingle sets held while candidates are measured"""


def sketch_tasks(recipe: Recipe, splits: list[Split]) -> list[Task]:
    """One task a split of the sources that ask for it."""
    made = []
    for split in splits:
        rules = recipe.sources[split.source].containment if not split.earlier else None
        if rules is not None:
            fingerprint = sha256_json([code_version(__name__), rules.ngram, rules.scale, split.fingerprint])
            made.append(Task(SKETCHES, split.name, fingerprint, 0, {"source": split.source}))
    return made


def sketch(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """The sketches of one split's documents, in their order. `settings`: `sources`."""
    rules = Source.model_validate(settings["sources"][task.arguments["source"]]).containment
    assert rules is not None, "only splits of sources with rules get here"
    rows = read_rows(corpus / f"clean/{task.name}.parquet", ["text"])
    hashes = [sketch_of(wide_shingle_hashes(row["text"], rules.ngram), rules.scale) for row in rows]
    path = f"blocks/{SKETCHES}/{task.name}.arrow"
    batch = pa.RecordBatch.from_arrays([pa.array(hashes, pa.large_list(pa.uint64()))], schema=SKETCH_SCHEMA)
    with atomic_path(corpus / path) as temporary, pa.ipc.new_file(str(temporary), SKETCH_SCHEMA) as writer:
        writer.write_batch(batch)
    return Result([path])


def compare_tasks(recipe: Recipe, splits: list[Split], sketched: dict[str, Receipt]) -> list[Task]:
    """One task a source."""
    made = []
    for source in sorted({name.partition("/")[0] for name in sketched}):
        rules = recipe.sources[source].containment
        assert rules is not None, "only splits of sources with rules get here"
        mine = [[number, split.name] for number, split in enumerate(splits)
                if split.name in sketched and split.source == source and not split.earlier]  # fmt: skip
        shas = [sketched[str(name)].sha() for _, name in mine]
        fingerprint = sha256_json([code_version(__name__), rules.model_dump(), mine, shas])
        made.append(Task(COMPARE, source, fingerprint, 0, {"splits": mine}))
    return made


def compare(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """The pairs (inner, outer) of one source whose containment reaches the threshold. `settings`: `sources`."""
    rules = Source.model_validate(settings["sources"][task.name]).containment
    assert rules is not None, "only sources with rules get here"
    references: list[int] = []
    sketches: list[npt.NDArray[np.uint64]] = []
    places: list[tuple[str, int]] = []
    for number, name in task.arguments["splits"]:
        with pa.memory_map(str(corpus / f"blocks/{SKETCHES}/{name}.arrow")) as mapped:
            column = pa.ipc.open_file(mapped).get_batch(0).column("hashes")
        sketches += [np.asarray(values.values.to_numpy()) for values in column]
        places += [(name, row) for row in range(len(column))]
        references += [(number << ROW_BITS) + row for row in range(len(column))]

    @lru_cache(maxsize=TEXTS_AT_ONCE)
    def shingles(index: int) -> npt.NDArray[np.uint64]:
        name, wanted = places[index]
        rows = read_rows(corpus / f"clean/{name}.parquet", ["text"])
        text = next(row["text"] for place, row in enumerate(rows) if place == wanted)
        return wide_shingle_hashes(text, rules.ngram)

    inner, outer, _ = find_candidates(sketches, rules.threshold)
    found = verify_candidates(inner, outer, shingles, rules.threshold)
    rows = np.array(references, np.int64)
    columns = [pa.array(rows[found.inner]), pa.array(rows[found.outer]), pa.array(found.containment, pa.float64())]
    path = f"blocks/{COMPARE}/{task.name}.arrow"
    with atomic_path(corpus / path) as temporary, pa.ipc.new_file(str(temporary), CONTAINED_SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=CONTAINED_SCHEMA))
    return Result([path], {}, {"candidates": len(inner), "contained": len(found.inner)})


def read_contained(corpus: Path, paths: list[str]) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    """The pairs of all sources: row references of inner and outer, and the share of the one that is in the other."""
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for path in paths:
        with pa.memory_map(str(corpus / path)) as mapped:
            batch = pa.ipc.open_file(mapped).get_batch(0)
        parts.append(tuple(batch.column(name).to_numpy() for name in CONTAINED_SCHEMA.names))
    inner, outer, shares = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return inner, outer, shares
