"""tokenize: survivors -> token shards, globally shuffled by keyed hash within each source.

A mapper encodes a split and cuts its documents by (side, key range); a reducer sorts one range and writes one shard.
The validation side is drawn by duplicate cluster, so that no near-duplicate crosses it.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import sentencepiece

from filters.tokens import encode_texts
from manifests.document import order_key
from manifests.files import sha256_json
from manifests.ledger import Tally
from manifests.recipe import Recipe
from manifests.shard import shard_schema, write_shard
from pipeline.exchange import Mapped
from pipeline.fingerprint import code_version
from pipeline.job import Receipt, Result, Task
from pipeline.stages.survivors import read_verdicts
from pipeline.stages.tokenizer import MODEL, load
from pipeline.tables import read_rows

STAGE = "tokenize"
PARTS, SHARDS = f"{STAGE}/parts", f"{STAGE}/shards"
OWNED = {PARTS: (f"blocks/{PARTS}",), SHARDS: ("shards",)}

BATCH_CHARACTERS = 4 << 20
"""text that is encoded at once"""
UNMEASURED_BYTES_PER_TOKEN = 4.0
"""where the tokenizer's card measured none (LLaMA's English web text: about 3.9)"""

Buckets = dict[str, dict[str, tuple[int, int]]]
"""source -> side -> (number of its first shard among all, how many it has)"""


def buckets(recipe: Recipe, clusters: Receipt, trained: Receipt) -> Buckets:
    """How many shards each source gets: follows from its text and the tokenizer's card, never from the workers."""
    found: Buckets = {}
    number = 0
    for source in sorted(clusters.facts["text_bytes"]):
        per_token = trained.facts["bytes_per_token"].get(source, UNMEASURED_BYTES_PER_TOKEN)
        tokens = clusters.facts["text_bytes"][source] / per_token
        held_out = recipe.shards.validation
        found[source] = {}
        for side, share in (("train", 1 - held_out), ("validation", held_out)):
            count = max(1, round(tokens * share / recipe.shards.tokens))
            found[source][side] = (number, count)
            number += count
    return found


def map_tasks(recipe: Recipe, annotated: dict[str, Receipt], clusters: Receipt, trained: Receipt) -> list[Task]:
    """One mapper a split."""
    code, plan = code_version(__name__), buckets(recipe, clusters, trained)
    made = []
    for split, receipt in sorted(annotated.items()):
        parts = [code, recipe.seed, recipe.shards.validation, plan, receipt.sha(), clusters.sha(), trained.sha()]
        source = split.partition("/")[0]
        made.append(Task(PARTS, split, sha256_json(parts), receipt.outputs[0].bytes, {"source": source}))
    return made


def reduce_tasks(recipe_sha: str, plan: Buckets, maps: list[Task]) -> list[Task]:
    """One reducer a shard, in the order of their numbers."""
    fingerprint = sha256_json([recipe_sha, [(task.name, task.fingerprint) for task in maps]])
    made = []
    for source, sides in plan.items():
        for side, (_, count) in sides.items():
            for index in range(count):
                name = f"{source}/{side}-{index:05d}-of-{count:05d}"
                arguments = {"source": source, "side": side, "index": index}
                made.append(Task(SHARDS, name, fingerprint, arguments=arguments))
    return made


def settings(recipe: Recipe, recipe_sha: str, plan: Buckets, trained: Receipt) -> dict[str, Any]:
    """What the workers need to know."""
    facts = {key: trained.facts[key] for key in ("sha256", "vocabulary", "bos", "eos")}
    shards = recipe.shards.model_dump()
    return {"seed": recipe.seed, "recipe_sha": recipe_sha, "plan": plan, "tokenizer": facts, "shards": shards}


def encode(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The tokens of one split, by shard, as Arrow IPC bytes."""
    source, tally = task.arguments["source"], Tally()
    plan, seed, held_out = settings["plan"][source], settings["seed"], settings["shards"]["validation"]
    model = tokenizer(str(corpus / MODEL), settings["tokenizer"]["sha256"])
    verdicts = read_verdicts(corpus, task.name)
    rows: dict[int, list[dict[str, Any]]] = {}
    for batch in _batches(corpus / f"clean/{task.name}.parquet", verdicts):
        tokens = encode_texts([row["text"] for _, row in batch], model, settings["tokenizer"]["vocabulary"])
        for (number, row), values in zip(batch, tokens, strict=True):
            characters = len(row.pop("text"))
            tally.enter(records=1, characters=characters)
            tally.keep(records=1, characters=characters, tokens=len(values))
            cluster = verdicts.get(number, (row["id"], ""))[0]
            first, count = plan[side_of(cluster, seed, held_out)]
            key = order_key(seed, "shuffle", row["id"])
            rows.setdefault(first + (key * count >> 64), []).append(
                {**row, "key": key, "tokens": values, "document": row["id"], "source": source}
            )
    schema = _part_schema(settings["tokenizer"]["vocabulary"])
    blocks = ((bucket, _ipc(pa.RecordBatch.from_pylist(rows[bucket], schema=schema))) for bucket in sorted(rows))
    return Mapped(blocks, {source: tally}, {})


def write(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """One shard: all documents of its range, in the order of their keys."""
    vocabulary = settings["tokenizer"]["vocabulary"]
    parts = [pa.ipc.open_stream(block).read_all() for block in blocks]
    table = pa.concat_tables([_part_schema(vocabulary).empty_table(), *parts])
    table = table.sort_by([("key", "ascending"), ("document", "ascending")]).drop_columns(["key"]).combine_chunks()
    batches = table.to_batches()
    batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=shard_schema(vocabulary))
    path = f"shards/{task.name}.arrow"
    metadata = {
        "tokenizer_sha256": settings["tokenizer"]["sha256"],
        "recipe_sha256": settings["recipe_sha"],
        "source": task.arguments["source"],
        "side": task.arguments["side"],
        "index": str(task.arguments["index"]),
        "seed": str(settings["seed"]),
    }
    write_shard(corpus / path, batch, metadata)
    return Result([path], {}, {"documents": batch.num_rows, "tokens": len(batch.column("tokens").values)})


def side_of(cluster: bytes, seed: int, held_out: float) -> str:
    """`validation` for a share of the clusters chosen by keyed hash, `train` for the rest."""
    return "validation" if order_key(seed, "validation", cluster) < int(held_out * 2**64) else "train"


@lru_cache(maxsize=2)
def tokenizer(path: str, sha256: str) -> sentencepiece.SentencePieceProcessor:
    """The model, loaded once a process; `sha256` tells a retrained one from the one before."""
    return load(Path(path))


def _batches(path: Path, verdicts: dict[int, tuple[bytes, str]]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """The survivors of a clean file with their row numbers, in batches of bounded text."""
    batch: list[tuple[int, dict[str, Any]]] = []
    characters = 0
    for number, row in enumerate(read_rows(path)):
        if verdicts.get(number, (b"", ""))[1]:
            continue
        batch.append((number, row))
        characters += len(row["text"])
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _part_schema(vocabulary: int) -> pa.Schema:
    return pa.schema([("key", pa.uint64()), *shard_schema(vocabulary)])


def _ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
