"""tokenizer: SentencePiece BPE, trained on a weighted sample of the survivors (LLaMA section 2.1), or taken as given.

Two steps: `sample` draws documents from each split by keyed hash, so that the sample depends neither on input order nor
on workers; `train` trains on them in the order of their keys, up to each source's budget, and measures the model.
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

LINE_CHARACTERS = 1_024  # longer lines are cut, since SentencePiece silently leaves out lines over its limit
LINE_BYTES = 4 * LINE_CHARACTERS  # that limit: a character has at most four bytes of UTF-8
RESERVED = "\u2585"  # SentencePiece's own mark for rare characters: it silently leaves out every line that has it
DRAWN_DOCUMENTS = 1_000  # of a source at least, on average: of a few large ones chance could draw none
CARD_BYTES = 4 << 20  # of text of each source that the card is measured on: a second a source
SAMPLE_SCHEMA = pa.schema(
    [("key", pa.uint64()), ("source", pa.string()), ("language", pa.string()), ("text", pa.large_string())]
)

Drawn = Iterator[tuple[str, str | None, str]]  # source, language, text


def require_text(recipe: Recipe, ledger: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError if a tokenizer is to be trained and no document is left to train it on.

    Args:
        recipe: the run's.
        ledger: tallies by stage and source, of the stages before.
    """
    empty = empty_sources(ledger)
    if recipe.tokenizer.path is None and len(empty) == len({name for stage in ledger.values() for name in stage}):
        why = "; ".join(f"{name}: {reason}" for name, reason in empty.items())
        raise UserError(f"no document was kept ({why}): check the inputs, or loosen the filters that drop them")


def sample_step(recipe: Recipe, clean: Sequence[Unit], clusters: Receipt) -> Step:
    """Return the step with a unit per split. `clean`: from `survivor_units`."""
    text_bytes = clusters.facts["text_bytes"]
    by_source: dict[str, dict[str, Any]] = {}
    for name, budget in _share_bytes(recipe, text_bytes).items():
        records = clusters.tallies[name].out["records"] if name in clusters.tallies else 0
        share = max(budget / max(text_bytes.get(name, 0), 1), DRAWN_DOCUMENTS / max(records, 1))
        by_source[name] = {"source": name, "budget": budget, "share": min(1.0, share)}
    return Step(SAMPLE, draw, clean, {"seed": recipe.seed}, by_source)


def train_step(recipe: Recipe, sample: Step) -> Step:
    """Return the step with the one unit that trains, or takes over the given model."""
    rules = recipe.tokenizer
    key = sha256_file(Path(rules.path)) if rules.path else rules.model_dump(exclude={"path"})
    settings = {
        "rules": Keyed(rules, key),
        "splits": [unit.name for unit in sample.units],
        "budgets": {source: sample.by_source[source]["budget"] for source in {unit.source for unit in sample.units}},
    }
    awaits = tuple(Awaited(SAMPLE, unit.name) for unit in sample.units)
    return Step(TRAIN, train, [Unit("all", awaits=awaits)], settings, owns=())


def draw(corpus: Path, split: str, *, source: str, budget: int, share: float, seed: int, verdicts: str) -> Result:
    """Write the documents of one split with the smallest keys, up to the budget of its whole source.

    No split can need more of it.
    """
    limit, total = int(share * 2**64), 0
    in_clusters = read_verdicts(corpus, verdicts)
    held: list[tuple[int, int, int, dict[str, Any]]] = []  # the largest key first
    for number, row in enumerate(read_rows(corpus / f"clean/{split}.parquet", ["id", "language", "text"])):
        key = order_key(seed, "tokenizer/sample", row["id"])
        if key >= limit or in_clusters.get(number, (b"", ""))[1]:
            continue
        text, size = _cut(row["text"], budget + 4)  # a character more than can be used: `drawn` must see it is too much
        heapq.heappush(held, (-key, number, size, {"language": row["language"], "text": text}))
        total += size
        while held and total - held[0][2] >= budget:
            total -= heapq.heappop(held)[2]
    found = [{**row, "key": -key, "source": source} for key, _, _, row in sorted(held, key=lambda one: -one[0])]
    path = f"blocks/{SAMPLE}/{split}.arrow"
    write_ipc(corpus / path, SAMPLE_SCHEMA, pa.RecordBatch.from_pylist(found, schema=SAMPLE_SCHEMA).columns)
    return Result([path], {}, {"source": source, "budget": budget})


