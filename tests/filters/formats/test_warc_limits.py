"""Tests of filters.formats.warc with size limits: memory is bounded, and too large records do not affect others."""

import gzip
import random
import tracemalloc
import zlib

from framing import LIMITS, blocks, check, good, members, reasons, record

from filters.formats.warc import Limits, read_frames
from filters.reasons import Reason


def test_a_member_larger_than_the_limit_gives_its_records_and_names_the_too_large_one() -> None:
    records = [record(bytes([n]) * 3000) for n in range(9)]
    records.insert(4, record(b"z" * 100_000))
    stored = gzip.compress(b"".join(records), mtime=0)
    limits = Limits(10_000)
    assert blocks(stored, limits) == [bytes([n]) * 3000 for n in range(9)]
    assert reasons(stored, limits)[4] is Reason.TOO_LARGE
    check(stored, limits)


def test_a_too_large_record_at_the_head_of_a_member_does_not_take_the_others_with_it() -> None:
    stored = gzip.compress(record(b"z" * 100_000) + record(b"a") + record(b"b"), mtime=0)
    assert blocks(stored, Limits(10_000)) == [b"a", b"b"]


def test_a_bomb_is_skipped_in_bounded_memory() -> None:
    bomb = gzip.compress(record(bytes(64 << 20)), mtime=0)
    stored = bomb + members(1)[0]
    tracemalloc.start()
    found = reasons(stored)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [Reason.TOO_LARGE, None]
    assert peak < 16 << 20


def test_memory_is_flat_in_the_size_of_the_archive() -> None:
    def peak(count: int) -> int:
        stored = b"".join(gzip.compress(record(bytes(200_000)), mtime=0) for _ in range(count))
        tracemalloc.start()
        assert sum(frame.problem is None for frame in read_frames(stored, LIMITS)) == count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(400) < 1.1 * peak(20)


def test_a_huge_length_that_lies_in_a_huge_member_costs_one_record() -> None:
    def large(number: int) -> bytes:
        return record(random.Random(number).randbytes(10) * 70_000, f"http://a.example/{number}")

    liar = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n"
    parts = [large(0), large(1), liar % 10**15, large(2), large(3), liar % 3_000_000, large(4), large(5)]
    stored = gzip.compress(b"".join(parts) + large(6), 1, mtime=0)
    assert [frame.target_uri[-1] for frame in good(stored)] == list("0123456")
    many = gzip.compress(b"".join([large(0), *[liar % 10**15] * 9, large(1), large(2)]), 1, mtime=0)
    assert [frame.target_uri[-1] for frame in good(many)][:1] == ["0"]
    check(stored)
    check(many)


def test_a_member_that_stores_too_much_for_its_one_record_is_too_large() -> None:
    packer = zlib.compressobj(wbits=31)
    padded = packer.compress(record(b"padded")) + b"".join(packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    padded += bytes(1) + b"\0\0\xff\xff" + (b"\0" + b"\0\0\xff\xff") * 500 + packer.flush()
    many = gzip.compress(b"".join(record(random.Random(n).randbytes(600)) for n in range(9)), mtime=0)
    stored = members(1)[0] + padded + many
    limits = Limits(1 << 20, max_stored_bytes=2_000)
    assert reasons(stored, limits) == [None, Reason.TOO_LARGE, *[None] * 9]
    assert reasons(stored, Limits(1 << 20)) == [None] * 11
    check(stored, limits)
