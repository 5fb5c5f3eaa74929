"""The whole reader of web archives on damaged input: nothing raises, every byte is accounted for, every document can be
read again from its locator."""

import random
from pathlib import Path

import pytest
from corpus import SHARED, make_sample

from manifests.reasons import DEAD_LETTERS, Reason
from manifests.recipe import Limits, Source
from pipeline.sources import common_crawl

RECIPE = Source(weight=1.0, kind="common_crawl", limits=Limits(record_bytes=4 << 20))
CASES = 600


def walk(stored: bytes) -> list[common_crawl.Outcome]:
    outcomes = list(common_crawl.read(stored, "a.warc.gz", "web", RECIPE))
    assert sum(outcome.stored for outcome in outcomes) == len(stored)
    for outcome in outcomes:
        assert (outcome.document is None) != (outcome.reason is None)
        if outcome.document:
            assert common_crawl.reread(stored, outcome.locator, "web", RECIPE).document == outcome.document
    return outcomes


def mutate(stored: bytes, others: list[bytes], chance: random.Random) -> bytes:
    data = bytearray(stored)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(data)) if data else 0
        match chance.randrange(6):
            case 0 if data:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                del data[place : place + chance.randrange(1, 2000)]
            case 2:
                data[place:place] = chance.randbytes(chance.randrange(1, 500))
            case 3:
                other = chance.choice(others)
                begin = chance.randrange(len(other))
                data[place:place] = other[begin : begin + chance.randrange(1, 20_000)]
            case 4:
                del data[place + 1 :]
            case 5:
                length = data.find(b"Content-Length: ", place)
                if length > 0:
                    data[length + 16 : length + 17] = b"%d" % chance.randrange(10)
    return bytes(data)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small archives of every form: the sample's, the real odd ones where they are."""
    folder = make_sample(tmp_path_factory.mktemp("sample"))
    paths = [folder / "web/broken.warc.gz", folder / "web/plain.warc"]
    paths += [path for path in sorted((SHARED / "common_crawl/warc/odd").glob("*")) if path.stat().st_size < 60_000]
    return [path.read_bytes() for path in paths]


def test_damaged_archives_end_in_documents_and_reasons(archives: list[bytes]) -> None:
    chance = random.Random(7)
    seen: set[Reason] = set()
    for _ in range(CASES):
        outcomes = walk(mutate(chance.choice(archives), archives, chance))
        seen |= {outcome.reason for outcome in outcomes if outcome.reason}
    assert {Reason.CORRUPT_GZIP, Reason.CORRUPT_RECORD, Reason.TRUNCATED_RECORD} <= seen


def test_limits_are_kept(archives: list[bytes]) -> None:
    tight = RECIPE.model_copy(update={"limits": Limits(record_bytes=2_000, text_characters=300)})
    outcomes = list(common_crawl.read(archives[0], "a", "web", tight))
    assert all(len(outcome.document.text) <= 300 for outcome in outcomes if outcome.document)
    assert Reason.TOO_LARGE in {outcome.reason for outcome in outcomes} and Reason.TOO_LARGE in DEAD_LETTERS


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
def test_every_record_of_every_real_archive_is_accounted_for() -> None:
    kept = 0
    for path in sorted((SHARED / "common_crawl/warc").rglob("*")):
        if path.is_file():
            kept += sum(outcome.document is not None for outcome in walk(path.read_bytes()))
    assert kept > 150


def test_an_empty_file_has_no_record(tmp_path: Path) -> None:
    assert walk(b"") == []
