"""Test `sample`: it is reproducible, decodes the original texts, applies every filter, and escapes its output."""

import json
import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.errors import UserError
from manifests.__main__ import main
from manifests.display import safe, safe_line
from manifests.manifest import ShardEntry, load_manifest, write_manifest
from manifests.shard import Shard, open_shard_of
from manifests.tools.sample import SampledDocument, SampleQuery, Signals, _draw_rows, parse_score, sample


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


def clean_texts(corpus: Path) -> dict[str, str]:
    tables = [pq.read_table(path, columns=["id", "text"]) for path in (corpus / "clean").rglob("*.parquet")]
    return {row["id"].hex(): row["text"] for table in tables for row in table.to_pylist()}


def test_all_documents_come_once_with_the_text_that_went_in(corpus: Path) -> None:
    drawn = sample(corpus, SampleQuery(number=1000)).drawn
    assert len(drawn) == sum(source.documents for source in load_manifest(corpus).sources.values())
    texts = clean_texts(corpus)
    assert all(one.text == texts[one.facts["document"]] for one in drawn)
    assert len({one.facts["document"] for one in drawn}) == len(drawn)
    assert all(one.facts["url"].startswith("http") for one in drawn if one.facts["source"] == "common_crawl")


def test_the_same_seed_draws_the_same_and_another_draws_others(corpus: Path) -> None:
    first, again, other = (
        [one.facts["document"] for one in sample(corpus, SampleQuery(number=5, seed=seed)).drawn] for seed in (1, 1, 2)
    )
    assert first == again and len(first) == 5 and set(first) != set(other)


def test_every_document_is_as_likely_as_any(corpus: Path) -> None:
    shards = [("train", ShardEntry(path=str(n), sha256="", bytes=1, tokens=1, documents=n * 100)) for n in range(1, 5)]
    seen: Counter[str] = Counter()
    for seed in range(400):
        drawn = list(_draw_rows(shards, seed, 5))
        assert len({(entry.path, row) for _, entry, row in drawn}) == 5
        assert all(0 <= row < entry.documents for _, entry, row in drawn)
        seen.update(entry.path for _, entry, _ in drawn)
    assert all(abs(seen[str(n)] - 200 * n) < 75 for n in range(1, 5)), seen  # 75 is five standard deviations.


def test_no_shard_is_opened_that_nothing_is_drawn_from(corpus: Path) -> None:
    opened = []

    def counting(folder: Path, name: str) -> Shard:
        opened.append(name)
        return open_shard_of(folder, name)

    with mock.patch("manifests.tools.corpus.open_shard_of", counting):
        sample(corpus, SampleQuery(number=1))
    assert len(opened) == 1


def test_by_source_side_language_and_score(corpus: Path) -> None:
    assert {one.facts["source"] for one in sample(corpus, SampleQuery(number=99, source="books")).drawn} == {"books"}
    held_out = sample(corpus, SampleQuery(number=99, side="validation")).drawn
    assert held_out and all("/validation-" in one.facts["shard"] for one in held_out)
    english = sample(corpus, SampleQuery(number=99, language="en")).drawn
    assert english and {one.facts["language"] for one in english} == {"en"}
    scores = sorted(one.facts["language_score"] for one in english)
    middle = scores[len(scores) // 2]
    sure = sample(corpus, SampleQuery(number=99, score=parse_score(f"language={middle!r}:")))
    assert sorted(one.facts["language_score"] for one in sure.drawn) == [one for one in scores if one >= middle]
    assert 0 < len(sure.drawn) < len(english) and "fit the filters" in sure.note
    none = sample(corpus, SampleQuery(language="xx"))
    assert none.drawn == [] and none.note.startswith("0 of the ")
    assert sample(corpus, SampleQuery(score=parse_score("0.5:"))).note.endswith(": none of them has a reference_score")


def test_a_rare_language_is_looked_for_in_bounded_work(corpus: Path) -> None:
    with mock.patch("manifests.tools.sample.MOST_DRAWN", 10):
        assert (
            "0 of the 10 documents that were drawn fit the filters, and there are more"
            in sample(corpus, SampleQuery(language="xx")).note
        )


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("c4-too-few-sentences", True), ("near-duplicate", True), ("exact-duplicate", True), ("corrupt-gzip", False)],
)
def test_by_reason(corpus: Path, reason: str, kept: bool) -> None:
    found = sample(corpus, SampleQuery(number=2, reason=reason))
    assert len(found.drawn) == 2 and f"records dropped as {reason}" in found.note
    assert all(one.facts["reason"] == reason and (one.text is not None) == kept for one in found.drawn)
    assert found == sample(corpus, SampleQuery(number=2, reason=reason))
    if not kept:
        assert {"file", "offset", "length", "detail"} <= set(found.drawn[0].facts)


