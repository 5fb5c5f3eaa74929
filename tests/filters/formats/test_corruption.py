"""Tests with ten thousand randomly damaged archives.

No exception is raised, each stored byte is attributed to a frame, and the pieces of an archive give the same frames as
the whole archive. Undamaged records are not lost:

- In a gzipped archive, each undamaged member gives its records, whatever is before and after it.
- In an uncompressed archive, each undamaged record at the start of a line that is followed by newlines is read. There
  is one exception: an earlier record states a length that includes the record and ends where a record ends. Then the
  record may be a part of the earlier record's block, because a block can contain an archive.
"""

import random
from collections import Counter

import pytest
from corpus import SHARED
from damage import Archive, damage_archive, make_archives, split_archive

from filters.formats.warc import Frame, Limits, find_boundaries, read_frame, read_frames
from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.source import Limits as SourceLimits
from manifests.source import Source
from pipeline.sources import common_crawl

LIMITS = Limits(4 << 20)
SOURCE_LIMITS = SourceLimits(record_bytes=4 << 20)
RECIPE = Source(weight=1.0, kind="common_crawl", limits=SOURCE_LIMITS, filters=parse_rules(["http_status"]))
REAL_BYTES = 60_000


def contents(found: list[Frame]) -> list[tuple[bytes, bytes]]:
    return [(frame.headers.block, frame.block) for frame in found if frame.problem is None]


def check_members(found: list[Frame], untouched: dict[int, bytes]) -> None:
    """Check that the undamaged members give their records.

    The frame may begin before the member, if a truncated gzip header before it is completed by the member's bytes.
    """
    for offset, unit in untouched.items():
        there = [frame for frame in found if frame.offset <= offset < frame.offset + frame.length]
        assert contents(there) == contents(list(read_frames(unit, LIMITS)))


def check_plain(stored: bytes, found: list[Frame], untouched: dict[int, bytes]) -> int:
    """Check that the undamaged records are read. Return the number of records within another record's stated length."""
    spanned, at = 0, 0
    for offset, unit in sorted(untouched.items()):
        if offset and stored[offset - 1 : offset] != b"\n":
            continue
        while found[at].offset + found[at].length <= offset:
            at += 1
        if contents([found[at]]) != contents(list(read_frames(unit, LIMITS))):
            over = found[at]  # A record that begins before this one and includes it.
            assert over.problem in (None, Reason.TOO_LARGE) and stored[over.offset : offset].strip(b"\r\n")
            spanned += 1
    return spanned


def check(archive: Archive, others: list[Archive], chance: random.Random, seen: Counter[str]) -> None:
    hurt = damage_archive(archive, others, chance)
    stored, untouched = hurt.stored(), hurt.untouched()
    found = list(read_frames(stored, LIMITS))
    assert sum(frame.stored for frame in found) == len(stored)
    seen["untouched"] += len(untouched)
    if archive.form == "gzip":
        check_members(found, untouched)
    else:
        seen["spanned"] += check_plain(stored, found, untouched)
    cuts = find_boundaries(stored, LIMITS, chance.choice((1, 700, 5_000, 1 << 20)))
    assert [frame for cut in cuts for frame in read_frames(stored, LIMITS, cut.start, cut.end, cut.wasted)] == found
    outcomes = list(common_crawl.read(stored, "a", "web", RECIPE))
    assert sum(outcome.stored for outcome in outcomes) == len(stored)
    assert all((outcome.document is None) != (outcome.reason is None) for outcome in outcomes)
    seen.update(outcome.reason or "document" for outcome in outcomes)
    good = [frame for frame in found if frame.problem is None]
    if good:
        frame = chance.choice(good)
        place = (frame.offset, frame.length, frame.inner_offset, frame.inner_length)
        assert read_frame(stored, *place, LIMITS)[5:] == frame[5:]


def run(archives: list[Archive], cases: int, seed: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        archive = chance.choice(archives)
        check(archive, [other for other in archives if other.form == archive.form], chance, seen)
    assert {Reason.CORRUPT_GZIP, Reason.CORRUPT_RECORD, Reason.TRUNCATED_RECORD, "document"} <= set(seen)
    assert seen["spanned"] * 1000 < seen["untouched"]
    return seen


def real_archives() -> list[Archive]:
    paths = sorted((SHARED / "common_crawl/warc").rglob("*"))
    return [split_archive(path.read_bytes()) for path in paths if path.is_file() and path.stat().st_size < REAL_BYTES]


def test_made_archives() -> None:
    run(make_archives(), 200, seed=1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
def test_real_archives() -> None:
    run(real_archives(), 100, seed=2)


@pytest.mark.slow
def test_ten_thousand_archives() -> None:
    real = real_archives()
    print(run(make_archives(), 7_000 if real else 10_000, seed=3))
    if real:
        print(run(real, 3_000, seed=4))
