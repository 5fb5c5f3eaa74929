"""tokenize: encode the documents that de-duplication kept, and write them as shuffled token shards.

A mapper encodes one split and sends each document to its shard, which follows from the side (train or validation) and
the range of the document's keyed hash. A reducer sorts the documents of one shard by keyed hash and writes the shard.
So the documents of each source are shuffled globally. Both work on Arrow columns, and the memory of a mapper does not
grow with its split. Whole duplicate clusters are assigned to a side, so that no near-duplicate of a validation document
is in the training data.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sentencepiece

from filters.models.sentencepiece import encode_texts
from manifests.document import LOCATOR_FIELDS, order_key
from manifests.ledger import Tally
from manifests.recipe import Recipe
from manifests.shard import shard_schema, token_dtype, write_shard
from pipeline.beam.exchange import Mapped, runs
from pipeline.beam.step import Keyed, Receipt, Result, Step, Unit
from pipeline.dedup.survivors import Verdict, read_verdicts
from pipeline.stages.tokenizer import MODEL, load

STAGE = "tokenize"
PARTS, SHARDS = f"{STAGE}/parts", f"{STAGE}/shards"

# Text that is encoded at once: the limit that is reached first applies. A batch holds at least one whole document.
BATCH_BYTES, BATCH_ROWS = 4 << 20, 1_024
SPILL_BYTES = 64 << 20  # Bytes of rows that a mapper holds in memory before it writes them as blocks.
SHARD_DOCUMENTS = 1 << 21  # Documents per shard. The columns of a shard have 32-bit offsets, which limits its size.
# Bytes per token of a source without text on the tokenizer's card. LLaMA's English web text has about 3.9.
UNMEASURED_BYTES_PER_TOKEN = 4.0

# Source -> side -> (number of the first shard among all shards, number of shards).
ShardPlan = dict[str, dict[str, tuple[int, int]]]


def tokenize_steps(
    recipe: Recipe, recipe_sha: str, clean: Sequence[Unit], clusters: Receipt, trained: Receipt, generation: int
) -> tuple[Step, Step]:
    """Return the two steps that write shards: one with a mapper per split, one with a reducer per shard.

    Args:
        recipe: Recipe of the run.
        recipe_sha: Hash of the recipe, for the metadata of the shards.
        clean: Units that read the clean documents of a split, from `survivor_units`.
        clusters: Receipt of the step that chooses the survivors.
        trained: Receipt of the step that trains the tokenizer.
        generation: Number of the generation. A number above 0 becomes part of the shards' names.
    """
    plan = plan_shards(recipe, clusters, trained)
    facts = {"sha256": trained.facts["sha256"], "vocabulary": trained.facts["vocabulary"], "seed": recipe.seed}
    by_source = {source: {"source": source, "sides": sides} for source, sides in plan.items()}
    model = Keyed(facts["sha256"], trained.outputs_below("models"))  # The key names the file, so that mappers fetch it.
    settings = {**facts, "sha256": model, "held_out": recipe.shards.validation}
    mark = f"g{generation}-" if generation else ""
    reduces = [
        Unit(f"{source}/{side}-{mark}{index:05d}-of-{count:05d}", {"source": source, "side": side, "index": index})
        for source, sides in plan.items()
        for side, (_, count) in sides.items()
        for index in range(count)
    ]  # Listed in the order of the shard numbers.
    reducing = Step(SHARDS, write_documents, reduces, {**facts, "recipe_sha": recipe_sha}, owns=("shards",))
    return Step(PARTS, encode_documents, clean, settings, by_source), reducing


def encode_documents(
    corpus: Path,
    split: str,
    *,
    source: str,
    sides: dict[str, tuple[int, int]],
    held_out: float,
    sha256: str,
    vocabulary: int,
    seed: int,
    verdicts: str = "",
) -> Mapped:
    """Encode the documents of one split, and send them by shard as Arrow record batches of `part_schema`.

    Blocks are written whenever `SPILL_BYTES` are held, so a shard may receive several blocks from one split. The tally
    is complete when the last block has been read.
    """
    tally, model = Tally(), tokenizer(str(corpus / MODEL), sha256)

    def blocks() -> Iterator[tuple[int, bytes]]:
        others: list[pa.RecordBatch] = []
        documents: list[npt.NDArray[Any]] = []
        numbers: list[int] = []
        size = 0
        for batch, verdicts_on in _read_survivors(corpus, split, verdicts):
            texts, ids = batch.column("text").to_pylist(), batch.column("id").to_pylist()
            tokens = encode_texts(texts, model, vocabulary)
            characters, count = sum(map(len, texts)), sum(map(len, tokens))
            tally.enter(records=len(ids), characters=characters)
            tally.keep(records=len(ids), characters=characters, tokens=count)
            keys = [order_key(seed, "shuffle", identity) for identity in ids]
            for key, verdict in zip(keys, verdicts_on, strict=True):
                first, shards = sides[side_of(verdict.cluster, seed, held_out)]
                numbers.append(first + (key * shards >> 64))
            sizes = [verdict.size for verdict in verdicts_on]
            others.append(_take_other_columns(batch, keys, sizes, source, vocabulary))
            documents += tokens
            size += others[-1].nbytes + sum(values.nbytes for values in tokens)
            if size >= SPILL_BYTES:
                yield from _cut_by_shard(others, documents, numbers, vocabulary)
                others, documents, numbers, size = [], [], [], 0
        yield from _cut_by_shard(others, documents, numbers, vocabulary)

    return Mapped(blocks(), {source: tally})


def write_documents(
    corpus: Path,
    shard: str,
    blocks: list[bytes],
    *,
    source: str,
    side: str,
    index: int,
    sha256: str,
    vocabulary: int,
    seed: int,
    recipe_sha: str,
) -> Result:
    """Write one shard: all documents of its range, sorted by key. The blocks and the shard are held in memory."""
    schema = part_schema(vocabulary)
    batch = join_parts([pa.ipc.read_record_batch(pa.py_buffer(block), schema) for block in blocks], vocabulary)
    path = f"shards/{shard}.arrow"
    metadata = {
        "tokenizer_sha256": sha256,
        "recipe_sha256": recipe_sha,
        "source": source,
        "side": side,
        "index": str(index),
        "seed": str(seed),
    }
    write_shard(corpus / path, batch, metadata)
    urls = pc.sum(pc.greater(pc.binary_length(batch.column("url")), 0)).as_py() or 0
    facts = {"documents": batch.num_rows, "tokens": len(batch.column("tokens").values), "urls": urls}
    return Result([path], {}, facts)


def plan_shards(recipe: Recipe, clusters: Receipt, trained: Receipt) -> ShardPlan:
    """Return the shard numbers of each source and side.

    The number of shards is the estimated number of tokens (bytes of text / bytes per token on the tokenizer's card)
    divided by the recipe's tokens per shard. It does not depend on the number of workers.
    """
    found: ShardPlan = {}
    number = 0
    for source in sorted(clusters.facts["text_bytes"]):
        per_token = trained.facts["bytes_per_token"].get(source, UNMEASURED_BYTES_PER_TOKEN)
        tokens = clusters.facts["text_bytes"][source] / per_token
        documents = clusters.tallies[source].out["records"]
        held_out = recipe.shards.validation
        found[source] = {}
        for side, share in (("train", 1 - held_out), ("validation", held_out)):
            few = -(-int(documents * share) // SHARD_DOCUMENTS)
            count = max(1, few, round(tokens * share / recipe.shards.tokens))
            found[source][side] = (number, count)
            number += count
    return found


def join_parts(parts: list[pa.RecordBatch], vocabulary: int) -> pa.RecordBatch:
    """Join batches of `part_schema` to one batch of `shard_schema`, sorted by key, then by document id.

    Most of the bytes are tokens. They are copied only once, directly to their final position.
    """
    schema = shard_schema(vocabulary)
    if not parts:
        return pa.RecordBatch.from_pylist([], schema=schema)
    table = pa.Table.from_batches(parts, part_schema(vocabulary))
    order = pc.sort_indices(table.select(["key", "document"]), [("key", "ascending"), ("document", "ascending")])
    others = table.drop_columns(["key", "tokens"]).combine_chunks().take(order)
    lengths = np.concatenate([np.diff(part.column("tokens").offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths[order])])
    places = np.empty(len(order), np.int64)
    places[order] = offsets[:-1]
    values, row = np.empty(int(offsets[-1]), token_dtype(vocabulary)), 0
    for part in parts:
        column = part.column("tokens")
        given, edges = column.values.to_numpy(), column.offsets.to_numpy().tolist()
        for place, start, end in zip(places[row : row + len(column)].tolist(), edges[:-1], edges[1:], strict=True):
            values[place : place + end - start] = given[start:end]
        row += len(column)
    (other,) = others.to_batches()
    columns = {name: other.column(name) for name in other.schema.names}
    columns["tokens"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def side_of(cluster: bytes, seed: int, held_out: float) -> str:
    """Return the side of a cluster: `validation` for a share of `held_out` of all keyed hashes, otherwise `train`."""
    return "validation" if order_key(seed, "validation", cluster) < int(held_out * 2**64) else "train"


@lru_cache(maxsize=2)
def tokenizer(path: str, sha256: str) -> sentencepiece.SentencePieceProcessor:
    """Load the tokenizer once per process. `sha256` is part of the cache key, since the file may be retrained."""
    return load(Path(path))


def _read_survivors(corpus: Path, split: str, verdicts: str) -> Iterator[tuple[pa.RecordBatch, list[Verdict]]]:
    """Yield batches of the documents of a split that are kept, each with the list of the documents' verdicts.

    A batch has about `BATCH_BYTES` of text at most. A document without duplicates gets a verdict whose cluster is its
    own id, with size 1.
    """
    in_clusters = read_verdicts(corpus, verdicts)
    columns = ["id", "text", "url", *(name for name, _ in LOCATOR_FIELDS)]
    first = 0
    with pq.ParquetFile(corpus / f"clean/{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            found = [in_clusters.get(first + row) for row in range(batch.num_rows)]
            first += batch.num_rows
            stays = [verdict is None or not verdict.reason for verdict in found]
            batch = batch.filter(pa.array(stays, pa.bool_()))
            kept = [verdict for verdict, stay in zip(found, stays, strict=True) if stay]
            ids = batch.column("id").to_pylist()
            alone = (Verdict(identity, "", 1) for identity in ids)
            known = [verdict or single for verdict, single in zip(kept, alone, strict=True)]
            edges = np.concatenate([[0], np.cumsum(pc.binary_length(batch.column("text")).to_numpy())])
            start = 0
            while start < batch.num_rows:
                stop = max(start + 1, int(np.searchsorted(edges, edges[start] + BATCH_BYTES, side="right")) - 1)
                yield batch.slice(start, stop - start), known[start:stop]
                start = stop


def _take_other_columns(
    batch: pa.RecordBatch, keys: list[int], sizes: list[int], source: str, vocabulary: int
) -> pa.RecordBatch:
    """Return the columns of `part_schema` except `tokens` for a batch of documents."""
    columns = {name: batch.column(name) for name in ("url", *(name for name, _ in LOCATOR_FIELDS))}
    columns |= {
        "key": pa.array(keys, pa.uint64()),
        "document": batch.column("id"),
        "source": pa.repeat(source, batch.num_rows),
        "cluster_size": pa.array(sizes, pa.uint32()),
    }
    schema = part_schema(vocabulary)
    return pa.RecordBatch.from_pydict(columns, schema=schema.remove(schema.get_field_index("tokens")))


def _cut_by_shard(
    others: list[pa.RecordBatch], documents: list[npt.NDArray[Any]], numbers: list[int], vocabulary: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of each shard as (number of the shard, serialized record batch).

    Args:
        others: Batches without the column `tokens`.
        documents: Tokens of each row.
        numbers: Number of the shard of each row.
        vocabulary: Size of the vocabulary, which decides the dtype of tokens.
    """
    if not others:
        return
    held, schema = np.array(numbers), part_schema(vocabulary)
    order = np.argsort(held, kind="stable")
    table = pa.Table.from_batches(others).combine_chunks().take(pa.array(order))
    for shard, start, stop in runs(held[order]):
        # Tokens are joined with NumPy, because Arrow's `take` would need 8 bytes per token.
        rows = [documents[row] for row in order[start:stop].tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(values) for values in rows])])
        (batch,) = table.slice(start, stop - start).to_batches()
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns["tokens"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))
        yield shard, pa.RecordBatch.from_pydict(columns, schema=schema).serialize().to_pybytes()


def part_schema(vocabulary: int) -> pa.Schema:
    """Return the schema of blocks: the sort key `key`, then the columns of a shard."""
    return pa.schema([("key", pa.uint64()), *shard_schema(vocabulary)])
