"""Test random damage: `verify` names the file unless its documentation excludes the file, and no command crashes."""

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus import ROOT

from filters.errors import UserError
from manifests.__main__ import main
from manifests.files import canonical_json, relative_files
from manifests.manifest import load_manifest
from manifests.tools.verify import verify

CORPUS_FILES = ("shards/", "index/", "models/", "ledger.json", "manifest.json", "recipe.yaml")
READ = ("shards/", "index/", "models/", "clean/", "dropped/", "duplicates/", "skipped/", "deadletters/", "statistics")


@pytest.fixture
def copy(demo_corpus: Path, tmp_path: Path) -> Path:
    """Return a copy of the demo corpus that consists of hard links. Tests replace one file at a time."""
    shutil.copytree(demo_corpus, tmp_path / "corpus", copy_function=os.link)
    return tmp_path / "corpus"


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """Replace the content of a file during the block."""
    kept = path.with_name("kept")
    path.rename(kept)
    path.write_bytes(data)
    try:
        yield
    finally:
        kept.replace(path)


def unchecked() -> tuple[str, ...]:
    """Return the path prefixes of the files that `verify` does not check according to docs/inspect.md."""
    page = (ROOT / "docs/inspect.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"- all other files: (.+?\.html`)\.", page, re.DOTALL)
    return tuple(re.findall(r"`([^`]+)`", listed))


def test_a_changed_byte_is_found_or_said_not_to_be_checked(copy: Path) -> None:
    files = [name for name in relative_files(copy) if not name.endswith("card.json")]
    checked = [name for name in files if not name.startswith(unchecked())]
    assert {name.partition("/")[0] for name in checked} >= {name.rstrip("/") for name in CORPUS_FILES}
    small = [name for name in checked if not name.startswith(("shards/", "index/"))]
    assert verify(copy) == []
    for number in range(60):
        chance = random.Random(number)
        name = chance.choice(chance.choice([checked, small]))
        data = bytearray((copy / name).read_bytes())
        place = chance.randrange(len(data))
        line = data[data.rfind(b"\n", 0, place) + 1 : data.find(b"\n", place)]
        if name == "recipe.yaml" and b"/" in line:  # No hash covers the paths of dumps.
            continue
        data[place] = (data[place] + chance.randrange(1, 256)) % 256
        with replaced(copy / name, bytes(data)):
            try:
                found = verify(copy)
            except UserError as error:
                found = [str(error)]
            assert any(name in finding for finding in found), (number, name, place, found)


def spoil(data: bytes, chance: random.Random) -> bytes:
    """Truncate the bytes of a file, or change some of them, mostly at both ends, where the metadata are."""
    if chance.random() < 0.2:
        return data[: chance.randrange(len(data))]
    spoilt, size = bytearray(data), len(data)
    for _ in range(chance.choice([1, 1, 3, 30])):
        near = chance.choice([(0, size), (max(0, size - 3000), size), (0, min(2000, size))])
        spoilt[chance.randrange(*near)] = chance.randrange(256)
    return bytes(spoilt)


@pytest.mark.parametrize("kind", READ)
def test_no_command_crashes_on_a_damaged_file(copy: Path, tmp_path: Path, kind: str) -> None:
    shard = load_manifest(copy).sources["common_crawl"].train[0].path
    removed = pq.read_table(sorted((copy / "duplicates").glob("*.parquet"))[0])["removed"][0].as_py().hex()
    url = next(url for url in pq.read_table(copy / "clean/common_crawl")["url"].to_pylist() if url)
    (tmp_path / "list").write_text(f"{url}\nexample.org\n", encoding="utf-8")
    commands = [
        ["verify", "--fast", "--quiet"],
        ["sample"],
        ["sample", "--language", "en"],
        *(["sample", "--reason", reason] for reason in ("near-duplicate", "too-short", "corrupt-record")),
        ["trace", shard, "100"],
        ["find", url],
        ["find", removed[:3]],
        ["find", "http://nowhere.example/"],
        ["duplicates", removed],
        ["remove", "--list", str(tmp_path / "list")],
        ["freeze", str(copy), "--output", str(tmp_path / "frozen")],
        ["report", "--output", str(tmp_path / "page")],
    ]
    for number in range(4):
        chance = random.Random(f"{kind} {number}")
        path = copy / chance.choice([name for name in relative_files(copy) if name.startswith(kind)])
        with replaced(path, spoil(path.read_bytes(), chance)):
            for name, *arguments in commands:
                assert main([name, str(copy), *arguments]) in (0, 1, 2), (number, path, name)


def test_no_tool_works_with_a_manifest_that_was_changed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the tools would use wrong weights or counts."""
    plain = json.loads((copy / "manifest.json").read_bytes())
    plain["sources"]["books"]["weight"] *= 2
    with replaced(copy / "manifest.json", canonical_json(plain)):
        for command in (["show"], ["sample"], ["find", "a"], ["report"], ["diff", str(copy)], ["trace", "a", "0"]):
            assert main([command[0], str(copy), *command[1:]]) == 2
            assert f"{copy}/manifest.json does not match its hash: run `python -m" in capsys.readouterr().err
        assert any("manifest.json: its manifest_sha does not match" in found for found in verify(copy))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_json_lacks_is_refused(copy: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = (copy / "manifest.json").read_bytes().replace(b'"findings":{', b'"findings":{"x":%b,' % number.encode(), 1)
    with replaced(copy / "manifest.json", data):
        assert main(["verify", str(copy)]) == 2
    assert "is not a manifest this version reads" in capsys.readouterr().err


def test_a_key_that_no_manifest_has_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (copy / "manifest.json").read_bytes().replace(b'"findings":', b'"found":', 1)
    with replaced(copy / "manifest.json", data):
        assert main(["show", str(copy)]) == 2
    assert "not a manifest this version reads (found: Extra inputs are not permitted)" in capsys.readouterr().err
