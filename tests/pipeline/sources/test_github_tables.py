"""GitHub from BigQuery's tables: two rounds, one document a content, every form of an export, and damaged ones."""

import bz2
import gzip
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from licence_texts import GPL_HEADER, MIT, commented

from filters.errors import UserError
from filters.rule_list import parse_rules
from manifests.document import Document
from manifests.source import GitHub, Limits, Source
from pipeline.sources import github_bigquery as github_tables
from pipeline.sources.base import Outcome, Row, joined_for

CODE = "def area(width, height):\n    return width * height\n"
Tables = dict[str, list[dict[str, Any]]]


def file(repository: str, path: str, identifier: str, mode: Any = 33188) -> dict[str, Any]:
    return {"repo_name": repository, "ref": "refs/heads/main", "path": path, "mode": mode, "id": identifier}


TABLES: Tables = {
    "licenses": [
        {"repo_name": "a/one", "license": "mit"}, {"repo_name": "b/two", "license": "bsd-3-clause"},
        {"repo_name": "c/three", "license": "gpl-2.0"}, {"repo_name": "d/none", "license": "apache-2.0"},
    ],
    "files": [
        file("b/two", "src/area.py", "1"), file("a/one", "z/area.py", "1"), file("a/one", "b/area.py", "1"),
        file("c/three", "a.py", "1"), file("c/three", "only.py", "2"), file("a/one", "vendor/x.py", "3"),
        file("a/one", "LICENSE", "4"), file("a/one", "x.png", "5"), file("a/one", "link.py", "6", 40960),
        file("a/one", "gone.py", "7"), file("a/one", "gpl.py", "8"), file("a/one", "big.py", "9"),
        file("e/unknown", "a.py", "1"), file("a/one", "../up.py", "1"), file("a/one", "image.py", "10"),
        file("a/one", "long.py", "11"),
    ],
    "contents": [
        {"id": "1", "size": len(CODE), "binary": False, "copies": 5, "content": CODE},
        {"id": "2", "size": 9, "binary": False, "copies": 1, "content": "import area\n"},
        {"id": "8", "size": 9, "binary": False, "copies": 1, "content": commented(GPL_HEADER, "#") + CODE},
        {"id": "9", "size": 2_000_000, "binary": False, "copies": 1, "content": None},
        {"id": "10", "size": 9, "binary": True, "copies": 1, "content": None},
        {"id": "11", "size": 9, "binary": False, "copies": 1, "content": "word " * 300},
        {"id": "1", "size": len(CODE), "binary": False, "copies": 5, "content": CODE},
    ],
}  # fmt: skip
REASONS = {
    "joined": 5, "unused-row": 8, "no-licence": 4, "vendored-file": 1, "licence-file": 1, "file-type": 2,
    "no-text": 1, "not-plain-text": 1, "unsafe-path": 1, "code-long-line": 1, "older-copy": 1,
}  # fmt: skip


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def bigquery(rows: list[dict[str, Any]]) -> bytes:
    """As BigQuery exports JSON: whole numbers as strings, nulls left out."""
    plain = [{k: str(v) if type(v) is int else v for k, v in row.items() if v is not None} for row in rows]
    return lines(plain)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=3)
    return out.getvalue()


FORMS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "lines": ("json", lines), "bigquery": ("json.gz", lambda rows: gzip.compress(bigquery(rows))),
    "bzip2": ("jsonl.bz2", lambda rows: bz2.compress(lines(rows))), "parquet": ("parquet", parquet),
    "blank lines": ("json", lambda rows: b"\n" + lines(rows).replace(b"\n", b"\r\n\n") + b"\n"),
}  # fmt: skip


def inputs(form: str, tables: Tables = TABLES) -> dict[str, bytes]:
    ending, write = FORMS[form]
    return {f"{table}/000000000000.{ending}": write(rows) for table, rows in tables.items()}


def outcomes(given: dict[str, bytes], split_bytes: int = 1 << 30, **rules: Any) -> list[Outcome]:
    """What becomes of every row, through both rounds; bytes must be accounted for and documents found again."""
    limits = rules.pop("limits", Limits())
    github = GitHub(form="tables", **rules)
    recipe = Source(weight=1.0, kind="github", limits=limits, filters=parse_rules(["code"]), github=github)
    assert joined_for(recipe) is github_tables
    done, waiting = list[Outcome](), list[Row]()
    for number in range(2):
        rows = waiting
        for name, stored in given.items():
            if github_tables.select_round(name, recipe) != number:
                continue
            survey = github_tables.survey(stored, name, recipe, split_bytes)
            assert [piece[0] for piece in survey.pieces[1:]] == [piece[1] for piece in survey.pieces[:-1]]
            items = list[Row | Outcome]()
            for start, end, state in survey.pieces:
                items += github_tables.read_rows(stored, name, recipe, {}, start, end, state)
            assert sum(item.stored for item in items) == len(stored) and all(item.stored >= 0 for item in items)
            done += [item for item in items if isinstance(item, Outcome)]
            rows = rows + [item for item in items if isinstance(item, Row)]
        waiting = []
        rows.sort(key=lambda row: (row.group, row.place))
        for _, group in itertools.groupby(rows, key=lambda row: row.group):
            members = list(group)
            found = list(github_tables.combine(members, "github", recipe, number))
            assert len(found) == len(members)
            assert sum(item.stored for item in found) == sum(item.stored for item in members)
            done += [item for item in found if isinstance(item, Outcome)]
            waiting += [item for item in found if isinstance(item, Row)]
    assert waiting == []
    for outcome in done:
        if outcome.document is not None:
            files = {place.file: given[place.file] for place in (outcome.locator, *outcome.locator.parts)}
            again = github_tables.reread(files, outcome.document.locator, "github", recipe).document
            assert again is not None and again.text == outcome.document.text and again.url == outcome.document.url
    return done


