"""De-duplication beyond one small corpus: exact verification, scopes, large buckets, and earlier corpora."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus import SHARED
from executed import covered_by_versions
from hypothesis import given
from hypothesis import strategies as st

from filters.dedup.containment import Containment
from filters.dedup.minhash import MinHash, shingle_hashes
from filters.errors import UserError
from manifests.ledger import tally_from
from manifests.manifest import load_manifest
from manifests.recipe import Recipe, parse_recipe
from manifests.shard import open_shard
from pipeline.beam.engines import Engine
from pipeline.beam.tables import read_rows
from pipeline.dedup import neardup, signatures
from pipeline.run import run

WORDS = np.array(
    [
        "the",
        "keeper",
        "walked",
        "down",
        "to",
        "harbour",
        "and",
        "counted",
        "boats",
        "that",
        "had",
        "come",
        "home",
        "bells",
    ]
)


def prose(seed: int, length: int = 200) -> str:
    chance = np.random.default_rng(seed)
    numbers = chance.integers(0, 9, length).tolist()
    return " ".join(
        f"{word}{number}" for word, number in zip(chance.choice(WORDS, length).tolist(), numbers, strict=True)
    )


def edited(text: str, every: int) -> str:
    """The text with one word in so many replaced."""
    return " ".join("edited" + str(n) if n % every == every - 1 else word for n, word in enumerate(text.split()))


def dumps(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def recipe(folder: Path, pattern: str = "**", **deduplication: object) -> Recipe:
    return parse_recipe(
        {
            "name": "x",
            "seed": 1,
            "goal_tokens": 1000,
            "sources": {"books": {"weight": 1.0, "inputs": [str(folder / pattern)]}},
            "deduplication": {"canaries": 0, **deduplication},
            "tokenizer": {"vocabulary": 300},
        },
        "r",
    )


Found = tuple[set[str], dict[str, tuple[str, float]]]  # files that stay, and those removed with reason and similarity


def build(made: Recipe, out: Path) -> Found:
    """Build a corpus; what stays is what its shards hold."""
    done = run(made, out, Engine(1, (), out / "runs", quiet=True))
    assert done.manifest is not None
    names, removed = documents(out)
    stayed = {
        names[identity]
        for entry in done.manifest.shards()
        for identity in open_shard(out / "shards" / entry.path).batch.column("document").to_pylist()
    }
    assert stayed == set(names.values()) - set(removed)
    return stayed, removed


def deduplicate(made: Recipe, out: Path) -> Found:
    """Run the stages up to the last one that removes documents."""
    run(made, out, Engine(1, (), out / "runs", quiet=True), only="clusters")
    names, removed = documents(out)
    return set(names.values()) - set(removed), removed


def documents(out: Path) -> tuple[dict[bytes, str], dict[str, tuple[str, float]]]:
    """The files of the clean documents by id, and what was removed."""
    names = {row["id"]: row["file"] for path in (out / "clean").rglob("*.parquet") for row in read_rows(path)}
    table = pq.read_table(out / "duplicates/clusters-00000-of-00001.parquet").to_pylist()
    return names, {names[row["removed"]]: (row["reason"], row["similarity"]) for row in table}


def jaccard(a: str, b: str) -> float:
    left, right = (set(shingle_hashes(text, MinHash()).tolist()) for text in (a, b))
    return len(left & right) / len(left | right)


def test_exact_verification_has_no_false_positive_and_misses_no_candidate(tmp_path: Path) -> None:
    texts = {f"{n:02d}/base.txt": prose(n) for n in range(12)}
    for n in range(12):
        texts[f"{n:02d}/near.txt"] = edited(texts[f"{n:02d}/base.txt"], 15 + 6 * n)
    folder = dumps(tmp_path / "dumps", texts)
    rules = {"bands": 60, "rows": 2, "threshold": 0.7, "verify": "exact"}
    with covered_by_versions():
        _, removed = deduplicate(recipe(folder, minhash=rules, survivor=[]), tmp_path / "out")
    alike = {n for n in range(12) if jaccard(texts[f"{n:02d}/base.txt"], texts[f"{n:02d}/near.txt"]) >= 0.7}
    assert 0 < len(alike) < 12
    assert {int(name[:2]) for name in removed} == alike


@pytest.mark.parametrize(("scope", "stay"), [("dump", 4), ("source", 2), ("all", 2)])
def test_duplicates_are_looked_for_within_the_scope(tmp_path: Path, scope: str, stay: int) -> None:
    base = prose(1)
    texts = {
        "CC-MAIN-2019-30/a.txt": base,
        "CC-MAIN-2019-30/b.txt": base,
        "CC-MAIN-2020-05/a.txt": base,
        "CC-MAIN-2020-05/b.txt": edited(base, 60),
        "CC-MAIN-2020-05/c.txt": prose(2),
        "CC-MAIN-2019-30/c.txt": prose(3) if scope != "dump" else prose(2),
    }
    folder = dumps(tmp_path / "dumps", texts)
    stayed, _ = deduplicate(recipe(folder, scope=scope), tmp_path / "out")
    assert len(stayed) == stay if scope == "dump" else len(stayed) == stay + 1


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 6))
def test_a_large_bucket_is_divided_and_keeps_its_head(keys: list[int], limit: int) -> None:
    pairs = np.zeros(len(keys), neardup.KEY)
    pairs["key"], pairs["row"] = np.sort(np.array(keys, np.uint64)), np.arange(len(keys))
    divided, buckets = neardup.divide_buckets(pairs, limit)
    sizes = Counter(keys)
    assert buckets == sum(size > limit for size in sizes.values())
    found: dict[int, list[int]] = {}
    for key, row in zip(divided["key"].tolist(), divided["row"].tolist(), strict=True):
        found.setdefault(key, []).append(row)
    assert all(len(rows) <= limit + 1 for rows in found.values())
    key_of = pairs["key"].tolist()
    for rows in found.values():
        assert len({key_of[row] for row in rows}) == 1, "parts never mix buckets"
        head = key_of.index(key_of[rows[0]])
        assert head in rows, "the bucket's first member is in each part"
    assert {row for rows in found.values() for row in rows} == set(range(len(keys)))


def test_a_divided_bucket_still_finds_its_duplicates(tmp_path: Path) -> None:
    texts = {f"{n:02d}.txt": edited(prose(1), 70) + f" {n} copy" for n in range(12)}
    folder = dumps(tmp_path / "dumps", texts)
    whole, _ = deduplicate(recipe(folder), tmp_path / "whole")
    parts, _ = deduplicate(recipe(folder, minhash={"bucket": 3}), tmp_path / "parts")
    assert whole == parts and len(whole) == 1


CRAWLS = {
    "CC-MAIN-2019-30/a.txt": prose(1),
    "CC-MAIN-2019-30/b.txt": edited(prose(1), 80),
    "CC-MAIN-2019-30/c.txt": prose(2),
    "CC-MAIN-2019-30/d.txt": prose(3),
    "CC-MAIN-2020-05/a.txt": edited(prose(1), 70),
    "CC-MAIN-2020-05/c.txt": prose(2),
    "CC-MAIN-2020-05/e.txt": prose(4),
    "CC-MAIN-2020-05/f.txt": edited(prose(4), 90),
    "CC-MAIN-2020-05/g.txt": prose(5),
}


@pytest.fixture
def crawls(tmp_path: Path) -> Path:
    return dumps(tmp_path / "dumps", CRAWLS)


POLICY = {"survivor": ["dump", "longest"]}


def test_a_new_dump_beside_an_earlier_corpus_keeps_what_both_at_once_would(crawls: Path, tmp_path: Path) -> None:
    joint, _ = deduplicate(recipe(crawls, **POLICY), tmp_path / "joint")
    first, _ = build(recipe(crawls, "**/CC-MAIN-2019-30/*", **POLICY), tmp_path / "first")
    for path in (tmp_path / "first/clean").rglob("*.parquet"):
        path.write_bytes(b"")  # its text is not read again
    made = recipe(crawls, "**/CC-MAIN-2020-05/*", **POLICY, against=[str(tmp_path / "first")])
    second, removed = build(made, tmp_path / "second")
    assert first | second == joint and not first & second
    assert "CC-MAIN-2020-05/a.txt" in removed and "CC-MAIN-2020-05/c.txt" in removed
    kept = pq.read_table(tmp_path / "second/duplicates/clusters-00000-of-00001.parquet").column("kept").to_pylist()
    assert len(set(kept)) == 3, "two of the earlier corpus, one of the new"


def test_an_earlier_corpus_that_cannot_be_compared_with_is_refused_by_name(
    crawls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(recipe(crawls, "**/CC-MAIN-2019-30/*"), tmp_path / "first")
    foreign = recipe(crawls, against=[str(tmp_path / "first")], minhash={"bands": 10, "rows": 4})
    with pytest.raises(UserError, match=r"first has signatures of the scheme .*14x8.* this recipe's is .*10x4"):
        deduplicate(foreign, tmp_path / "out")
    with monkeypatch.context() as older:
        older.setitem(signatures.COMPARED_COLUMNS, "cleanest", "counted since")
        books = recipe(crawls, against=[str(tmp_path / "first")], survivor=["cleanest"])
        with pytest.raises(UserError, match=r"cleanest compares what .*first was built without: rebuild that corpus"):
            deduplicate(books, tmp_path / "out")
    with pytest.raises(UserError, match=r"s3://a/corpus is in an object store: copy that corpus to a disk"):
        deduplicate(recipe(crawls, against=["s3://a/corpus"]), tmp_path / "out")
    same = recipe(crawls, against=[str(tmp_path / "first")])
    damaged = next((tmp_path / "first/blocks/signatures").rglob("a.txt.arrow"))
    stored = bytearray(damaged.read_bytes())
    stored[len(stored) // 2] ^= 1
    damaged.write_bytes(stored)
    with pytest.raises(UserError, match=r"a\.txt\.arrow is not what its run wrote"):
        deduplicate(same, tmp_path / "out")
    with pytest.raises(UserError, match="is not a folder"):
        deduplicate(recipe(crawls, against=[str(tmp_path / "nowhere")]), tmp_path / "out")
    assert load_manifest(tmp_path / "first").signatures


def test_what_an_earlier_corpus_removes_counts_whenever_it_changes_and_must_be_whole(tmp_path: Path) -> None:
    """An earlier corpus is built again with another policy, and keeps other copies: its signatures stay the same."""
    texts = {f"CC-MAIN-2019-30/{n}-{copy}.txt": prose(n) + copy for n in range(6) for copy in ("", " longer")}
    texts |= {f"CC-MAIN-2020-05/{n}.txt": prose(n) + " also" for n in range(6)}
    folder, corpora = dumps(tmp_path / "dumps", texts), [tmp_path / name for name in ("first", "again", "new")]
    first, again, new = corpora

    def find_kept(out: Path) -> list[bytes]:
        deduplicate(recipe(folder, "**/CC-MAIN-2020-05/*", against=[str(first)]), out)
        table = pq.read_table(out / "duplicates/clusters-00000-of-00001.parquet")
        found: list[bytes] = table.column("kept").to_pylist()
        return found

    stayed, _ = build(recipe(folder, "**/CC-MAIN-2019-30/*", survivor=["longest"]), first)
    before = find_kept(again)
    assert build(recipe(folder, "**/CC-MAIN-2019-30/*", survivor=[]), first)[0] != stayed
    assert before != find_kept(again) == find_kept(new)
    verdicts = next((first / "verdicts/clusters").rglob("*.arrow"))
    verdicts.write_bytes(verdicts.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"{verdicts.name} is not what its run wrote: rebuild"):
        find_kept(new)


def test_a_book_within_another_goes_and_what_it_links_stays(tmp_path: Path) -> None:
    """A tale in two anthologies: the tale goes, both anthologies stay; a copy of the tale goes with it."""
    tale, others = prose(1, 2000), [prose(n, 6000) for n in (2, 3)]
    texts = {
        "tale.txt": tale,
        "tale-again.txt": tale + " the end",
        "first-anthology.txt": f"{others[0]} {tale}",
        "second-anthology.txt": f"{tale} {others[1]}",
        "another.txt": prose(4, 2000),
    }
    folder = dumps(tmp_path / "dumps", texts)
    plain = recipe(folder)
    rules = plain.sources["books"].model_copy(update={"containment": Containment()})
    made = plain.model_copy(update={"sources": {"books": rules}})
    with covered_by_versions():
        stayed, removed = build(made, tmp_path / "out")
    assert stayed == {"first-anthology.txt", "second-anthology.txt", "another.txt"}
    assert Counter(reason for reason, _ in removed.values()) == {"contained": 1, "near-duplicate": 1}
    assert next(share for reason, share in removed.values() if reason == "contained") >= 0.9
    without, _ = deduplicate(plain, tmp_path / "without")
    assert len(without & {"tale.txt", "tale-again.txt"}) == 1
    ledger = load_manifest(tmp_path / "out").ledger
    assert tally_from(ledger["neardup"]["books"]).dropped["contained"]["records"] == 1


EDITIONS = [
    {"a-alice_in_wonderland", "b-11-0"},
    {"a-time_machine", "b-35-0"},
    {"a-legend_of_sleepy_hollow", "b-41-0"},
    {"a-jekyll_and_hyde", "b-43-0"},
    {"a-modest_proposal", "b-pg1080"},
    {"a-pride_and_prejudice", "b-Pride_and_Prejudice_JaneAusten", "b-archive__project-gutenberg-data__pg1342"},
    {"a-sherlock_holmes", "b-archive__project-gutenberg-data__pg1661"},
    {"a-dorian_gray", "b-pg174"},
    {"a-metamorphosis", "b-pg5200"},
    {"a-importance_of_being_earnest", "b-pg844"},
]
"""SOURCES.md of the sample data, checked by exact containment in tests/test_containment.py"""


@pytest.mark.skipif(not (SHARED / "gutenberg").is_dir(), reason="the real sample data is not here")
def test_of_each_real_book_one_edition_stays(tmp_path: Path) -> None:
    plain = recipe(SHARED / "gutenberg", "*.gz")
    rules = plain.sources["books"].model_copy(update={"containment": Containment()})
    stayed, _ = deduplicate(plain.model_copy(update={"sources": {"books": rules}}), tmp_path / "out")
    names = {name.removesuffix(".txt.gz") for name in stayed}
    assert [sorted(edition & names) for edition in EDITIONS if len(edition & names) != 1] == []
