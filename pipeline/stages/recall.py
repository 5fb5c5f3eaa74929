"""recall: copies of real documents, edited to known similarities, sent through the same signatures and bands.

The share of them that meets its original in a band is set beside the share that the recipe's bands and rows promise.
They are made beside the corpus, which is the same without them; the results are in `canaries.json`.
"""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from filters.dedup import recall
from filters.dedup.minhash import MinHash
from filters.dedup.recall import Level, check_levels, confidence_interval, half_point
from manifests.document import ID_BYTES, order_key
from manifests.files import canonical_json, write_atomic
from manifests.recipe import Recipe
from pipeline.beam.tables import read_rows, table_writer
from pipeline.beam.task import Receipt, Receipts, Result, Step, Unit
from pipeline.stages.clusters import read_verdicts

STAGE = "recall"
DRAW, MEASURE = f"{STAGE}/draw", f"{STAGE}/measure"
FILE = "canaries.json"

DRAWN_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("text", pa.large_string())])
SPARE = 2.0  # documents drawn for each that is used: some are too short for a copy


class RecallError(Exception):
    """Near-duplicates are not found as often as the recipe's bands and rows promise: a defect of the pipeline."""


def draw_step(recipe: Recipe, filtered: Receipts, clusters: Receipt) -> Step:
    """Return the step with a unit per split."""
    documents = sum(tally.out["records"] for receipt in filtered.values() for tally in receipt.tallies.values())
    share = min(1.0, SPARE * recipe.deduplication.canaries / max(documents, 1))
    units = [
        Unit(split, {}, [receipt, clusters], receipt.outputs[0].bytes) for split, receipt in sorted(filtered.items())
    ]
    return Step(DRAW, draw_originals, units, {"seed": recipe.seed, "share": share})


def measure_step(recipe: Recipe, drawn: Receipts) -> Step:
    """Return the step with the one unit that copies and compares."""
    rules = recipe.deduplication
    settings = {"seed": recipe.seed, "minhash": rules.minhash, "canaries": rules.canaries, "splits": sorted(drawn)}
    reads = [[split, receipt] for split, receipt in sorted(drawn.items())]
    return Step(MEASURE, measure_recall, [Unit("all", {}, reads)], settings, owns=())


def draw_originals(corpus: Path, split: str, *, seed: int, share: float) -> Result:
    """Write a split's originals, drawn by keyed hash among its survivors."""
    limit, path = int(share * 2**64), f"blocks/{DRAW}/{split}.parquet"
    verdicts = read_verdicts(corpus, split)
    with table_writer(corpus / path, DRAWN_SCHEMA) as writer:
        for number, row in enumerate(read_rows(corpus / f"clean/{split}.parquet", ["id", "text"])):
            if order_key(seed, "canaries/draw", row["id"]) < limit and not verdicts.get(number, (b"", ""))[1]:
                writer.append(row)
    return Result([path])


def measure_recall(corpus: Path, unit: str, *, seed: int, minhash: MinHash, canaries: int, splits: list[str]) -> Result:
    """Plant copies of the originals with the smallest keys, and count which are found."""
    rows = [
        (order_key(seed, "canaries/draw", row["id"]), row["id"], row["text"])
        for split in splits
        for row in read_rows(corpus / f"blocks/{DRAW}/{split}.parquet")
    ]
    originals = [(identity, text) for _, identity, text in sorted(rows)]
    levels = recall.measure_recall(originals[:canaries], minhash, seed=seed, threshold=minhash.threshold)
    facts = {
        "levels": [asdict(one) for one in levels],
        "findings": [{"severity": one.severity, "message": one.message} for one in check_levels(levels)],
    }
    write_atomic(corpus / FILE, canonical_json(facts))
    return Result([FILE], {}, facts)


def report(recipe: Recipe, measured: Receipt) -> str:
    """Return the curve of the recipe's bands and the share of copies found, as text.

    Raises:
        RecallError: the two cannot both be true.
    """
    minhash = recipe.deduplication.minhash
    assert minhash is not None, "without bands there is nothing to measure"
    failures = [one["message"] for one in measured.facts["findings"] if one["severity"] == "failure"]
    if failures:
        raise RecallError(failures[0])
    levels = [level for level in (Level(**plain) for plain in measured.facts["levels"]) if level.planted]
    head = f"near-duplicates: {minhash.bands} bands of {minhash.rows} rows, half of the pairs at "
    lines = [
        f"{head}{half_point(minhash.bands, minhash.rows):.2f} become candidates",
        "",
        "  Jaccard  promised  found of copies",
    ]
    for level in levels:
        low, high = confidence_interval(level.found, level.planted)
        found = f"{level.found:,} of {level.planted:,} ({low:.0%} to {high:.0%} at 99% confidence)"
        lines.append(f"     {level.level:.2f}  {level.expected:8.0%}  {found}")
    accepted, right = sum(level.accepted for level in levels), sum(level.right for level in levels)
    if accepted and minhash.verify == "signatures":
        lines.append(
            f"  of {accepted:,} copies accepted by their estimated similarity, {right / accepted:.1%} are as like as "
            f"{minhash.threshold} in truth; `verify: exact` accepts no other"
        )
    return "\n".join(lines + [one["message"] for one in measured.facts["findings"]])