def train(corpus: Path, unit: str, *, rules: Tokenizer, splits: list[str], budgets: dict[str, int]) -> Result:
    """Train on the drawn documents, or copy the given model; measure it; write the model and its card.

    Raises:
        UserError: there is too little text, or the model does not give a document back.
    """
    trained: dict[str, Any] = {"settings": None, "trained_on": None}
    if rules.path is not None:
        with atomic_path(corpus / MODEL) as temporary:
            shutil.copyfile(rules.path, temporary)
    else:
        seen: dict[str, Counter[str]] = {}
        write_atomic(corpus / MODEL, train_bpe(_count_texts(drawn(corpus, splits, budgets), seen), rules))
        trained = {"settings": rules.model_dump(exclude={"path"}), "trained_on": dict(sorted(seen.items()))}
    model = load(corpus / MODEL)
    first = drawn(corpus, splits, {source: min(size, CARD_BYTES) for source, size in budgets.items()})
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
    """Raise UserError for a given tokenizer that cannot be used."""
    if recipe.tokenizer.path is not None:
        load(Path(recipe.tokenizer.path))


def load(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Return a SentencePiece model. Raises UserError for a file that is not one, or one that `open_model` refuses."""
    try:
        proto = path.read_bytes()
    except OSError as error:
        raise UserError(f"tokenizer {path} cannot be read: give the path of a SentencePiece model") from error
    return open_model(proto, str(path))


def drawn(corpus: Path, splits: list[str], budgets: dict[str, int]) -> Drawn:
    """Yield the drawn documents in the order of their keys, no more bytes of a source than its budget.

    The document that crosses the budget is cut. The files are mapped, so that only one document is held at a time.
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
    """Return a SentencePiece BPE model as LLaMA's: byte fallback, digits split, no normalisation, white space kept.

    Ids 0, 1 and 2 are unknown, BOS and EOS. The same texts in the same order give the same bytes, and the same pieces
    on any number of threads, which the model records.

    Raises:
        UserError: the text is too small for the vocabulary.
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
    """Yield a text as lines that the trainer takes: not empty, at most `LINE_BYTES` of UTF-8, and without `RESERVED`.

    A longer line is cut before a space, which is left out, since SentencePiece puts one before a line; only a word over
    the limit is cut within.
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
    """Return the UTF-8 bytes to draw of each source.

    They are `sample_bytes` in proportion to the weights of the sources that have text, or as many as the card of a
    given tokenizer needs.
    """
    if recipe.tokenizer.path is not None:
        return dict.fromkeys(recipe.sources, CARD_BYTES)
    present = {name: source.weight for name, source in recipe.sources.items() if text_bytes.get(name)}
    whole = math.fsum(present.values())  # `sum` depends on the order of sources, and on the version of Python
    return {
        name: int(recipe.tokenizer.sample_bytes * present[name] / whole) if name in present else 0
        for name in recipe.sources
    }


def _cut(text: str, size: int) -> tuple[str, int]:
    """Return the beginning of a text within `size` bytes of UTF-8, and how many of them it takes.

    A text that had to be cut takes all, so that nothing follows it even where half a character would have fit.
    """
    stored = text.encode()
    return (text, len(stored)) if len(stored) <= size else (stored[:size].decode(errors="ignore"), size)


def _count_texts(documents: Drawn, seen: dict[str, Counter[str]]) -> Iterator[str]:
    """Yield the texts, and count documents and bytes per source in `seen`."""
    for source, _, text in documents:
        seen.setdefault(source, Counter()).update(documents=1, bytes=len(text.encode()))
        yield text


def _measure(model: sentencepiece.SentencePieceProcessor, documents: Drawn) -> dict[tuple[str, str], Counter[str]]:
    """Return the model's counts over the documents, by source and language ("" where it was not asked for)."""
    values = byte_values(model)
    found: dict[tuple[str, str], Counter[str]] = {}
    for source, language, text in documents:
        found.setdefault((source, language or ""), Counter()).update(tokenizer_metrics(text, model, values))
    return found
