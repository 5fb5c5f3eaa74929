"""Canaries: copies at the wanted similarity; sound bands found sound, broken ones found broken."""

import gzip
import json
import random

import numpy as np
import pytest
from corpus import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup import recall as canaries
from filters.dedup.minhash import MinHash, band_hashes, shingle_hashes
from filters.dedup.recall import (
    LEVELS,
    LONGEST,
    SHORTEST,
    Level,
    acceptance_probability,
    check_levels,
    confidence_interval,
    make_canary,
    measure_recall,
    p_value,
)
from filters.hashing import Keys

SCHEME = MinHash()
VOCABULARY = [f"word{number}" for number in range(3000)]


def text_of(length: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length)) + "."


def documents(count: int, length: int = 120) -> list[tuple[bytes, str]]:
    return [(b"%016d" % number, text_of(length + number % 50, number)) for number in range(count)]


def true_jaccard(a: str, b: str, scheme: MinHash = SCHEME) -> float:
    first, second = (set(shingle_hashes(text, scheme).tolist()) for text in (a, b))
    return len(first & second) / len(first | second)


@given(
    st.integers(80, 700),
    st.integers(0, 10**6),
    st.sampled_from(LEVELS) | st.floats(0.05, 1),
    st.integers(1, 13),
    st.binary(max_size=80),
)
@settings(deadline=None, max_examples=60)
def test_copies_are_as_alike_as_wanted(length: int, seed: int, level: float, ngram: int, key: bytes) -> None:
    scheme, text = MinHash(ngram=ngram), text_of(length, seed)
    planted = make_canary(text, level, key, scheme)
    assert planted is not None
    copy, jaccard = planted
    assert jaccard == true_jaccard(text, copy, scheme)
    assert abs(jaccard - level) <= 0.6 / len(shingle_hashes(text, scheme))
    assert make_canary(text, level, key, scheme) == planted


@given(st.text(max_size=400), st.floats(0.05, 1), st.binary(max_size=80))
@settings(deadline=None, max_examples=100)
def test_any_text_gives_a_copy_measured_truly_or_none(text: str, level: float, key: bytes) -> None:
    planted = make_canary(text, level, key, SCHEME)
    assert (planted is None) == (len(shingle_hashes(text, SCHEME)) < SHORTEST)
    if planted is not None:
        assert planted[1] == true_jaccard(text, planted[0])


def test_repetitive_and_unspaced_texts() -> None:
    refrain = (text_of(20, 1) + " ") * 5 + text_of(80, 2)
    chinese = "".join(chr(0x4E00 + n) for n in np.random.default_rng(1).integers(0, 5000, 400))
    for text in (refrain, chinese):
        for level in LEVELS:
            planted = make_canary(text, level, b"key", SCHEME)
            assert planted is not None and abs(planted[1] - level) < 0.01


def test_too_short_and_too_long_are_left_out() -> None:
    assert make_canary(text_of(SHORTEST + 3, 1), 0.7, b"", SCHEME) is None
    assert make_canary(text_of(SHORTEST + 4, 1), 0.7, b"", SCHEME) is not None
    assert make_canary("a " * (LONGEST + 1), 0.7, b"", SCHEME) is None
    assert make_canary(text_of(LONGEST + 1, 1), 0.7, b"", SCHEME) is None
    short = [(b"short", "one two three"), (b"empty", "")]
    assert measure_recall(short, SCHEME, (0.7,)) == [Level(0.7, 0.0, 0.0, 0, 0)]
    assert measure_recall([*short, *documents(3)], SCHEME, (0.7,)) == measure_recall(documents(3), SCHEME, (0.7,))


def test_the_order_of_documents_is_of_no_account_and_the_seed_is() -> None:
    texts = documents(25)
    found = measure_recall(texts, SCHEME, (0.6, 0.7))
    assert measure_recall(reversed(texts), SCHEME, (0.6, 0.7)) == found
    assert [one.planted for one in found] == [25, 25]
    key = canaries._key
    assert len({key(seed, identity, level) for seed in (1, 2) for identity in (b"a", b"b") for level in LEVELS}) == 24


@pytest.fixture(scope="module")
def texts() -> list[tuple[bytes, str]]:
    return documents(300)


def test_sound_bands_are_within_the_band_of_the_theory(texts: list[tuple[bytes, str]]) -> None:
    found = measure_recall(texts, SCHEME)
    assert [one.level for one in found] == list(LEVELS)
    for one in found:
        assert one.planted == 300 and abs(one.jaccard - one.level) < 0.003
        assert p_value(one.found, one.planted, one.expected) >= 0.01
    assert check_levels(found) == []


def test_what_the_estimate_accepts_is_counted_apart(texts: list[tuple[bytes, str]]) -> None:
    for level in measure_recall(texts[:200], SCHEME, (0.6, 0.7, 0.8), threshold=0.7):
        assert 0 <= level.right <= level.accepted <= level.found <= level.planted
        low, high = confidence_interval(level.accepted, level.planted)
        assert low <= acceptance_probability(level.jaccard, SCHEME.bands, SCHEME.rows, 0.7) <= high, level
        assert (level.right > 0) == (level.level >= 0.7)


def one_row_too_many(signatures: np.ndarray, scheme: MinHash) -> Keys:
    """Each band also takes the first row of the next."""
    bands = signatures.reshape(-1, scheme.bands, scheme.rows)
    wide = np.concatenate([bands, np.roll(bands[:, :, :1], -1, axis=1)], axis=2)
    return band_hashes(wide.reshape(len(bands), -1), scheme.model_copy(update={"rows": scheme.rows + 1}))


def one_row_too_few(signatures: np.ndarray, scheme: MinHash) -> Keys:
    bands = signatures.reshape(-1, scheme.bands, scheme.rows)[:, :, 1:]
    return band_hashes(bands.reshape(len(bands), -1), scheme.model_copy(update={"rows": scheme.rows - 1}))


def first_half_of_the_bands(signatures: np.ndarray, scheme: MinHash) -> Keys:
    return band_hashes(signatures, scheme)[:, : scheme.bands // 2]


@pytest.mark.parametrize("broken", [one_row_too_many, one_row_too_few, first_half_of_the_bands])
def test_broken_bands_fail(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    """500 pairs a level are enough for each; with 300, one row too few is a warning only."""
    monkeypatch.setattr(canaries, "band_hashes", broken)
    said = check_levels(measure_recall(documents(800), SCHEME, (0.6, 0.7, 0.8)))
    assert said[-1].severity == "failure" and len(said) > 1


def test_real_documents_follow_the_curve() -> None:
    path = SHARED / "c4_redpajama/redpajama-sample_c4-rp1.jsonl.gz"
    if not path.exists():
        pytest.skip("no shared sample of C4")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(200), strict=False)]
    found = measure_recall([(b"%d" % number, row["text"]) for number, row in enumerate(rows)], SCHEME, (0.6, 0.7, 0.8))
    assert check_levels(found) == [] and all(one.planted > 150 for one in found)
    assert all(abs(one.jaccard - one.level) < 0.002 for one in found)
