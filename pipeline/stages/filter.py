"""filter: documents -> those that their source's rules keep, with signals, and signatures for `neardup`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.dedup.minhash import MinHash
from filters.reasons import AnyReason
from filters.rule import COLUMNS, Rule
from manifests.document import CLEAN_SCHEMA, DOCUMENT_SCHEMA, content_hash
from manifests.ledger import Tally
from manifests.recipe import Recipe
from pipeline.beam.step import Files, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import table_writer
from pipeline.dedup.signatures import SignatureRows, signature_path, signed_by
from pipeline.stages.pages import Verdicts, calls_of, filter_pages

STEP = "filter"
OWNED = ("clean", "dropped", "blocks/signatures")
DROPPED_SCHEMA = pa.schema([("reason", pa.string()), *DOCUMENT_SCHEMA])


def filter_step(
    recipe: Recipe,
    extracted: Receipts,
    by_source: Mapping[str, Mapping[str, Any]],
    verdicts: Verdicts,
    keep_dropped: int,
) -> Step:
    """Return the step with a unit per split of `extract`.

    Args:
        recipe: the run's.
        extracted: receipts of documents by split.
        by_source: from `arguments_of`.
        verdicts: of the stages that rules need.
        keep_dropped: dropped documents per reason and split whose text is kept for people to look at.
    """
    rules = {name: source.rules_at("filter") for name, source in recipe.sources.items()}
    calls, units = {name: calls_of(some) for name, some in rules.items()}, []
    needed = {name: verdicts.of(some) for name, some in rules.items()}
    for split, receipt in extracted.items():
        source = source_of(split)
        reads = [Files(receipt, "documents"), *(some[split] for some in needed[source] if split in some)]
        units.append(Unit(split, {}, reads, receipt.bytes, source, calls[source]))
    arguments = {name: {**given, "minhash": signed_by(recipe, name)} for name, given in by_source.items()}
    return Step(STEP, filter_documents, units, {"keep_dropped": keep_dropped}, arguments, OWNED)


def filter_documents(
    corpus: Path,
    split: str,
    *,
    name: str,
    rules: list[Rule],
    models: Mapping[str, Any],
    language_known: bool,
    minhash: MinHash | None,
    keep_dropped: int,
) -> Result:
    """Filter one split."""
    kept, dropped = f"clean/{split}.parquet", f"dropped/{split}.parquet"
    tally, signatures = Tally(), SignatureRows(minhash)
    gone: list[dict[str, Any]] = []
    counts = Counter[AnyReason]()
    with table_writer(corpus / kept, CLEAN_SCHEMA) as writer:
        for row, found in filter_pages(corpus, split, rules, models, language_known, columns=None):
            tally.enter(records=1, characters=len(row["text"]))
            if found.reason is not None:
                tally.drop(found.reason, records=1, characters=len(row["text"]))
                counts[found.reason] += 1
                text = row["text"] if counts[found.reason] <= keep_dropped else None
                gone.append({**row, "reason": found.reason.value, "text": text})
                continue
            tally.keep(records=1, characters=len(found.text))
            for reason, removed in found.removed.items():
                tally.remove(reason, lines=removed.lines, characters=removed.characters)
            digest = content_hash(found.text)
            signals = {signal: found.signals.get(signal) for signal in COLUMNS}
            others = [(signal, float(found.signals[signal])) for signal in sorted(found.signals.keys() - set(COLUMNS))]
            more = {"content_hash": digest, **signals, "signals": others, "flags": found.flags}
            writer.append({**row, "text": found.text, **more})
            signatures.append(row["id"], digest, found.text, row["timestamp"], found.signals.get("reference_score"))
    signatures.write(corpus / signature_path(split))
    paths = [kept, signature_path(split)]
    if gone:
        with table_writer(corpus / dropped, DROPPED_SCHEMA) as writer:
            for row in gone:
                writer.append(row)
        paths.append(dropped)
    return Result(paths, {name: tally})
