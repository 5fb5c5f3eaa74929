"""Write synthetic corpora for the trainer's tests. The tokens follow patterns that a model can learn."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import sentencepiece

from manifests.document import Locator, document_id
from manifests.files import sha256_file
from manifests.manifest import Manifest, ShardEntry, SourceEntry, TokenizerEntry, write_manifest
from manifests.shard import shard_schema, write_shard

VOCABULARY = 64


def write_corpus(corpus: Path, vocabulary: int = VOCABULARY, documents: int = 30) -> Path:
    """Write a corpus of two sources, each with three train shards and one validation shard."""
    sources = {}
    for number, (name, weight) in enumerate((("books", 0.25), ("web", 0.75))):
        train = [_shard(corpus, name, f"train-{i}", documents, 10 * number + i, vocabulary) for i in range(3)]
        sources[name] = SourceEntry(
            weight=weight,
            max_epochs=50.0,
            documents=4 * documents,
            unique_tokens=sum(entry.tokens for entry in train),
            train=train,
            validation=[_shard(corpus, name, "validation-0", documents, 10 * number + 5, vocabulary)],
        )
    _write_manifest(corpus, vocabulary, sources, "")
    return corpus


def _write_manifest(corpus: Path, vocabulary: int, sources: dict[str, SourceEntry], tokenizer: str) -> None:
    write_manifest(
        corpus,
        Manifest(
            seed=3,
            goal_tokens=1000,
            recipe={},
            recipe_sha="",
            tokenizer=TokenizerEntry(sha256=tokenizer, vocabulary=vocabulary, bos=1, eos=2, dtype="uint16"),
            models={},
            signatures={},
            sources=sources,
            ledger={},
            code={},
        ),
    )


def _shard(corpus: Path, source: str, name: str, documents: int, seed: int, vocabulary: int) -> ShardEntry:
    """Write a shard and return its manifest entry. The tokens of a document are an arithmetic progression."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(documents):
        locator = Locator(f"{source}.warc.gz", seed * 10_000 + number, 1)
        start, stride = chance.integers(3, 40), chance.integers(1, 4)
        body = (start + stride * np.arange(chance.integers(20, 90))) % (VOCABULARY - 3) + 3
        rows.append(
            {
                "tokens": [1, *body.tolist(), 2],
                "document": document_id(source, locator),
                "source": source,
                "url": f"http://{source}.example/{seed}/{number}",
                "cluster_size": 1,
                **locator.as_dict(),
            }
        )
    return _entry(corpus, f"{source}/{name}.arrow", rows, vocabulary)


def _entry(corpus: Path, name: str, rows: list[dict[str, object]], vocabulary: int) -> ShardEntry:
    """Write a shard of the given rows and return its manifest entry."""
    batch = pa.RecordBatch.from_pylist(rows, schema=shard_schema(vocabulary))
    path = corpus / "shards" / name
    write_shard(path, batch, {})
    return ShardEntry(
        path=name,
        sha256=sha256_file(path),
        bytes=path.stat().st_size,
        tokens=len(batch.column("tokens").values),
        documents=len(rows),
    )


def write_text_corpus(corpus: Path, vocabulary: int = 600) -> Path:
    """Write a corpus of one source, `docs`, which contains this repository's documentation.

    Its tokenizer is trained on the same texts, with the pipeline's options.
    """
    root = Path(__file__).parents[1]
    texts = [path.read_text(encoding="utf-8") for path in (root / "README.md", *sorted((root / "docs").glob("*.md")))]
    parts = [*enumerate(part for text in texts for part in text.split("\n\n") if part)]
    cut = len(parts) * 9 // 10
    return write_texts(corpus, parts[:cut], parts[cut:], vocabulary)


def write_texts(
    corpus: Path, train: list[tuple[int, str]], validation: list[tuple[int, str]], vocabulary: int = 600
) -> Path:
    """Write a corpus of one source, `docs`. Its tokenizer is trained on all texts, in order.

    Args:
        corpus: The folder to write.
        train: (number, text) of each training document. Equal numbers give equal ids of documents.
        validation: (number, text) of each validation document.
        vocabulary: The number of pieces of the tokenizer.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for _, text in (*train, *validation) for line in text.splitlines() if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        pad_id=-1,
        minloglevel=2,
    )
    path = corpus / "models/tokenizer.model"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    entries = []
    for name, texts in (("train-0", train), ("validation-0", validation)):
        rows = [
            {
                "tokens": [1, *pieces.encode(text), 2],
                "document": document_id("docs", locator),
                "source": "docs",
                "url": f"http://docs.example/{locator.offset}",
                "cluster_size": 1,
                **locator.as_dict(),
            }
            for number, text in texts
            for locator in [Locator("docs", number, 1)]
        ]
        entries.append(_entry(corpus, f"docs/{name}.arrow", rows, vocabulary))
    source = SourceEntry(
        weight=1.0,
        max_epochs=50.0,
        documents=len(train) + len(validation),
        unique_tokens=entries[0].tokens,
        train=entries[:1],
        validation=entries[1:],
    )
    _write_manifest(corpus, vocabulary, {"docs": source}, sha256_file(path))
    return corpus


def write_long_corpus(corpus: Path, documents: int, shards: int = 8, vocabulary: int = 32_000) -> Path:
    """Write a corpus of one source, `web`, with documents of 4,000 random tokens."""
    entries = []
    for number in range(shards):
        drawn = np.random.default_rng(number).integers(3, vocabulary, (documents // shards, 4_000), np.uint16)
        drawn[:, 0], drawn[:, -1] = 1, 2
        offsets = np.arange(0, drawn.size + 1, 4_000)
        places = [Locator("web", number * documents + row, 1) for row in range(len(drawn))]
        columns = {name: [place.as_dict()[name] for place in places] for name in places[0].as_dict()}
        schema = shard_schema(vocabulary)
        known = {
            "tokens": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(drawn.reshape(-1))),
            "document": [document_id("web", place) for place in places],
            "source": ["web"] * len(places),
            "url": [""] * len(places),
            "cluster_size": [1] * len(places),
            **columns,
        }
        batch = pa.RecordBatch.from_arrays(
            [pa.array(known[f.name], f.type) if f.name != "tokens" else known["tokens"] for f in schema], schema=schema
        )
        path = corpus / f"shards/web/train-{number}.arrow"
        write_shard(path, batch, {})
        entries.append(
            ShardEntry(
                path=f"web/train-{number}.arrow",
                sha256=sha256_file(path),
                bytes=path.stat().st_size,
                tokens=drawn.size,
                documents=len(drawn),
            )
        )
    source = SourceEntry(
        weight=1.0,
        max_epochs=1e6,
        documents=documents,
        unique_tokens=sum(entry.tokens for entry in entries),
        train=entries,
        validation=[],
    )
    _write_manifest(corpus, vocabulary, {"web": source}, "")
    return corpus
