"""Test the index: every candidate is compared with its shard, and each file contains one range of keys."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import find as benchmark
from filters.errors import UserError
from manifests.document import Locator, document_id
from manifests.index import (
    ENTRY,
    Index,
    PartName,
    Place,
    checksum_entries,
    id_keys,
    open_part,
    pack_entries,
    parse_name,
    part_of,
    url_key,
    url_keys,
    write_part,
)
from manifests.shard import open_shard, shard_schema, write_shard
from manifests.tools.corpus import CorpusReader
from pipeline.beam.exchange import range_of

KEYS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(2**64 - 5, 2**64 - 1))


def shard(corpus: Path, name: str, urls: list[str], seed: int = 0) -> list[bytes]:
    """Write a shard of small documents with the given URLs; return their ids."""
    locators = [Locator(f"{name}.warc.gz", seed + number, 1) for number in range(len(urls))]
    ids = [document_id("web", locator) for locator in locators]
    rows = [
        {"tokens": [1, 5, 2], "document": identity, "source": "web", "url": url, "cluster_size": 1, **locator.as_dict()}
        for identity, url, locator in zip(ids, urls, locators, strict=True)
    ]
    write_shard(corpus / "shards" / name, pa.RecordBatch.from_pylist(rows, schema=shard_schema(300)), {})
    return ids


def index_of(corpus: Path, names: list[str], generation: int = 0, parts: int = 2) -> Index:
    """Write the index of shards and open it."""
    found: dict[str, list] = {"ids": [], "urls": []}
    for number, name in enumerate(names):
        batch = open_shard(corpus / "shards" / name).batch
        found["ids"].append(pack_entries(id_keys(batch.column("document")), number, np.arange(batch.num_rows)))
        keys, rows = url_keys(batch.column("url"))
        found["urls"].append(pack_entries(keys, number, rows))
    written = []
    for kind, packed in found.items():
        joined = np.concatenate(packed)
        numbers = range_of(joined["key"], parts)
        for number in range(parts):
            path = PartName(kind, generation, parts, number)
            written.append(write_part(corpus / "index", path, joined[numbers == number], names).name)
    return Index(corpus, written)


def test_keys_are_what_they_are_said_to_be() -> None:
    ids = [bytes(range(16)), b"\xff" * 16]
    column = pa.array([b"\0" * 16, *ids], pa.binary(16)).slice(1)
    assert id_keys(column).tolist() == [0x0001020304050607, 2**64 - 1]
    assert url_key("http://a.example/é") == int(hashlib.sha256("http://a.example/é".encode()).hexdigest()[:16], 16)
    keys, rows = url_keys(pa.array(["http://a/", "", None, "http://b/"]))
    assert keys.tolist() == [url_key("http://a/"), url_key("http://b/")] and rows.tolist() == [0, 3]


def test_every_document_is_found_by_id_beginning_and_url(tmp_path: Path) -> None:
    urls = [[f"http://{name}.example/{n}" if n % 5 else "" for n in range(40)] for name in "ab"]
    names = ["web/a.arrow", "web/b.arrow"]
    ids = [shard(tmp_path, name, some, 100 * i) for i, (name, some) in enumerate(zip(names, urls, strict=True))]
    index = index_of(tmp_path, names, parts=3)
    for name, some, of_shard in zip(names, urls, ids, strict=True):
        for row, (url, identity) in enumerate(zip(some, of_shard, strict=True)):
            assert list(index.find_id(identity)) == [Place(name, row)]
            assert list(index.find_prefix(identity.hex()[:20])) == [Place(name, row)]
            if url:
                assert list(index.find_url(url)) == [Place(name, row)]
    for digit in "0123456789abcdef":
        wanted = sorted((i, n) for n, some in enumerate(ids) for i in some if i.hex().startswith(digit))
        assert [index.shard(p.shard).row(p.row)["document"] for p in index.find_prefix(digit)] == [i for i, _ in wanted]
    assert list(index.find_id(b"\0" * 16)) == [] == list(index.find_url("http://a.example/no"))
    assert list(index.find_url("")) == []


def test_a_url_that_several_documents_share_gives_all(tmp_path: Path) -> None:
    shard(tmp_path, "web/a.arrow", ["http://x/", "http://y/", "http://x/"])
    shard(tmp_path, "web/b.arrow", ["http://x/"], 50)
    index = index_of(tmp_path, ["web/a.arrow", "web/b.arrow"])
    assert list(index.find_url("http://x/")) == [
        Place("web/a.arrow", 0),
        Place("web/a.arrow", 2),
        Place("web/b.arrow", 0),
    ]


def test_colliding_keys_are_told_apart_by_the_shards_own_columns(tmp_path: Path) -> None:
    ids = shard(tmp_path, "web/a.arrow", ["http://x/", "http://y/", "http://z/"])
    forged = np.empty(3, ENTRY)
    forged["shard"], forged["row"] = 0, [0, 1, 2]
    forged["key"] = url_key("http://y/")
    names = [write_part(tmp_path / "index", PartName("urls", 0, 1, 0), forged, ["web/a.arrow"]).name]
    forged["key"] = int.from_bytes(ids[2][:8], "big")
    names.append(write_part(tmp_path / "index", PartName("ids", 0, 1, 0), forged, ["web/a.arrow"]).name)
    index = Index(tmp_path, names)
    assert len(list(index.candidates("urls", url_key("http://y/"), url_key("http://y/")))) == 3
    assert list(index.find_url("http://y/")) == [Place("web/a.arrow", 1)]
    assert list(index.find_id(ids[2])) == [Place("web/a.arrow", 2)]
    assert list(index.find_prefix(ids[2].hex()[:16])) == [Place("web/a.arrow", 2)]


def test_both_generations_are_searched(tmp_path: Path) -> None:
    old = shard(tmp_path, "web/a.arrow", ["http://x/"])
    new = shard(tmp_path, "web/train-g1.arrow", ["http://x/", "http://new/"], 9)
    first = index_of(tmp_path, ["web/a.arrow"])
    index = Index(tmp_path, [*names(first), *names(index_of(tmp_path, ["web/train-g1.arrow"], 1, 1))])
    assert list(index.find_url("http://x/")) == [Place("web/a.arrow", 0), Place("web/train-g1.arrow", 0)]
    assert list(index.find_id(old[0])) == [Place("web/a.arrow", 0)]
    assert list(index.find_id(new[1])) == [Place("web/train-g1.arrow", 1)]


def names(index: Index) -> list[str]:
    return [str(PartName(k, g, n, i)) for (k, g), n in index.groups.items() for i in range(n)]


@given(st.lists(KEYS, max_size=60), st.lists(KEYS, max_size=10), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_candidates_are_those_of_a_scan(
    tmp_path_factory: pytest.TempPathFactory, held: list, asked: list, parts: int
) -> None:
    folder = tmp_path_factory.mktemp("index")
    packed = pack_entries(np.array(held, np.uint64), 0, np.arange(len(held)))
    numbers = range_of(packed["key"], parts)
    written = []
    for number in range(parts):
        path = write_part(folder / "index", PartName("ids", 0, parts, number), packed[numbers == number], ["s"])
        written.append(path.name)
        part = open_part(path)
        assert part.name.covers(part.keys) and (np.diff(part.keys) >= 0).all() if len(part.keys) > 1 else True
    index = Index(folder, written)
    for low in [*held, *asked]:
        for high in [low, *asked]:
            wanted = sorted((key, row) for row, key in enumerate(held) if low <= key <= high)
            assert [place.row for place in index.candidates("ids", low, high)] == [row for _, row in wanted]


def test_names_say_what_they_mean_and_nothing_else_is_one() -> None:
    for name in (PartName("ids", 0, 3, 2), PartName("urls", 12, 123456, 0)):
        assert parse_name(str(name)) == name
    for wrong in (
        "ids-00000.arrow",
        "ids-00003-of-00003.arrow",
        "ids-g0-00000-of-00001.arrow",
        "x-00000-of-00001.arrow",
        "ids-000000-of-00001.arrow",
        "urls-00000-of-00000.arrow",
    ):
        assert parse_name(wrong) is None
    assert [part_of(key, 3) for key in (0, 2**64 // 3, 2**64 - 1)] == range_of(
        np.array([0, 2**64 // 3, 2**64 - 1], np.uint64), 3
    ).tolist()


def test_sums_are_equal_for_equal_sets_alone() -> None:
    chance = np.random.default_rng(1)
    packed = pack_entries(chance.integers(0, 2**64, 100, np.uint64), 0, np.arange(100))
    packed["shard"] = chance.integers(0, 3, 100)

    def sums(packed: np.ndarray) -> np.ndarray:
        return checksum_entries(packed["key"], packed["shard"], packed["row"], 3)

    whole = sums(packed)
    assert whole[:, 0].tolist() == np.bincount(packed["shard"], minlength=3).tolist()
    assert (sums(packed[chance.permutation(100)]) == whole).all()
    assert (sums(packed[:40]) + sums(packed[40:]) == whole).all()
    for column in ENTRY.names or ():
        changed = packed.copy()
        changed[column][7] = (changed[column][7] + 1) % 3 if column == "shard" else changed[column][7] + 1
        assert (sums(changed) != whole).any()


def test_what_is_no_index_file_is_refused(tmp_path: Path) -> None:
    shard(tmp_path, "web/a.arrow", ["http://x/"])
    (tmp_path / "index").mkdir()
    name = "ids-00000-of-00001.arrow"
    (tmp_path / "index" / name).write_bytes((tmp_path / "shards/web/a.arrow").read_bytes())
    with pytest.raises(UserError, match=r"ids-00000-of-00001\.arrow cannot be read"):
        list(Index(tmp_path, [name]).find_id(b"\0" * 16))
    (tmp_path / "index" / name).unlink()
    with pytest.raises(UserError, match="manifests verify"):
        list(Index(tmp_path, [name]).find_id(b"\0" * 16))


def test_an_entry_of_no_shard_is_one_sentence(tmp_path: Path) -> None:
    path = write_part(
        tmp_path / "index", PartName("ids", 0, 1, 0), pack_entries(np.array([5], np.uint64), 3, [0]), ["s"]
    )
    with pytest.raises(UserError, match="manifests verify"):
        list(Index(tmp_path, [path.name]).candidates("ids", 0, 9))


@pytest.mark.parametrize("documents", [5_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_find_and_trace_touch_little_of_a_large_corpus(tmp_path: Path, documents: int) -> None:
    """The test measures the anonymous memory of complete commands. It does not measure time."""
    manifest = benchmark.write_corpus(tmp_path, documents, documents // 10)
    assert sum(entry.rows for entry in manifest.index if entry.path.startswith("ids")) == documents
    index = CorpusReader(tmp_path).index
    for entry in manifest.shards():
        for row in (0, entry.documents // 2, entry.documents - 1):
            columns = index.shard(entry.path).row(row)
            for find in (index.find_id, index.find_url):
                column = "document" if find == index.find_id else "url"
                assert list(find(columns[column])) == [Place(entry.path, row)]
    for question in benchmark.measured_commands(tmp_path).values():
        _, _, anonymous = benchmark.measure_command(tmp_path, *question)
        assert anonymous < 200e6
