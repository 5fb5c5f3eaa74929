"""C4 rebuilt from WET: the builder's order of steps on hand-made pages, beside the builder's steps written out."""

import gzip
import hashlib
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from executed import covered_by_versions

from filters.quality.c4 import C4, clean, count_sentences, normalise_url, time_key
from filters.quality.duplicate_lines import line_keys
from filters.reasons import Reason
from manifests.recipe import parse_recipe
from manifests.source import Source
from pipeline.beam.engines import Engine
from pipeline.beam.receipts import read_receipt
from pipeline.run import run
from pipeline.sources import c4
from pipeline.stages.filter import read_older
from pipeline.stages.url_dedup import KEY, ROW, older_mask, read_url_keys

SAMPLES = Path(__file__).parents[4] / "shared/data/c4_redpajama"
NOUNS = ["river", "bridge", "garden", "window", "letter", "baker", "teacher", "harbour", "station", "village", "market"]
VERBS = ["crosses", "watches", "paints", "remembers", "describes", "repairs", "follows", "visits", "measures"]
BAD = "scoundrel"
BUILDER: list[Any] = [  # the steps of the builder, but for its list of bad words
    "max_characters",
    "newest_url",
    "c4",
    {"duplicate_lines": {"scope": "all", "keep": "first", "normalise": "c4"}},
    "min_sentences",
]


def record(url: str, date: str, text: str) -> bytes:
    body = text.encode()
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {url}\r\nWARC-Date: {date}\r\n"
    return f"{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


def wet(pages: list[tuple[str, str, str]]) -> bytes:
    return b"".join(gzip.compress(record(*page), mtime=0) for page in pages)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://www.a.example/b/", "a.example/b"),
        ("https://a.example/b///", "a.example/b"),
        ("HTTP://www.a.example/", "HTTP://www.a.example"),
        ("http://a.example/?utm_source=x&id=1", "a.example"),
        ("http://a.example/p?ref=1#x", "a.example/p"),
        ("http://a.example/p?reference=1", "a.example/p"),
        ("http://a.example/?feed=rss2", "a.example"),
        ("http://a.example/p?id=1&utm_source=x", "a.example/p?id=1&utm_source=x"),
        ("http://a.example/?u=http://www.b.example/", "a.example/?u=b.example"),
        ("http://m.a.example/WWW.x", "m.a.example/WWW.x"),
    ],
)
def test_urls_are_grouped_as_the_reference_groups_them(url: str, key: str) -> None:
    assert normalise_url(url) == key


def test_lines_are_compared_stripped_and_in_lower_case() -> None:
    keys = line_keys([" A Line. ", "a line.", "A line!", "ÉTÉ."])
    assert keys[0] == keys[1] != keys[2] and keys[3] == line_keys(["été."])[0]
    assert int(keys[1]) == int(hashlib.md5(b"a line.").hexdigest()[:16], 16)


def test_times_are_in_order() -> None:
    times = [
        "",
        "2019",
        "2019-01-01T00:00:00Z",
        "2019-01-01T00:00:00.5Z",
        "2019-01-01T00:00:01Z",
        "2020-01-01T00:00:00Z",
    ]
    assert [time_key(text) for text in times] == sorted(map(time_key, times))


@pytest.mark.corpus
def test_pages_without_a_url_and_overlong_pages_are_compared_with_none(tmp_path: Path) -> None:
    text = "\n".join(f"This is line {number} of a page that is kept." for number in range(6))
    pages = [("http://a.example", "2019", text), ("http://a.example", "2020", text * 900), ("", "2019", text)]
    lines = [json.dumps({"url": url, "timestamp": time, "text": text}) for url, time, text in pages]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "bad-words.txt").write_text(BAD, encoding="utf-8")
    plain = {**recipe(tmp_path), "split_bytes": 1 << 20}
    run(parse_recipe(plain, "r"), tmp_path / "c", Engine(1, (), tmp_path / "runs", quiet=True), only="url_dedup")
    rows = read_url_keys(tmp_path / "c", "c4/a.jsonl.gz")
    assert rows.dtype == ROW and (rows["time"] < 0).tolist() == [False, True, True] and rows["url"][0] == rows["url"][1]
    assert read_older(tmp_path / "c", "c4/a.jsonl.gz") == [False, False, False]


def test_a_wet_record_is_read_as_the_builder_reads_it() -> None:
    text = "  One.  \r\n\r\n\n\tTwo.\nWARC-Type: x\nContent-Length: 3\nCONTENT-X\nContents of it.\rThree.\u2028Four.\n"
    (outcome,) = c4.read(wet([("http://a.example/", "2019-01-01T00:00:00Z", text)]), "a.wet.gz", "c4", source())
    assert outcome.document and outcome.document.text == "One.\nTwo.\nContents of it.\nThree.\nFour."
    (outcome,) = c4.read(wet([("http://a.example/", "", "WARC x\n \n")]), "a.wet.gz", "c4", source())
    assert outcome.reason is Reason.NO_TEXT