def test_what_a_rule_of_the_users_own_drops_is_drawn(corpus: Path, tmp_path: Path) -> None:
    manifest = load_manifest(corpus)
    ledger = json.loads(json.dumps(manifest.ledger))
    ledger["filter"]["books"]["dropped"]["custom-gone"] = {"records": 1}
    write_manifest(tmp_path, manifest.model_copy(update={"ledger": ledger}))
    row = {"reason": "custom-gone", "id": bytes(16), "text": "gone", "url": "", "file": "f", "offset": 0, "member": ""}
    (tmp_path / "dropped/books").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "dropped/books/f.parquet")
    (one,) = sample(tmp_path, SampleQuery(reason="custom-gone")).drawn
    assert one.text == "gone" and one.facts["reason"] == "custom-gone"


def test_of_what_extract_drops_the_places_are_drawn(corpus: Path) -> None:
    found = sample(corpus, SampleQuery(number=2, reason="redirect"))
    assert len(found.drawn) == 2 and "never their text" in found.note
    assert all(one.text is None and {"file", "offset", "url"} <= set(one.facts) for one in found.drawn)


def test_what_the_run_kept_no_copy_of_is_said(corpus: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(corpus, tmp_path / "bare", ignore=shutil.ignore_patterns("dropped", "documents")))
    found = sample(bare, SampleQuery(reason="language"))
    assert found.drawn == [] and "the run kept none" in found.note


def test_without_clean_the_shards_still_tell(corpus: Path, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("clean", "documents", "dropped", "blocks")
    bare = Path(shutil.copytree(corpus, tmp_path / "moved", ignore=ignored))
    found = sample(bare, SampleQuery())
    assert len(found.drawn) == 5 and "no clean/" in found.note
    with pytest.raises(UserError, match="no clean/"):
        sample(bare, SampleQuery(language="en"))
    assert "no clean/" in sample(bare, SampleQuery(reason="near-duplicate")).note
    assert "kept none" in sample(bare, SampleQuery(reason="language")).note


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "none"], "no source 'none'"),
        (["--reason", "none"], "has nothing dropped as none: `show` lists the reasons"),
        (["--reason", "not-reference-like"], "has nothing dropped as not-reference-like"),
        (["--reason", "language", "--side", "train"], "leave out"),
        (["--score", "1"], "give [NAME=]LOW:HIGH"),
        (["--score", "0.9:0.1"], "give [NAME=]LOW:HIGH"),
        (["--score", "x=0:1"], "give [NAME=]LOW:HIGH"),
        (["--score", "nan:1"], "give [NAME=]LOW:HIGH"),
    ],
)
def test_a_mistake_is_one_sentence(
    corpus: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["sample", str(corpus), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_the_command_shortens_texts_and_gives_json(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(corpus), "-n", "2", "--characters", "20"]) == 0
    assert capsys.readouterr().out.count("more characters)") == 2
    assert main(["sample", str(corpus), "-n", "2", "--characters", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [len(one["text"]) for one in said["documents"]] == [20, 20]


HOSTILE = "\x1b[2J\x1b]0;title\x07\r\x00\x7f\x9b31m\u202egpj\u2066\u2028\ud800\tend\nnext"


def test_hostile_text_does_not_drive_the_terminal() -> None:
    shown = "\n".join(SampledDocument({"url": HOSTILE, "detail": HOSTILE}, HOSTILE).lines(1000))
    assert safe_line(HOSTILE) in shown and "\\x1b[2J" in shown and "\\u202e" in shown and "\\ud800" in shown
    assert not any(character in shown for character in "\x1b\x07\r\x00\x7f\x9b\u202e\u2066\u2028\ud800")


@given(st.text())
def test_safe_text_is_printable_and_ordinary_text_stays(text: str) -> None:
    shown = safe(text)
    shown.encode()
    assert all(c in "\n\t" or not (ord(c) < 32 or 0x7F <= ord(c) < 0xA0) for c in shown)
    if text.isprintable():
        assert shown == text
    assert "\n" not in safe_line(text)


def test_signals_of_an_input_in_pieces(corpus: Path, tmp_path: Path) -> None:
    source = corpus / "clean/common_crawl/pages.warc.gz.parquet"
    rows = pq.read_table(source).sort_by("offset")
    cut = len(rows) // 2
    start = rows["offset"][cut].as_py()
    folder = tmp_path / "clean/common_crawl"
    folder.mkdir(parents=True)
    for begin, piece in ((0, rows.slice(0, cut)), (start, rows.slice(cut))):
        pq.write_table(piece, folder / f"pages.warc.gz@{begin:015d}.parquet")
    signals = Signals(tmp_path)
    for row in rows.to_pylist():
        found = signals.find("common_crawl", "pages.warc.gz", row["offset"], row["id"])
        assert found["language_score"] == row["language_score"]
    assert signals.find("common_crawl", "pages.warc.gz", 0, b"x" * 16) == {} == signals.find("books", "none", 0, b"")
