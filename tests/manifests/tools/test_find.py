"""Test `find`: for every page of the inputs, it prints the location or the reason why no shard contains it."""

import json
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.__main__ import main
from manifests.display import safe_line
from manifests.document import Locator
from manifests.manifest import load_manifest
from manifests.tools.corpus import StoredDocument
from manifests.tools.find import DroppedRecord, FoundDocuments, find, vary_port
from manifests.tools.trace import Lineage
from pipeline.trace import Rederivation


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


def test_every_document_that_a_filter_dropped_is_found_with_its_reason(corpus: Path) -> None:
    dropped: Counter[str] = Counter()
    kept = {url for path in (corpus / "clean").rglob("*.parquet") for url in pq.read_table(path)["url"].to_pylist()}
    for path in (corpus / "dropped/common_crawl").rglob("*.parquet"):
        for row in pq.read_table(path, columns=["id", "url", "reason"]).to_pylist():
            dropped[row["reason"]] += 1
            (by_id,) = find(corpus, row["id"].hex()).dropped
            assert (by_id.reason, by_id.url) == (row["reason"], row["url"])
            assert row["url"] in kept or row["reason"] in {one.reason for one in find(corpus, row["url"], 99).dropped}
    counted = load_manifest(corpus).ledger["filter"]["common_crawl"]["dropped"]
    assert dropped == {reason: units["records"] for reason, units in counted.items()}


def test_a_page_that_extract_dropped_is_found_by_its_url(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (line for path in sorted((corpus / "skipped").rglob("*.jsonl")) for line in path.open("rb"))
    row = next(row for row in map(json.loads, lines) if row.get("url"))
    found = find(corpus, row["url"], 99).dropped
    assert (row["reason"], row["offset"], "") in {(one.reason, one.offset, one.document) for one in found}
    assert main(["find", str(corpus), row["url"]]) == 0
    assert f"was dropped ({row['reason']}" in capsys.readouterr().out


def test_a_removed_document_is_found_with_the_one_that_it_is_a_duplicate_of(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A removed document is found by its id, and also by its URL unless a kept document has the same URL."""
    files = sorted((corpus / "clean").rglob("*.parquet"))
    urls = {row["id"]: row["url"] for path in files for row in pq.read_table(path, columns=["id", "url"]).to_pylist()}
    rows = [row for path in (corpus / "duplicates").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    kept = {urls[document] for document in urls.keys() - {row["removed"] for row in rows}}
    by_url = 0
    for row in rows:
        expected = (row["removed"].hex(), row["kept"].hex(), row["reason"])
        (by_id,) = find(corpus, row["removed"].hex()).removed
        assert (by_id.document, by_id.kept, by_id.reason) == expected
        if (url := urls[row["removed"]]) and url not in kept:
            by_url += 1
            assert expected in {(one.document, one.kept, one.reason) for one in find(corpus, url, 99).removed}
    assert by_url and {row["reason"] for row in rows} >= {"exact-duplicate", "near-duplicate"}
    assert main(["find", str(corpus), rows[0]["removed"].hex()]) == 0
    assert f"was removed ({rows[0]['reason']}), a duplicate of {rows[0]['kept'].hex()}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["find", "duplicates"])
@pytest.mark.parametrize("query", ["", "http://x/\udcff"])  # Python decodes invalid UTF-8 in arguments as surrogates.
def test_what_is_neither_an_id_nor_a_url_is_refused(
    corpus: Path, command: str, query: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(corpus), query]) == 2
    assert "is neither an id nor a URL in UTF-8: give one of them" in capsys.readouterr().err


def test_of_a_page_that_no_file_names_only_what_is_known_is_said(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page may be in a record that could not be read, so `find` must not claim that the inputs lack it."""
    letters = sum(len(path.read_bytes().splitlines()) for path in (corpus / "deadletters").rglob("*.jsonl"))
    assert main(["find", str(corpus), "https://nowhere.example/"]) == 1
    said = capsys.readouterr().out
    assert letters and f"may have no URL and no id: deadletters/ lists {letters} records" in said
    assert "the inputs have no page" not in said


def test_a_part_of_a_url_is_told_from_a_url(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", str(corpus), "making-soap.html"]) == 1
    assert "'making-soap.html' was looked up as a URL, which must be written as in the dump" in capsys.readouterr().out


HOSTILE = "a\n\x1b[2J\u202eb"


@given(st.sampled_from(["held", "dropped", "again"]), st.text(min_size=1))
def test_no_name_drives_the_terminal_or_adds_a_line(where: str, name: str) -> None:
    name = HOSTILE + name
    place = Locator(name, 0, 1, name)
    stored = StoredDocument("00", name, name, name, 0, 0, 1, 1, place)
    dropped = DroppedRecord("", name, name, name, name, name, 0, 1, name)
    if where == "again":
        lines = Rederivation(Lineage(**vars(stored), token=0, piece=name, text=""), True, name).text().split("\n")
        assert len(lines) == 8
    else:
        found = FoundDocuments("", [stored] * (where == "held"), False, [], [dropped] * (where == "dropped"))
        lines = found.lines(Path("corpus"))
        assert len(lines) == (7 if where == "held" else 1)
    assert all(line == safe_line(line) for line in lines)


def test_a_url_is_found_with_and_without_its_default_port(corpus: Path) -> None:
    held = [find(corpus, digit).held[0] for digit in "0123456789abcdef" if find(corpus, digit)]
    one = next(one for one in held if one.url.startswith("http"))
    parts = urlsplit(one.url)
    with_port = one.url.replace(parts.netloc, f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}", 1)
    assert one.document in {other.document for other in find(corpus, with_port).held}


@given(
    st.sampled_from(["http", "https"]),
    st.sampled_from(["p", "h.example", "user@h.example", "[::1]"]),
    st.sampled_from(["", "/", "/http://p:80/x", "?q=a:80"]),
)
def test_the_two_forms_of_a_url_name_each_other(scheme: str, host: str, rest: str) -> None:
    port = {"http": 80, "https": 443}[scheme]
    plain, full = f"{scheme}://{host}{rest}", f"{scheme}://{host}:{port}{rest}"
    assert vary_port(plain) == [plain, full] and vary_port(full) == [full, plain]
    for other in (f"{scheme}://{host}:8080{rest}", f"{scheme}://{host}:x{rest}", "ftp://h/", "", "no url"):
        assert vary_port(other) == [other]