def source(**options: Any) -> Source:
    return Source.model_validate({"weight": 1.0, "kind": "c4", "filters": BUILDER, **options})


def recipe(folder: Path) -> dict[str, Any]:
    filters = [*BUILDER, {"bad_words": str(folder / "bad-words.txt")}]
    plain = {"weight": 1.0, "inputs": [str(folder / "*.gz")], "filters": filters}
    return {"name": "x", "seed": 1, "goal_tokens": 10, "split_bytes": 4_000, "sources": {"c4": plain}}


def steps_rerun(corpus: Path, plain: dict[str, Any]) -> set[str]:
    """Run up to `filter`, and return the steps whose tasks have run."""
    before = receipts(corpus)
    run(parse_recipe(plain, "r"), corpus, Engine(1, (), corpus / "runs", quiet=True), only="filter")
    return {name for name, time in receipts(corpus) - before}


def receipts(corpus: Path) -> set[tuple[str, int]]:
    """The step and the time of every receipt."""
    paths = [(path, path.relative_to(corpus / "receipts").parts) for path in (corpus / "receipts").rglob("*.json")]
    return {("/".join(parts[: 1 + parts[0].endswith("_dedup")]), path.stat().st_mtime_ns) for path, parts in paths}


@pytest.mark.corpus
def test_what_is_hashed_depends_on_the_rules_before_and_not_on_those_after(tmp_path: Path) -> None:
    for number, some in enumerate(pages()):
        (tmp_path / f"{number}.warc.wet.gz").write_bytes(wet(some[:30]))
    (tmp_path / "bad-words.txt").write_text(BAD, encoding="utf-8")
    plain = {**recipe(tmp_path), "split_bytes": 1 << 20}
    of_urls = {f"url_dedup/{step}" for step in ("collect", "keys", "duplicates", "places", "verdicts")}
    of_lines = {f"line_dedup/{step}" for step in ("collect", "keys", "duplicates", "places", "verdicts")}
    assert {"extract", "filter"} | of_urls | of_lines <= steps_rerun(tmp_path / "c", plain)
    (tmp_path / "bad-words.txt").write_text("nothing", encoding="utf-8")
    assert steps_rerun(tmp_path / "c", plain) == {"filter", "neardup"}, "which begins in the job of `filter`"
    plain["sources"]["c4"]["filters"][2] = {"c4": {"min_words_per_line": 6}}
    changed = steps_rerun(tmp_path / "c", plain)
    assert "line_dedup/collect" in changed and not changed & {"extract", *of_urls}
    plain["sources"]["c4"]["filters"][0] = {"max_characters": 100}
    changed = steps_rerun(tmp_path / "c", plain)
    assert {"url_dedup/collect", "line_dedup/collect", "filter"} <= changed and "extract" not in changed


def pages() -> list[list[tuple[str, str, str]]]:
    """Three files of pages that share lines and URLs, with short pages, bad words and lines that the rules take out."""
    random.seed(7)

    def sentence() -> str:
        noun, verb, other = random.choice(NOUNS), random.choice(VERBS), random.choice(NOUNS)
        return f"The old {noun} {verb} the {other} number {random.randint(1, 40)}."

    files: list[list[tuple[str, str, str]]] = [[], [], []]
    for number in range(240):
        lines = [sentence() for _ in range(random.randint(1, 7))]
        lines += random.sample(
            ["Menu", "  A line in CAPITALS that is very common.  ", "a line in capitals that is very common."], 2
        )
        lines += ["Please turn on javascript to read this."] if number % 9 == 0 else []
        lines += [f"He was called a {BAD} by everyone there."] if number % 17 == 0 else []
        lines += ["It holds lorem ipsum for all to read."] if number % 23 == 0 else []
        random.shuffle(lines)
        site = f"{random.choice(['http://www.', 'https://'])}site{number % 5}.example"
        url = f"{site}/p{random.randint(0, 90)}{random.choice(['', '/', '?ref=x'])}"
        date = f"20{random.randint(10, 24)}-01-{random.randint(1, 28):02}T00:00:00Z"
        files[number % 3].append((url, date, "\n".join(lines)))
    files[0].append(("http://long.example/", "2019-01-01T00:00:00Z", "\n".join([sentence()] * 6_000)))
    files[1].append(("http://long.example/", "2018-01-01T00:00:00Z", "\n".join(sentence() for _ in range(9))))
    return files


