"""Test `verify` on a small corpus: a hundred random changes and every kind of forgery are found and named."""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from indexed import copy_verified_files, index_entry, reseal, reseal_files
from rich.console import Console

from filters.errors import UserError
from manifests.__main__ import main
from manifests.document import LOCATOR_FIELDS, Locator, Part, document_id, document_ids
from manifests.files import canonical_json, relative_files, sha256_file, sha256_json
from manifests.index import ENTRY, id_keys, open_part, pack_entries, url_keys, write_part
from manifests.manifest import load_manifest
from manifests.recipe import Tokenizer
from manifests.shard import open_shard, write_shard
from manifests.tools.verify import verify
from pipeline.stages.tokenizer import train_bpe

MUTATIONS = 100


@pytest.fixture(scope="module")
def built(demo_corpus: Path) -> Path:
    return demo_corpus


@pytest.fixture
def corpus(built: Path, tmp_path: Path) -> Path:
    return copy_verified_files(built, tmp_path / "corpus")


def first_shard(corpus: Path) -> str:
    """Return the path of the web source's first train shard below `shards/`."""
    return load_manifest(corpus).sources["common_crawl"].train[0].path


def findings(corpus: Path, fast: bool = False) -> list[str]:
    """Return the findings of `verify`; if it raises UserError, return its message as the only finding."""
    try:
        return verify(corpus, fast)
    except UserError as error:
        return [str(error)]


def vouched(corpus: Path) -> list[str]:
    cards = [name for name in relative_files(corpus) if name.endswith("card.json")]
    return [name for name in relative_files(corpus) if name not in cards]


def flip(corpus: Path, chance: random.Random) -> set[str]:
    name = chance.choice(vouched(corpus))
    data = bytearray((corpus / name).read_bytes())
    places = range(len(data))
    if name == "recipe.yaml":  # No hash covers the paths of dumps.
        lines = list(re.finditer(rb".*\n", bytes(data)))
        places = [place for line in lines if b"/" not in line[0] for place in range(*line.span())]
    data[chance.choice(places)] ^= 1 << chance.randrange(8)
    (corpus / name).write_bytes(data)
    return {name}


def truncate(corpus: Path, chance: random.Random) -> set[str]:
    name = chance.choice(vouched(corpus))
    data = (corpus / name).read_bytes()
    (corpus / name).write_bytes(data[: chance.randrange(len(data))])
    return {name}


def append(corpus: Path, chance: random.Random) -> set[str]:
    name = chance.choice(vouched(corpus))
    with (corpus / name).open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 20)))
    return {name}


def delete(corpus: Path, chance: random.Random) -> set[str]:
    name = chance.choice(vouched(corpus))
    (corpus / name).unlink()
    return {name}


def rename(corpus: Path, chance: random.Random) -> set[str]:
    name = chance.choice(vouched(corpus))
    (corpus / name).rename((corpus / name).with_name("other.arrow"))
    return {name}


def swap(corpus: Path, chance: random.Random) -> set[str]:
    folder = chance.choice(["shards", "index"])
    one, other = chance.sample([name for name in vouched(corpus) if name.startswith(folder)], 2)
    first, second = (corpus / one).read_bytes(), (corpus / other).read_bytes()
    (corpus / one).write_bytes(second)
    (corpus / other).write_bytes(first)
    return {one, other}


