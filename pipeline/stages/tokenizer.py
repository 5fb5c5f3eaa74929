"""tokenizer: SentencePiece BPE, trained on a weighted sample of the survivors (LLaMA section 2.1), or taken as given.

Two steps: `sample` draws documents from each split by keyed hash, so that the sample depends neither on input order nor
on workers; `train` trains on them in the order of their keys.
"""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import sentencepiece

from manifests.document import order_key
from manifests.errors import UserError
from manifests.files import atomic_path, canonical_json, sha256_file, sha256_json, write_atomic
from manifests.recipe import Recipe, Tokenizer
from pipeline.fingerprint import code_version
from pipeline.job import Receipt, Result, Task
from pipeline.stages.survivors import read_verdicts
from pipeline.tables import read_rows

STAGE = "tokenizer"
SAMPLE, TRAIN = f"{STAGE}/sample", f"{STAGE}/train"
OWNED: dict[str, tuple[str, ...]] = {SAMPLE: (f"blocks/{SAMPLE}",), TRAIN: ()}
MODEL, CARD = "models/tokenizer.model", "models/tokenizer.card.json"

SENTENCE_BYTES = 4_096
"""longer lines are cut here, since SentencePiece skips lines over its limit without a word"""
CARD_BYTES = 1 << 20
"""text of each source on which the card measures bytes a token"""
SAMPLE_SCHEMA = pa.schema([("key", pa.uint64()), ("source", pa.string()), ("text", pa.large_string())])


def sample_tasks(recipe: Recipe, annotated: dict[str, Receipt], clusters: Receipt) -> list[Task]:
    """One task a split; none when the recipe names a finished tokenizer."""
    if recipe.tokenizer.path is not None:
        return []
    code, shares = code_version(__name__), _shares(recipe, clusters.facts["text_bytes"])
    made = []
    for split, receipt in sorted(annotated.items()):
        source = split.partition("/")[0]
        fingerprint = sha256_json([code, recipe.seed, shares[source], receipt.sha(), clusters.sha()])
        size = receipt.outputs[0].bytes
        made.append(Task(SAMPLE, split, fingerprint, size, {"source": source, "share": shares[source]}))
    return made


def train_tasks(recipe: Recipe, samples: dict[str, Receipt]) -> list[Task]:
    """The one task that trains, or takes over the given model."""
    given = sha256_file(Path(recipe.tokenizer.path)) if recipe.tokenizer.path else None
    rules = recipe.tokenizer.model_dump(exclude={"path"} if given else {"path", "sample_bytes"})
    shas = [(name, receipt.sha()) for name, receipt in sorted(samples.items())]
    return [
        Task(
            TRAIN,
            "all",
            sha256_json([code_version(__name__), rules, given, shas]),
            arguments={"splits": sorted(samples)},
        )
    ]


def check(recipe: Recipe) -> None:
    """Raise UserError for a given tokenizer that cannot be used."""
    if recipe.tokenizer.path is not None:
        load(Path(recipe.tokenizer.path))


def load(path: Path) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model. Raises UserError for a file that is none, or has no BOS and EOS."""
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise UserError(f"tokenizer {path} cannot be read: give the path of a SentencePiece model") from error
    if model.bos_id() < 0 or model.eos_id() < 0:
        raise UserError(f"tokenizer {path} has no BOS or EOS piece: give a model trained with both")
    return model


def draw(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Draw one split's documents. `settings`: `seed`."""
    source, limit = task.arguments["source"], int(task.arguments["share"] * 2**64)
    verdicts = read_verdicts(corpus, task.name)
    drawn = []
    for number, row in enumerate(read_rows(corpus / f"clean/{task.name}.parquet")):
        key = order_key(settings["seed"], SAMPLE, row["id"])
        if key < limit and not verdicts.get(number, (b"", ""))[1]:
            drawn.append({"key": key, "source": source, "text": row["text"]})
    path = f"blocks/{SAMPLE}/{task.name}.arrow"
    batch = pa.RecordBatch.from_pylist(drawn, schema=SAMPLE_SCHEMA)
    with atomic_path(corpus / path) as temporary, pa.ipc.new_file(str(temporary), SAMPLE_SCHEMA) as writer:
        writer.write_batch(batch)
    return Result([path])


