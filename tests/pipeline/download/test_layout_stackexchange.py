"""Sites' dumps from archive.org's layout, on a local server that misbehaves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving_server import Server, file, serving, silent, status

from filters.errors import UserError
from manifests.files import relative_files
from pipeline.__main__ import main
from pipeline.download.layouts import parse_site_archives, read_list

NAMES = [
    "a.stackexchange.com.7z", "a.meta.stackexchange.com.7z", "b.com-Badges.7z", "b.com-Posts.7z", "b.com.7z",
    "meta.b.com.7z", "license.txt", "stackexchange_files.xml",
]  # fmt: skip
LIST = "stackexchange/stackexchange_files.xml"


def listing(names: list[str]) -> bytes:
    files = "".join(f'<file name="{name}" source="original">\n<size>1</size>\n</file>\n' for name in names)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<files>\n{files}</files>\n'.encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.plan(f"/{LIST}", file(listing(NAMES)))
        for name in NAMES:
            if name.endswith(".7z"):
                running.plan(f"/stackexchange/{name}", file(name.encode()))
        yield running


def command(server: Server, folder: Path, sites: str, *options: str) -> list[str]:
    base = [f"--base-url={server.url}/", "--attempts=3", "--backoff=0.001", "--timeout=0.3", "--quiet"]
    return ["download", "stackexchange", f"--sites={sites}", f"--output={folder}", *base, *options]


def test_sites_land_under_the_item(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(server, tmp_path, "b.com,a.stackexchange.com,b.com")) == 0
    assert capsys.readouterr().out == "2 files: 2 fetched\n"
    archives = ["stackexchange/a.stackexchange.com.7z", "stackexchange/b.com-Posts.7z"]
    assert relative_files(tmp_path) == [*archives, LIST]
    assert main(command(server, tmp_path, "all")) == 0
    assert capsys.readouterr().out == "2 files: 2 already there\n"


def test_a_server_that_cuts_and_throttles(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = b"x" * 10_000
    server.plan("/stackexchange/b.com-Posts.7z", status(503), file(body, cut=4_000), file(body))
    server.plan("/stackexchange/a.stackexchange.com.7z", silent())
    assert main(command(server, tmp_path, "all")) == 1
    assert (tmp_path / "stackexchange/b.com-Posts.7z").read_bytes() == body
    assert "a.stackexchange.com.7z: no data for 0.3 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sites", "options", "words"),
    [
        (
            "c.com",
            [],
            "has no archive of 'c.com': give names such as a.meta.stackexchange.com, a.stackexchange.com, or all",
        ),
        ("", [], "has no archive of 'nothing'"),
        ("all", ["--item=gone"], "no such item"),
        ("all", ["--item=../x"], "is not the name of an item"),
        ("all", ["--base-url=ftp://a.example"], "is not an http or https URL"),
    ],
)
def test_mistakes_are_one_sentence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], sites: str, options: list[str], words: str
) -> None:
    assert main(command(server, tmp_path, sites, *options)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and words in said


@pytest.mark.parametrize(
    "data", [b"", b"<html>welcome</html>", listing(["../x.7z"]), listing(["a/../../b.7z"]), b"<file " * 200_000]
)
def test_a_list_that_is_none_is_refused_and_not_kept(server: Server, tmp_path: Path, data: bytes) -> None:
    server.plan(f"/{LIST}", file(data))
    assert main(command(server, tmp_path, "all")) == 2
    assert relative_files(tmp_path) == []


def test_a_list_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.download.layouts.MAX_LIST_BYTES", 100)
    (tmp_path / "list").write_bytes(listing(NAMES))
    with pytest.raises(UserError, match="not the list of an item's files"):
        read_list(tmp_path / "list", parse_site_archives, "the list of an item's files")
