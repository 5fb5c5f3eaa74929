"""Pieces of files elsewhere: readers fetch what they read, and give the outcomes of the whole file in memory."""

import bz2
import gzip
import io
import itertools
import json
import os
import random
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import make_archives
from framing import members
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.formats import stream
from filters.formats.stored import FetchedFile, Stored, buffer_of
from manifests.source import Limits, Source
from manifests.storage import StorageError
from pipeline.sources import arxiv, c4, common_crawl, github_bigquery, stackexchange, wikipedia

BLOCK = 64
WORDS = "The keeper walked down to the harbour and counted the boats."


class Elsewhere(NamedTuple):
    """A file elsewhere, and the ranges that were fetched of it."""

    stored: FetchedFile
    fetched: list[tuple[int, int]]


@contextmanager
def elsewhere(data: bytes) -> Iterator[Elsewhere]:
    ranges: list[tuple[int, int]] = []
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patched:
        patched.setattr("filters.formats.stored.FETCH_BLOCK", BLOCK)
        file.write(b"\xaa" * len(data))  # what no reader may see
        file.flush()

        def fetch(start: int, stop: int) -> None:
            ranges.append((start, stop))
            assert os.pwrite(file.fileno(), data[start:stop], start) == stop - start

        stored = FetchedFile(file.fileno(), len(data), fetch)
        with stored.mapped:
            yield Elsewhere(stored, ranges)


def table_rows() -> list[dict[str, str]]:
    return [{"text": f"{WORDS} {n}", "url": f"http://a.example/{n}", "id": str(n)} for n in range(40)]


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table_rows()), file, row_group_size=8)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(9):
            source = b"\\documentclass{a}\\begin{document}\\section{A}" + WORDS.encode() * 9 + b"\\end{document}"
            data = gzip.compress(source, mtime=0)
            entry = tarfile.TarInfo(f"0704/0704.{number:04d}.gz")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def pages(pack: Callable[[bytes], bytes]) -> bytes:
    page = "<page><title>T{0}</title><ns>0</ns><id>{0}</id><revision><id>1</id><text>{1}</text></revision></page>\n"
    parts = ["<mediawiki>\n", *(page.format(n, WORDS) for n in range(1, 20)), "</mediawiki>"]
    return b"".join(pack(part.encode()) for part in parts)


def posts() -> bytes:
    rows = "".join(f'<row Id="{n}" PostTypeId="1" Score="3" Body="&lt;p&gt;{WORDS}&lt;/p&gt;" />\n' for n in range(30))
    return f'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n{rows}</posts>'.encode()


LINES = b"".join(json.dumps(row).encode() + b"\n" for row in table_rows())
FILES: list[tuple[str, Any, bytes]] = [
    *(("common_crawl", common_crawl, b"".join(archive.units)) for archive in make_archives()),
    ("c4", c4, LINES),
    ("c4", c4, parquet()),
    ("wikipedia", wikipedia, pages(bytes)),
    ("wikipedia", wikipedia, pages(bz2.compress)),
    ("arxiv", arxiv, tar()),
    ("stackexchange", stackexchange, posts()),
    ("github", github_bigquery, LINES),
    ("github", github_bigquery, parquet()),
]


def recipe_of(kind: str) -> Source:
    more: dict[str, Any] = {"github": {"form": "tables"}} if kind == "github" else {}
    return Source(weight=1.0, kind=kind, limits=Limits(record_bytes=1 << 16), **more)


def find_pieces(reader: Any, stored: Stored, recipe: Source, size: int) -> list[tuple[int, int, int]]:
    survey = getattr(reader, "survey", None)
    return survey(stored, "contents.x", recipe, size).pieces if survey else reader.find_pieces(stored, recipe, size)


