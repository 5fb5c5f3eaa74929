"""Benchmarks compute rates, ratios and memory as described. Nothing is timed here."""

import gzip
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import crawl, find, peer_datatrove, shards
from benchmarks.crawl import Archive, Measured, report, write_archive
from benchmarks.measure import parse_anonymous
from filters.formats.warc import Limits, read_frames
from pipeline.stages import tokenize


def record(kind: str, block: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: {len(block)}\r\n\r\n".encode()
    return gzip.compress(head + block + b"\r\n\r\n", mtime=0)


def response(body: bytes, status: int = 200, content_type: str = "text/html") -> bytes:
    return record("response", f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n\r\n".encode() + body)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    pages = [response(b"<p>%d</p>" % number) for number in range(5)]
    others = [record("request", b"GET / HTTP/1.1\r\n\r\n"), response(b"x", 404), response(b"x", 200, "image/png")]
    path = tmp_path / "some.warc.gz"
    path.write_bytes(b"".join([others[0], *pages, *others[1:]]))
    return path


def test_an_archive_holds_pages_alone_as_they_were_stored(archive: Path, tmp_path: Path) -> None:
    made = write_archive([archive, archive], tmp_path / "made.warc.gz")
    assert (made.pages, made.html) == (10, 10 * len(b"<p>0</p>"))
    found = list(read_frames(made.path.read_bytes(), Limits(1 << 20)))
    assert [frame.block[-8:] for frame in found] == [b"<p>%d</p>" % number for number in range(5)] * 2


def test_the_small_archive_is_one_page_in_so_many(archive: Path, tmp_path: Path) -> None:
    assert write_archive([archive], tmp_path / "made.warc.gz", every=2).pages == 3


def test_memory_is_the_anonymous_part() -> None:
    assert parse_anonymous("VmRSS:\t  900 kB\nRssAnon:\t     512 kB\nRssFile:\t 3 kB\n") == 512 << 10
    assert parse_anonymous("VmRSS:\t 900 kB\n") == 0


def test_rates_are_over_the_pages_that_the_small_archive_lacks() -> None:
    few, full = Archive(Path("few"), 10, 10_000_000), Archive(Path("full"), 110, 110_000_000)
    ours = [Measured(2.0, 0.5, 1.0, 40, 1 << 20, {"extract": 1.5})] * 2
    peer = [Measured(30.0, 5.0, 9.0, 30, 2 << 20, {}), Measured(20.0, 5.0, 9.0, 30, 2 << 20, {})]
    said = report(few, full, {"ours": ours, crawl.PEER_NAME: peer}, [1.1, 2.2])
    assert "| ours | 2.00 | 50 | 50.0 (50.0 to 50.0) | 40 |" in said
    assert f"{crawl.PEER_NAME} relative to ours: 12.50 (10.00 to 15.00)" in said
    assert "ours relative to the bare calls, 1.65 s: 1.50 (1.00 to 2.00)" in said
    assert "make peers" not in said and "make peers" in report(few, full, {"ours": ours}, [1.1, 2.2])


def test_steps_are_named_without_their_symbols() -> None:
    assert peer_datatrove.step_name("\U0001f53b - FILTER: \U0001f608 Url-filter") == "Url-filter"


def test_no_benchmark_takes_the_name_of_a_module_of_python_s() -> None:
    names = {path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py")}
    assert not names & set(sys.stdlib_module_names), "a peer's script, run from that folder, would import it"


def test_synthetic_rows_fit_the_schemas_of_blocks_and_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "TOKENS", shards.BLOCKS * shards.DOCUMENT_TOKENS * 2)
    schema = tokenize.part_schema(shards.VOCABULARY)
    assert pa.ipc.read_record_batch(pa.py_buffer(shards.make_block(0)), schema).num_rows == 2
    assert find.make_batch(3, 5).num_rows == 2
