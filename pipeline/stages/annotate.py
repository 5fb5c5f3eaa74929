"""annotate: documents -> what passes the filters, with its signals, and the signatures that `neardup` compares.

Language first (LLaMA section 2.1: fastText), then the page rules of C4 where the recipe asks for them.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.c4 import C4Rules, Removed, clean
from filters.language import bundled_model_path, load
from manifests.document import CLEAN_SCHEMA, DOCUMENT_SCHEMA, content_hash
from manifests.errors import UserError
from manifests.files import sha256_file, sha256_json
from manifests.ledger import Tally
from manifests.reasons import Reason
from manifests.recipe import C4, Deduplication, Language, Recipe, Source
from pipeline.fingerprint import code_version
from pipeline.job import Receipt, Result, Task
from pipeline.signatures import SignatureRows, scheme_of, signature_path
from pipeline.tables import TableWriter, read_rows, table_writer

STAGE = "annotate"
OWNED = ("clean", "dropped", "blocks/signatures")

DROPPED_SCHEMA = pa.schema([("reason", pa.string()), *DOCUMENT_SCHEMA])


@dataclass(frozen=True, slots=True)
class Judged:
    """A document after the filters: the text that stays, or the reason why none does."""

    text: str
    reason: Reason | None = None
    language: str = ""
    language_score: float = 0.0
    removed: dict[Reason, Removed] = field(default_factory=dict)


def judge(text: str, source: Source) -> Judged:
    """Pass one text through its source's filters."""
    language, score = "", 0.0
    if source.language is not None:
        language, score = load(language_model(source.language)).top(text, source.language.characters)
        if language not in source.language.keep:
            return Judged("", Reason.LANGUAGE, language, score)
        if score < source.language.threshold:
            return Judged("", Reason.LANGUAGE_UNSURE, language, score)
    if source.c4 is None:
        return Judged(text, None, language, score)
    cleaned = clean(text, c4_rules(source.c4))
    return Judged(cleaned.text, cleaned.reason, language, score, cleaned.removed)


def language_model(language: Language) -> str:
    """The path of the model that a recipe names, or of the packaged one."""
    return language.model or str(bundled_model_path())


@lru_cache(maxsize=8)
def c4_rules(settings: C4) -> C4Rules:
    """The rules with the recipe's thresholds and its list of bad words. Raises UserError for an unreadable list."""
    words: frozenset[str] = frozenset()
    if settings.bad_words is not None:
        try:
            lines = Path(settings.bad_words).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"c4.bad_words: {settings.bad_words} cannot be read ({error}): give one word a line"
            ) from error
        words = frozenset(line.strip().casefold() for line in lines if line.strip())
    return C4Rules(**settings.model_dump(exclude={"bad_words"}), bad_words=words)


def model_hashes(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of every model and list that the filters use, by source and use. Raises UserError for one that cannot
    be read, so that a run ends before it begins."""
    found = {}
    for name, source in recipe.sources.items():
        if source.language is not None:
            path = language_model(source.language)
            load(path)
            found[f"{name}.language"] = sha256_file(Path(path))
        if source.c4 is not None and source.c4.bad_words is not None:
            c4_rules(source.c4)
            found[f"{name}.c4.bad_words"] = sha256_file(Path(source.c4.bad_words))
    return found


def tasks(recipe: Recipe, extracted: dict[str, Receipt], models: dict[str, str], keep_dropped: int) -> list[Task]:
    """One task a split of `extract`."""
    code, minhash = code_version(__name__), recipe.deduplication.minhash
    scheme = scheme_of(minhash).name if minhash else ""
    made = []
    for split, receipt in extracted.items():
        source, _, file = split.partition("/")
        settings = recipe.sources[source].model_dump(include={"language", "c4"})
        used = {name: sha for name, sha in models.items() if name.startswith(f"{source}.")}
        fingerprint = sha256_json([code, settings, used, scheme, keep_dropped, receipt.sha()])
        size = sum(output.bytes for output in receipt.outputs)
        made.append(Task(STAGE, split, fingerprint, size, {"source": source, "file": file}))
    return made


def work(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Filter one split. `settings`: the recipe's `sources` and `deduplication`, and `keep_dropped`."""
    name, file = task.arguments["source"], task.arguments["file"]
    source = Source.model_validate(settings["sources"][name])
    minhash = Deduplication.model_validate(settings["deduplication"]).minhash
    kept, left = f"clean/{name}/{file}.parquet", f"dropped/{name}/{file}.parquet"
    signatures = signature_path(task.name)
    tally, rows, samples = Tally(), SignatureRows(minhash), _Samples(settings["keep_dropped"])
    with table_writer(corpus / kept, CLEAN_SCHEMA) as writer:
        for row in read_rows(corpus / f"documents/{name}/{file}.parquet"):
            judged = judge(row["text"], source)
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
    signals = {"language": judged.language, "language_score": judged.language_score}
    digest = content_hash(judged.text)
    writer.append({**row, "text": judged.text, "content_hash": digest, **signals})
    rows.append(row["id"], digest, judged.text, row["timestamp"])


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
