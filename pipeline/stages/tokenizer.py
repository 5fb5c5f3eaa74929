"""tokenizer: train a SentencePiece BPE model on a weighted sample of the kept documents (LLaMA section 2.1).

A recipe may instead give the path of a model, which is copied. There are two steps:

- `sample` draws documents from each split by keyed hash, so that the sample depends neither on the order of the inputs
  nor on the workers.
- `train` trains on the drawn documents in the order of their keys, up to a budget of bytes per source. Then it measures
  the model.
"""

import heapq
import io
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sentencepiece

from filters.errors import UserError
from filters.models.sentencepiece import byte_values, open_model, round_trip, summarize_metrics, tokenizer_metrics
from manifests.document import order_key
from manifests.files import atomic_path, canonical_json, sha256_file, write_atomic
from manifests.ledger import empty_sources
from manifests.recipe import Recipe, Tokenizer
from pipeline.beam.step import Awaited, Keyed, Receipt, Result, Step, Unit
from pipeline.beam.tables import read_ipc, read_rows, write_ipc
from pipeline.dedup.survivors import read_verdicts

STAGE = "tokenizer"
SAMPLE, TRAIN = f"{STAGE}/sample", f"{STAGE}/train"
MODEL, CARD = "models/tokenizer.model", "models/tokenizer.card.json"

LINE_CHARACTERS = 1_024  # Longer lines are cut, because SentencePiece silently skips lines that exceed its limit.
LINE_BYTES = 4 * LINE_CHARACTERS  # SentencePiece's limit, in bytes. A character has at most four bytes of UTF-8.
RESERVED = "\u2585"  # SentencePiece's mark for rare characters. It silently skips every line with this character.
# Documents to draw per source, as a minimum on average. If a source has a few large documents, a share that is computed
# from bytes alone could select none of them.
DRAWN_DOCUMENTS = 1_000
CARD_BYTES = 4 << 20  # Bytes of text per source that the card is measured on. This takes about a second per source.
SAMPLE_SCHEMA = pa.schema(
    [("key", pa.uint64()), ("source", pa.string()), ("language", pa.string()), ("text", pa.large_string())]
)

Drawn = Iterator[tuple[str, str | None, str]]  # source, language, text


