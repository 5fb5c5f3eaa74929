"""Test `diff`: it counts exactly the documents of only one corpus for any key ranges, and compares all other parts."""

import json
import random
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from corpus import FIRST, build, demo_recipe, keep_sources, under, with_rule
from indexed import copy_verified_files

from filters.errors import UserError
from manifests.__main__ import main
from manifests.index import FOLDER, Index, PartName, id_keys, pack_entries, part_of, write_part
from manifests.manifest import load_manifest, write_manifest
from manifests.shard import shard_schema, write_shard
from manifests.tools.diff import compare_indexes, diff
from manifests.tools.sample import SampleQuery
from manifests.tools.sample import sample as draw


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


def toy_index(folder: Path, generations: list[list[bytes]], parts: list[int]) -> Index:
    """Write shards and index of the documents of each generation.

    The first byte of an id determines the number of tokens of the document.
    """
    names = []
    for generation, (ids, count) in enumerate(zip(generations, parts, strict=True)):
        paths = [f"web/train-g{generation}-0000{number}-of-00002.arrow" for number in range(2)]
        packed = []
        for number, path in enumerate(paths):
            mine = ids[number::2]
            rows = [{"tokens": [7] * one[0], "document": one, "parts": []} for one in mine]
            batch = pa.RecordBatch.from_pylist(rows, schema=shard_schema(300))
            write_shard(folder / "shards" / path, batch, {})
            packed.append(pack_entries(id_keys(batch.column("document")), number, np.arange(len(mine), dtype="u4")))
        whole = np.concatenate(packed)
        of_part = np.array([part_of(int(key), count) for key in whole["key"]], int)
        for number in range(count):
            name = PartName("ids", generation, count, number)
            write_part(folder / FOLDER, name, whole[of_part == number], paths)
            names.append(str(name))
    return Index(folder, names)


def totals(counts: dict[str, dict[str, int]]) -> tuple[int, int]:
    return sum(c["documents"] for c in counts.values()), sum(c["tokens"] for c in counts.values())


def test_only_is_the_difference_of_sets(tmp_path: Path) -> None:
    for case in range(30):
        chance = random.Random(case)
        pool = [chance.randbytes(16) for _ in range(chance.randrange(1, 200))]
        sides = []
        for side in "ab":
            mine = [one for one in pool if chance.random() < 0.7]
            cut = chance.randrange(len(mine) + 1)
            generations = [mine[:cut], mine[cut:]][: chance.randrange(1, 3)]
            ids = {one for generation in generations for one in generation}
            index = toy_index(tmp_path / f"{case}{side}", generations, [chance.randrange(1, 4) for _ in generations])
            sides.append((ids, index))
        (a, index_a), (b, index_b) = sides
        with mock.patch("manifests.tools.diff.ENTRIES_AT_ONCE", chance.choice([1, 7, 1000])):
            only_a, only_b = compare_indexes(index_a, index_b)
        assert totals(only_a) == (len(a - b), sum(one[0] for one in a - b))
        assert totals(only_b) == (len(b - a), sum(one[0] for one in b - a))


def test_memory_is_that_of_pieces(tmp_path: Path) -> None:
    chance = random.Random(1)
    ids = [b"\x01" + chance.randbytes(15) for _ in range(3000)]
    index = toy_index(tmp_path, [ids], [3])
    held = []
    real = np.isin

    def watched(mine: np.ndarray, theirs: np.ndarray, **options: str) -> np.ndarray:
        held.append(len(mine) + len(theirs))
        return real(mine, theirs, **options)

    with mock.patch("manifests.tools.diff.ENTRIES_AT_ONCE", 50), mock.patch("manifests.tools.diff.np.isin", watched):
        assert compare_indexes(index, index) == ({}, {})
    assert max(held) <= 100 and len(held) >= 2 * 3000 // 50


def test_a_corpus_is_equal_to_itself_wherever_it_lies(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = copy_verified_files(corpus, tmp_path / "moved")
    assert main(["diff", str(corpus), str(moved)]) == 0
    assert "the same corpus" in capsys.readouterr().out
    found = diff(corpus, moved)
    assert found.equal and found.documents["books"]["both"]["documents"] == 6


def test_another_recipe_shows_in_recipe_ledger_and_documents(
    first_corpus: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, other = first_corpus, tmp_path / "other"
    recipe = with_rule(demo_recipe(sample), "common_crawl", "c4", min_sentences=8)
    inputs = under(sample, {**FIRST, "common_crawl": FIRST["common_crawl"][:1]})
    build(keep_sources(recipe, inputs), other)
    found = diff(corpus, other)
    assert found.recipe == {"sources.common_crawl.filters.c4.min_sentences": [3, 8]}
    assert found.inputs == {"common_crawl": {"gone": ["broken.warc.gz"]}}
    ids = [{one.facts["document"] for one in draw(folder, SampleQuery(number=999)).drawn} for folder in (corpus, other)]
    counted = found.documents
    for side, alone in (("only_a", ids[0] - ids[1]), ("only_b", ids[1] - ids[0]), ("both", ids[0] & ids[1])):
        assert sum(source[side]["documents"] for source in counted.values()) == len(alone)
    rows = {(stage, source, reason): (a, b) for stage, source, reason, a, b in found.ledger}
    before, after = rows["filter", "common_crawl", "c4-too-few-sentences"]
    assert 0 < before < after
    assert "tokenizer.sha256" in found.models and found.parent == ""
    assert main(["diff", str(corpus), str(other)]) == 1
    said = capsys.readouterr().out
    assert "min_sentences: 3 -> 8" in said and "input gone" in said and "c4-too-few-sentences" in said
    assert main(["diff", str(corpus), str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["recipe"] == found.recipe


def test_a_parent_is_named_from_either_side(corpus: Path, tmp_path: Path) -> None:
    child = copy_verified_files(corpus, tmp_path / "child")
    manifest = load_manifest(child)
    write_manifest(child, manifest.model_copy(update={"parent": manifest.manifest_sha}))
    assert diff(corpus, child).parent == "B was made from A by appending to it"
    assert diff(child, corpus).parent == "A was made from B by appending to it"


def test_a_corpus_without_an_index_is_one_sentence(corpus: Path, tmp_path: Path) -> None:
    bare = copy_verified_files(corpus, tmp_path / "bare")
    write_manifest(bare, load_manifest(bare).model_copy(update={"index": []}))
    with pytest.raises(UserError, match="has no index"):
        diff(corpus, bare)