def train(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Train on the drawn documents, or copy the given model; write the model and its card."""
    rules = Tokenizer.model_validate(settings["tokenizer"])
    if rules.path is not None:
        with atomic_path(corpus / MODEL) as temporary:
            shutil.copyfile(rules.path, temporary)
        drawn = SAMPLE_SCHEMA.empty_table()
    else:
        drawn = _drawn(corpus, task.arguments["splits"])
        write_atomic(corpus / MODEL, train_bpe(drawn.column("text").to_pylist(), rules))
    model = load(corpus / MODEL)
    facts = {
        "sha256": sha256_file(corpus / MODEL),
        "vocabulary": model.get_piece_size(),
        "bos": model.bos_id(),
        "eos": model.eos_id(),
        "bytes_per_token": _bytes_per_token(model, drawn),
    }
    write_atomic(corpus / CARD, canonical_json({**facts, "settings": rules.model_dump(exclude={"path"})}))
    return Result([MODEL, CARD], {}, facts)


def train_bpe(texts: list[str], rules: Tokenizer) -> bytes:
    """A SentencePiece BPE model as LLaMA's: byte fallback, digits split, no normalisation, white space kept; ids 0, 1
    and 2 for unknown, BOS and EOS. Raises UserError when the text is too small for the vocabulary."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(texts),
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
            max_sentence_length=SENTENCE_BYTES,
            shuffle_input_sentence=False,
            num_threads=rules.threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        why = str(error).rpartition("] ")[2] or str(error)
        raise UserError(
            f"no tokenizer of {rules.vocabulary} pieces can be trained on {sum(map(len, texts))} characters ({why}): "
            "lower tokenizer.vocabulary or give more text"
        ) from error
    return model.getvalue()


def sentences(texts: list[str]) -> Iterator[str]:
    """Lines as the trainer takes them: none empty, none over `SENTENCE_BYTES` of UTF-8."""
    step = SENTENCE_BYTES // 4  # a character has at most four bytes
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), step):
                piece = line[start : start + step]
                if piece.strip():
                    yield piece


def _shares(recipe: Recipe, text_bytes: dict[str, int]) -> dict[str, float]:
    """The share of each source's text to draw, so that about `sample_bytes` come in proportion to the weights."""
    present = {name: source.weight for name, source in recipe.sources.items() if text_bytes.get(name)}
    whole = sum(present.values())
    budget = {name: recipe.tokenizer.sample_bytes * weight / whole for name, weight in present.items()}
    return {name: min(1.0, budget[name] / text_bytes[name]) if name in present else 0.0 for name in recipe.sources}


def _drawn(corpus: Path, splits: list[str]) -> pa.Table:
    """The drawn documents in the order of their keys."""
    parts = [SAMPLE_SCHEMA.empty_table()]
    for split in splits:
        with pa.memory_map(str(corpus / f"blocks/{SAMPLE}/{split}.arrow")) as mapped:
            parts.append(pa.ipc.open_file(mapped).read_all())
    return pa.concat_tables(parts).sort_by([("key", "ascending"), ("source", "ascending")])


def _bytes_per_token(model: sentencepiece.SentencePieceProcessor, drawn: pa.Table) -> dict[str, float]:
    """UTF-8 bytes a token on the first text of each source; four where there is none to measure on."""
    sizes: dict[str, list[int]] = {}
    for source, text in zip(drawn.column("source").to_pylist(), drawn.column("text").to_pylist(), strict=True):
        size = sizes.setdefault(source, [0, 0])
        if size[0] < CARD_BYTES:
            size[0] += len(text.encode("utf-8"))
            size[1] += len(model.encode(text))
    return {source: round(size / max(tokens, 1), 4) for source, (size, tokens) in sorted(sizes.items())}
