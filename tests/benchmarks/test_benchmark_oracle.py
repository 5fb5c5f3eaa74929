"""The benchmark `oracle`: hashes differ if an output differs, and do not depend on metadata that may change."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.oracle import main

LEDGER = {"extract": {"books": {"in": {"records": 3}, "out": {"records": 2}, "dropped": {"no-text": {"records": 1}}}}}


def write_arrow(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def rows(text: str = "two", recipe: str = "a") -> pa.Table:
    table = pa.table({"tokens": pa.array([[1, 2], [3]], pa.large_list(pa.uint16())), "url": ["one", text]})
    return table.replace_schema_metadata({"recipe_sha256": recipe})


def corpus(folder: Path) -> Path:
    """Write a tiny corpus with one file of each kind."""
    write_arrow(folder / "shards/books/train-00000-of-00001.arrow", rows())
    write_arrow(folder / "verdicts/lines/books/a.arrow", rows())
    write_arrow(folder / "blocks/lines/books/a.arrow", rows())
    (folder / "documents/books").mkdir(parents=True)
    pq.write_table(rows(), folder / "documents/books/a.parquet")
    (folder / "models").mkdir()
    (folder / "models/tokenizer.model").write_bytes(b"pieces")
    (folder / "statistics.json").write_text('{"manifest_sha": "a", "documents": 2}')
    (folder / "manifest.json").write_text(json.dumps({"ledger": LEDGER, "findings": {"lines": {"duplicates": 4}}}))
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    assert main([str(corpus(tmp_path / "before")), "--output", str(tmp_path / "before.json")]) == 0
    return tmp_path / "before.json"


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return corpus(tmp_path / "after")


def told(before: Path, after: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    code = main([str(after), "--against", str(before), *options])
    return code, capsys.readouterr().out.splitlines()[:-1]


def test_the_same_corpus_is_the_same(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (after / "blocks/lines/books/a.arrow").write_bytes(b"of the run alone")
    (after / "statistics.json").write_text('{"manifest_sha": "b", "documents": 2}')
    assert told(before, after, capsys) == (0, [])


def test_every_entry_is_written(before: Path) -> None:
    assert set(json.loads(before.read_bytes())["entries"]) == {
        *("shards/books/train-00000-of-00001.arrow", "verdicts/lines/books/a.arrow", "documents/books/a.parquet"),
        *("models/tokenizer.model", "statistics.json", "findings/lines/duplicates"),
        *(f"ledger/extract/books/{name}/records" for name in ("in", "out", "dropped/no-text")),
    }


@pytest.mark.parametrize("name", ["shards/books/train-00000-of-00001.arrow", "documents/books/a.parquet"])
def test_a_changed_value_is_found_by_its_column(
    before: Path, after: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name.endswith(".parquet"):
        pq.write_table(rows("2"), after / name)
    else:
        write_arrow(after / name, rows("2"))
    assert told(before, after, capsys) == (1, [f"different: {name}: columns url"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (rows().slice(0, 1), "2 rows before, 1 now; columns tokens, url"),
        (rows().select(["url", "tokens"]), "columns in another order"),
        (rows().rename_columns(["tokens", "address"]), "columns address, url"),
        (rows().cast(pa.schema([("tokens", pa.large_list(pa.uint32())), ("url", pa.string())])), "columns tokens"),
        (rows().set_column(1, "url", pa.array(["one", None])), "columns url"),
    ],
)
def test_rows_order_names_types_and_nulls_count(
    before: Path, after: Path, capsys: pytest.CaptureFixture[str], changed: pa.Table, words: str
) -> None:
    write_arrow(after / "verdicts/lines/books/a.arrow", changed)
    assert told(before, after, capsys) == (1, [f"different: verdicts/lines/books/a.arrow: {words}"])


@pytest.mark.parametrize("name", ["shards/books/train-00000-of-00001.arrow", "documents/books/a.parquet"])
def test_metadata_and_batches_alone_are_no_difference(
    before: Path, after: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    other = rows(recipe="b")
    if name.endswith(".parquet"):
        pq.write_table(other, after / name, row_group_size=1)
    else:
        write_arrow(after / name, pa.concat_tables([other.slice(0, 1), other.slice(1)]))
    said = [f"same columns in another file: {name}"]
    assert told(before, after, capsys) == (0, said)
    assert told(before, after, capsys, "--metadata") == (1, said)


def test_missing_added_and_other_files_are_named(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (after / "documents/books/a.parquet").unlink()
    (after / "skipped").mkdir()
    (after / "skipped/a.jsonl").write_text("{}")
    (after / "models/tokenizer.model").write_bytes(b"others")
    (after / "statistics.json").write_text('{"documents": 3}')
    code, lines = told(before, after, capsys)
    assert code == 1 and lines == [
        "missing: documents/books/a.parquet",
        "added: skipped/a.jsonl",
        "different: models/tokenizer.model: other bytes",
        "different: statistics.json: other values",
    ]


def test_every_count_of_the_ledger_is_compared(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (after / "manifest.json").read_text()
    (after / "manifest.json").write_text(text.replace('"no-text": {"records": 1}', '"no-text": {"records": 2}'))
    name = "ledger/extract/books/dropped/no-text/records"
    assert told(before, after, capsys) == (1, [f"different: {name}: 1 before, 2 now"])


def test_renamed_stages_and_paths_are_the_same(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (after / "verdicts/lines").rename(after / "verdicts/line_dedup")
    (after / "shards").rename(after / "models/shards")
    (after / "manifest.json").write_text((after / "manifest.json").read_text().replace("lines", "line_dedup"))
    assert told(before, after, capsys)[0] == 1
    moved = "shards/books=models/shards/books"
    assert told(before, after, capsys, "--rename", "verdicts/lines=verdicts/line_dedup", "--rename", moved) == (
        1,
        ["missing: findings/lines/duplicates", "added: findings/line_dedup/duplicates"],
    )
    assert told(before, after, capsys, "--rename", "lines=line_dedup", "--rename", moved) == (0, [])


def test_generations_are_compared_under_the_same_renames(
    tmp_path: Path, after: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = corpus(tmp_path / "old")
    for folder in (old, after):
        corpus(folder / "generations/1")
    assert main([str(old), "--output", str(tmp_path / "old.json")]) == 0
    for folder in (after, after / "generations/1"):
        (folder / "verdicts/lines").rename(folder / "verdicts/line_dedup")
    moved = ["--rename", "verdicts/lines=verdicts/line_dedup"]
    assert told(tmp_path / "old.json", after, capsys, *moved) == (0, [])
    write_arrow(after / "generations/1/verdicts/line_dedup/books/a.arrow", rows("2"))
    said = ["different: generations/1/verdicts/line_dedup/books/a.arrow: columns url"]
    assert told(tmp_path / "old.json", after, capsys, *moved) == (1, said)


def test_mistakes_are_one_sentence(
    tmp_path: Path, before: Path, after: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(folder: Path, *options: str) -> str:
        assert main([str(folder), "--against", str(before), *options]) == 2
        return capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in said(tmp_path / "empty")
    assert "is not OLD=NEW" in said(after, "--rename", "lines")
    assert "two entries the name" in said(after, "--rename", "documents/books/a.parquet=models/tokenizer.model")
    (tmp_path / "other.json").write_text("{}")
    assert "holds no hashes" in said(after, "--against", str(tmp_path / "other.json"))