def duplicate(corpus: Path, chance: random.Random) -> set[str]:
    name = chance.choice([name for name in vouched(corpus) if name.startswith(("shards", "index"))])
    copy = name.replace("00000", "00009", 1) if "00000" in name else f"{name}.copy"
    shutil.copy(corpus / name, corpus / copy)
    return {copy}


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the key paths of all numbers in a manifest that other files also determine: all except `findings`."""
    if isinstance(value, (dict, list)) and path[:1] != ("findings",):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(inner, (*path, key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path


def edit(plain: Any, chance: random.Random) -> None:
    *above, last = chance.choice(list(numbers(plain)))
    for key in above:
        plain = plain[key]
    plain[last] += chance.choice([1, -1, 1000])


def edited(corpus: Path, chance: random.Random) -> set[str]:
    plain = json.loads((corpus / "manifest.json").read_bytes())
    edit(plain, chance)
    (corpus / "manifest.json").write_bytes(canonical_json(plain))
    return {"manifest.json"}


def edited_and_sealed(corpus: Path, chance: random.Random) -> set[str]:
    reseal(corpus, lambda plain: edit(plain, chance))
    return set(vouched(corpus))  # The message names the file that contradicts the manifest, which may be any file.


def index_rows(corpus: Path, chance: random.Random) -> set[str]:
    """Swap two entries of an index file, or only their locations, and update all hashes."""
    path = chance.choice(sorted((corpus / "index").iterdir()))
    part = open_part(path)
    packed = np.empty(len(part.keys), ENTRY)
    packed["key"], packed["shard"], packed["row"] = part.keys, part.shards, part.rows
    one, other = chance.sample(range(len(packed)), 2)
    columns = chance.choice([["shard", "row"], ["key", "shard", "row"]])
    swapped = packed.copy()
    for column in columns:
        swapped[column][[one, other]] = packed[column][[other, one]]
    with mock.patch("manifests.index.np.lexsort", lambda keys: np.arange(len(keys[0]))):
        write_part(path.parent, part.name, swapped, part.paths)
    reseal_files(corpus)
    return {f"index/{path.name}"}


KINDS: list[Callable[[Path, random.Random], set[str]]] = [
    flip,
    truncate,
    append,
    delete,
    rename,
    swap,
    duplicate,
    edited,
    edited_and_sealed,
    index_rows,
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_mutations_are_each_found_and_named(
    built: Path, tmp_path: Path, kind: Callable[[Path, random.Random], set[str]]
) -> None:
    for number in range(MUTATIONS // len(KINDS)):
        corpus = copy_verified_files(built, tmp_path / str(number))
        named = kind(corpus, random.Random(f"{kind.__name__} {number}"))
        found = findings(corpus)
        assert found, (number, named)
        if kind is edited_and_sealed:
            assert any(name in finding for finding in found for name in named), (named, found)
        else:
            assert all(any(name in finding for finding in found) for name in named), (named, found)


def test_every_byte_of_the_small_files_counts(built: Path, tmp_path: Path) -> None:
    """Change each file that has no hash in the manifest at about fifteen places."""
    corpus = copy_verified_files(built, tmp_path / "c")
    for name in ("manifest.json", "manifest.json.sha256", "ledger.json"):
        good = (corpus / name).read_bytes()
        for place in range(0, len(good), 1 + len(good) // 15):
            data = bytearray(good)
            data[place] ^= 1
            (corpus / name).write_bytes(data)
            assert any(name in finding for finding in findings(corpus, fast=True)), (name, place)
        (corpus / name).write_bytes(good)
    assert verify(corpus) == []


def test_where_the_dumps_lay_is_vouched_for_nowhere(corpus: Path) -> None:
    path = corpus / "recipe.yaml"
    path.write_text(path.read_text().replace("/sample/", "/simple/"))
    assert verify(corpus) == []


def test_a_whole_corpus_verifies_in_processes_too(corpus: Path) -> None:
    told: list[int] = []
    with mock.patch("manifests.tools.verify.LARGE_BYTES", 1):
        assert verify(corpus, progress=told.append) == []
    manifest = load_manifest(corpus)
    assert sum(told) == sum(entry.bytes for entry in [*manifest.shards(), *manifest.index])


def forge(corpus: Path, change: Callable[[list[dict[str, Any]]], None], **metadata: str) -> None:
    """Change the rows or the metadata of a shard, and update all hashes of the corpus."""
    path = corpus / "shards" / first_shard(corpus)
    shard = open_shard(path)
    rows = shard.batch.to_pylist()
    change(rows)
    batch = pa.RecordBatch.from_pylist(rows, schema=shard.batch.schema)
    write_shard(path, batch, shard.metadata | metadata)
    reseal_files(corpus)


def set_tokens(row: int, place: int, value: int) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row]["tokens"][place] = value

    return change


def swap_documents(rows: list[dict[str, Any]]) -> None:
    rows[0], rows[1] = rows[1], rows[0]


def set_all(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[3].update(values)


FORGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no BOS": (lambda c: forge(c, set_tokens(0, 0, 5)), "shards/{shard}: document 0 is not framed"),
    "no EOS": (lambda c: forge(c, set_tokens(7, -1, 5)), "shards/{shard}: document 7 is not framed"),
    "an id too large": (lambda c: forge(c, set_tokens(3, 5, 512)), "shards/{shard}: a token id outside"),
    "another id": (lambda c: forge(c, set_all(document=b"x" * 16)), "shards/{shard}: document 3: its id"),
    "another locator": (lambda c: forge(c, set_all(offset=1)), "shards/{shard}: document 3: its id"),
    "another source": (lambda c: forge(c, set_all(source="books")), "shards/{shard}: a document of another source"),
    "a null": (lambda c: forge(c, set_all(file=None)), "shards/{shard}: column file has nulls"),
    "a size of none": (lambda c: forge(c, set_all(cluster_size=0)), "shards/{shard}: a document that stands for none"),
    "another URL": (lambda c: forge(c, set_all(url="http://x")), "index/urls-"),
    "rows changed places": (lambda c: forge(c, swap_documents), "index/ids-"),
    "another tokenizer named": (
        lambda c: forge(c, lambda rows: None, tokenizer_sha256="0" * 64),
        "shards/{shard}: its tokenizer_sha256 is not the manifest's",
    ),
    "another recipe named": (
        lambda c: forge(c, lambda rows: None, recipe_sha256="0" * 64),
        "shards/{shard}: its recipe_sha256 is not the manifest's",
    ),
    "another side named": (
        lambda c: forge(c, lambda rows: None, side="validation"),
        "shards/{shard}: its side is not the manifest's",
    ),
}


@pytest.mark.parametrize("forgery", sorted(FORGED))
def test_a_forged_shard_is_found_though_all_hashes_are_right(corpus: Path, forgery: str) -> None:
    change, words = FORGED[forgery]
    words = words.format(shard=first_shard(corpus))
    change(corpus)
    assert any(words in found for found in verify(corpus))


def test_a_replaced_tokenizer_is_found_though_its_hash_is_right(corpus: Path) -> None:
    path = corpus / "models/tokenizer.model"
    path.write_bytes(train_bpe(["The keeper counted the boats. " * 200], Tokenizer(vocabulary=310)))
    assert "models/tokenizer.model: its bytes have changed (sha256)" in verify(corpus)
    reseal(corpus, lambda plain: plain["tokenizer"].update(sha256=sha256_file(path)))
    found = verify(corpus)
    assert "manifest.json: tokenizer.vocabulary is 512, models/tokenizer.model has 310" in found
    assert f"shards/{first_shard(corpus)}: its tokenizer_sha256 is not the manifest's" in found


def test_a_recipe_edited_with_its_hash_is_found(corpus: Path) -> None:
    def change(plain: dict[str, Any]) -> None:
        plain["recipe"]["deduplication"]["minhash"]["threshold"] = 0.5
        plain["recipe_sha"] = sha256_json(plain["recipe"])

    reseal(corpus, change)
    found = verify(corpus)
    assert "recipe.yaml: another recipe than manifest.json holds" in found
    assert f"shards/{first_shard(corpus)}: its recipe_sha256 is not the manifest's" in found


def drop_entry(corpus: Path) -> None:
    path = sorted((corpus / "index").glob("ids-*"))[0]
    part = open_part(path)
    packed = np.empty(len(part.keys), ENTRY)
    packed["key"], packed["shard"], packed["row"] = part.keys, part.shards, part.rows
    made = index_entry(write_part(path.parent, part.name, packed[1:], part.paths), len(packed) - 1)
    reseal(corpus, lambda plain: plain["index"][[e["path"] for e in plain["index"]].index(path.name)].update(made))


def test_an_index_that_lacks_a_document_is_found(corpus: Path) -> None:
    drop_entry(corpus)
    (found,) = verify(corpus)
    assert re.fullmatch(r"index/ids-\S+: no entry for document [0-9]+ of shards/\S+", found)


def test_a_document_that_is_there_twice_is_found_though_the_index_has_both(corpus: Path) -> None:
    """The second copy replaces another document, so that no count differs."""
    forge(corpus, lambda rows: rows[1].update({**rows[0], "tokens": rows[1]["tokens"]}))
    for name, rows_of in (("ids", lambda batch: (id_keys(batch["document"]), np.arange(len(batch)))), ("urls", None)):
        (path,) = (corpus / "index").glob(f"{name}-*")
        part, packed = open_part(path), []
        for number, shard in enumerate(part.paths):
            batch = open_shard(corpus / "shards" / shard).batch
            keys, rows = rows_of(batch) if rows_of else url_keys(batch["url"])
            packed.append(pack_entries(keys, number, rows))
        write_part(path.parent, part.name, np.concatenate(packed), part.paths)
    reseal_files(corpus)
    (found,) = verify(corpus)
    shard, document = f"shards/{first_shard(corpus)}", open_shard(corpus / "shards" / first_shard(corpus)).row(0)
    assert found == f"{shard}: document {document['document'].hex()} is there, and in {shard} again"


def test_an_index_file_left_out_of_the_manifest_is_found(corpus: Path) -> None:
    path = sorted((corpus / "index").iterdir())[0]
    path.unlink()
    reseal(corpus, lambda plain: plain.update(index=[one for one in plain["index"] if one["path"] != path.name]))
    assert any(path.name in found or "not both" in found for found in verify(corpus))


def test_a_ledger_without_its_stages_is_no_traceback(corpus: Path) -> None:
    for ledger in ({}, {"tokenize": {}}, {"tokenize": {"books": 3}}, {"tokenize": []}, {"extract": None}):
        reseal(corpus, lambda plain, ledger=ledger: plain.update(ledger=ledger))
        assert any("manifest.json" in found for found in verify(corpus)), ledger
        assert main(["verify", str(corpus), "--json"]) == 1


def test_fast_leaves_out_hashes_and_says_so(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = first_shard(corpus)
    path = corpus / "shards" / shard
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["verify", str(corpus), "--fast"]) == 0
    assert "sizes and counts" in capsys.readouterr().out
    assert main(["verify", str(corpus)]) == 1
    said = capsys.readouterr()
    assert f"shards/{first_shard(corpus)}: its bytes have changed" in said.out and "MB/s" in said.out and said.err == ""


def test_a_bar_in_a_terminal_and_colours_there_alone(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def terminal(**options: Any) -> Console:
        return Console(**{"width": 100, **options}, force_terminal=True, color_system="truecolor")

    with mock.patch("rich.console.Console", terminal):
        assert main(["verify", str(corpus)]) == 0
        assert "/" in capsys.readouterr().err
        assert main(["verify", str(corpus), "--quiet"]) == 0
        assert capsys.readouterr().err == ""
        assert main(["show", str(corpus)]) == 0
        assert "\x1b[" in capsys.readouterr().out
    assert main(["show", str(corpus)]) == 0
    assert "\x1b[" not in capsys.readouterr().out


LOCATORS = st.builds(
    Locator,
    file=st.text(),
    offset=st.integers(0, 1 << 62),
    length=st.integers(0, 1 << 62),
    member=st.text(),
    inner_offset=st.integers(0, 1 << 62),
    inner_length=st.integers(0, 1 << 62),
    parts=st.lists(st.builds(Part, file=st.text(), offset=st.integers(0, 9), length=st.integers(0, 9))).map(tuple),
)


@given(st.lists(LOCATORS, min_size=1, max_size=5))
def test_ids_derived_by_columns_are_the_documents_ids(locators: list[Locator]) -> None:
    rows = pa.RecordBatch.from_pylist([one.as_dict() for one in locators], schema=pa.schema(LOCATOR_FIELDS))
    assert document_ids("books", rows) == [document_id("books", one) for one in locators]
