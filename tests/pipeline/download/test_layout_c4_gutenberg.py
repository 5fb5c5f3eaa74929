"""Downloads of C4's files and Project Gutenberg's texts, from a local server that misbehaves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving_server import Server, file, serving, silent, status

from filters.errors import UserError
from manifests.files import relative_files
from pipeline.__main__ import main
from pipeline.download.layouts import c4_paths, gutenberg_paths

C4 = [f"en/c4-train.{number:05}-of-01024.json.gz" for number in range(3)]
BOOKS = [f"cache/epub/{number}/pg{number}.txt" for number in (11, 84, 85)]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        for path in [*C4, *BOOKS]:
            running.plan(f"/{path}", file(path.encode()))
        yield running


def command(server: Server, folder: Path, source: str, *options: str) -> list[str]:
    base = [f"--base-url={server.url}/", "--attempts=3", "--backoff=0.001", "--timeout=0.3", "--quiet"]
    return ["download", source, f"--output={folder}", *base, *options]


def test_files_land_where_the_mirror_has_them(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(server, tmp_path / "c4", "c4", "--files=:3")) == 0
    assert main(command(server, tmp_path / "books", "gutenberg", "--books=84-85,11,84")) == 0
    assert relative_files(tmp_path / "c4") == C4 and relative_files(tmp_path / "books") == sorted(BOOKS)
    assert capsys.readouterr().out == "3 files: 3 fetched\n" * 2
    assert main(command(server, tmp_path / "c4", "c4", "--files=:3")) == 0
    assert capsys.readouterr().out == "3 files: 3 already there\n"


def test_a_server_that_cuts_and_throttles(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = b"x" * 10_000
    server.plan(f"/{C4[0]}", status(503), file(body, cut=4_000), file(body))
    server.plan(f"/{C4[1]}", silent())
    server.plan(f"/{C4[2]}", status(404))
    assert main(command(server, tmp_path, "c4", "--files=:3")) == 1
    assert (tmp_path / C4[0]).read_bytes() == body and len([p for p in relative_files(tmp_path) if p in C4]) == 1
    said = capsys.readouterr().out
    assert "no data for 0.3 s" in said and "404" in said


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("c4", ["--files=2000:"], "selects nothing: C4's en has 1,024 files"),
        ("c4", ["--files=x"], "is not a slice"),
        ("c4", ["--files=0", "--config=de"], "give en, en.noblocklist, realnewslike"),
        ("gutenberg", ["--books=emma"], "'emma' is not an ebook number"),
        ("gutenberg", ["--books=9-1"], "'9-1' is not an ebook number"),
        ("gutenberg", ["--books=0"], "is not an ebook number"),
        ("gutenberg", ["--books=1-9999999"], "more than 100,000 books"),
        ("gutenberg", ["--books=1", "--base-url=ftp://a.example"], "is not an http or https URL"),
    ],
)
def test_mistakes_are_one_sentence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, options: list[str], words: str
) -> None:
    assert main(command(server, tmp_path, source, *options)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and words in said


def test_which_files_are_meant() -> None:
    assert c4_paths("realnewslike", "-1") == ["realnewslike/c4-train.00511-of-00512.json.gz"]
    assert gutenberg_paths(" 7,5-6 ") == [f"cache/epub/{n}/pg{n}.txt" for n in (7, 5, 6)]
    with pytest.raises(UserError):
        gutenberg_paths("")
