"""Test token shards: other libraries can read them, documents are shuffled, memory is limited, block order is free."""

import itertools
import math
import random
import unittest.mock
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import mirror, storage
from manifests.document import CLEAN_SCHEMA, Document, Locator, Part, content_hash, document_id
from manifests.ledger import Tally
from manifests.recipe import Recipe, Tokenizer, parse_recipe
from manifests.shard import find_token_bytes, open_shard, shard_schema, write_shard
from pipeline.beam.exchange import Mapped
from pipeline.beam.step import Receipt
from pipeline.beam.tables import table_writer
from pipeline.dedup.signatures import verdict_path
from pipeline.dedup.survivors import VERDICT_SCHEMA
from pipeline.stages import tokenize
from pipeline.stages.tokenizer import MODEL, train_bpe

VOCABULARY, DOMAINS, SHARDS = 300, 8, 4
WORDS = [
    "the",
    "lamp",
    "was",
    "lit",
    "before",
    "keeper",
    "had",
    "written",
    "one",
    "line",
    "of",
    "0123456789",
    "entries",
]
ROWS = [
    {
        "tokens": [1, *[7] * number, 2],
        "document": document_id("web", locator),
        "source": "web",
        "url": f"http://x.example/{number}" if number else "",
        "cluster_size": 1 + number,
        **locator.as_dict(),
    }
    for number in range(5)
    for locator in [Locator("f.gz", number, 1, parts=(Part("a", 1, 2), Part("b", 3, 4, "m")) if number == 2 else ())]
]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000-of-00001.arrow"
    write_shard(path, pa.RecordBatch.from_pylist(ROWS, schema=shard_schema(VOCABULARY)), {"source": "web"})
    return path


def test_of_a_stored_shard_all_is_read_but_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This must hold for columns and shards of any size."""
    monkeypatch.setattr(mirror, "END_BYTES", 4 << 10)
    monkeypatch.setattr(storage, "RANGE_BYTES", 1 << 10)
    store = (tmp_path / "store").as_uri()
    for documents, length in ((0, 0), (1, 3), (3, 50_000), (200, 900)):
        rows = [ROWS[n % len(ROWS)] | {"tokens": [1, *[7] * length, 2]} for n in range(documents)]
        write_shard(
            tmp_path / "store/x.arrow", pa.RecordBatch.from_pylist(rows, schema=shard_schema(VOCABULARY)), {"a": "b"}
        )
        machine = mirror.open_mirror(tmp_path / "machine", store)
        before = machine.storage.requests["get"]
        with mirror.stored_copy(machine.folder, "x.arrow", find_token_bytes) as path:
            found = open_shard(path)
        whole = open_shard(tmp_path / "store/x.arrow")
        assert found.batch.drop_columns("tokens").equals(whole.batch.drop_columns("tokens"))
        assert (found.offsets == whole.offsets).all() and len(found.tokens) == len(whole.tokens)
        assert found.metadata == whole.metadata
        if length > 100:
            assert not found.tokens.all(), "unread"
            rest = (tmp_path / "store/x.arrow").stat().st_size - whole.tokens.nbytes
            assert (machine.storage.requests["get"] - before) << 10 < rest + (20 << 10)
    with mirror.stored_copy(machine.folder, "y.arrow", find_token_bytes) as path:
        assert not path.exists()
    (tmp_path / "store/z.arrow").write_bytes(b"no shard" * 10_000)
    with (
        mirror.stored_copy(machine.folder, "z.arrow", find_token_bytes) as path,
        pytest.raises((pa.ArrowInvalid, OSError)),
    ):
        open_shard(path)


def test_pyarrow_maps_a_shard_without_a_copy(shard: Path) -> None:
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(shard)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        assert table.to_pylist() == ROWS
        tokens = table.column("tokens").chunk(0).values.to_numpy(zero_copy_only=True)
        assert pa.total_allocated_bytes() == before
        assert tokens.tolist() == [token for row in ROWS for token in row["tokens"]] and tokens.dtype == np.uint16


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_a_shard(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "arrow", data_files={"train": str(shard)}, split="train", cache_dir=str(tmp_path / "cache"), streaming=streaming
    )
    assert list(loaded) == ROWS


def test_polars_reads_a_shard(shard: Path) -> None:
    polars = pytest.importorskip("polars")
    assert polars.read_ipc(shard).to_dicts() == ROWS
    found = polars.scan_ipc(shard).filter(polars.col("url").str.ends_with("/3")).collect()
    assert found["tokens"].to_list() == [[1, 7, 7, 7, 2]] and found["tokens"].dtype == polars.List(polars.UInt16)


def test_duckdb_queries_a_shard_through_arrow(shard: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    import pyarrow.dataset

    shards = pyarrow.dataset.dataset(shard, format="ipc")
    with duckdb.connect() as connection:
        connection.register("shards", shards)
        assert connection.sql("select count(*), sum(len(tokens))::int from shards").fetchall() == [(5, 20)]
        found = connection.sql("select document, tokens, parts from shards where url = 'http://x.example/2'").fetchall()
        assert found == [(ROWS[2]["document"], ROWS[2]["tokens"], ROWS[2]["parts"])]


def domain_of(number: int) -> str:
    """Return the domain of a page. Forty consecutive pages have the same domain, similar to the order of a crawl."""
    return f"site{number // 40 % DOMAINS}.example"


def write_clean(corpus: Path, split: str, first: int, count: int, words: int = 4) -> None:
    """Write a file of `count` clean documents, numbered from `first`."""
    chance = random.Random(first)
    source = split.partition("/")[0]
    with table_writer(corpus / f"clean/{split}.parquet", CLEAN_SCHEMA) as writer:
        for number in range(first, first + count):
            text = " ".join(chance.choices(WORDS, k=words))
            url = f"http://{domain_of(number)}/{number}"
            row = Document(source, Locator(split, number, 1), text, url).as_row()
            signals = dict.fromkeys(("language", "language_score", "perplexity", "bucket", "reference_score"))
            writer.append({**row, **signals, "content_hash": content_hash(text)})


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus with three splits of two thousand clean documents each, and a tokenizer."""
    corpus = tmp_path_factory.mktemp("clean")
    (corpus / "models").mkdir()
    (corpus / MODEL).write_bytes(train_bpe([" ".join(WORDS) * 20], Tokenizer(vocabulary=VOCABULARY)))
    for number in range(3):
        write_clean(corpus, f"web/{number}.gz", 2_000 * number, 2_000)
    return corpus