def documents(found: list[Outcome]) -> list[Document]:
    return [outcome.document for outcome in found if outcome.document is not None]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter(item.reason.value for item in found if item.reason is not None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split_bytes", [1 << 30, 200])
def test_a_content_is_one_document_however_many_files_have_it(form: str, split_bytes: int) -> None:
    """RedPajama's join makes one of each of the four files with content 1."""
    found = outcomes(inputs(form), split_bytes)
    (document,) = documents(found)
    assert document.text == CODE and document.licence == "MIT"
    assert document.url == "https://github.com/a/one/blob/main/b/area.py"
    assert document.metadata == {
        "repository": "a/one", "path": "b/area.py", "ref": "refs/heads/main", "language": "Python", "places": 3,
    }  # fmt: skip
    assert [part.file.partition("/")[0] for part in document.locator.parts] == ["files", "licenses"]
    told = reasons(found)
    told["unused-row"] -= form == "blank lines" and split_bytes == 200  # a piece of blank lines alone
    assert told == REASONS


def test_the_recipes_licences() -> None:
    both = documents(outcomes(inputs("lines"), licences=["gpl-2.0", "GPL"]))
    assert {item.metadata["path"]: item.licence for item in both} == {"a.py": "gpl-2.0", "only.py": "gpl-2.0"}


def test_two_licences_of_a_repository_must_both_be_kept() -> None:
    for other, kept in (("gpl-2.0", 0), ("apache-2.0", 1), ("mit", 1)):
        more = [{"repo_name": "a/one", "license": other}]
        only = {**TABLES, "licenses": TABLES["licenses"][:1] + more, "files": TABLES["files"][2:3]}
        assert len(documents(found := outcomes(inputs("lines", only)))) == kept
        assert reasons(found)["unused-row"] + reasons(found)["no-licence"] + reasons(found)["joined"] >= 3


def test_rows_that_are_none_are_dead_letters_and_the_next_is_read_on() -> None:
    given = inputs("lines")
    name = next(name for name in given if name.startswith("contents"))
    given[name] = (
        b'{"id": 3}\n[1]\n{"id": "x", "content": 5}\n\xff\n{"content": ""}\n' + b"[" * 9000 + b"\n" + given[name]
    )
    found = outcomes(given)
    assert reasons(found) == {**REASONS, "corrupt-record": 5, "undecodable-text": 1} and len(documents(found)) == 1
    given[name] += b'{"id": "1'
    assert reasons(outcomes(given))["corrupt-record"] == 6
    given[name] = b" " * 300_000 + b"\n" + given[name]
    assert reasons(outcomes(given, limits=Limits(record_bytes=100_000)))["too-large"] == 1


@pytest.mark.parametrize("column", ["repo_name", "path", "ref", "id"])
def test_lone_surrogates_which_json_may_hold_end_no_run(column: str) -> None:
    row = {**file("a/one", "b/area.py", "1"), column: "a/\ud800.py"}
    found = outcomes(inputs("lines", {**TABLES, "files": [row]}))
    assert len(documents(found)) == (column in ("path", "ref"))


def test_tables_must_be_named_and_whole() -> None:
    recipe = Source(weight=1.0, kind="github", github=GitHub(form="tables"))
    names = {f"{table}-0001.json.gz": dict[str, int]() for table in TABLES}
    assert github_tables.collect_shared("github", recipe, names) == {}
    with pytest.raises(UserError, match="does not name its table"):
        github_tables.collect_shared("github", recipe, {**names, "x.json": {}})
    with pytest.raises(UserError, match="no file of the table files"):
        github_tables.collect_shared("github", recipe, {name: {} for name in names if "files" not in name})
    assert github_tables.table_of("github_repos.sample_contents/00.parquet") == "contents"
    assert github_tables.table_of("profiles/x.json") == ""


@pytest.mark.parametrize("form", ["bigquery", "bzip2", "parquet"])
def test_truncated_files_give_what_they_hold_and_say_so(form: str) -> None:
    given = inputs(form)
    name = next(name for name in given if name.startswith("files"))
    for cut in (4, 100, len(given[name]) // 2, len(given[name]) - 9):
        told = reasons(outcomes({**given, name: given[name][:cut]}))
        assert told["truncated-record"] + told["corrupt-record"] + told["corrupt-gzip"] >= 1
    outcomes({**given, name: b""})


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damage_ends_in_reasons(form: str, changes: list[tuple[int, int]]) -> None:
    given = inputs(form)
    for number, (place, value) in enumerate(changes):
        name = sorted(given)[number % 3]
        hurt = bytearray(given[name])
        hurt[place % len(hurt)] = value
        given[name] = bytes(hurt)
    outcomes(given)


def test_the_files_own_licence_wins() -> None:
    assert MIT not in GPL_HEADER
    found = outcomes(inputs("lines"), licences=["MIT", "GPL"])
    texts = sorted(item.licence for item in documents(found))
    assert texts == ["GPL", "MIT"]
