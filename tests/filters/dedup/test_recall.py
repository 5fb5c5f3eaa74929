"""Canaries: copies at the wanted similarity; sound bands found sound, broken ones found broken."""

import gzip
import json
import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from banding import acceptance_probability
from corpus import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup import recall as canaries
from filters.dedup.minhash import MinHash, band_hashes, ngram_hashes, shingle_hashes, word_hashes
from filters.dedup.recall import (
    LEVELS,
    LONGEST,
    SHORTEST,
    Level,
    check_levels,
    compare_canaries,
    confidence_interval,
    count_levels,
    edit_words,
    p_value,
)
from filters.hashing import Keys

SCHEME = MinHash()
VOCABULARY = [f"word{number}" for number in range(3000)]


def text_of(length: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length)) + "."


def documents(count: int, length: int = 120) -> list[tuple[bytes, str]]:
    return [(b"%016d" % number, text_of(length + number % 50, number)) for number in range(count)]


def measure(
    texts: Iterable[tuple[bytes, str]], levels: Sequence[float] = LEVELS, scheme: MinHash = SCHEME
) -> list[Level]:
    return count_levels([compare_canaries(identity, text, scheme, 1, levels) for identity, text in texts], levels)


def shingles_of(words: Keys, scheme: MinHash = SCHEME) -> set[int]:
    return set(ngram_hashes(words, scheme).tolist())


def true_jaccard(words: Keys, copy: Keys, scheme: MinHash = SCHEME) -> float:
    first, second = shingles_of(words, scheme), shingles_of(copy, scheme)
    return len(first & second) / len(first | second)


@given(
    st.integers(80, 700),
    st.integers(0, 10**6),
    st.sampled_from(LEVELS) | st.floats(0.05, 1),
    st.integers(1, 13),
    st.binary(min_size=24, max_size=40),
)
@settings(deadline=None, max_examples=60)
def test_copies_are_as_alike_as_wanted(length: int, seed: int, level: float, ngram: int, key: bytes) -> None:
    scheme, words = MinHash(ngram=ngram), word_hashes(text_of(length, seed))
    copy = edit_words(words, level, key, scheme)
    assert abs(true_jaccard(words, copy, scheme) - level) <= 0.6 / len(shingles_of(words, scheme))
    assert (edit_words(words, level, key, scheme) == copy).all()


@given(
    st.integers(80, 300), st.integers(1, 8), st.integers(2, 40), st.floats(0.05, 1), st.binary(min_size=24, max_size=24)
)
@settings(deadline=None, max_examples=60)
def test_one_more_replacement_would_be_too_many(length: int, ngram: int, kinds: int, level: float, key: bytes) -> None:
    """Of texts that repeat themselves, too: replacements one by one, each counted from the sets."""
    scheme = MinHash(ngram=ngram)
    words = word_hashes(" ".join(random.Random(length).choices(VOCABULARY[:kinds], k=length)))
    copy = edit_words(words, level, key, scheme)
    slots = canaries._choose_slots(len(words), ngram, key)
    replaced = int((copy[slots] != words[slots]).sum())
    edited = words.copy()
    for number, slot in enumerate(slots[: replaced + 1]):
        assert true_jaccard(words, edited, scheme) >= level
        edited[slot] = copy[slot] if number < replaced else 12_345
    assert replaced == len(slots) or true_jaccard(words, edited, scheme) < level


@given(st.text(max_size=400), st.binary(max_size=80))
@settings(deadline=None, max_examples=100)
def test_any_text_gives_copies_measured_truly_or_none(text: str, identity: bytes) -> None:
    planted = compare_canaries(identity, text, SCHEME)
    words = word_hashes(text)
    assert len(planted) == (0 if len(shingle_hashes(text, SCHEME)) < SHORTEST else len(LEVELS))
    for one, level in zip(planted, LEVELS if planted else (), strict=True):
        copy = edit_words(words, level, canaries._derive_key(1, identity, level), SCHEME)
        assert one.jaccard == true_jaccard(words, copy)


def test_repetitive_and_unspaced_texts() -> None:
    refrain = (text_of(20, 1) + " ") * 5 + text_of(80, 2)
    chinese = "".join(chr(0x4E00 + n) for n in np.random.default_rng(1).integers(0, 5000, 400))
    for text in (refrain, chinese):
        planted = compare_canaries(b"one", text, SCHEME)
        assert [abs(one.jaccard - level) < 0.01 for one, level in zip(planted, LEVELS, strict=True)] == [True] * 6


def test_too_short_and_too_long_are_left_out() -> None:
    assert compare_canaries(b"", text_of(SHORTEST + 3, 1), SCHEME) == []
    assert compare_canaries(b"", text_of(SHORTEST + 4, 1), SCHEME) != []
    assert compare_canaries(b"", "a " * (LONGEST + 1), SCHEME) == []
    assert compare_canaries(b"", text_of(LONGEST + 1, 1), SCHEME) == []
    short = [(b"short", "one two three"), (b"empty", "")]
    assert measure(short, (0.7,)) == measure([], (0.7,)) == [Level(0.7, 0.0, 0.0, 0, 0)]
    assert measure([*short, *documents(3)], (0.7,)) == measure(documents(3), (0.7,))


def test_the_order_of_documents_is_of_no_account_and_the_seed_is() -> None:
    texts = documents(25)
    found = measure(texts, (0.6, 0.7))
    assert measure(reversed(texts), (0.6, 0.7)) == found
    assert [one.planted for one in found] == [25, 25]
    key = canaries._derive_key
    assert len({key(seed, identity, level) for seed in (1, 2) for identity in (b"a", b"b") for level in LEVELS}) == 24


@pytest.fixture(scope="module")
def texts() -> list[tuple[bytes, str]]:
    return documents(300)


def test_sound_bands_are_within_the_band_of_the_theory(texts: list[tuple[bytes, str]]) -> None:
    found = measure(texts)
    assert [one.level for one in found] == list(LEVELS)
    for one in found:
        assert one.planted == 300 and abs(one.jaccard - one.level) < 0.003
        assert p_value(one.found, one.planted, one.expected) >= 0.01
    assert check_levels(found) == []


def test_what_the_estimate_accepts_is_counted_apart(texts: list[tuple[bytes, str]]) -> None:
    for level in measure(texts[:200], (0.6, 0.7, 0.8)):
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
    said = check_levels(measure(documents(800), (0.6, 0.7, 0.8)))
    assert said[-1].severity == "failure" and len(said) > 1


def test_real_documents_follow_the_curve() -> None:
    path = SHARED / "c4_redpajama/redpajama-sample_c4-rp1.jsonl.gz"
    if not path.exists():
        pytest.skip("no shared sample of C4")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(200), strict=False)]
    found = measure([(b"%d" % number, row["text"]) for number, row in enumerate(rows)], (0.6, 0.7, 0.8))
    assert check_levels(found) == [] and all(one.planted > 150 for one in found)
    assert all(abs(one.jaccard - one.level) < 0.002 for one in found)
