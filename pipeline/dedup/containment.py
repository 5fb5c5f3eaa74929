"""Stage containment: find documents that are almost completely contained in another document of their source.

LLaMA does this for books (section 2.1). There are two steps. `sketches` writes a sketch of each document, which
consists of the shingle hashes below a common bound. `compare` finds candidates by their sketches and computes the exact
containment from the texts, which it reads again. Documents of earlier corpora are not compared.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.dedup.containment import Containment, find_candidates, sketch, verify_candidates
from filters.dedup.minhash import wide_shingle_hashes
from manifests.document import ID_BYTES
from manifests.recipe import Recipe
from pipeline.beam.step import Receipts, Result, Step, Unit
from pipeline.beam.tables import read_ipc, read_rows, write_ipc
from pipeline.dedup.signatures import ROW_BITS, Rows, Split, tasks_to_await

STAGE = "containment"
SKETCHES, COMPARE = f"{STAGE}/sketches", f"{STAGE}/compare"
SKETCH_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("hashes", pa.large_list(pa.uint64()))])
CONTAINED_SCHEMA = pa.schema([("inner", pa.int64()), ("outer", pa.int64()), ("share", pa.float64())])
TEXTS_AT_ONCE = 64  # shingle sets in memory while the candidates are compared


def sketch_step(recipe: Recipe, splits: list[Split]) -> Step:
    """Return the step `sketches`, with one unit per split of the sources with `containment` in the recipe."""
    rules = {name: source.containment for name, source in recipe.sources.items() if source.containment}
    units = [
        Unit(split.name, {}, [split.clean], source=split.source, awaits=tasks_to_await(split, split.clean))
        for split in splits
        if split.source in rules and not split.earlier
    ]
    by_source = {name: {"ngram": rule.ngram, "scale": rule.scale} for name, rule in rules.items()}
    return Step(SKETCHES, sketch_documents, units, {}, by_source)


def compare_step(recipe: Recipe, splits: list[Split], sketched: Receipts) -> Step:
    """Return the step `compare`, with one unit per source. `sketched`: the receipts of the step `sketches`."""
    by_source: dict[str, list[tuple[int, Split]]] = {}
    for number, split in enumerate(splits):
        if split.name in sketched and not split.earlier:
            by_source.setdefault(split.source, []).append((number, split))
    units = []
    for source, mine in sorted(by_source.items()):
        arguments = {
            "rules": recipe.sources[source].containment,
            "splits": [(number, split.name) for number, split in mine],
        }
        reads = [[sketched[split.name], split.clean] for _, split in mine]
        units.append(Unit(source, arguments, reads))
    return Step(COMPARE, compare_documents, units)


def sketch_documents(corpus: Path, split: str, *, ngram: int, scale: int) -> Result:
    """Write the sketches of the documents of one split, in the order of the documents."""
    ids, hashes = [], []
    for row in read_rows(corpus / f"clean/{split}.parquet", ["id", "text"]):
        ids.append(row["id"])
        hashes.append(sketch(wide_shingle_hashes(row["text"], ngram), scale))
    path = f"blocks/{SKETCHES}/{split}.arrow"
    columns = [pa.array(column, kind) for column, kind in zip((ids, hashes), SKETCH_SCHEMA.types, strict=True)]
    write_ipc(corpus / path, SKETCH_SCHEMA, columns)
    return Result([path])


def compare_documents(corpus: Path, source: str, *, rules: Containment, splits: list[tuple[int, str]]) -> Result:
    """Write the pairs (inner, outer) of one source whose containment reaches the threshold, sorted by their ids.

    Documents are numbered in the order of their ids, so that ties do not depend on the distribution of documents over
    splits.
    """
    found: list[tuple[bytes, str, int, int, npt.NDArray[np.uint64]]] = []
    for number, name in splits:
        ids, hashes = read_ipc(corpus / f"blocks/{SKETCHES}/{name}.arrow").columns
        for row, (identity, values) in enumerate(zip(ids.to_pylist(), hashes, strict=True)):
            found.append((identity, name, row, (number << ROW_BITS) + row, np.asarray(values.values.to_numpy())))
    found.sort(key=lambda document: document[0])

    @lru_cache(maxsize=TEXTS_AT_ONCE)
    def shingles(index: int) -> npt.NDArray[np.uint64]:
        _, name, row, _, _ = found[index]
        return wide_shingle_hashes(_read_text(corpus / f"clean/{name}.parquet", row), rules.ngram)

    inner, outer, _ = find_candidates([document[-1] for document in found], rules.threshold)
    pairs = verify_candidates(inner, outer, shingles, rules.threshold)
    rows = np.array([document[3] for document in found], np.int64)
    columns = [pa.array(rows[pairs.inner]), pa.array(rows[pairs.outer]), pa.array(pairs.containment, pa.float64())]
    path = f"blocks/{COMPARE}/{source}.arrow"
    write_ipc(corpus / path, CONTAINED_SCHEMA, columns)
    return Result([path], {}, {"candidates": len(inner), "contained": len(pairs.inner)})


def _read_text(path: Path, row: int) -> str:
    """Return the text of a row of a Parquet file. Only the row group that contains the row is read."""
    with pq.ParquetFile(path) as file:
        group, start = 0, 0
        while start + (rows := file.metadata.row_group(group).num_rows) <= row:
            group, start = group + 1, start + rows
        text: str = file.read_row_group(group, ["text"])["text"][row - start].as_py()
        return text


def read_contained(corpus: Path, paths: list[str]) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    """Read the pairs of all sources.

    Returns:
        The row references of the inner and of the outer documents, and the share of each inner document that the outer
        document contains, (n,) each.
    """
    empty = pa.RecordBatch.from_pylist([], schema=CONTAINED_SCHEMA)
    batches = [empty, *(read_ipc(corpus / path) for path in paths)]
    inner, outer, shares = (np.concatenate([b.column(n).to_numpy() for b in batches]) for n in CONTAINED_SCHEMA.names)
    return inner, outer, shares
