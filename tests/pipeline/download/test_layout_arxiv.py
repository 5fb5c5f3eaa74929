"""Monthly tars by arXiv's manifest, from a local server that misbehaves."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving_server import Server, file, serving, status

from filters.errors import UserError
from manifests.files import relative_files
from pipeline.__main__ import main
from pipeline.download.layouts import read_arxiv_manifest, select_months

MONTHS = {"9912": 1, "0001": 2, "0002": 1}
FILES = {
    f"src/arXiv_src_{month}_{n:03}.tar": f"{month} {n}".encode()
    for month, count in MONTHS.items()
    for n in range(1, count + 1)
}


def manifest(files: dict[str, bytes], head: str = "") -> bytes:
    listed = "".join(
        f"<file><content_md5sum>x</content_md5sum><filename>{path}</filename><md5sum>{hashlib.md5(data).hexdigest()}</md5sum>"
        f"<num_items>1</num_items><size>{len(data)}</size><yymm>{path[14:18]}</yymm></file>\n"
        for path, data in files.items()
    )
    return (
        f"<?xml version='1.0' standalone='yes'?>{head}<arXivSRC>\n{listed}<timestamp>x</timestamp></arXivSRC>".encode()
    )


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        for path, data in FILES.items():
            running.plan(f"/{path}", file(data))
        yield running


def command(server: Server, folder: Path, months: str) -> list[str]:
    (folder / "m.xml").write_bytes(manifest(FILES))
    base = [f"--base-url={server.url}/", "--attempts=2", "--backoff=0.001", "--timeout=0.3", "--quiet"]
    return [
        "download",
        "arxiv",
        f"--manifest={folder / 'm.xml'}",
        f"--months={months}",
        f"--output={folder / 'out'}",
        *base,
    ]


def test_months_land_by_their_names(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(server, tmp_path, "9912:0001")) == 0
    assert capsys.readouterr().out == "3 files: 3 fetched\n"
    assert relative_files(tmp_path / "out") == sorted(list(FILES)[:3])
    assert main(command(server, tmp_path, "0001")) == 0
    assert capsys.readouterr().out == "2 files: 2 already there\n"


def test_bytes_that_are_not_the_manifest_s_are_told(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan("/src/arXiv_src_0001_001.tar", file(b"0001 x"))
    server.plan("/src/arXiv_src_0001_002.tar", status(403))
    assert main(command(server, tmp_path, "0001")) == 1
    told = capsys.readouterr().out
    assert "arXiv_src_0001_001.tar: its MD5 differs from the listed one" in told and "403" in told


@pytest.mark.parametrize("months", ["", "03", "0303:", "0303-0304", "2401", "0002:9912"])
def test_months_that_are_none(months: str, tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_bytes(manifest(FILES))
    with pytest.raises(UserError, match="--months"):
        select_months(read_arxiv_manifest(tmp_path / "m.xml"), months)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"<arXivSRC></arXivSRC>",
        manifest({"../../x": b""}),
        manifest({"src/arXiv_src_000x_001.tar": b""}),
        manifest(FILES, '<!DOCTYPE x [<!ENTITY a "b">]>'),
        manifest(FILES)[:-9],
        b"<a><file><filename>x</filename></file></a>",
    ],
)
def test_manifests_that_are_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_bytes(data)
    with pytest.raises(UserError):
        read_arxiv_manifest(tmp_path / "m.xml")


def test_a_base_that_is_no_address(server: Server, tmp_path: Path) -> None:
    assert main([*command(server, tmp_path, "0001"), "--base-url=s3://arxiv"]) == 2
    assert main([*command(server, tmp_path, "0001"), f"--manifest={tmp_path / 'none'}"]) == 2
