"""De-duplication of a small corpus: who goes, who stays, under each survivor policy; and the plumbing around it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.dedup.minhash import MinHash
from filters.reasons import Reason
from manifests.document import locator_from
from manifests.recipe import parse_recipe
from pipeline.beam.engines import Engine
from pipeline.beam.tables import GROUP_ROWS, read_rows, table_writer
from pipeline.dedup.signatures import ROW_BITS, Lookup, SignatureRows, signature_path
from pipeline.run import run

WORDS = [
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
    "before",
    "storm",
    "while",
    "bells",
    "rang",
    "over",
]


def prose(seed: int, length: int = 300) -> str:
    chance = np.random.default_rng(seed)
    return " ".join(chance.choice(WORDS, length)) + "."


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    base = prose(1)
    near = base.replace(".", " and the transcriber saw the end.")
    texts = {
        "early/base.txt": base,
        "late/copy.txt": base,
        "late/near.txt": near,
        "early/other.txt": prose(2),
        "late/another.txt": prose(3),
        "late/empty-of-words.txt": "... !!! ...",
        "early/empty-of-words.txt": "... !!! ...",
    }
    for name, text in texts.items():
        path = tmp_path / "dumps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "dumps"


def deduplicate(dumps: Path, out: Path, **deduplication: object) -> tuple[set[str], dict[str, str]]:
    """Names of the files whose documents stay, and of those that go with their reasons."""
    plain = {
        "name": "x",
        "seed": 1,
        "goal_tokens": 1000,
        "sources": {
            name: {"weight": 0.5, "kind": "books", "inputs": [str(dumps / name / "*")]} for name in ("early", "late")
        },
        "deduplication": {"canaries": 0, **deduplication},
        "tokenizer": {"vocabulary": 320},
    }
    run(parse_recipe(plain, "r"), out, Engine(1, (), out / "runs", quiet=True), only="clusters")
    ids = {
        row["id"]: f"{source}/{locator_from(row).file}"
        for source in ("early", "late")
        for path in (out / "clean" / source).iterdir()
        for row in read_rows(path)
    }
    table = pq.read_table(out / "duplicates/clusters-00000-of-00001.parquet").to_pylist()
    removed = {ids[row["removed"]]: row["reason"] for row in table}
    return set(ids.values()) - set(removed), removed


OTHERS = {"early/other.txt", "late/another.txt"}


@pytest.mark.parametrize(
    ("policy", "stays"),
    [
        ({"survivor": ["source"], "source_priority": ["early", "late"]}, "early/base.txt"),
        ({"survivor": ["longest"]}, "late/near.txt"),
        ({"survivor": ["cleanest", "source"], "source_priority": ["early", "late"]}, "early/base.txt"),
        ({"survivor": ["source", "longest"], "source_priority": ["late", "early"]}, "late/near.txt"),
    ],
)
def test_the_survivor_is_the_policys(dumps: Path, tmp_path: Path, policy: dict, stays: str) -> None:
    stayed, removed = deduplicate(dumps, tmp_path / "out", **policy)
    cluster = {"early/base.txt", "late/copy.txt", "late/near.txt"}
    assert stayed & cluster == {stays} and set(removed) >= cluster - {stays}
    assert stayed >= OTHERS
    expected = Reason.EXACT_DUPLICATE if stays == "early/base.txt" else Reason.NEAR_DUPLICATE
    assert removed["late/copy.txt" if stays == "early/base.txt" else "early/base.txt"] in {
        expected,
        Reason.EXACT_DUPLICATE,
    }


def test_texts_without_a_word_are_exact_duplicates_only(dumps: Path, tmp_path: Path) -> None:
    stayed, removed = deduplicate(dumps, tmp_path / "out")
    names = {"early/empty-of-words.txt", "late/empty-of-words.txt"}
    assert len(stayed & names) == 1
    assert [removed[name] for name in names if name in removed] == [Reason.EXACT_DUPLICATE]


def test_each_kind_can_be_left_out(dumps: Path, tmp_path: Path) -> None:
    stayed, removed = deduplicate(dumps, tmp_path / "exact", minhash=None)
    assert "late/near.txt" in stayed and set(removed.values()) == {Reason.EXACT_DUPLICATE}
    stayed, removed = deduplicate(dumps, tmp_path / "none", minhash=None, exact=False)
    assert len(stayed) == 7 and not removed


def test_unlike_documents_that_share_a_band_are_not_joined(dumps: Path, tmp_path: Path) -> None:
    """One row a band: chance candidates everywhere, and verification refuses them."""
    stayed, _ = deduplicate(dumps, tmp_path / "out", minhash={"bands": 64, "rows": 1, "threshold": 0.8})
    assert stayed >= OTHERS


def test_rows_are_looked_up_in_the_order_asked_for(tmp_path: Path) -> None:
    texts = {split: [prose(10 * n + i) for i in range(4)] for n, split in enumerate(("a/x", "a/y"))}
    for split, found in texts.items():
        rows = SignatureRows(MinHash())
        for number, text in enumerate(found):
            rows.append(f"{split}{number}".ljust(16).encode(), b"h" * 16, text, "")
        rows.write(tmp_path / signature_path(split))
    lookup = Lookup([tmp_path / signature_path(split) for split in ("a/x", "a/y")])
    asked = [(1, 3), (0, 2), (1, 0), (0, 0), (0, 2)]
    references = np.array([(split << ROW_BITS) + row for split, row in asked], np.int64)
    expected = [f"{('a/x', 'a/y')[split]}{row}".ljust(16).encode() for split, row in asked]
    assert lookup.column("id", references).to_pylist() == expected
    single = [lookup.signatures(references[i : i + 1])[0] for i in range(len(asked))]
    assert np.array_equal(lookup.signatures(references), np.stack(single))


def test_tables_are_cut_into_groups_and_keep_their_order(tmp_path: Path) -> None:
    from manifests.document import DOCUMENT_SCHEMA as SCHEMA
    from manifests.document import Document, Locator

    rows = [Document("books", Locator("a", n, 1), f"text {n}").as_row() for n in range(GROUP_ROWS + 10)]
    for name in ("one", "two"):
        with table_writer(tmp_path / name, SCHEMA) as writer:
            for row in rows:
                writer.append(row)
    assert pq.ParquetFile(tmp_path / "one").num_row_groups == 2
    assert [row["text"] for row in read_rows(tmp_path / "one")] == [row["text"] for row in rows]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