def facts(seed: int = 1) -> dict:
    return {"source": "web", "seed": seed, "sha256": str(seed), "vocabulary": VOCABULARY}


def encode(corpus: Path, split: str, held_out: float = 0.1, seed: int = 1) -> Mapped:
    sides = {"train": (0, SHARDS), "validation": (SHARDS, 1)}
    verdicts = verdict_path(split) if (corpus / verdict_path(split)).exists() else ""
    return tokenize.encode_documents(corpus, split, sides=sides, held_out=held_out, verdicts=verdicts, **facts(seed))


def blocks_of(corpus: Path, splits: list[str], **chosen: float) -> tuple[dict[int, list[bytes]], Tally]:
    """Return the blocks that mappers write, by shard number, and the sum of their tallies."""
    found, whole = defaultdict(list), Tally()
    for split in splits:
        mapped = encode(corpus, split, **chosen)
        for number, block in mapped.blocks:
            found[number].append(block)
        whole.add(mapped.tallies["web"])
    return found, whole


def write_shards(corpus: Path, blocks: dict[int, list[bytes]], seed: int = 1) -> list[Path]:
    """Write all shards as the reducers do; return their paths."""
    written = []
    for number in range(SHARDS + 1):
        side, index = ("train", number) if number < SHARDS else ("validation", 0)
        place = {"side": side, "index": index, "recipe_sha": "r"}
        result = tokenize.write_documents(corpus, f"web/{side}-{index}", blocks.get(number, []), **place, **facts(seed))
        assert result.facts["urls"] == result.facts["documents"]
        written.append(corpus / result.paths[0])
    return written


def rows_of(path: Path) -> list[int]:
    """Return the numbers of the documents of a shard, in the order of its rows."""
    return open_shard(path).batch.column("offset").to_pylist()


SPLITS = ["web/0.gz", "web/1.gz", "web/2.gz"]


