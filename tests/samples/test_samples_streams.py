"""Other programs can read the streams and archives that the sample's own code writes."""

import gzip
import io
import sys
import zipfile
import zlib
from types import SimpleNamespace
from unittest import mock

import brotli
import pytest
from corpus import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

ANY = st.binary(max_size=300) | st.text("ab \n", max_size=3_000).map(str.encode)


@pytest.fixture(scope="module")
def written() -> SimpleNamespace:
    with mock.patch.object(sys, "path", [str(ROOT / "samples"), *sys.path]):
        import archives
        import deflate
        import stored
    return SimpleNamespace(archives=archives, deflate=deflate, stored=stored)


@given(ANY)
@example(b"a" * 70_000)
@example(bytes(range(256)) * 200)
@example(b"once " + bytes(40_000) + b"once again")
def test_zlib_inflates_it(written: SimpleNamespace, data: bytes) -> None:
    assert zlib.decompress(written.deflate.deflate(data), -15) == data
    assert zlib.decompress(written.deflate.zlib_stream(data)) == data
    assert gzip.decompress(written.deflate.gzipped(data, "name.txt")) == data


@pytest.mark.parametrize("count", [1, 258, 259, 260, 100_000])
def test_one_byte_many_times(written: SimpleNamespace, count: int) -> None:
    assert zlib.decompress(written.deflate.deflate_repeated(ord("x"), count), -15) == b"x" * count


@given(ANY)
@example(bytes(65_536))
@example(bytes(200_001))
def test_brotli_reads_stored_streams(written: SimpleNamespace, data: bytes) -> None:
    assert brotli.decompress(written.stored.brotli(data)) == data


@given(st.dictionaries(st.text("abcé/.", min_size=1, max_size=9), ANY, max_size=5))
def test_zip_archives_are_whole(written: SimpleNamespace, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(written.archives.zipped(files))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
