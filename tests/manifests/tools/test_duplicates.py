"""Test `python -m manifests duplicates`: the cluster of a document, the diffs, and one-sentence error messages."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from manifests.__main__ import main
from manifests.document import CLEAN_SCHEMA
from manifests.manifest import load_manifest
from manifests.tools import duplicates as module
from manifests.tools.duplicates import Member, diff, duplicates
from pipeline.beam.tables import table_writer
from pipeline.dedup.survivors import DUPLICATE_SCHEMA


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


@pytest.fixture(scope="module")
def removed(corpus: Path) -> list[dict]:
    return pq.read_table(corpus / "duplicates/clusters-00000-of-00001.parquet").to_pylist()


def clean(corpus: Path) -> dict[bytes, dict]:
    tables = [pq.read_table(path, columns=["id", "url", "text"]) for path in sorted(corpus.rglob("clean/**/*.parquet"))]
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def test_every_removed_document_and_every_kept_one_shows_its_cluster(corpus: Path, removed: list[dict]) -> None:
    rows = clean(corpus)
    for row in removed:
        members = {one["removed"].hex() for one in removed if one["kept"] == row["kept"]}
        for asked in (row["removed"], row["kept"]):
            cluster = duplicates(corpus, asked.hex())
            assert cluster.document == asked.hex() and cluster.kept.id == row["kept"].hex()
            assert {one.id for one in cluster.removed} == members and cluster.removed_count == len(members)
            compared = [one.id for one in cluster.compared()]
            assert compared == [asked.hex()] if asked == row["removed"] else set(compared) == members
            mine = next(one for one in cluster.removed if one.id == row["removed"].hex())
            assert (mine.reason, mine.similarity) == (row["reason"], row["similarity"])
            assert (mine.text, mine.url) == (rows[row["removed"]]["text"], rows[row["removed"]]["url"])
            assert mine.characters == len(mine.text) and mine.source in load_manifest(corpus).sources


def test_a_beginning_and_a_url_name_the_same_document(corpus: Path, removed: list[dict]) -> None:
    rows = clean(corpus)
    ids = [identity.hex() for identity in rows]
    urls = [row["url"] for row in rows.values()]
    row = next(row for row in removed if urls.count(rows[row["removed"]]["url"]) == 1)
    asked = row["removed"].hex()
    beginning = next(asked[:n] for n in range(1, 33) if sum(one.startswith(asked[:n]) for one in ids) == 1)
    whole = duplicates(corpus, asked)
    assert duplicates(corpus, beginning) == duplicates(corpus, (beginning + asked[len(beginning)]).upper()) == whole
    assert duplicates(corpus, rows[row["removed"]]["url"]) == whole


def test_for_people(corpus: Path, removed: list[dict], capsys: pytest.CaptureFixture[str]) -> None:
    row = next(row for row in removed if row["reason"] == "near-duplicate")
    assert main(["duplicates", str(corpus), row["removed"].hex()]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == f"document  {row['removed'].hex()}" and lines[1].startswith(f"kept      {row['kept'].hex()}  ")
    assert lines[2].startswith(f"removed   {row['removed'].hex()}  ")
    assert f"near-duplicate, similarity {row['similarity']:.3f}" in said
    assert "\n@@" in said and "\n-" in said and "\n+" in said and "\x1b" not in said
    assert main(["duplicates", str(corpus), row["removed"].hex(), "--no-diff"]) == 0
    assert "@@" not in capsys.readouterr().out
    exact = next(row for row in removed if row["reason"] == "exact-duplicate")
    assert main(["duplicates", str(corpus), exact["removed"].hex()]) == 0
    assert "the texts are the same" in capsys.readouterr().out


def test_a_terminal_gets_colours(corpus: Path, removed: list[dict]) -> None:
    row = next(row for row in removed if row["reason"] == "near-duplicate")
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, color_system="standard", highlight=False)
    for line in duplicates(corpus, row["removed"].hex()).lines(diffs=True):
        console.print(line, soft_wrap=True)
    assert "\n\x1b[31m-" in page.getvalue() and "\n\x1b[32m+" in page.getvalue()


def test_for_programs(corpus: Path, removed: list[dict], capsys: pytest.CaptureFixture[str]) -> None:
    row = next(row for row in removed if row["reason"] == "near-duplicate")
    arguments = ["duplicates", str(corpus), row["removed"].hex(), "--json"]
    assert main(arguments) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["document"] == row["removed"].hex() and plain["kept"]["id"] == row["kept"].hex()
    (mine,) = [one for one in plain["removed"] if one["id"] == row["removed"].hex()]
    assert mine["reason"] == "near-duplicate" and mine["similarity"] == pytest.approx(row["similarity"])
    assert any(line.startswith("@@") for line in mine["diff"])
    assert main([*arguments, "--no-diff"]) == 0
    assert "diff" not in json.loads(capsys.readouterr().out)["removed"][0]


def mistake(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    assert main(["duplicates", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    for expected in words:
        assert expected in said


def test_mistakes(corpus: Path, removed: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = clean(corpus)
    clustered = {row[side] for row in removed for side in ("removed", "kept")}
    alone = next(identity for identity in rows if identity not in clustered)
    place = str(corpus)
    mistake(capsys, [place, alone.hex()], alone.hex(), "is in", "but in no cluster")
    mistake(capsys, [place, "f" * 32], "no clean document", f"begins with {'f' * 32}")
    mistake(capsys, [place, "f" * 33], "no clean document", "the URL fff")
    mistake(
        capsys, [place, "http://nowhere.example/\n\x1b[31m"], "no clean document", "the URL http://nowhere.example/"
    )
    first = max("0123456789abcdef", key=lambda digit: sum(one.hex().startswith(digit) for one in rows))
    mistake(capsys, [place, first], "documents have an id that begins with", "give more digits")
    mistake(capsys, [str(tmp_path), "00"], "has no clean/", "pipeline run")
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    (copy / "duplicates/clusters-00000-of-00001.parquet").write_bytes(b"PAR1 no more")
    mistake(capsys, [str(copy), removed[0]["removed"].hex()], "clusters-00000-of-00001.parquet cannot be read")
    shutil.rmtree(copy / "duplicates")
    mistake(capsys, [str(copy), removed[0]["removed"].hex()], "has no duplicates/")


def handmade(folder: Path, texts: list[str], kept: int = 0) -> Path:
    """Write a corpus of one file in which all documents are near-duplicates of one document and have the same URL."""
    ids = [bytes([number, *range(1, 16)]) for number in range(len(texts))]
    empty = dict.fromkeys(CLEAN_SCHEMA.names)
    with table_writer(folder / "clean/web/a/b.warc.gz.parquet", CLEAN_SCHEMA) as writer:
        for identity, text in zip(ids, texts, strict=True):
            writer.append({**empty, "id": identity, "text": text, "url": "http://same.example/"})
            writer.flush()
    rows = [
        {
            "removed": one,
            "kept": ids[kept],
            "cluster": ids[kept],
            "similarity": 1 - place / 100,
            "reason": "near-duplicate",
        }
        for place, one in enumerate(ids)
        if place != kept
    ]
    (folder / "duplicates").mkdir()
    table = pa.Table.from_pylist(rows, schema=DUPLICATE_SCHEMA)
    pq.write_table(table, folder / "duplicates/clusters-00000-of-00001.parquet", row_group_size=3)
    return folder


def test_of_a_large_cluster_the_least_similar_are_shown_and_the_asked_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = handmade(tmp_path / "corpus", [f"Text. Number {number}." for number in range(30)], kept=4)
    shown = duplicates(corpus, "04", 5)
    assert [one.id[:2] for one in shown.removed] == [f"{n:02x}" for n in (29, 28, 27, 26, 25)]
    assert shown.removed_count == 29 and shown.kept.source == "web"
    asked = duplicates(corpus, "07", 3)
    assert [one.id[:2] for one in asked.removed] == [f"{n:02x}" for n in (29, 28, 7)]
    assert [one.id[:2] for one in asked.compared()] == ["07"]
    assert main(["duplicates", str(corpus), "04", "--most", "2"]) == 0
    assert "and 27 more" in capsys.readouterr().out
    mistake(capsys, [str(corpus), "http://same.example/"], "30 documents have the URL", "give the id of one of 00")
    (corpus / "clean/web/a/b.warc.gz.parquet").unlink()
    handmade(tmp_path / "other", ["Text."] * 3)
    shutil.copy(tmp_path / "other/clean/web/a/b.warc.gz.parquet", corpus / "clean/web/a/b.warc.gz.parquet")
    mistake(capsys, [str(corpus), "01"], "clean lacks", "finish the run")


def test_hostile_texts_reach_the_terminal_harmless_and_soon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"line {number % 50}" for number in range(20_000)]
    texts = ["\n".join(lines), "\n".join(reversed(lines)), "\x1b[2J\u202edetrevni\r" + "x" * 10**6]
    corpus = handmade(tmp_path / "corpus", texts)
    assert main(["duplicates", str(corpus), "00"]) == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\r", "\u202e"} & set(said) and "\\x1b[2J\\u202edetrevni\\rxxx" in said
    assert len(said) < 20_000 and "more lines of this diff" in said


def test_damaged_texts_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text column of the second row group is damaged, while the ids are intact."""
    corpus = handmade(tmp_path / "corpus", [f"{number} " * 2000 for number in range(3)])
    path = corpus / "clean/web/a/b.warc.gz.parquet"
    column = pq.ParquetFile(path).metadata.row_group(1).column(CLEAN_SCHEMA.get_field_index("text"))
    assert column.path_in_schema == "text"
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    mistake(capsys, [str(corpus), "01"], "b.warc.gz.parquet cannot be read")


def test_a_diff_is_by_sentence_and_says_whose_each_is() -> None:
    kept, other = (
        Member(name, "web", "", len(text), 1.0, "", text)
        for name, text in (("a", "One. Two is here. Three."), ("b", "One. Two was here. Three."))
    )
    assert diff(kept, other)[3:] == [" One.", "-Two was here.", "+Two is here.", " Three."]
    assert diff(kept, kept) == []
    long = [Member(name, "web", "", 0, 1.0, "", "Same. " * module.COMPARED_LINES + name) for name in "ab"]
    assert diff(*long) == []
