"""Stage recall: measure the recall of near-duplicate detection with canaries (filters/dedup/recall.py).

Canaries are copies of real documents, edited to known similarities, with the same signatures and bands as documents.
The share of canaries that have a band in common with their original is compared with the share that follows from the
numbers of bands and rows. This is done for each distinct set of MinHash settings, with documents of the sources that
have these settings. There are three steps: `draw` selects originals from each split, `copies` makes canaries and
compares them, and `measure` counts. The stage does not change the corpus. The results are in `canaries.json`.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters.dedup.minhash import MinHash
from filters.dedup.recall import (
    CanaryResult,
    Level,
    check_levels,
    compare_canaries,
    confidence_interval,
    count_levels,
    half_point,
)
from filters.errors import RunError
from manifests.document import ID_BYTES, order_key
from manifests.files import canonical_json, write_atomic
from manifests.recipe import Recipe
from pipeline.beam.step import Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import read_rows, table_writer
from pipeline.dedup.survivors import read_verdicts

STAGE = "recall"
DRAW, COPIES, MEASURE = f"{STAGE}/draw", f"{STAGE}/copies", f"{STAGE}/measure"
FILE = "canaries.json"

DRAWN_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("text", pa.large_string())])
# Documents drawn for each document that is used. Drawing too few by chance happens in far less than one run in a
# million.
SPARE = 2.0
TASK_ORIGINALS = 50  # Originals per task of `copies`. They take some tenths of a second.


class RecallError(RunError):
    """The share of near-duplicates that are found is not as expected for the bands and rows: a defect of the code."""


def sources_by_minhash(recipe: Recipe, sources: Iterable[str]) -> dict[MinHash, list[str]]:
    """Return a dict from MinHash settings to the names of the sources with these settings, sorted."""
    found: dict[MinHash, list[str]] = {}
    for source in sorted(set(sources)):
        minhash = recipe.comparison_of(source).minhash
        if minhash is not None:
            found.setdefault(minhash, []).append(source)
    return found


def draw_step(recipe: Recipe, clean: Iterable[Unit], clusters: Receipt) -> Step:
    """Return the step `draw`, with one unit per split of the sources with near-duplicate detection.

    Args:
        recipe: the recipe of the run.
        clean: units from `survivor_units`.
        clusters: the receipt of the step that chooses survivors. It has the number of documents by source.
    """
    documents = {source: tally.out["records"] for source, tally in clusters.tallies.items()}
    by_source: dict[str, dict[str, float]] = {}
    for sources in sources_by_minhash(recipe, documents).values():
        wanted = SPARE * recipe.deduplication.canaries / max(sum(documents[source] for source in sources), 1)
        by_source |= {source: {"share": min(1.0, wanted)} for source in sources}
    units = [unit for unit in clean if unit.source in by_source]
    return Step(DRAW, draw_originals, units, {"seed": recipe.seed}, by_source)


def copies_step(recipe: Recipe, drawn: Receipts) -> Step:
    """Return the step `copies`, with one unit for every `TASK_ORIGINALS` originals with the same MinHash settings."""
    units = []
    for number, (minhash, sources) in enumerate(_group_sources(recipe, drawn).items()):
        of_sources = {split: receipt for split, receipt in drawn.items() if source_of(split) in sources}
        chosen = smallest_keys(of_sources, recipe.deduplication.canaries)
        for part in range(0, len(chosen), TASK_ORIGINALS):
            originals = rows_by_split(chosen[part : part + TASK_ORIGINALS])
            reads = [drawn[split] for split in originals]
            units.append(Unit(f"{number}/{part:05d}", {"minhash": minhash, "originals": originals}, reads))
    return Step(COPIES, compare_copies, units, {"seed": recipe.seed}, owns=())


def measure_step(recipe: Recipe, drawn: Receipts, copies: Receipts) -> Step:
    """Return the step `measure`. It has one unit, which counts the canaries that were found."""
    planted = [
        (minhash, sources, [copies[name].facts["copies"] for name in copies if name.startswith(f"{number}/")])
        for number, (minhash, sources) in enumerate(_group_sources(recipe, drawn).items())
    ]
    return Step(MEASURE, measure_recall, [Unit("all")], {"planted": planted}, owns=())


def _group_sources(recipe: Recipe, drawn: Receipts) -> dict[MinHash, list[str]]:
    """Return `sources_by_minhash` of the sources from which originals were drawn."""
    return sources_by_minhash(recipe, {source_of(split) for split in drawn})


def smallest_keys(drawn: Receipts, count: int) -> list[tuple[str, int]]:
    """Return the split and the row of the `count` drawn originals with the smallest keys, sorted by key."""
    found = [(key, split, row) for split, receipt in drawn.items() for row, key in enumerate(receipt.facts["keys"])]
    return [(split, row) for _, split, row in sorted(found)[:count]]


def rows_by_split(places: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Return a dict from split to its rows, sorted. `places`: pairs of split and row."""
    found: dict[str, list[int]] = {}
    for split, row in sorted(places):
        found.setdefault(split, []).append(row)
    return found


