"""Test `remove`: exactly the listed documents are removed, unchanged shards are linked, and all tools still work."""

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
from manifests.files import relative_files, sha256_file
from manifests.ledger import imbalances, tally_from
from manifests.manifest import load_manifest
from manifests.shard import open_shard
from manifests.tools.corpus import CorpusReader
from manifests.tools.diff import diff
from manifests.tools.find import find
from manifests.tools.remove import _scan_urls, ascii_host, match_documents, parse_line, read_removal_list, remove
from manifests.tools.sample import SampledDocument, SampleQuery, sample
from manifests.tools.trace import trace as lineage
from manifests.tools.verify import verify
from pipeline.trace import trace

DOMAIN = "docs.example.org"


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


@pytest.fixture(scope="module")
def documents(corpus: Path) -> dict[str, SampledDocument]:
    return {one.facts["document"]: one for one in sample(corpus, SampleQuery(number=1000)).drawn}


def listed(folder: Path, *lines: str) -> Path:
    path = folder / "list.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def removed(corpus: Path, documents: dict[str, SampledDocument], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the corpus from which a domain, a URL, and documents of a source without URLs are removed."""
    folder = tmp_path_factory.mktemp("removed")
    url = next(one.facts["url"] for one in documents.values() if "pages.example" in one.facts["url"])
    book = next(name for name, one in documents.items() if one.facts["source"] == "books")
    path = listed(folder, "# asked for by mail", "", f"domain:{DOMAIN}", url, book.upper(), "none.example")
    assert main(["remove", str(corpus), "--list", str(path), "--output", str(folder / "corpus")]) == 0
    return folder / "corpus"


def named(removed: Path, documents: dict[str, SampledDocument]) -> set[str]:
    lines = (removed.parent / "list.txt").read_text(encoding="utf-8").lower().split()
    return {
        name
        for name, one in documents.items()
        if f"//{DOMAIN}/" in one.facts["url"] or one.facts["url"] in lines or name in lines
    }


def test_exactly_the_named_documents_are_gone(removed: Path, documents: dict[str, SampledDocument]) -> None:
    gone = named(removed, documents)
    assert len(gone) > 10
    left = {one.facts["document"]: one for one in sample(removed, SampleQuery(number=1000)).drawn}
    assert set(left) == set(documents) - gone
    assert all(one.text == documents[name].text for name, one in left.items())


def test_find_names_the_removal_and_the_corpus_that_had_the_document(
    corpus: Path, removed: Path, documents: dict[str, SampledDocument], tmp_path: Path
) -> None:
    """Only the parent contains a removed document, so `find` in a child or grandchild must refer to the parent."""
    gone, left = sorted(named(removed, documents)), sorted(set(documents) - named(removed, documents))
    remove(removed, listed(tmp_path, left[0]), tmp_path / "again")
    parent, list_sha = load_manifest(corpus).manifest_sha, sha256_file(removed.parent / "list.txt")
    for child in (removed, tmp_path / "again"):
        for query in (gone[0], documents[gone[-1]].facts["url"] or gone[-1]):
            said = " ".join(find(child, query).lines(child))
            assert f"SHA-256 {list_sha} took {len(gone):,} documents out of the parent" in said
            assert f"manifest_sha {parent}" in said and "the inputs have no page" not in said


def test_it_verifies_and_names_its_parent_and_the_list(
    corpus: Path, removed: Path, documents: dict[str, SampledDocument]
) -> None:
    assert verify(removed) == []
    manifest, parent, gone = load_manifest(removed), load_manifest(corpus), named(removed, documents)
    assert manifest.parent == parent.manifest_sha and manifest.removal is not None
    assert manifest.removal.list_sha256 == sha256_file(removed.parent / "list.txt")
    assert manifest.removal.documents == len(gone)
    assert manifest.removal.tokens == sum(documents[name].facts["tokens"] for name in gone)
    assert json.loads((removed / "history" / f"{manifest.parent}.json").read_bytes())["manifest_sha"] == manifest.parent