@pytest.fixture(scope="module")
def order(clean: Path) -> list[list[int]]:
    """Return the numbers of the documents of each train shard, in the order of its rows."""
    blocks, tally = blocks_of(clean, SPLITS)
    paths = write_shards(clean, blocks)
    held = [rows_of(path) for path in paths]
    assert sorted(number for some in held for number in some) == list(range(6_000))
    tokens = sum(len(open_shard(path).tokens) for path in paths)
    assert tally.out == {"records": 6_000, "characters": tally.entered["characters"], "tokens": tokens}
    assert abs(len(held[-1]) - 600) < 5 * math.sqrt(540)
    return held[:-1]


def flat(parts: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(parts))


def chi_square(rows: list[int], columns: list[int]) -> float:
    """Return Pearson's chi-square statistic of independence as a standard normal deviate (Wilson and Hilferty 1931)."""
    table = np.zeros((max(rows) + 1, max(columns) + 1))
    np.add.at(table, (rows, columns), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    statistic = float(((table - expected) ** 2 / expected).sum())
    return ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


def deviates(order: list[list[int]]) -> Iterator[float]:
    """Yield deviates of the independence between a document's position in the shards and its domain or input order."""
    domain = [[number // 40 % DOMAINS for number in some] for some in order]
    when = [[number // 300 for number in some] for some in order]
    shard = [[index] * len(some) for index, some in enumerate(order)]
    tenth = [[10 * place // len(some) for place in range(len(some))] for some in order]
    held = {name: flat(parts) for name, parts in {"d": domain, "w": when, "s": shard, "t": tenth}.items()}
    for place in "st":
        for what in "dw":
            yield chi_square(held[place], held[what])
    for what in (domain, when):  # Independence between neighbouring documents.
        yield chi_square(flat(some[:-1] for some in what), flat(some[1:] for some in what))


def test_documents_are_shuffled_uniformly_over_domains_and_input_order(order: list[list[int]]) -> None:
    found = list(deviates(order))
    assert len(found) == 6 and all(abs(deviate) < 3.5 for deviate in found), found


def test_that_test_would_see_input_order_and_a_shuffle_within_files_only() -> None:
    straight = [list(range(1_500 * index, 1_500 * (index + 1))) for index in range(SHARDS)]
    local = [random.Random(1).sample(some, len(some)) for some in straight]
    for wrong in (straight, local):
        assert max(deviates(wrong)) > 20


def test_another_seed_gives_another_order_and_other_sides(clean: Path, order: list[list[int]], tmp_path: Path) -> None:
    for folder in ("clean", "models"):
        (tmp_path / folder).symlink_to(clean / folder)
    other = [rows_of(path) for path in write_shards(tmp_path, blocks_of(tmp_path, SPLITS, seed=2)[0], seed=2)[:-1]]
    assert other != order
    assert set(flat(other)) != set(flat(order))


def test_shards_do_not_depend_on_how_blocks_were_cut_or_in_what_order_they_came(clean: Path, tmp_path: Path) -> None:
    whole, _ = blocks_of(clean, SPLITS)
    paths = write_shards(clean, whole)
    wanted = [path.read_bytes() for path in paths]
    for folder in ("clean", "models"):
        (tmp_path / folder).symlink_to(clean / folder)
    small = {"SPILL_BYTES": 20_000, "BATCH_ROWS": 37, "BATCH_BYTES": 500}
    with unittest.mock.patch.multiple(tokenize, **small):
        cut, _ = blocks_of(tmp_path, SPLITS[::-1])
    assert sum(map(len, cut.values())) > 10 * sum(map(len, whole.values()))
    for blocks in cut.values():
        random.Random(1).shuffle(blocks)
    assert [path.read_bytes() for path in write_shards(tmp_path, cut)] == wanted


def test_a_shard_without_documents_is_one_of_no_rows(tmp_path: Path) -> None:
    place = {"side": "train", "index": 0, "recipe_sha": "r"}
    result = tokenize.write_documents(tmp_path, "web/train-0", [], **place, **facts())
    assert result.facts == {"documents": 0, "tokens": 0, "urls": 0}
    opened = open_shard(tmp_path / result.paths[0])
    assert opened.batch.schema.equals(shard_schema(VOCABULARY)) and len(opened.tokens) == 0


def test_documents_of_one_cluster_are_on_one_side(clean: Path, tmp_path: Path) -> None:
    """The side depends only on the cluster, even if its documents are in different splits and sources."""
    (tmp_path / "models").symlink_to(clean / "models")
    clusters = [bytes([number]) * 16 for number in range(40)]
    for split in SPLITS[:2]:
        write_clean(tmp_path, split, 0 if split == SPLITS[0] else 5_000, 40)
        rows = {"row": list(range(40)), "cluster": clusters, "reason": [""] * 39 + ["near-duplicate"]}
        rows["cluster_size"] = [2] * 40
        path = tmp_path / verdict_path(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), VERDICT_SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_pydict(rows, schema=VERDICT_SCHEMA))
    paths = write_shards(tmp_path, blocks_of(tmp_path, SPLITS[:2], held_out=0.5)[0])
    sides = [set(flat(map(rows_of, paths[:-1]))), set(rows_of(paths[-1]))]
    assert [sorted(number % 5_000 for number in side) for side in sides] == [
        sorted(2 * list({number % 5_000 for number in side})) for side in sides
    ]
    assert sum(map(len, sides)) == 78 and min(map(len, sides)) > 20


def test_a_mapper_holds_no_more_of_a_larger_split(tmp_path: Path) -> None:
    """Compare the memory of Arrow while blocks are written with the spill limit. Tokens are faked, not encoded."""
    spill, peaks = 1 << 19, []

    def fake(texts: list[str], _model: object, _vocabulary: int) -> list[np.ndarray]:
        return [np.full(len(text) // 2, 5, np.uint16) for text in texts]

    for count in (1_000, 8_000):
        write_clean(tmp_path, f"web/{count}.gz", 0, count, words=300)
        size = sum(pq.ParquetFile(tmp_path / f"clean/web/{count}.gz.parquet").metadata.row_group(g).total_byte_size
                   for g in range(count // 4_096 + 1))  # fmt: skip
        patches = {"SPILL_BYTES": spill, "encode_texts": fake, "tokenizer": lambda *_: None}
        with unittest.mock.patch.multiple(tokenize, **patches):
            before, most, sent = pa.total_allocated_bytes(), 0, 0
            for _, block in encode(tmp_path, f"web/{count}.gz").blocks:
                most, sent = max(most, pa.total_allocated_bytes() - before), sent + len(block)
        assert sent > count * 500 and size > sent / 2
        peaks.append(most)
    assert sent > 16 * spill
    assert peaks[1] < 1.5 * peaks[0] + (1 << 19)


def receipts(text_bytes: int, documents: int, per_token: dict[str, float]) -> tuple[Receipt, Receipt]:
    tally = Tally()
    tally.keep(records=documents)
    clusters = Receipt("", [], {"web": tally}, {"text_bytes": {"web": text_bytes}})
    return clusters, Receipt("", [], {}, {"bytes_per_token": per_token})


def recipe(tokens: int, validation: float) -> Recipe:
    shards = {"tokens": tokens, "validation": validation}
    return parse_recipe(
        {"name": "r", "seed": 1, "goal_tokens": 1, "sources": {"web": {"weight": 1.0, "kind": "c4"}}, "shards": shards},
        "r",
    )


def test_the_number_of_shards_follows_from_text_card_and_documents() -> None:
    assert tokenize.plan_shards(recipe(1_000, 0.1), *receipts(40_000, 50, {"web": 4.0}))["web"] == {
        "train": (0, 9),
        "validation": (9, 1),
    }
    assert tokenize.plan_shards(recipe(1_000, 0.1), *receipts(40_000, 50, {"web": 2.0}))["web"]["train"] == (0, 18)
    assert tokenize.plan_shards(recipe(1_000, 0.1), *receipts(40_000, 50, {}))["web"]["train"] == (0, 9)
    tiny = tokenize.plan_shards(recipe(1 << 28, 0.0), *receipts(10**9, 100_000_000, {"web": 4.0}))["web"]
    assert tiny["train"] == (0, -(-100_000_000 // tokenize.SHARD_DOCUMENTS))
