"""Wikipedia dumps from Wikimedia's layout, on a local server that misbehaves."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving_server import Server, file, serving, silent, status

from filters.errors import UserError
from filters.wikitext.names import LANGUAGES
from manifests.files import relative_files
from pipeline.__main__ import main
from pipeline.download.layouts import parse_checksums, read_list

DATE = "20240101"
FILES = [
    "pages-articles-multistream.xml.bz2", "pages-articles-multistream-index.txt.bz2", "pages-articles.xml.bz2",
    "pages-articles-multistream1.xml-p1p41242.bz2", "pages-articles-multistream2.xml-p41243p151573.bz2", "sql.gz",
]  # fmt: skip


def path(language: str, name: str) -> str:
    return f"{language}wiki/{DATE}/{language}wiki-{DATE}-{name}"


def sums(language: str, kind: str = "sha1") -> bytes:
    names = {name: path(language, name).rpartition("/")[2] for name in FILES}
    return "".join(f"{hashlib.new(kind, body(language, n)).hexdigest()}  {names[n]}\n" for n in names).encode()


def body(language: str, name: str) -> bytes:
    return f"{language} {name} ".encode() * 500


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        for language in ("en", "sr", "zh_min_nan"):
            running.plan(f"/{path(language, 'sha1sums.txt')}", file(sums(language)))
            for name in FILES:
                running.plan(f"/{path(language, name)}", file(body(language, name)))
        yield running


def command(server: Server, folder: Path, languages: str, *options: str) -> list[str]:
    base = [f"--base-url={server.url}/", "--attempts=3", "--backoff=0.001", "--timeout=0.3", "--quiet"]
    given = ["download", "wikipedia", f"--language={languages}", f"--date={DATE}", f"--output={folder}"]
    return [*given, *base, *options]


def test_dumps_land_where_wikimedia_has_them(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(server, tmp_path, "en,sr,en,zh-min-nan")) == 0
    assert capsys.readouterr().out == "3 files: 3 fetched\n"
    kept = [path(code, name) for code in ("en", "sr", "zh_min_nan") for name in (FILES[0], "sha1sums.txt")]
    assert relative_files(tmp_path) == sorted(kept)
    assert main(command(server, tmp_path, "en", "--files=parts")) == 0
    assert main(command(server, tmp_path, "en", "--files=single")) == 0
    assert capsys.readouterr().out == "2 files: 2 fetched\n1 files: 1 fetched\n"
    assert main(command(server, tmp_path, "en,sr")) == 0
    assert capsys.readouterr().out == "2 files: 2 already there\n"


def test_a_server_that_cuts_and_throttles(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = body("en", FILES[0])
    server.plan(f"/{path('en', FILES[0])}", status(503), file(whole, cut=2_000), file(whole))
    server.plan(f"/{path('sr', 'sha1sums.txt')}", silent())
    assert main(command(server, tmp_path, "sr,en")) == 1
    assert (tmp_path / path("en", FILES[0])).read_bytes() == whole
    assert "srwiki-20240101-sha1sums.txt: no data for 0.3 s" in capsys.readouterr().out


def test_a_file_of_another_sum_is_removed(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"/{path('en', FILES[0])}", file(b"something else"))
    assert main(command(server, tmp_path, "en,sr")) == 1
    assert "its SHA1 differs from the listed one" in capsys.readouterr().out
    assert path("en", FILES[0]) not in relative_files(tmp_path) and path("sr", FILES[0]) in relative_files(tmp_path)


def test_md5_sums_and_mirrors_without_sums(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"/{path('en', 'sha1sums.txt')}", status(404))
    server.plan(f"/{path('en', 'md5sums.txt')}", file(sums("en", "md5")))
    server.plan(f"/{path('sr', 'sha1sums.txt')}", status(404))
    assert main(command(server, tmp_path, "en,sr")) == 0
    assert path("en", "md5sums.txt") in relative_files(tmp_path)
    assert main(command(server, tmp_path, "uk")) == 1
    assert "404" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("languages", "options", "words"),
    [
        ("english", [], "is not the code of a Wikipedia"),
        ("", [], "is not the code of a Wikipedia"),
        ("../x", [], "is not the code of a Wikipedia"),
        ("en", ["--date=latest"], "eight digits"),
        ("en", ["--base-url=ftp://a.example"], "is not an http or https URL"),
        ("uk", ["--files=parts"], "give --files multistream"),
    ],
)
def test_mistakes_are_one_sentence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], languages: str, options: list[str], words: str
) -> None:
    assert main(command(server, tmp_path, languages, *options)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and words in said


@pytest.mark.parametrize("data", [b"", b"<html>welcome</html>", b"0" * 40 + b"  ../x\n", b"\xff", b"0" * 39 + b"  a\n"])
def test_a_list_that_is_none_is_refused_and_not_kept(server: Server, tmp_path: Path, data: bytes) -> None:
    server.plan(f"/{path('en', 'sha1sums.txt')}", file(data))
    assert main(command(server, tmp_path, "en")) == 2
    assert relative_files(tmp_path) == []


def test_a_dump_without_such_files_is_told_and_its_list_asked_for_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = file(b"0" * 40 + b"  enwiki-20240101-sql.gz\n")
    server.plan(f"/{path('en', 'sha1sums.txt')}", unfinished, file(sums("en")))
    assert main(command(server, tmp_path, "en")) == 2
    assert "or run again when the dump is complete" in capsys.readouterr().err
    assert main(command(server, tmp_path, "en")) == 0


def test_a_list_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.download.layouts.MAX_LIST_BYTES", 100)
    (tmp_path / "list").write_bytes(sums("en"))
    with pytest.raises(UserError, match="not a list of checksums"):
        read_list(tmp_path / "list", parse_checksums, "a list of checksums")


def test_all_are_the_twenty_of_the_paper(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(server, tmp_path, "all")) == 1
    assert capsys.readouterr().out.startswith(f"{len(LANGUAGES)} files: 2 fetched, 18 failed\n")