def test_untouched_shards_are_the_parents_files(
    corpus: Path, removed: Path, documents: dict[str, SampledDocument]
) -> None:
    touched = {documents[name].facts["shard"] for name in named(removed, documents)}
    paths = [entry.path for entry in load_manifest(removed).shards()]
    assert paths == [entry.path for entry in load_manifest(corpus).shards()] and 0 < len(touched) < len(paths)
    for path in paths:
        assert (removed / "shards" / path).samefile(corpus / "shards" / path) == (path not in touched)


def test_the_ledger_balances_to_the_character(
    corpus: Path, removed: Path, documents: dict[str, SampledDocument]
) -> None:
    ledger = load_manifest(removed).ledger
    assert imbalances(ledger) == []
    lengths = {}
    for path in (corpus / "clean").rglob("*.parquet"):
        lengths |= {row["id"].hex(): len(row["text"]) for row in pq.read_table(path).to_pylist()}
    for source in ledger["tokenize"]:
        gone = [name for name in named(removed, documents) if documents[name].facts["source"] == source]
        counted = tally_from(ledger["tokenize"][source]).dropped.get("on-removal-list", Counter())
        assert counted["records"] == len(gone) and counted["characters"] == sum(map(lengths.__getitem__, gone))


def test_find_answers_for_what_stayed_and_not_for_what_went(
    removed: Path, documents: dict[str, SampledDocument]
) -> None:
    index, gone = CorpusReader(removed).index, named(removed, documents)
    for name, one in documents.items():
        places = list(index.find_id(bytes.fromhex(name)))
        assert len(places) == (name not in gone)
        assert name in gone or not one.facts["url"] or places[0] in index.find_url(one.facts["url"])


