"""recall: copies of real documents, edited to known similarities, sent through the same signatures and bands.

The share of them that meets its original in a band is set beside the share that the bands and rows promise, for each
MinHash settings on documents of the sources that have it. They are made beside the corpus, which is the same without
them; the results are in `canaries.json`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.dedup import recall
from filters.dedup.minhash import MinHash
from filters.dedup.recall import Level, check_levels, confidence_interval, half_point
from manifests.document import ID_BYTES, order_key
from manifests.files import canonical_json, write_atomic
from manifests.recipe import Recipe
from pipeline.beam.step import Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import read_rows, table_writer
from pipeline.dedup.survivors import read_verdicts, survivor_units

STAGE = "recall"
DRAW, MEASURE = f"{STAGE}/draw", f"{STAGE}/measure"
FILE = "canaries.json"

DRAWN_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("text", pa.large_string())])
SPARE = 2.0  # documents drawn for each that is used: some are too short for a copy


class RecallError(Exception):
    """Near-duplicates are not found as often as the recipe's bands and rows promise: a defect of the pipeline."""


def sources_by_minhash(recipe: Recipe, sources: Iterable[str]) -> dict[MinHash, list[str]]:
    """Return the sources that have each MinHash settings, in the order of their names."""
    found: dict[MinHash, list[str]] = {}
    for source in sorted(sources):
        minhash = recipe.comparison_of(source).minhash
        if minhash is not None:
            found.setdefault(minhash, []).append(source)
    return found


def draw_step(recipe: Recipe, filtered: Receipts, clusters: Receipt) -> Step:
    """Return the step with a unit per split of the sources with near-duplicate detection."""
    documents = Counter[str]()
    for split, receipt in filtered.items():
        documents[source_of(split)] += receipt.out_of(source_of(split))["records"]
    by_source: dict[str, dict[str, float]] = {}
    for sources in sources_by_minhash(recipe, documents).values():
        wanted = SPARE * recipe.deduplication.canaries / max(sum(documents[source] for source in sources), 1)
        by_source |= {source: {"share": min(1.0, wanted)} for source in sources}
    units = [unit for unit in survivor_units(filtered, clusters) if unit.source in by_source]
    return Step(DRAW, draw_originals, units, {"seed": recipe.seed}, by_source)


def measure_step(recipe: Recipe, drawn: Receipts) -> Step:
    """Return the step with the one unit that copies and compares."""
    searched = sources_by_minhash(recipe, {source_of(split) for split in drawn})
    planted = [
        (minhash, sources, [split for split in sorted(drawn) if source_of(split) in sources])
        for minhash, sources in searched.items()
    ]
    settings = {"seed": recipe.seed, "planted": planted, "canaries": recipe.deduplication.canaries}
    reads = [[split, receipt] for split, receipt in sorted(drawn.items())]
    return Step(MEASURE, measure_recall, [Unit("all", {}, reads)], settings, owns=())


def draw_originals(corpus: Path, split: str, *, seed: int, share: float, verdicts: str) -> Result:
    """Write a split's originals, drawn by keyed hash among its survivors."""
    limit, path = int(share * 2**64), f"blocks/{DRAW}/{split}.parquet"
    in_clusters = read_verdicts(corpus, verdicts)
    with table_writer(corpus / path, DRAWN_SCHEMA) as writer:
        for number, row in enumerate(read_rows(corpus / f"clean/{split}.parquet", ["id", "text"])):
            if order_key(seed, "canaries/draw", row["id"]) < limit and not in_clusters.get(number, (b"", ""))[1]:
                writer.append(row)
    return Result([path])


def measure_recall(
    corpus: Path, unit: str, *, seed: int, planted: list[tuple[MinHash, list[str], list[str]]], canaries: int
) -> Result:
    """Plant copies of the originals with the smallest keys, and count which are found.

    `planted`: MinHash settings, each with its sources and their splits.
    """
    found = []
    for minhash, sources, splits in planted:
        rows = [
            (order_key(seed, "canaries/draw", row["id"]), row["id"], row["text"])
            for split in splits
            for row in read_rows(corpus / f"blocks/{DRAW}/{split}.parquet")
        ]
        originals = [(identity, text) for _, identity, text in sorted(rows)]
        levels = recall.measure_recall(originals[:canaries], minhash, seed=seed, threshold=minhash.threshold)
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
    """Return the curve of the bands and the share of copies found, for each MinHash settings, as text.

    Raises:
        RecallError: the two cannot both be true.
    """
    settings = measured.facts["settings"]
    failures = [one["message"] for found in settings for one in found["findings"] if one["severity"] == "failure"]
    if failures:
        raise RecallError(failures[0])
    return "\n\n".join(_report_of(found, named=len(settings) > 1) for found in settings)


def _report_of(found: dict[str, Any], named: bool) -> str:
    minhash = MinHash(**found["minhash"])
    levels = [level for level in (Level(**plain) for plain in found["levels"]) if level.planted]
    lines = [
        f"near-duplicates{' of ' + ', '.join(found['sources']) if named else ''}: {minhash.bands} bands of "
        f"{minhash.rows} rows, half of the pairs at {half_point(minhash.bands, minhash.rows):.2f} become candidates",
        "",
        "  Jaccard  promised  found of copies",
    ]
    for level in levels:
        low, high = confidence_interval(level.found, level.planted)
        shares = f"{level.found:,} of {level.planted:,} ({low:.0%} to {high:.0%} at 99% confidence)"
        lines.append(f"     {level.level:.2f}  {level.expected:8.0%}  {shares}")
    accepted, right = sum(level.accepted for level in levels), sum(level.right for level in levels)
    if accepted and minhash.verify == "signatures":
        lines.append(
            f"  of {accepted:,} copies accepted by their estimated similarity, {right / accepted:.1%} are as like as "
            f"{minhash.threshold} in truth; `verify: exact` accepts no other"
        )
    return "\n".join(lines + [one["message"] for one in found["findings"]])