def builder(files: list[list[tuple[str, str, str]]]) -> dict[str, str]:
    """The builder's steps, one after the other: URL -> text. Sentences are counted as in filters.quality.c4."""
    newest: dict[str, tuple[str, str, str]] = {}
    for page in (page for pages in files for page in pages):
        text = "\n".join(line.strip() for line in page[2].split("\n") if line.strip())
        key = re.sub(r"\?(utm_|ref|feed).*", "", re.sub(r"https?:\/\/(www\.)?", "", page[0])).rstrip("/")
        if len(text) <= 190_000 and (key not in newest or page[1] > newest[key][1]):
            newest[key] = (page[0], page[1], text)
    cleaned = {}
    for key, (_, _, text) in newest.items():
        done = clean(text, C4())
        if done.text is not None:
            cleaned[key] = done.text.split("\n")

    def hashed(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    selected: dict[str, str] = {}
    for key, lines in cleaned.items():
        for line in lines:
            best = selected.setdefault(line.strip().lower(), key)
            if hashed(key) < hashed(best):
                selected[line.strip().lower()] = key
    kept = {}
    for key, lines in cleaned.items():
        seen, left = set(), []
        for line in lines:
            folded = line.strip().lower()
            if selected[folded] == key and folded not in seen:
                left.append(line)
                seen.add(folded)
        if sum(map(count_sentences, left)) >= 3 and BAD not in " ".join(left):
            kept[newest[key][0]] = "\n".join(left)
    return kept


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[tuple[str, str, str]]]]:
    folder, corpus = tmp_path_factory.mktemp("wet"), tmp_path_factory.mktemp("corpus") / "c"
    files = pages()
    dates = Counter((normalise_url(url), date) for pages in files for url, date, _ in pages)
    assert max(dates.values()) == 1, "the reference breaks ties by chance"
    for number, some in enumerate(files):
        (folder / f"{number}.warc.wet.gz").write_bytes(wet(some))
    (folder / "bad-words.txt").write_text(BAD, encoding="utf-8")
    with covered_by_versions():
        run(parse_recipe(recipe(folder), "r"), corpus, Engine(1, (), corpus / "runs", quiet=True), 99, "filter")
    return corpus, files


@pytest.mark.corpus
def test_the_stages_give_what_the_builder_gives(rebuilt: tuple[Path, list[list[tuple[str, str, str]]]]) -> None:
    corpus, files = rebuilt
    expected = builder(files)
    paths = sorted((corpus / "clean").rglob("*.parquet"))
    assert len(paths) > 3, "the files were cut into pieces"
    found = {
        row["url"]: row["text"] for path in paths for row in pq.read_table(path, columns=["url", "text"]).to_pylist()
    }
    assert found == expected and len(expected) > 20


@pytest.mark.corpus
def test_every_step_took_something_and_nothing_without_a_name(
    rebuilt: tuple[Path, list[list[tuple[str, str, str]]]],
) -> None:
    corpus, files = rebuilt
    total: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    characters = 0
    for path in sorted((corpus / "receipts/filter").rglob("*.json")):
        receipt = read_receipt(corpus, "filter", path.relative_to(corpus / "receipts/filter").as_posix()[:-5])
        assert receipt is not None
        tally = receipt.tallies["c4"]
        total["in"] += tally.entered["records"]
        total["out"] += tally.out["records"]
        total.update({reason: counts["records"] for reason, counts in tally.dropped.items()})
        removed.update({reason: counts["lines"] for reason, counts in tally.removed.items()})
        characters += tally.entered["characters"] - tally.out["characters"]
        characters -= sum(counts["characters"] for counts in [*tally.dropped.values(), *tally.removed.values()])
    assert total["in"] == sum(map(len, files)) and characters == 0
    reasons = {"older-copy", "c4-too-few-sentences", "c4-bad-word", "c4-lorem-ipsum", "c4-page-too-long"}
    assert set(total) - {"in", "out", "only-duplicate-lines"} == reasons and min(total.values()) > 0
    assert {"duplicate-line", "c4-no-terminal-mark", "c4-javascript"} <= set(removed)


def test_an_older_copy_takes_no_part_in_lines() -> None:
    rows = np.array(
        [
            (1, 1, 5, 9, 9, 0),
            (1, 1, 7, 9, 9, 1),
            (1, 2, 5, 9, 9, 2),
            (2, 1, 5, 8, 1, 3),
            (2, 1, 5, 8, 0, 4),
            (2, 1, 4, 0, 0, 5),
        ],
        KEY,
    )
    assert older_mask(rows).tolist() == [True, False, False, True, False, True]


@pytest.mark.skipif(not SAMPLES.exists(), reason="the real sample data (../shared/data) is not here")
def test_released_rows_pass_their_own_rules_but_for_the_classes_that_the_docs_name() -> None:
    path = SAMPLES / "redpajama-sample_c4-rp1.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    told: Counter[str] = Counter()
    for row in rows:
        done = clean(row["text"], C4())
        told[done.reason.value if done.reason else "unchanged" if done.text == row["text"] else "changed"] += 1
    assert told == EXPECTED


EXPECTED = {"unchanged": 992, "c4-too-few-sentences": 7, "changed": 1}
