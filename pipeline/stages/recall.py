"""canaries: copies of real documents, edited to known similarities, sent through the same signatures and bands as the
corpus, and how many of them share a band with their originals beside what the recipe's bands and rows promise.

They are made beside the corpus, which is the same without them. What they say is in `canaries.json`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.dedup.recall import Level, check_levels, confidence_interval, half_point, measure_recall
from manifests.document import ID_BYTES, order_key
from manifests.files import canonical_json, sha256_json, write_atomic
from manifests.recipe import Deduplication, Recipe
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import read_rows, table_writer
from pipeline.beam.task import Receipt, Result, Task
from pipeline.stages.survivors import read_verdicts

STAGE = "canaries"
DRAW, MEASURE = f"{STAGE}/draw", f"{STAGE}/measure"
OWNED: dict[str, tuple[str, ...]] = {DRAW: (f"blocks/{DRAW}",), MEASURE: ()}
FILE = "canaries.json"

DRAWN_SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("text", pa.large_string())])
SPARE = 2.0
"""documents drawn for one that is used: some are too short for a copy"""


class RecallError(Exception):
    """Near-duplicates are not found as often as the recipe's bands and rows promise: a defect of the pipeline."""


def draw_tasks(recipe: Recipe, annotated: dict[str, Receipt], clusters: Receipt) -> list[Task]:
    """One task a split; none where the recipe asks for no canaries."""
    rules = recipe.deduplication
    if rules.minhash is None or not rules.canaries:
        return []
    documents = sum(tally.out["records"] for receipt in annotated.values() for tally in receipt.tallies.values())
    share = min(1.0, SPARE * rules.canaries / max(documents, 1))
    made = []
    for split, receipt in sorted(annotated.items()):
        parts = [code_version(__name__), recipe.seed, share, receipt.sha(), clusters.sha()]
        made.append(Task(DRAW, split, sha256_json(parts), receipt.outputs[0].bytes, {"share": share}))
    return made


def draw(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """A split's originals, drawn by keyed hash among its survivors. `settings`: `seed`."""
    limit, path = int(task.arguments["share"] * 2**64), f"blocks/{DRAW}/{task.name}.parquet"
    verdicts = read_verdicts(corpus, task.name)
    with table_writer(corpus / path, DRAWN_SCHEMA) as writer:
        for number, row in enumerate(read_rows(corpus / f"clean/{task.name}.parquet", ["id", "text"])):
            if order_key(settings["seed"], DRAW, row["id"]) < limit and not verdicts.get(number, (b"", ""))[1]:
                writer.append(row)
    return Result([path])


def measure_tasks(recipe: Recipe, drawn: dict[str, Receipt]) -> list[Task]:
    """The one task that copies and compares."""
    rules = recipe.deduplication.model_dump(include={"minhash", "canaries"})
    shas = [(split, receipt.sha()) for split, receipt in sorted(drawn.items())]
    fingerprint = sha256_json([code_version(__name__), recipe.seed, rules, shas])
    return [Task(MEASURE, "all", fingerprint, 0, {"splits": sorted(drawn)})]


def measure(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Plant copies of the originals with the smallest keys, and count which are found. `settings`: `seed`,
    `deduplication`."""
    rules = Deduplication.model_validate(settings["deduplication"])
    assert rules.minhash is not None, "without bands there is nothing to measure"
    rows = [
        (order_key(settings["seed"], DRAW, row["id"]), row["id"], row["text"])
        for split in task.arguments["splits"]
        for row in read_rows(corpus / f"blocks/{DRAW}/{split}.parquet")
    ]
    originals = [(identity, text) for _, identity, text in sorted(rows)]
    scheme, threshold = rules.minhash, rules.minhash.threshold
    levels = measure_recall(originals[: rules.canaries], scheme, seed=settings["seed"], threshold=threshold)
    facts = {
        "levels": [asdict(one) for one in levels],
        "findings": [{"severity": one.severity, "message": one.message} for one in check_levels(levels)],
    }
    write_atomic(corpus / FILE, canonical_json(facts))
    return Result([FILE], {}, facts)


def report(recipe: Recipe, measured: Receipt) -> str:
    """The curve of the recipe's bands, and what was found of the copies, for people. Raises RecallError where the two
    cannot both be true."""
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
