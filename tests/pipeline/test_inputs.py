"""Inputs: names that do not depend on where dumps lie, checksums, downloads."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_server import Answer, Server, file, raw, serving, status

from filters.errors import UserError
from manifests import storage
from manifests.files import sha256_bytes
from manifests.mirror import fetch_url, open_mirror
from manifests.recipe import parse_recipe
from pipeline.beam.engines import Engine
from pipeline.beam.job import run_job
from pipeline.beam.work import finish, run_units, together
from pipeline.download.http import RetryPolicy
from pipeline.preflight import preflight
from pipeline.sources import inputs
from pipeline.sources.inputs import _find_inputs, fixed_prefix, match, resolve
from pipeline.stages.split_offsets import checksum_step, offset_step, with_checksums


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    root = tmp_path / "dumps"
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt", ".hidden.txt", "odd[1].txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    return root


def names(dumps: Path, corpus: Path, *patterns: str) -> list[str]:
    return [item.name for item in resolve("books", [str(dumps / pattern) for pattern in patterns], corpus)]


def test_names_are_the_paths_below_the_globs_fixed_prefix(dumps: Path, tmp_path: Path) -> None:
    assert fixed_prefix("x/y/*.gz") == Path("x/y")
    assert fixed_prefix("x/**/y/*.gz") == Path("x")
    every = [".hidden.txt", "a.txt", "deep/b.txt", "deep/er/c.txt", "odd[1].txt"]
    assert names(dumps, tmp_path, "**") == every
    assert names(dumps, tmp_path, "deep/*") == ["b.txt"]
    assert names(dumps, tmp_path, "deep/b.txt") == ["b.txt"]
    assert names(dumps, tmp_path, "odd[1].txt") == ["odd[1].txt"]


def hashes(dumps: Path, corpus: Path) -> dict[str, str]:
    """The hashes by name, from the stage that reads the inputs, here in splits of 6 bytes."""
    plain = {"name": "x", "seed": 1, "goal_tokens": 9, "split_bytes": 6, "sources": {"books": {"weight": 1.0}}}
    recipe, items = parse_recipe(plain, "r"), resolve("books", [str(dumps / "**")], corpus)
    assert {item.sha256 for item in items} == {""}, "the driver reads no input"
    engine = Engine(1, (), corpus / "runs", quiet=True)
    both = together(run_units(offset_step(recipe, items)), run_units(checksum_step(recipe, items, [])))
    found = finish(both, lambda turns: run_job(corpus, turns, engine)[0])
    assert list(map(len, found)) == [4, 1], "files that are cut, and the others"
    return {item.name: item.sha256 for item in with_checksums(items, {**found[0], **found[1]})}


def test_moved_dumps_keep_names_and_checksums_and_a_changed_one_gets_another(dumps: Path, tmp_path: Path) -> None:
    here = hashes(dumps, tmp_path / "one")
    moved = dumps.rename(tmp_path / "moved")
    assert hashes(moved, tmp_path / "two") == here == {name: sha256_bytes(name.encode()) for name in here}
    (moved / "a.txt").write_text("other", encoding="utf-8")
    assert hashes(moved, tmp_path / "two") == here | {"a.txt": sha256_bytes(b"other")}


def test_one_file_matched_twice_is_one_input(dumps: Path, tmp_path: Path) -> None:
    assert names(dumps, tmp_path, "*.txt", "a.txt") == [".hidden.txt", "a.txt", "odd[1].txt"]


def test_two_files_of_one_name_are_refused(dumps: Path, tmp_path: Path) -> None:
    (dumps / "deep/a.txt").write_text("another a", encoding="utf-8")
    with pytest.raises(UserError, match=r"would both be named 'a\.txt'"):
        names(dumps, tmp_path, "*.txt", "deep/*.txt")


@pytest.mark.parametrize(("pattern", "words"), [("none/*.gz", "no file matches"), ("deep", "is a folder")])
def test_an_input_that_is_not_there_is_refused(dumps: Path, tmp_path: Path, pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        names(dumps, tmp_path, pattern)


@pytest.mark.parametrize(("split_bytes", "most"), [(1 << 20, 247), (1, 231)])
def test_a_name_that_the_corpus_could_not_give_its_files_is_refused(
    dumps: Path, tmp_path: Path, split_bytes: int, most: int
) -> None:
    plain: dict[str, Any] = {"name": "x", "seed": 1, "goal_tokens": 1, "split_bytes": split_bytes}
    recipe = parse_recipe({**plain, "sources": {"books": {"weight": 1, "inputs": [f"{dumps}/deep/*"]}}}, "x")
    (dumps / "deep" / ("é" * (most // 2) + "x")).write_bytes(b"y" * 10)
    assert len(preflight(recipe, tmp_path / "corpus").dumps) == 2
    (dumps / "deep" / ("é" * (most // 2) + "xx")).write_bytes(b"y" * 10)
    with pytest.raises(UserError, match=f"more than {most} bytes"):
        preflight(recipe, tmp_path / "corpus")


def test_names_that_would_not_lie_below_the_corpus_are_refused(dumps: Path, tmp_path: Path) -> None:
    (dumps / "other").mkdir(exist_ok=True)
    (dumps / "x.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="behind its first wildcard"):
        resolve("books", [f"{dumps}/*/../x.gz"], tmp_path / "corpus")
    assert [one.name for one in resolve("books", [f"{dumps}/other/../x.gz"], tmp_path / "corpus")] == ["x.gz"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(inputs, "RETRY_POLICY", RetryPolicy(attempts=2, backoff=0.001))
    with serving() as running:
        yield running


def test_a_url_is_fetched_once_into_the_corpus(server: Server, tmp_path: Path) -> None:
    url = server.plan("/a%20book.txt", status(503), file(b"hello"))
    for _ in range(2):
        ((name, path),) = match("books", [url], tmp_path).items()
        assert name == "a book.txt" and path.read_bytes() == b"hello"
    assert [p.name for p in (tmp_path / "inputs/books").rglob("*.*")] == ["a book.txt"]
    assert len(server.requests) == 2


def test_another_url_of_the_same_name_is_another_file(server: Server, tmp_path: Path) -> None:
    """The recipe of a corpus changes to a later dump, whose file has the name of the older one."""
    for year in ("2019", "2020"):
        url = server.plan(f"/{year}/dump.txt", file(year.encode()))
        assert match("books", [url], tmp_path)["dump.txt"].read_bytes() == year.encode()


def test_a_download_for_a_corpus_in_a_store_lies_there_for_all_workers(server: Server, tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    url = server.plan("/a%20book.txt", file(b"hello"), file(b"hello"))
    for machine in ("one", "two"):
        corpus = open_mirror(tmp_path / machine, store).folder
        (item,) = resolve("books", [url], corpus)
        assert item.path.startswith(f"{store}/inputs/books/") and item.path.endswith("/a book.txt") and item.size == 5
        assert fetch_url(item.path, item.version, corpus).read_bytes() == b"hello"


def test_two_urls_of_one_name_are_refused(server: Server, tmp_path: Path) -> None:
    urls = [server.plan(f"/{folder}/x.txt", file(folder.encode())) for folder in "ab"]
    with pytest.raises(UserError, match=r"/a/x\.txt and .*/b/x\.txt would both be named 'x\.txt'"):
        match("books", urls, tmp_path)
    assert list(match("books", [urls[0], urls[0]], tmp_path)) == ["x.txt"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(status(404), "HTTP 404 Not Found"), (raw(200, b"hel", Content_Length="5"), "broke off after 3 of 5 bytes")],
)
def test_a_url_that_cannot_be_had_whole_is_no_input(server: Server, tmp_path: Path, answer: Answer, words: str) -> None:
    with pytest.raises(UserError, match=words):
        match("books", [server.plan("/a.txt", answer)], tmp_path)
    assert not list((tmp_path / "inputs").rglob("*.txt"))


@pytest.mark.parametrize("path", ["/a/..", "/%2e%2e", "/a%5Cb", "/a%0A.txt"])
def test_a_url_whose_name_would_lie_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match=r"is not a path below the output folder|names no file"):
        match("books", [f"http://a.example{path}"], tmp_path)


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be opened .* give s3://, gs://, hdfs:// or file://"):
        resolve("books", ["ftp://example.org/a.txt"], tmp_path)


@pytest.mark.parametrize(
    "pattern", ["**", "*.txt", "**/*.txt", "deep/**", "deep/*", "*/er/*", "a.???", "[ab].txt", "deep/b.txt"]
)
def test_patterns_match_in_a_store_as_they_do_in_folders(dumps: Path, tmp_path: Path, pattern: str) -> None:
    url = f"{dumps.as_uri()}/"
    stored = resolve("books", [url + pattern], tmp_path)
    assert [item.name for item in stored] == names(dumps, tmp_path, pattern)
    assert all(
        item.path.startswith(url) and item.size == (dumps / item.path[len(url) :]).stat().st_size for item in stored
    )


def test_what_matches_nothing_in_a_store_or_twice_is_refused(dumps: Path, tmp_path: Path) -> None:
    url = dumps.as_uri()
    with pytest.raises(UserError, match="no object matches"):
        resolve("books", [f"{url}/*.none"], tmp_path)
    with pytest.raises(UserError, match=r"would both be named 'b\.txt'"):
        resolve("books", [f"{url}/deep/*", str(dumps / "deep/*")], tmp_path)


def test_a_link_to_nothing_is_an_input_that_cannot_be_read(
    dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "WAITS", [])
    whole = len(names(dumps, tmp_path / "corpus", "**"))
    (dumps / "gone.gz").symlink_to(tmp_path / "nowhere.gz")
    found = resolve("web", [str(dumps / "**")], tmp_path / "corpus")
    assert len(found) == whole + 1
    assert [(item.name, item.problem) for item in found if item.problem] == [("gone.gz", "No such file or directory")]


@pytest.fixture
def locked_folder(dumps: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that cannot be entered, also by root, for whom modes mean nothing."""
    folder, scandir, stat = dumps / "deep", os.scandir, os.stat

    def scan(path: Path) -> Any:
        if Path(path).is_relative_to(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def state(path: Any, **settings: bool) -> os.stat_result:
        if isinstance(path, str | Path) and folder in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **settings)

    monkeypatch.setattr(storage, "WAITS", [])
    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "stat", state)
    return folder


