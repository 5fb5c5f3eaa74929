"""Line de-duplication: CCNet's rule on plain lists, the packed form equal to it, and the stage over the exchange."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_memory import run_exchange

from filters.hashing import duplicate_mask, group_keys
from filters.quality.duplicate_lines import (
    DuplicateLines,
    later_copy_mask,
    line_hashes,
    paragraph_hashes,
    remove_lines,
    repeat_mask,
)
from manifests.document import DOCUMENT_SCHEMA, Document, Locator
from manifests.ledger import Tally
from manifests.recipe import Recipe, parse_recipe
from pipeline.beam.step import Receipt
from pipeline.beam.tables import table_writer
from pipeline.sources.inputs import dump_of
from pipeline.stages import line_dedup as lines
from pipeline.stages.filter import SourceRules, find_mask, read_masks, send_verdicts

WORDS = st.sampled_from(["menu", "home", "Read more...", "1 of 7", "2 of 9", "", "  ", "—", "a line of its own", "x"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=6).map("\n".join), min_size=1, max_size=6)


def naive(texts: list[str], keep: str, order: list[int]) -> list[list[bool]]:
    """CCNet's rule, line by line: what two documents hold goes from both (or stays in the first of `order`); what one
    document repeats stays there once."""
    hashes = [line_hashes(text).tolist() for text in texts]
    empty = int(line_hashes("")[0])
    holders = Counter(h for lines_ in hashes for h in set(lines_) - {empty})
    first = {h: number for number in reversed(order) for h in hashes[number]}
    removed = []
    for number, lines_ in enumerate(hashes):
        seen: set[int] = set()
        row = []
        for h in lines_:
            elsewhere = holders[h] > 1 and (keep == "none" or first[h] != number)
            row.append(h != empty and (h in seen or elsewhere))
            seen.add(h)
        removed.append(row)
    return removed


@given(TEXTS, st.sampled_from(["none", "first"]), st.randoms(use_true_random=False))
def test_the_packed_rule_is_the_plain_one(texts: list[str], keep: str, random: Any) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)
    rank = {number: place for place, number in enumerate(order)}
    hashes = [paragraph_hashes(text) for text in texts]
    documents = np.repeat(np.arange(len(texts)), [len(h) for h in hashes])
    flat = np.concatenate(hashes)
    again = repeat_mask(flat, documents)
    sent = np.flatnonzero((flat != 0) & ~again)
    if keep == "none":
        gone = duplicate_mask(flat[sent])
    else:
        gone = later_copy_mask(flat[sent], np.array([rank[d] for d in documents[sent]], np.uint64), sent)
    again[sent[gone]] = True
    expected = [flag for row in naive(texts, keep, order) for flag in row]
    assert again.tolist() == expected


@given(st.lists(st.integers(0, 5), max_size=40))
def test_shared_and_not_first_are_what_counting_says(values: list[int]) -> None:
    keys = np.array(values, np.uint64)
    assert duplicate_mask(keys).tolist() == [values.count(value) > 1 for value in values]
    places = np.arange(len(values))
    assert later_copy_mask(keys, np.zeros(len(values), np.uint64), places).tolist() == [
        value in values[:place] for place, value in enumerate(values)
    ]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**40))
def test_equal_hashes_meet_within_a_group_and_not_across(value: int, a: int, b: int) -> None:
    hashes = np.array([value], np.uint64)
    assert (group_keys(hashes, a) == group_keys(hashes, b)).all() == (a == b)


@pytest.mark.parametrize(
    ("text", "removed", "left"),
    [
        ("a\nb\nc", [0, 1, 0], "a\nc"),
        ("a\n\nb\n\nc", [0, 0, 1, 0, 0], "a\n\nc"),
        ("menu\n\na\n\nfooter", [1, 0, 0, 0, 1], "a"),
        ("a\n\n\n\nb", [0, 0, 0, 0, 0], "a\n\n\n\nb"),
        ("a", [1], ""),
        ("", [0], ""),
    ],
)
def test_blank_lines_close_up_around_what_goes(text: str, removed: list[int], left: str) -> None:
    assert remove_lines(text, np.array(removed, bool)) == left


@given(TEXTS)
def test_no_kept_line_is_lost_and_no_removed_one_stays(texts: list[str]) -> None:
    for text, flags in zip(texts, naive(texts, "none", list(range(len(texts)))), strict=True):
        left = remove_lines(text, np.array(flags, bool))
        kept = [line for line, gone in zip(text.split("\n"), flags, strict=True) if not gone and line.strip()]
        assert [line for line in left.split("\n") if line.strip()] == kept


def recipe(**rules: Any) -> Recipe:
    sources = {"common_crawl": {"weight": 1.0, "filters": [{"duplicate_lines": rules}]}, "books": {"weight": 1.0}}
    return parse_recipe({"name": "t", "seed": 1, "goal_tokens": 10, "sources": sources}, "t")


def extracted(corpus: Path, files: dict[str, list[str]]) -> tuple[dict[str, Receipt], dict[str, list[bytes]]]:
    """Collect the line hashes of documents by file; two pieces of a file where its name has an @."""
    found, ids = {}, {}
    for split, texts in files.items():
        name = split.removeprefix("common_crawl/").partition("@")[0]
        rows = [Document("common_crawl", Locator(split, row, 1), text).as_row() for row, text in enumerate(texts)]
        ids[split] = [row["id"] for row in rows]
        with table_writer(corpus / f"documents/{split}.parquet", DOCUMENT_SCHEMA) as writer:
            for row in rows:
                writer.append(row)
        rule = DuplicateLines()
        lines.collect_hashes(corpus, split, applied=SourceRules("common_crawl", [], {}, False), rule=rule)
        found[split] = Receipt("f", [], {"common_crawl": Tally()}, {"file": name})
    return found, ids


def run_stage(
    corpus: Path, made: Recipe, found: dict[str, Receipt]
) -> tuple[dict[str, list[list[bool]]], dict[str, int]]:
    mapping, reducing = lines.find_duplicates(made, found)
    ranges = run_exchange(corpus, mapping, reducing)
    run_exchange(corpus, *send_verdicts(lines.STAGE, mapping, reducing, lines.LINE_BITS, lines.reduce_verdicts))
    return (
        {split: [mask.tolist() for mask in read_masks(corpus, split)] for split in found},
        lines.findings(ranges),
    )


FILES = {
    "common_crawl/CC-MAIN-2019-30/a.gz": ["Menu 1\nnews of the day\nnews of the day", "Menu 2\nanother page"],
    "common_crawl/CC-MAIN-2019-30/b.gz@000": ["menu 3\na third page", "only here\n\nonly here"],
    "common_crawl/CC-MAIN-2019-30/b.gz@009": ["a fourth page\nTHIRD… across pieces"],
    "common_crawl/CC-MAIN-2020-05/a.gz": ["a fourth page\nother things\nthird across pieces", ""],
}


@pytest.mark.parametrize("scope", ["dump", "all", "files"])
@pytest.mark.parametrize("keep", ["none", "first"])
@pytest.mark.parametrize("ranges", [1, 7])
def test_the_stage_says_what_the_plain_rule_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str, keep: str, ranges: int
) -> None:
    monkeypatch.setattr(lines, "RANGE_BYTES", 1 + 20 * lines.KEY.itemsize // ranges)
    found, ids = extracted(tmp_path, FILES)
    verdicts, findings = run_stage(tmp_path, recipe(scope=scope, keep=keep, files=1), found)
    groups: dict[str, list[str]] = {}
    for split in FILES:
        file = found[split].facts["file"]
        groups.setdefault({"dump": dump_of(file), "all": "", "files": file}[scope], []).append(split)
    for splits in groups.values():
        texts = [text for split in splits for text in FILES[split]]
        identities = [identity for split in splits for identity in ids[split]]
        order = sorted(range(len(texts)), key=lambda n: identities[n])
        expected = naive(texts, keep, order)
        assert [row for split in splits for row in verdicts[split]] == expected
    assert findings["lines"] == 12
    assert findings["duplicates"] >= findings["missed_by_ccnet_scope"] >= 0


def test_a_narrow_scope_is_reported_for_what_it_misses(tmp_path: Path) -> None:
    files = {
        f"common_crawl/f{n:03d}": ["the same line in each file", f"page {chr(97 + n % 26)}{chr(97 + n // 26)}"]
        for n in range(64)
    }
    found, _ = extracted(tmp_path, files)
    _, findings = run_stage(tmp_path, recipe(scope="all"), found)
    _, reducing = lines.find_duplicates(recipe(scope="all"), found)
    parts = Counter(reducing.settings["part"])
    alone = sum(count for count in parts.values() if count == 1)
    assert findings == {"lines": 128, "duplicates": 64, "missed_by_ccnet_scope": alone}
    assert alone > 0


def test_ccnets_scope_never_reaches_over_dumps(tmp_path: Path) -> None:
    dumps = ("CC-MAIN-2019-30", "CC-MAIN-2020-05")
    files = {
        f"common_crawl/{dump}/f{n:03d}": [f"line of {chr(97 + n % 26)}{chr(97 + n // 26)}"]
        for dump in dumps
        for n in range(64)
    }
    found, _ = extracted(tmp_path, files)
    _, findings = run_stage(tmp_path, recipe(scope="all"), found)
    assert findings == {"lines": 128, "duplicates": 128, "missed_by_ccnet_scope": 128}


def test_files_are_grouped_by_keyed_hash_in_groups_of_the_size_asked_for(tmp_path: Path) -> None:
    files = {f"common_crawl/f{n:03d}": ["x"] for n in range(10)}
    found, _ = extracted(tmp_path, files)
    mapping, _ = lines.find_duplicates(recipe(scope="files", files=4), found)
    groups = [unit.arguments["group"] for unit in mapping.units]
    assert sorted(Counter(groups).values()) == [2, 4, 4]
    assert groups != sorted(groups), sorted(files)


def test_no_group_of_files_reaches_over_dumps(tmp_path: Path) -> None:
    dumps = ("CC-MAIN-2019-30", "CC-MAIN-2020-05")
    files = {f"common_crawl/{dump}/f{n}": ["x"] for dump in dumps for n in range(5)}
    found, _ = extracted(tmp_path, files)
    mapping, _ = lines.find_duplicates(recipe(scope="files", files=3), found)
    groups = defaultdict(set)
    for unit in mapping.units:
        groups[unit.arguments["group"]].add(unit.name.split("/")[1])
    assert len(groups) == 4 and all(len(of) == 1 for of in groups.values())


@pytest.mark.parametrize(
    ("name", "dump"),
    [
        ("crawl-data/CC-MAIN-2019-30/segments/1/wet/x.gz", "CC-MAIN-2019-30"),
        ("CC-MAIN-2019-30-extra/CC-MAIN-2020-05/x", "CC-MAIN-2019-30"),
        ("mine/2020/x.gz", "mine"),
        ("x.gz", ""),
    ],
)
def test_a_dump_is_known_by_its_name(name: str, dump: str) -> None:
    assert dump_of(name) == dump


def test_hashes_are_ccnets(tmp_path: Path) -> None:
    (value,) = paragraph_hashes("  It is 7 o’clock…  ").tolist()
    assert value == int.from_bytes(hashlib.sha1(b"it is 0 oclock").digest()[:8], "little")
    assert paragraph_hashes("a\n\n…").tolist()[1:] == [0, 0]


def test_verdicts_are_found_by_document_whatever_the_piece(tmp_path: Path) -> None:
    found, ids = extracted(tmp_path, FILES)
    run_stage(tmp_path, recipe(scope="all"), found)
    for split, identities in ids.items():
        for identity, mask in zip(identities, read_masks(tmp_path, split), strict=True):
            again = find_mask(tmp_path, FILES, identity)
            assert again is not None and again.tolist() == mask.tolist()
    assert find_mask(tmp_path, FILES, b"\0" * 16) is None