def test_every_shard_is_traced_to_its_bytes(removed: Path) -> None:
    for entry in load_manifest(removed).shards():
        for token in {0, entry.tokens // 2, entry.tokens - 1} if entry.tokens else ():
            assert lineage(removed, entry.path, token).has_derived_id
            found = trace(removed, entry.path, token, {})
            assert found.same, found.finding


def test_diff_shows_exactly_the_removed_documents(
    corpus: Path, removed: Path, documents: dict[str, SampledDocument]
) -> None:
    found, gone = diff(corpus, removed), named(removed, documents)
    assert "B was made from A by removing" in found.parent
    assert sum(source["only_a"]["documents"] for source in found.documents.values()) == len(gone)
    assert all(source["only_b"]["documents"] == 0 for source in found.documents.values())
    tokens = sum(documents[name].facts["tokens"] for name in gone)
    assert sum(source["only_a"]["tokens"] for source in found.documents.values()) == tokens
    assert {row[2] for row in found.ledger} == {"on-removal-list"}
    assert found.recipe == found.models == found.code == found.other == found.inputs == {}


def test_no_removed_text_is_left_outside_the_shards(removed: Path) -> None:
    names = relative_files(removed)
    assert {name.partition("/")[0] for name in names} == {
        *("blocks", "canaries.json", "deadletters", "duplicates", "history", "index", "ledger.json", "manifest.json"),
        *("manifest.json.sha256", "models", "receipts", "recipe.yaml", "shards", "verdicts"),
    }
    assert all(name.startswith("blocks/signatures/") for name in names if name.startswith("blocks"))


def test_a_moved_corpus_is_as_good(removed: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(removed, tmp_path / "elsewhere" / "moved"))
    assert verify(moved) == [] and diff(removed, moved).equal
    shard = load_manifest(moved).shards()[0].path
    assert trace(moved, shard, 5, {}).same
    assert sample(moved, SampleQuery()) == sample(removed, SampleQuery())


def test_removing_again_from_what_is_left(removed: Path, tmp_path: Path) -> None:
    first = sample(removed, SampleQuery(number=1, source="common_crawl")).drawn[0].facts["document"]
    done = remove(removed, listed(tmp_path, first), tmp_path / "again")
    assert verify(tmp_path / "again") == [] and sum(done.removed.documents.values()) == 1
    assert len(list((tmp_path / "again/history").glob("*.json"))) == 2


def test_the_same_removal_gives_the_same_bytes(corpus: Path, removed: Path, tmp_path: Path) -> None:
    remove(corpus, removed.parent / "list.txt", tmp_path / "again")
    names = relative_files(removed)
    assert names == relative_files(tmp_path / "again")
    assert all((removed / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_a_whole_shard_may_go(corpus: Path, documents: dict[str, SampledDocument], tmp_path: Path) -> None:
    books = [name for name, one in documents.items() if one.facts["source"] == "books"]
    remove(corpus, listed(tmp_path, *books), tmp_path / "new")
    assert verify(tmp_path / "new") == []
    assert load_manifest(tmp_path / "new").sources["books"].unique_tokens == 0
    assert main(["show", str(tmp_path / "new")]) == 0


def test_a_dry_run_says_what_would_go_and_writes_nothing(
    corpus: Path, removed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = relative_files(corpus)
    path, gone = removed.parent / "list.txt", load_manifest(removed).removal
    assert gone is not None
    for arguments in ([], ["--dry-run", "--output", str(tmp_path / "new")]):
        assert main(["remove", str(corpus), "--list", str(path), *arguments]) == 0
        said = capsys.readouterr().out
        assert f"{gone.documents} documents, {gone.tokens:,} tokens, in " in said and "nothing is written" in said
        assert "1 of 4 entries match nothing (line 6)" in said
    assert main(["remove", str(corpus), "--list", str(path), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["documents"], plain["tokens"], plain["lines_without_a_match"]) == (gone.documents, gone.tokens, [6])
    assert relative_files(corpus) == before and list(tmp_path.iterdir()) == []


def test_the_default_port_of_a_url_does_not_matter(
    corpus: Path, documents: dict[str, SampledDocument], tmp_path: Path
) -> None:
    url = next(one.facts["url"] for one in documents.values() if one.facts["url"].startswith("https://"))
    host = url.split("/")[2]
    entries = read_removal_list(listed(tmp_path, url.replace(host, f"{host}:443", 1)))
    assert sum(match_documents(CorpusReader(corpus), entries).documents.values()) >= 1


def test_copies_where_links_are_refused(corpus: Path, removed: Path, tmp_path: Path) -> None:
    with mock.patch("pathlib.Path.hardlink_to", side_effect=OSError(18, "Invalid cross-device link")):
        remove(corpus, removed.parent / "list.txt", tmp_path / "new")
    assert verify(tmp_path / "new") == []
    assert not any((tmp_path / "new" / name).stat().st_nlink > 1 for name in relative_files(tmp_path / "new"))


@pytest.mark.parametrize("point", ["write_shard", "write_part", "write_manifest"])
def test_a_removal_broken_off_leaves_no_corpus(corpus: Path, removed: Path, tmp_path: Path, point: str) -> None:
    with mock.patch(f"manifests.tools.remove.{point}", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        remove(corpus, removed.parent / "list.txt", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["none.example"], "none of the 1 entries"),
        (["# nothing"], "none of the 0 entries"),
        (["a.example", "what is this"], "line 2: 'what is this' is not a URL"),
        (["a.example", "", "http://a b"], "line 3: 'http://a b' is not a URL"),
        (["example.org/page"], "line 1: 'example.org/page' is not a URL"),
        (["0123abcd"], "line 1: "),
        (["\x1b[2J"], "line 1: "),
    ],
)
def test_a_bad_list_is_one_sentence_and_nothing_is_written(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], words: str
) -> None:
    path = listed(tmp_path, *lines)
    assert main(["remove", str(corpus), "--list", str(path), "--output", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "\x1b" not in said
    assert list(tmp_path.iterdir()) == [path]


def test_lists_that_are_no_text_and_outputs_that_hold_something(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.example\nb\xff.example\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_removal_list(tmp_path / "list")
    with pytest.raises(UserError, match="cannot be read"):
        read_removal_list(tmp_path / "none")
    (tmp_path / "list").write_text(DOMAIN, encoding="utf-8")
    with pytest.raises(UserError, match="already exists"):
        remove(corpus, tmp_path / "list", corpus)
    (tmp_path / "empty").mkdir()
    remove(corpus, tmp_path / "list", tmp_path / "empty")
    assert verify(tmp_path / "empty") == []


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("https://a.example/B?c#d", ("url", "https://a.example/B?c#d")),
        ("Example.ORG", ("domain", "example.org")),
        ("domain:example.org.", ("domain", "example.org")),
        ("domain: bücher.example", ("domain", "xn--bcher-kva.example")),
        ("192.168.0.1", ("domain", "192.168.0.1")),
        ("Owner/Some.Name", ("repository", "owner/some.name")),
        ("github.com/owner/name.git", ("repository", "owner/name")),
        ("0123456789ABCDEF0123456789abcdef", ("document", "0123456789abcdef0123456789abcdef")),
        ("0123456789abcdef", None),
        ("word", None),
        ("a..b", None),
        ("domain:", None),
        ("owner/name/file", None),
    ],
)
def test_what_a_line_stands_for(line: str, parsed: tuple[str, str] | None) -> None:
    assert parse_line(line) == parsed


@given(st.text())
def test_any_line_is_something_or_nothing(line: str) -> None:
    parsed = parse_line(line)
    assert parsed is None or parsed[0] in ("url", "document", "domain", "repository")


def scanned(tmp_path: Path, line: str, urls: list[str]) -> list[bool]:
    read = read_removal_list(listed(tmp_path, line))
    found = list(_scan_urls(pa.array(urls), read.values_of("domain"), read.values_of("repository")))
    assert len(found) <= 1 and all(names and mask.any() for mask, names in found)
    return [bool(one) for one in found[0][0]] if found else [False] * len(urls)


def test_a_domain_is_its_hosts_whatever_the_spelling(tmp_path: Path) -> None:
    urls = {
        "https://example.org/": True,
        "http://www.Example.ORG:8080/a": True,
        "https://user:pass@a.b.example.org?x": True,
        "https://example.org.": True,
        "https://example.org\\@other.net/": True,
        "https://ex%61mple.org/": True,
        "https://Ｅxample。org/": True,
        "https://notexample.org/": False,
        "https://example.org.evil.net/": False,
        "https://other.net/example.org": False,
        "https://other.net/?u=@example.org": False,
        "": False,
        "example.org": False,
    }
    assert scanned(tmp_path, "example.org", list(urls)) == list(urls.values())


@pytest.mark.parametrize("line", ["domain:Straße.example", "xn--strae-oqa.example"])
def test_a_domain_beyond_ascii_is_found_as_typed_and_in_punycode(tmp_path: Path, line: str) -> None:
    urls = {
        "http://straße.example/": True,
        "http://www.STRAßE.example:80/": True,
        "http://xn--strae-oqa.example/": True,
        "http://stra%C3%9Fe.example": True,
        "http://strasse.example/": False,
    }
    assert scanned(tmp_path, line, list(urls)) == list(urls.values())


LETTERS = "abcäöüßéøžçñđαβςσжщя日本語한국-"


@given(st.text(LETTERS, min_size=1, max_size=12), st.booleans())
def test_a_host_is_encoded_as_browsers_do(label: str, shout: bool) -> None:
    label = label.upper() if shout else label
    idna = pytest.importorskip("idna")
    try:
        expected = idna.encode(label, uts46=True).decode()
    except idna.IDNAError:
        return
    assert ascii_host(f"{label}.") == expected


def test_a_repository_is_all_its_files(tmp_path: Path) -> None:
    urls = {
        "https://github.com/Owner/Name": True,
        "https://github.com/owner/name.git": True,
        "https://github.com/owner/name/blob/main/a.py": True,
        "https://raw.githubusercontent.com/owner/name/main/a.py": True,
        "https://github.com/owner/name2/blob/main/a.py": False,
        "https://github.com/other/name/blob/main/a.py": False,
        "https://evil.net/github.com/owner/name": False,
    }
    assert scanned(tmp_path, "owner/name", list(urls)) == list(urls.values())


def test_a_large_scan_goes_by_columns(corpus: Path, tmp_path: Path) -> None:
    reader = CorpusReader(corpus)
    whole = match_documents(reader, read_removal_list(listed(tmp_path, DOMAIN)))
    with mock.patch("manifests.tools.remove.ROWS_AT_ONCE", 3):
        pieces = match_documents(reader, read_removal_list(listed(tmp_path, DOMAIN)))
    assert {path: rows.tolist() for path, rows in whole.rows.items()} == {
        path: rows.tolist() for path, rows in pieces.rows.items()
    }
    for path, rows in whole.rows.items():
        urls = open_shard(corpus / "shards" / path).batch.column("url").to_pylist()
        assert [f"//{DOMAIN}/" in url for url in urls] == [row in rows for row in range(len(urls))]