@pytest.mark.parametrize("pattern", ["**", "**/*.txt", "deep/*", "*/*.txt", "deep/b.txt", "deep/er/*", "*/er/c.txt"])
def test_a_folder_that_cannot_be_read_is_no_input_left_out_in_silence(
    locked_folder: Path, dumps: Path, tmp_path: Path, pattern: str
) -> None:
    broken = [item for item in resolve("books", [str(dumps / pattern)], tmp_path / "corpus") if item.problem]
    assert len(broken) == 1 and Path(broken[0].path).is_relative_to(locked_folder)


PARTS = st.sampled_from(["**", "*", "*.txt", "deep", "er", "?*", "[a-d]*", "*er", "none"])


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.txt").write_text("x", encoding="utf-8")
    for number, target in enumerate(("..", "../..", "../b", str(tmp_path))):  # 2^40 paths and more, if followed
        (tmp_path / "a" / "b" / f"link{number}").symlink_to(target)
    assert list(match("books", [f"{tmp_path}/**"], tmp_path / "corpus")) == ["a/b/one.txt"]
    assert list(match("books", [f"{tmp_path}/**/b/**"], tmp_path / "corpus")) == ["a/b/one.txt"]
    (tmp_path / "itself").symlink_to("itself")
    (broken,) = [item for item in resolve("books", [f"{tmp_path}/**"], tmp_path / "corpus") if item.problem]
    assert broken.name == "itself" and "symbolic links" in broken.problem


@given(parts=st.lists(PARTS, min_size=1, max_size=4))
def test_globs_match_what_pythons_do(tree: Path, parts: list[str]) -> None:
    pattern = str(tree.joinpath(*parts))
    expected = {path for path in glob.glob(pattern, recursive=True, include_hidden=True) if Path(path).is_file()}
    assert set(map(str, _find_inputs(Path(), Path(pattern).parts))) == expected


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt", "deep/er/deep/d.gz", ".hidden/.e.txt", "odd[1].txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    (root / "link").symlink_to(root / "deep/er")
    return root
