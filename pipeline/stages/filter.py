"""annotate: documents and line verdicts -> what passes the filters, with its signals, and the signatures that `neardup`
compares."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.reasons import Reason
from manifests.document import CLEAN_SCHEMA, DOCUMENT_SCHEMA, content_hash
from manifests.files import sha256_json
from manifests.ledger import Tally
from manifests.recipe import Deduplication, Recipe
from manifests.source import Source
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import TableWriter, read_rows, table_writer
from pipeline.beam.task import Receipt, Result, Task
from pipeline.stages import line_dedup as lines
from pipeline.stages import perplexity
from pipeline.stages.judge import Judged, Models, judge
from pipeline.stages.signatures import SignatureRows, signature_path

STAGE = "annotate"
OWNED = ("clean", "dropped", "blocks/signatures")

DROPPED_SCHEMA = pa.schema([("reason", pa.string()), *DOCUMENT_SCHEMA])
SIGNALS = ("language", "language_score", "perplexity", "bucket", "reference_score")


def tasks(recipe: Recipe, extracted: dict[str, Receipt], judged: dict[str, str], keep_dropped: int) -> list[Task]:
    """One task a split of `extract`. `judged`: by split, the hash of all that its verdicts depend on beside the text:
    rules, models, line verdicts, cut-offs."""
    code, minhash = code_version(__name__), recipe.deduplication.minhash
    scheme = minhash.scheme if minhash else ""
    made = []
    for split, receipt in extracted.items():
        source = split.partition("/")[0]
        fingerprint = sha256_json([code, judged[split], scheme, keep_dropped, receipt.sha()])
        size = sum(output.bytes for output in receipt.outputs)
        made.append(Task(STAGE, split, fingerprint, size, {"source": source}))
    return made


def work(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Filter one split. `settings`: the recipe's `sources` and `deduplication`, `models` by source, `keep_dropped`."""
    name = task.arguments["source"]
    source = Source.model_validate(settings["sources"][name])
    models: Models = settings["models"][name]
    minhash = Deduplication.model_validate(settings["deduplication"]).minhash
    kept, left = f"clean/{task.name}.parquet", f"dropped/{task.name}.parquet"
    signatures = signature_path(task.name)
    tally, rows, samples = Tally(), SignatureRows(minhash), _Samples(settings["keep_dropped"])
    documents = read_rows(corpus / f"documents/{task.name}.parquet")
    masks = lines.masks(corpus, task.name, source)
    scores = perplexity.scores(corpus, task.name, source)
    with table_writer(corpus / kept, CLEAN_SCHEMA) as writer:
        for row, mask, score in zip(documents, masks, scores, strict=False):
            judged = judge(row["text"], source, models, mask, score)
            _account(judged, row, tally, writer, rows, samples)
    rows.write(corpus / signatures)
    paths = [kept, signatures]
    if samples.rows:
        with table_writer(corpus / left, DROPPED_SCHEMA) as writer:
            for sample in samples.rows:
                writer.append(sample)
        paths.append(left)
    return Result(paths, {name: tally})


def _account(
    judged: Judged, row: dict[str, Any], tally: Tally, writer: TableWriter, rows: SignatureRows, samples: "_Samples"
) -> None:
    characters = len(row["text"])
    tally.enter(records=1, characters=characters)
    if judged.reason is not None:
        tally.drop(judged.reason, records=1, characters=characters)
        samples.offer(judged.reason, row)
        return
    tally.keep(records=1, characters=len(judged.text))
    for reason, removed in judged.removed.items():
        tally.remove(reason, lines=removed.lines, characters=removed.characters)
    digest = content_hash(judged.text)
    signals = dict(zip(SIGNALS, map(judged.signals.get, SIGNALS), strict=True))
    writer.append({**row, "text": judged.text, "content_hash": digest, **signals})
    rows.append(row["id"], digest, judged.text, row["timestamp"], judged.signals.get("reference_score"))


class _Samples:
    """The first dropped documents of each reason, at most `limit` each, for people to look at."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[dict[str, Any]] = []
        self.counts: dict[Reason, int] = {}

    def offer(self, reason: Reason, row: dict[str, Any]) -> None:
        if self.counts.get(reason, 0) < self.limit:
            self.counts[reason] = self.counts.get(reason, 0) + 1
            self.rows.append({"reason": reason.value, **row})