def require_text(recipe: Recipe, ledger: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that there are documents to train a tokenizer on.

    Args:
        recipe: Recipe of the run.
        ledger: Tallies of the earlier stages, by stage and source.

    Raises:
        UserError: The recipe gives no tokenizer, and no source has a document left.
    """
    empty = empty_sources(ledger)
    if recipe.tokenizer.path is None and len(empty) == len({name for stage in ledger.values() for name in stage}):
        why = "; ".join(f"{name}: {reason}" for name, reason in empty.items())
        raise UserError(f"no document was kept ({why}): check the inputs, or loosen the filters that drop them")


def sample_step(recipe: Recipe, clean: Sequence[Unit], clusters: Receipt) -> Step:
    """Return the step that draws the sample, with a unit per split. `clean` are the units from `survivor_units`."""
    text_bytes = clusters.facts["text_bytes"]
    by_source: dict[str, dict[str, Any]] = {}
    for name, budget in _share_bytes(recipe, text_bytes).items():
        records = clusters.tallies[name].out["records"] if name in clusters.tallies else 0
        share = max(budget / max(text_bytes.get(name, 0), 1), DRAWN_DOCUMENTS / max(records, 1))
        by_source[name] = {"source": name, "budget": budget, "share": min(1.0, share)}
    return Step(SAMPLE, draw_documents, clean, {"seed": recipe.seed}, by_source)


def train_step(recipe: Recipe, sample: Step) -> Step:
    """Return the step with one unit that trains the tokenizer, or copies the given one."""
    rules = recipe.tokenizer
    key = sha256_file(Path(rules.path)) if rules.path else rules.model_dump(exclude={"path"})
    settings = {
        "rules": Keyed(rules, key),
        "splits": [unit.name for unit in sample.units],
        "budgets": {source: sample.by_source[source]["budget"] for source in {unit.source for unit in sample.units}},
    }
    awaits = tuple(Awaited(SAMPLE, unit.name) for unit in sample.units)
    return Step(TRAIN, train, [Unit("all", awaits=awaits)], settings, owns=())


def draw_documents(
    corpus: Path, split: str, *, source: str, budget: int, share: float, seed: int, verdicts: str
) -> Result:
    """Write the documents of one split with the smallest keys, up to the budget of the whole source.

    The documents that `train` uses are the ones with the smallest keys in the whole source, so a split never
    contributes more than the budget. Documents that de-duplication removed are skipped.

    Args:
        corpus: Folder of the corpus.
        split: Name of the split.
        source: Name of the source.
        budget: Bytes of text that are drawn from the source.
        share: Fraction of the documents that is considered at all.
        seed: Seed of the keyed hash.
        verdicts: Path of the verdicts on duplicates; empty if there is no such file.
    """
    limit, total = int(share * 2**64), 0
    in_clusters = read_verdicts(corpus, verdicts)
    held: list[tuple[int, int, int, dict[str, Any]]] = []  # heap of (-key, row, bytes, columns)
    for number, row in enumerate(read_rows(corpus / f"clean/{split}.parquet", ["id", "language", "text"])):
        key = order_key(seed, "tokenizer/sample", row["id"])
        if key >= limit or in_clusters.get(number, (b"", ""))[1]:
            continue
        # Four bytes more than the budget, so that `read_drawn` can see that the text exceeds the budget.
        text, size = _cut(row["text"], budget + 4)
        heapq.heappush(held, (-key, number, size, {"language": row["language"], "text": text}))
        total += size
        while held and total - held[0][2] >= budget:
            total -= heapq.heappop(held)[2]
    found = [{**row, "key": -key, "source": source} for key, _, _, row in sorted(held, key=lambda one: -one[0])]
    path = f"blocks/{SAMPLE}/{split}.arrow"
    write_ipc(corpus / path, SAMPLE_SCHEMA, pa.RecordBatch.from_pylist(found, schema=SAMPLE_SCHEMA).columns)
    return Result([path], {}, {"source": source, "budget": budget})


def train(corpus: Path, unit: str, *, rules: Tokenizer, splits: list[str], budgets: dict[str, int]) -> Result:
    """Train the tokenizer or copy the given one, measure it, and write the model and its card.

    Raises:
        UserError: There is too little text, or encoding and decoding a document does not restore it.
    """
    trained: dict[str, Any] = {"settings": None, "trained_on": None}
    if rules.path is not None:
        with atomic_path(corpus / MODEL) as temporary:
            shutil.copyfile(rules.path, temporary)
    else:
        seen: dict[str, Counter[str]] = {}
        write_atomic(corpus / MODEL, train_bpe(_count_texts(read_drawn(corpus, splits, budgets), seen), rules))
        trained = {"settings": rules.model_dump(exclude={"path"}), "trained_on": dict(sorted(seen.items()))}
    model = load(corpus / MODEL)
    first = read_drawn(corpus, splits, {source: min(size, CARD_BYTES) for source, size in budgets.items()})
    measured = _measure(model, first)
    by_source: dict[str, Counter[str]] = {}
    for (source, _), counts in sorted(measured.items()):
        by_source.setdefault(source, Counter()).update(counts)
    summaries = {source: summarize_metrics(counts) for source, counts in sorted(by_source.items())}
    facts = {
        "sha256": sha256_file(corpus / MODEL),
        "vocabulary": model.get_piece_size(),
        "bos": model.bos_id(),
        "eos": model.eos_id(),
        "bytes_per_token": {source: counts["bytes_per_token"] for source, counts in summaries.items()},
    }
    whole = sum(measured.values(), Counter[str]())
    if whole["differing"]:
        raise UserError(
            f"the tokenizer does not restore {whole['differing']} of {whole['documents']} documents: give another one"
        )
    card = {
        **facts,
        **trained,
        "unk": model.unk_id(),
        "round_trip": round_trip(whole),
        "sources": summaries,
        "languages": [
            {"source": source, "language": language or None, **summarize_metrics(counts)}
            for (source, language), counts in sorted(measured.items())
        ],
    }
    write_atomic(corpus / CARD, canonical_json(card))
    return Result([MODEL, CARD], {}, facts)


def check(recipe: Recipe) -> None:
    """Check the tokenizer that a recipe gives by path. Raises UserError if it cannot be used."""
    if recipe.tokenizer.path is not None:
        load(Path(recipe.tokenizer.path))


def load(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Load a SentencePiece model. Raises UserError if the file cannot be read or `open_model` refuses it."""
    try:
        proto = path.read_bytes()
    except OSError as error:
        raise UserError(f"tokenizer {path} cannot be read: give the path of a SentencePiece model") from error
    return open_model(proto, str(path))


def read_drawn(corpus: Path, splits: list[str], budgets: dict[str, int]) -> Drawn:
    """Yield the drawn documents in the order of their keys, as (source, language, text).

    Each source contributes at most its budget of UTF-8 bytes. The document that exceeds the budget is cut. Files are
    memory-mapped, so only one document is in memory at a time.
    """
    parts = [SAMPLE_SCHEMA.empty_table()]
    for split in splits:
        parts.append(pa.Table.from_batches([read_ipc(corpus / f"blocks/{SAMPLE}/{split}.arrow")]))
    table = pa.concat_tables(parts)
    left = dict(budgets)
    sources, languages, texts = (table.column(name) for name in ("source", "language", "text"))
    for at in pc.sort_indices(table.select(["key", "source"]), [("key", "ascending"), ("source", "ascending")]):
        source = sources[at.as_py()].as_py()
        if left[source] > 0:
            text, size = _cut(texts[at.as_py()].as_py(), left[source])
            left[source] -= size
            if text:
                yield source, languages[at.as_py()].as_py(), text


def train_bpe(texts: Iterable[str], rules: Tokenizer) -> bytes:
    """Train a SentencePiece BPE model with LLaMA's settings, and return its bytes.

    The settings are byte fallback, single digits, no normalisation, and white space kept. Ids 0, 1 and 2 are unknown,
    BOS and EOS. The same texts in the same order give the same bytes. Another number of threads gives the same pieces,
    but other bytes, because the model records the number.

    Raises:
        UserError: There is too little text for the vocabulary.
    """
    seen = Counter[str]()

    def lines() -> Iterator[str]:
        for text in texts:
            seen["characters"] += len(text)
            yield from sentences(text)

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(),
            model_writer=model,
            model_type="bpe",
            vocab_size=rules.vocabulary,
            character_coverage=rules.character_coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            allow_whitespace_only_pieces=True,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            max_sentence_length=LINE_BYTES,
            shuffle_input_sentence=False,
            num_threads=rules.threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        most = re.search(r"set it to a value <= (\d+)", str(error))
        why = "" if most or not seen["characters"] else f" ({str(error).rpartition('] ')[2] or error})"
        raise UserError(
            f"no tokenizer of {rules.vocabulary:,} pieces can be trained on {seen['characters']:,} characters{why}: "
            f"lower tokenizer.vocabulary{f' to at most {most[1]}' if most else ''}, or give more text"
        ) from error
    return model.getvalue()


def sentences(text: str) -> Iterator[str]:
    """Yield the lines of a text as the trainer accepts them: not empty, at most `LINE_BYTES`, without `RESERVED`.

    A longer line is cut before a space. The space is omitted, because SentencePiece adds one before each line. Only a
    word that is longer than the limit is cut inside.
    """
    for line in text.replace(RESERVED, "\n").split("\n"):
        start = 0
        while len(line) - start > LINE_CHARACTERS:
            space = line.rfind(" ", start + 1, start + LINE_CHARACTERS + 1)
            end = space if space > 0 else start + LINE_CHARACTERS
            yield line[start:end]
            start = end + (space > 0)
        if start < len(line):
            yield line[start:]


def _share_bytes(recipe: Recipe, text_bytes: dict[str, int]) -> dict[str, int]:
    """Return the number of UTF-8 bytes to draw from each source.

    If a tokenizer is trained, the recipe's `sample_bytes` are divided by weight among the sources that have text. If it
    is given, each source contributes `CARD_BYTES`, which the card needs.
    """
    if recipe.tokenizer.path is not None:
        return dict.fromkeys(recipe.sources, CARD_BYTES)
    present = {name: source.weight for name, source in recipe.sources.items() if text_bytes.get(name)}
    whole = math.fsum(present.values())  # The result of `sum` depends on the order and on the version of Python.
    return {
        name: int(recipe.tokenizer.sample_bytes * present[name] / whole) if name in present else 0
        for name in recipe.sources
    }


def _cut(text: str, size: int) -> tuple[str, int]:
    """Cut a text to at most `size` bytes of UTF-8. Return the text and the number of bytes it uses of `size`.

    A text that had to be cut counts as `size` bytes, even if its last character did not fit. So no other text follows
    it within the same budget.
    """
    stored = text.encode()
    return (text, len(stored)) if len(stored) <= size else (stored[:size].decode(errors="ignore"), size)


def _count_texts(documents: Drawn, seen: dict[str, Counter[str]]) -> Iterator[str]:
    """Yield the texts, and count documents and bytes per source in `seen`."""
    for source, _, text in documents:
        seen.setdefault(source, Counter()).update(documents=1, bytes=len(text.encode()))
        yield text


def _measure(model: sentencepiece.SentencePieceProcessor, documents: Drawn) -> dict[tuple[str, str], Counter[str]]:
    """Return the counts of `tokenizer_metrics` by (source, language). An unknown language is an empty string."""
    values = byte_values(model)
    found: dict[tuple[str, str], Counter[str]] = {}
    for source, language, text in documents:
        found.setdefault((source, language or ""), Counter()).update(tokenizer_metrics(text, model, values))
    return found
