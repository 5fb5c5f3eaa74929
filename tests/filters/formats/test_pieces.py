"""Tests that the pieces of an archive, of any size and with any damage, give the same frames as the whole archive."""

import gzip
import itertools
import random
import struct

import pytest
from corpus import SHARED
from damage import damage_archive, make_archives
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.formats.warc import RETRIES, Boundary, Frame, Limits, find_boundaries, read_frames
from filters.rule_list import parse_rules
from manifests.source import Source
from pipeline.sources import common_crawl

LIMITS = Limits(1 << 20)
ARCHIVES = make_archives()


def in_pieces(stored: bytes, cuts: list[Boundary]) -> list[Frame]:
    assert [cut.start for cut in cuts] == [0, *(cut.end for cut in cuts[:-1])] and cuts[-1].end == len(stored)
    return [frame for cut in cuts for frame in read_frames(stored, LIMITS, cut.start, cut.end, cut.wasted)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(range(len(ARCHIVES))), st.integers(1, 3_000))
def test_pieces_of_any_size_give_the_frames_of_the_whole(seed: int, number: int, split: int) -> None:
    archive = ARCHIVES[number]
    others = [other for other in ARCHIVES if other.form == archive.form]
    stored = damage_archive(archive, others, random.Random(seed)).stored()
    whole = list(read_frames(stored, LIMITS))
    for size in (split, 1, 1 << 16, 1 << 20):
        assert in_pieces(stored, find_boundaries(stored, LIMITS, size)) == whole


def test_cuts_lie_at_the_first_member_at_or_after_each_multiple() -> None:
    members = [len(unit) for unit in ARCHIVES[1].units] * 20
    stored = b"".join(ARCHIVES[1].units) * 20
    places = list(itertools.accumulate(members, initial=0))
    for size in (1, 500, 4_000, 1 << 20):
        expected = sorted({next(p for p in places if p >= due) for due in range(0, len(stored), size)} - {len(stored)})
        assert [cut.start for cut in find_boundaries(stored, LIMITS, size)] == expected


@pytest.mark.parametrize("stored", [b"", b"\x28\xb5\x2f\xfd" + bytes(9_000), b"".join(ARCHIVES[2].units)])
def test_what_cannot_be_cut_is_one_piece(stored: bytes) -> None:
    assert find_boundaries(stored, LIMITS, 100) == [Boundary(0, len(stored), 0)]
    assert in_pieces(stored, find_boundaries(stored, LIMITS, 100)) == list(read_frames(stored, LIMITS))


def test_a_piece_knows_what_inflated_in_vain_before_it() -> None:
    """Each damaged member contains the next one, and decoding fails late.

    After the limit RETRIES, members inside damaged members are not searched. The pieces must apply the same limit as
    the whole archive.
    """
    opening = b"WARC/1.0\r\nContent-Length: 9\r\n\r\n"
    trap = gzip.compress(b"", mtime=0)[:10] + b"\0" + struct.pack("<HH", 40_000, 40_000 ^ 0xFFFF) + opening
    stored = trap * 2_000 + b"".join(ARCHIVES[1].units)
    cuts = find_boundaries(stored, LIMITS, 1)
    assert max(cut.wasted for cut in cuts) > RETRIES * len(stored)
    assert len({cut.wasted for cut in cuts}) > 10
    assert in_pieces(stored, cuts) == list(read_frames(stored, LIMITS))
    forgetful = [Boundary(cut.start, cut.end, 0) for cut in cuts]
    assert in_pieces(stored, forgetful) != list(read_frames(stored, LIMITS))


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
def test_real_archives_in_pieces() -> None:
    source = Source(weight=1.0, kind="common_crawl", filters=parse_rules(["http_status"]))
    for path in sorted((SHARED / "common_crawl/warc/crawl").iterdir()):
        stored = path.read_bytes()
        assert in_pieces(stored, find_boundaries(stored, LIMITS, 1 << 16)) == list(read_frames(stored, LIMITS))
        if len(stored) < 100_000:
            cuts = common_crawl.find_pieces(stored, source, 5_000)
            assert len(cuts) > 5
            apart = [o for cut in cuts for o in common_crawl.read(stored, "a", "web", source, *cut)]
            assert apart == list(common_crawl.read(stored, "a", "web", source))