def drawn_path(split: str) -> str:
    """Return the path, below the corpus, of the originals drawn from a split."""
    return f"blocks/{DRAW}/{split}.parquet"


def draw_originals(corpus: Path, split: str, *, seed: int, share: float, verdicts: str) -> Result:
    """Select originals among the survivors of a split by keyed hash, and write them. Return their keys as facts.

    The texts of a row group are read only if it contains an original. If the split has no original, no file is written.
    """
    limit, in_clusters = int(share * 2**64), read_verdicts(corpus, verdicts)
    removed = {row for row, verdict in in_clusters.items() if verdict.reason}
    found: list[tuple[int, dict[str, Any]]] = []
    with pq.ParquetFile(corpus / f"clean/{split}.parquet") as file:
        first = 0
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["id"])["id"].to_pylist()
            keys = [order_key(seed, "canaries/draw", identity) for identity in ids]
            rows = [row for row, key in enumerate(keys) if key < limit and first + row not in removed]
            texts = file.read_row_group(group, columns=["text"])["text"].take(rows).to_pylist() if rows else []
            found += [(keys[row], {"id": ids[row], "text": text}) for row, text in zip(rows, texts, strict=True)]
            first += len(ids)
    if found:
        with table_writer(corpus / drawn_path(split), DRAWN_SCHEMA) as writer:
            for _, row in found:
                writer.append(row)
    return Result([drawn_path(split)] if found else [], {}, {"keys": [key for key, _ in found]})


def compare_copies(corpus: Path, unit: str, *, seed: int, minhash: MinHash, originals: dict[str, list[int]]) -> Result:
    """Make canaries of originals, compare them, and return the results as facts.

    `originals` is a dict from split to the rows in its file of originals.
    """
    copies = []
    for split, rows in originals.items():
        drawn = list(read_rows(corpus / drawn_path(split)))
        copies += [compare_canaries(drawn[row]["id"], drawn[row]["text"], minhash, seed) for row in rows]
    return Result([], {}, {"copies": copies})


def measure_recall(
    corpus: Path, unit: str, *, planted: list[tuple[MinHash, list[str], list[list[list[CanaryResult]]]]]
) -> Result:
    """Count the canaries that were found, compare the counts with the theory, and write the results.

    `planted` contains, for each distinct set of MinHash settings, the settings, their sources, and the results of the
    tasks of `copies`.
    """
    found = []
    for minhash, sources, copies in planted:
        levels = count_levels([CanaryResult(*one) for one in document] for task in copies for document in task)
        found.append(
            {
                "sources": sources,
                "minhash": minhash.model_dump(),
                "levels": [asdict(one) for one in levels],
                "findings": [{"severity": one.severity, "message": one.message} for one in check_levels(levels)],
            }
        )
    write_atomic(corpus / FILE, canonical_json({"settings": found}))
    return Result([FILE], {}, {"settings": found})


def report(measured: Receipt) -> str:
    """Return a text with the expected and the measured share of canaries found, for all MinHash settings.

    Raises:
        RecallError: the measured share contradicts the expected share.
    """
    settings = measured.facts["settings"]
    failures = [one["message"] for found in settings for one in found["findings"] if one["severity"] == "failure"]
    if failures:
        raise RecallError(failures[0])
    return "\n\n".join(_format_report(found, named=len(settings) > 1) for found in settings)


def _format_report(found: dict[str, Any], named: bool) -> str:
    """Return the table of `report` for one set of MinHash settings. `named`: True to name the sources."""
    minhash = MinHash(**found["minhash"])
    levels = [level for level in (Level(**plain) for plain in found["levels"]) if level.planted]
    lines = [
        f"near-duplicates{' of ' + ', '.join(found['sources']) if named else ''}: {minhash.bands} bands of "
        f"{minhash.rows} rows, half of the pairs at {half_point(minhash.bands, minhash.rows):.2f} become candidates",
        "",
        "  Jaccard  expected  canaries that were found",
    ]
    for level in levels:
        low, high = confidence_interval(level.found, level.planted)
        shares = f"{level.found:,} of {level.planted:,} ({low:.0%} to {high:.0%} at 99% confidence)"
        lines.append(f"     {level.level:.2f}  {level.expected:8.0%}  {shares}")
    accepted, right = sum(level.accepted for level in levels), sum(level.right for level in levels)
    if accepted and minhash.verify == "signatures":
        lines.append(
            f"  {right / accepted:.1%} of the {accepted:,} canaries that were accepted by their estimated similarity "
            f"have a true similarity of at least {minhash.threshold} (100% with `verify: exact`)"
        )
    return "\n".join(lines + [one["message"] for one in found["findings"]])