def read(reader: Any, stored: Stored, recipe: Source, piece: tuple[int, int, int]) -> list[Any]:
    if hasattr(reader, "read_rows"):
        return list(reader.read_rows(stored, "contents.x", recipe, {"sites": [], "kept": []}, *piece))
    return list(reader.read(stored, "a", "s", recipe, *piece))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FILES), st.integers(0, 2**32), st.integers(0, 3), st.integers(100, 3_000))
def test_pieces_are_read_as_from_a_whole_file_whatever_the_damage(
    file: tuple[str, Any, bytes], seed: int, flips: int, size: int
) -> None:
    kind, reader, data = file
    chance, hurt = random.Random(seed), bytearray(data)
    for _ in range(flips):
        hurt[chance.randrange(len(hurt))] = chance.randrange(256)
    stored, recipe = bytes(hurt), recipe_of(kind)
    for piece in find_pieces(reader, stored, recipe, size):
        with elsewhere(stored) as far:
            far.stored.download(piece[0], piece[1])
            assert read(reader, far.stored, recipe, piece) == read(reader, stored, recipe, piece)
            places = [place for start, stop in far.fetched for place in range(start, stop)]
            assert len(places) == len(set(places)), "fetched twice"


def test_pieces_of_an_archive_fetch_little_more_than_it_has() -> None:
    data, recipe = b"".join(members(2_000)), recipe_of("common_crawl")
    cuts, total = common_crawl.find_pieces(data, recipe, 200_000), 0
    assert len(data) > 1_000_000 and len(cuts) == 6
    for piece in cuts:
        with elsewhere(data) as far:
            far.stored.download(piece[0], piece[1])
            assert len(list(common_crawl.read(far.stored, "a", "s", recipe, *piece))) > 200
            total += sum(stop - start for start, stop in far.fetched)
    assert len(data) <= total <= len(data) + len(cuts) * (stream.SLICE + 4 * BLOCK)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=900), st.integers(-950, 950), st.integers(-950, 950), st.integers(0, 950))
def test_a_file_elsewhere_is_sliced_and_searched_as_bytes_are(data: bytes, start: int, stop: int, place: int) -> None:
    with elsewhere(data) as far:
        assert (len(far.stored), far.stored[start:stop]) == (len(data), data[start:stop])
        if place < len(data):
            assert far.stored[place] == data[place]
        for part in filter(None, (data[place : place + 5], data[-3:], b"\xaa" * 4)):
            assert far.stored.find(part, start % 950) == data.find(part, start % 950)
        assert bytes(far.stored) == data


def test_a_file_elsewhere_is_no_buffer_but_where_it_was_fetched() -> None:
    data = bytes(range(256)) * 4
    with elsewhere(data) as far:
        with pytest.raises(TypeError, match="bytes-like"):
            re.search(b"x", far.stored)  # type: ignore[call-overload]
        buffer = buffer_of(far.stored, 300, 310)
        assert buffer[300:310] == data[300:310] and far.fetched == [(256, 320)]
        assert buffer_of(data, 300, 310) is data


def failing_after(fetch: Callable[[int, int], None], allowed: int) -> Callable[[int, int], None]:
    numbers = itertools.count()

    def fetch_or_fail(start: int, stop: int) -> None:
        if next(numbers) >= allowed:
            raise StorageError("the store is away")
        fetch(start, stop)

    return fetch_or_fail


@pytest.mark.parametrize("allowed", [0, 1, 2, 5])
def test_a_fetch_that_fails_is_no_damage_of_the_file(allowed: int) -> None:
    """Libraries of formats wrap or swallow errors of what they read."""
    failed = 0
    for kind, reader, data in FILES:
        recipe = recipe_of(kind)
        for piece in find_pieces(reader, data, recipe, 1_000)[:2]:
            with elsewhere(data) as far:
                far.stored.fetch = failing_after(far.stored.fetch, allowed)
                try:
                    outcomes = read(reader, far.stored, recipe, piece)
                except StorageError:
                    failed += 1
                else:
                    assert outcomes == read(reader, data, recipe, piece)
    assert failed >= 5 - allowed
