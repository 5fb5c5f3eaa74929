"""Given archives of cited pages: the classifier's positives beside, or instead of, those found in the crawl."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpus import ROOT
from executed import covered_by_versions
from hypothesis import given
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from filters.errors import UserError
from filters.quality.references import References
from filters.quality.urls import url_hash
from filters.rule_list import name_of
from manifests.recipe import Recipe, load_recipe
from manifests.source import Source
from pipeline.beam.engines import Engine
from pipeline.run import run
from pipeline.stages import references
from pipeline.stages.filter import SourceRules
from pipeline.stages.references import SAMPLE_SCHEMA

SENTENCE = "A page that an encyclopaedia cites says where its facts come from. "
Pages = list[tuple[str, str, str, str]]  # URL, status, content type, body


def write_archive(path: Path, pages: Pages) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for url, status, kind, body in pages:
            head = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
            writer.write_record(writer.create_warc_record(url, "response", BytesIO(body.encode()), http_headers=head))
    return path


def page(words: str) -> str:
    return f"<html><body><article><p>{words}</p></article></body></html>"


def settings(**changes: object) -> dict[str, object]:
    return {"min_positives": 5, "min_characters": 300, "dimension": 8, "epochs": 3, **changes}


def recipe_over(sample: Path, **changes: object) -> Recipe:
    """recipes/ccnet.yaml with nothing but its rules of length, language and references, over a small sample."""
    recipe = load_recipe(ROOT / "recipes/ccnet.yaml").with_inputs({"common_crawl": [str(sample / "wet/**")]})
    source = recipe.sources["common_crawl"]
    kept = [rule for rule in source.filters if name_of(rule) in ("http_status", "min_characters", "language")]
    rules = [*kept, References.model_validate(settings(**changes))]
    changed = source.model_copy(update={"filters": rules})
    return recipe.model_copy(update={"sources": {"common_crawl": changed}})


def train(recipe: Recipe, corpus: Path) -> tuple[dict[str, object], int]:
    """The card of the classifier that a run trains, and the number of tasks that it ran."""
    done = run(recipe, corpus, Engine(1, (), corpus / "runs", quiet=True), only="references")
    return json.loads((corpus / "models/references/common_crawl.card.json").read_bytes()), done.ran


def test_an_archive_is_read_as_the_crawl_is_and_what_is_no_page_is_counted(tmp_path: Path) -> None:
    path = write_archive(
        tmp_path / "cited.warc.gz",
        [
            ("https://a.example/long", "200 OK", "text/html", page(SENTENCE * 9)),
            ("https://a.example/short", "200 OK", "text/html", page(SENTENCE)),
            ("https://a.example/gone", "404 Not Found", "text/html", page(SENTENCE * 9)),
            ("https://a.example/moved", "301 Moved Permanently", "text/html", page(SENTENCE * 9)),
            ("https://a.example/paper", "200 OK", "application/pdf", "%PDF-1.4"),
            ("https://.example/", "200 OK", "text/html", page(SENTENCE * 9)),
        ],
    )
    for extractor in ("main", "wet"):
        plain = {"weight": 1.0, "kind": "common_crawl", "extractor": extractor, "filters": ["http_status"]}
        source = Source.model_validate(plain)
        arguments = {"name": "web", "source": source, "path": str(path), "min_characters": 300, "seed": 1}
        arguments |= {"applied": SourceRules("web", [], {}, False)}
        result = references.read_positives(tmp_path, "web/cited.warc.gz", **arguments)
        (output,) = result.paths
        (row,) = pq.read_table(tmp_path / output).to_pylist()
        assert row["cited"] and row["domain"] == "a.example" and row["text"] == (SENTENCE * 9).strip()
        assert row["page"] == url_hash("http://www.a.example/long/")
        dropped = {"content-type": 1, "http-status": 1, "not-http": 1, "redirect": 1, "too-short": 1}
        assert result.facts == {"pages": 1, "dropped": dropped}


def test_given_pages_train_alone_and_beside_pages_of_the_crawl(sample: Path, tmp_path: Path) -> None:
    """Pages of the crawl that are given are found in it, never drawn as others, and count once."""
    archives, dumps = [str(sample / "web/*.warc.gz")], [str(sample / "wiki/*.bz2")]
    counts, sampled = {}, {}
    for name, changes in {"both": {"positives": archives, "wiki": dumps}, "given": {"positives": archives},
                          "wiki": {"wiki": dumps}}.items():  # fmt: skip
        with covered_by_versions():
            card, _ = train(recipe_over(sample, **changes), tmp_path / name)
        counts[name] = card["positives"]
        rows = pa.concat_tables(map(pq.read_table, (tmp_path / name / "blocks/references/sample").rglob("*.parquet")))
        sampled[name] = {cited: set(rows.filter(pc.equal(rows["cited"], cited))["page"].to_pylist())
                         for cited in (True, False)}  # fmt: skip
        used = card["trained_on"]["positives"] + card["held_out"]["positives"]
        found = card["positives"]
        assert used == found["found_in_crawl"] + found["given"] - found["in_both"], name
    given_pages = set()
    for path in (tmp_path / "given/blocks/references/positives").rglob("*.parquet"):
        given_pages |= set(pq.read_table(path)["page"].to_pylist())
    assert counts["wiki"] == {"found_in_crawl": counts["wiki"]["found_in_crawl"], "given": 0, "in_both": 0,
                              "repeated": 0, "unread": {}}  # fmt: skip
    assert len(given_pages) == counts["given"]["given"] == counts["both"]["given"] > 20
    assert sampled["given"][True] == given_pages & (sampled["wiki"][True] | sampled["wiki"][False]) != set()
    assert sampled["both"][True] == sampled["given"][True] | sampled["wiki"][True]
    assert not sampled["both"][False] & (given_pages | sampled["wiki"][True])
    assert counts["given"]["in_both"] == len(sampled["given"][True]) and counts["given"]["unread"]["content-type"] > 0


def test_archives_count_by_content_and_never_by_their_place(sample: Path, tmp_path: Path) -> None:
    for name in ("manual-00000", "manual-00001", "pages"):
        (tmp_path / "one").mkdir(exist_ok=True)
        shutil.copy(sample / f"web/{name}.warc.gz", tmp_path / "one")
    first, ran = train(recipe_over(sample, positives=[str(tmp_path / "one/*")]), tmp_path / "corpus")
    (tmp_path / "one").rename(tmp_path / "other")
    again, none = train(recipe_over(sample, positives=[str(tmp_path / "other/*")]), tmp_path / "corpus")
    assert first == again and ran > 3 and none == 0
    shutil.copy(sample / "web/pages.warc.gz", tmp_path / "other/manual-00001.warc.gz")
    changed, some = train(recipe_over(sample, positives=[str(tmp_path / "other/*")]), tmp_path / "corpus")
    assert changed["positives"]["repeated"] > 0 and changed["positives"]["given"] < first["positives"]["given"]
    assert 0 < some < ran


def test_mistakes_are_sentences(sample: Path, tmp_path: Path) -> None:
    for wrong in ({}, {"model": "m.bin", "positives": ["a.warc"]}, {"model": "m.bin", "wiki": ["w.xml"]}):
        with pytest.raises(ValueError, match="give either model"):
            References.model_validate(wrong)
    with pytest.raises(UserError, match=r"source common_crawl.references.positives: no file matches"):
        train(recipe_over(sample, positives=[str(tmp_path / "none.warc.gz")]), tmp_path / "corpus")
    few = recipe_over(sample, positives=[str(sample / "web/*.warc.gz")], min_positives=10_000)
    with pytest.raises(UserError, match=r"cited pages \(\d+ found in the crawl, \d+ given\), .* or lower ref"):
        train(few, tmp_path / "corpus")


ROWS = st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 3)), max_size=20)


def table_of(rows: list[tuple[bool, int, int]]) -> pa.Table:
    plain = [{"cited": cited, "key": number, "page": page, "domain": "", "text": str(number)}
             for cited, page, number in rows]  # fmt: skip
    return pa.Table.from_pylist(plain, schema=SAMPLE_SCHEMA)


@given(ROWS, ROWS)
def test_a_page_counts_once_and_the_crawls_copy_before_a_given_one(
    crawl: list[tuple[bool, int, int]], archived: list[tuple[bool, int, int]]
) -> None:
    left, in_both = references._drop_crawled(table_of(archived), table_of(crawl))
    cited = {page for is_cited, page, _ in crawl if is_cited}
    pages = {page for _, page, _ in archived}
    assert sorted(left.column("page").to_pylist()) == sorted(pages - cited)
    assert in_both == len(pages & cited)
    firsts = {page: number for _, page, number in reversed(archived)}
    assert all(firsts[row["page"]] == row["key"] for row in left.to_pylist())
    assert left.schema == SAMPLE_SCHEMA
