"""MinHash: datasketch's signatures bit for bit, honest estimates, the theoretical curve."""

import os
import random
import re
import subprocess
import sys

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup.containment import Containment, sketch
from filters.dedup.minhash import (
    SHINGLE_BLOCK,
    UNSPACED,
    MinHash,
    band_hashes,
    shingle_hashes,
    signature,
    similarity,
    word_hashes,
)
from filters.dedup.minhash import TEXT_BLOCK as TEXT_BLOCK
from filters.dedup.recall import candidate_probability
from filters.hashing import GOLDEN
from filters.settings import Strict, parse_settings

SCHEME = MinHash()
VOCABULARY = [f"word{number}" for number in range(5000)]


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=3000), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_signatures_are_datasketchs_bit_for_bit(values: set[int], seed: int) -> None:
    hashes = np.array(sorted(values), np.uint32)
    scheme = MinHash(bands=4, rows=8, seed=seed)
    theirs = datasketch.MinHash(num_perm=32, seed=seed, scheme="affine32", hashfunc=int)
    theirs.update_batch(hashes)
    ours = signature(hashes, scheme)
    assert ours.dtype == np.uint32 and np.array_equal(ours, theirs.hashvalues)


@pytest.mark.parametrize(("settings_class", "name"), [(MinHash, "seed"), (Containment, "scale")])
def test_a_number_that_is_too_large_for_the_hashes_is_refused_with_the_recipe(
    settings_class: type[Strict], name: str
) -> None:
    """Else the run would end with a traceback when the first document is signed, or the first sketch made."""
    hashes = np.arange(9, dtype=np.uint64)
    assert len(signature(hashes.astype(np.uint32), MinHash(seed=2**32 - 1))) == SCHEME.permutations
    assert len(sketch(hashes, Containment(scale=2**32).scale)) == 9
    with pytest.raises(ValueError, match=f"key {name} = 18446744073709551617: should be less than"):
        parse_settings(settings_class, {name: 2**64 + 1})


def text_of(length: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


@pytest.mark.parametrize("level", [0.5, 0.7, 0.8, 0.9])
def test_estimates_follow_the_true_similarity_and_candidates_the_curve(level: float) -> None:
    """300 pairs of sets with a known Jaccard similarity; bounds at five standard deviations."""
    chance = np.random.default_rng(int(level * 100))
    pairs, size = 300, 1000
    shared = round(2 * size * level / (1 + level))
    true = shared / (2 * size - shared)
    estimates, candidates = [], 0
    for _ in range(pairs):
        values = chance.choice(2**32, 2 * size - shared, replace=False).astype(np.uint32)
        a, b = (signature(part, SCHEME) for part in (values[:size], values[size - shared :]))
        estimates.append(similarity(a, b))
        candidates += bool((band_hashes(a[None], SCHEME) == band_hashes(b[None], SCHEME)).any())
    spread = (true * (1 - true) / SCHEME.permutations / pairs) ** 0.5
    assert abs(np.mean(estimates) - true) < 5 * spread
    likely = candidate_probability(true, SCHEME.bands, SCHEME.rows)
    assert abs(candidates / pairs - likely) < 5 * (likely * (1 - likely) / pairs) ** 0.5 + 0.01


def test_bands_are_equal_for_equal_rows_of_the_same_band_alone() -> None:
    a = np.arange(112, dtype=np.uint32)
    b = a.copy()
    b[8:16] += 1
    keys = band_hashes(np.stack([a, b]), SCHEME)
    assert keys.shape == (2, 14) and keys.dtype == np.uint64
    assert (keys[0] == keys[1]).tolist() == [True, False, *[True] * 12]
    same = band_hashes(np.zeros((1, 112), np.uint32), SCHEME)
    assert len(np.unique(same)) == 14, "equal rows in different bands are different keys"


def test_words_are_casefolded_and_unspaced_scripts_go_by_character() -> None:
    for text, words in (
        ("Straße, STRASSE! a-b 3.5", ["strasse", "strasse", "a", "b", "3", "5"]),
        ("我们 mixed 村庄", ["我", "们", "mixed", "村", "庄"]),
        ("ひらがな", list("ひらがな")),
        ("...!?", []),
    ):
        assert plain_words(text) == words
        assert word_hashes(text).tolist() == [int(word_hashes(word)[0]) for word in words]
    assert len(word_hashes("ภาษา"))


def test_short_and_empty_texts_have_their_rules() -> None:
    assert len(shingle_hashes("", SCHEME)) == 0 and len(signature(shingle_hashes("?!", SCHEME), SCHEME)) == 0
    assert len(shingle_hashes("one", SCHEME)) == 1
    assert len(shingle_hashes("one two three four", SCHEME)) == 1
    assert len(shingle_hashes("one two three four five six", SCHEME)) == 2
    assert shingle_hashes("one two", SCHEME) != shingle_hashes("two one", SCHEME)


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_has_shingles_sorted_and_distinct(text: str) -> None:
    found = shingle_hashes(text, SCHEME)
    assert found.dtype == np.uint32 and (np.diff(found.astype(np.int64)) > 0).all()
    assert len(found) <= max(len(plain_words(text)) - 4, bool(plain_words(text)))


def test_shingles_are_sets_of_ngrams() -> None:
    text = text_of(60, 1)
    twice = f"{text} . {text}"
    once, both = set(shingle_hashes(text, SCHEME).tolist()), set(shingle_hashes(twice, SCHEME).tolist())
    assert once <= both and len(both) <= len(once) + 4


def test_a_huge_document_costs_bounded_time_and_the_same_as_its_set() -> None:
    text = text_of(200_000, 2)
    hashes = shingle_hashes(text, SCHEME)
    assert np.array_equal(signature(hashes, SCHEME), signature(np.random.default_rng(0).permutation(hashes), SCHEME))


def test_nothing_depends_on_pythons_hash_seed() -> None:
    code = (
        "from filters.dedup.minhash import *; s = MinHash();"
        "print(band_hashes(signature(shingle_hashes('the quick brown fox jumps over it', s), s)[None], s).sum())"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, env={**os.environ, "PYTHONHASHSEED": "1"}
    ).stdout
    shingles = shingle_hashes("the quick brown fox jumps over it", SCHEME)
    assert int(said) == band_hashes(signature(shingles, SCHEME)[None], SCHEME).sum(), "of another process"


def test_the_name_tells_schemes_apart() -> None:
    names = {MinHash(ngram=n, bands=b, seed=s).scheme for n in (5, 13) for b in (14, 20) for s in (1, 2)}
    assert len(names) == 8


UNSPACED_CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED)
WORD = re.compile(f"[{UNSPACED_CLASS}]|[^\\W{UNSPACED_CLASS}]+")


def plain_words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def plain_shingles(text: str, scheme: MinHash) -> list[int]:
    """One n-gram after the other, in Python's whole numbers."""
    whole = 2**64
    hashes = [
        plain_mix(sum(ord(letter) * pow(int(GOLDEN), place, whole) for place, letter in enumerate(word)) % whole)
        for word in plain_words(text)
    ]
    width = min(scheme.ngram, len(hashes))
    found = set()
    for start in range(len(hashes) - width + 1 if hashes else 0):
        value = 0
        for one in hashes[start : start + width]:
            value = (value * 0x9E3779B97F4A7C15 + one) % whole
        found.add(plain_mix(value) >> 32)
    return sorted(found)


def plain_mix(value: int) -> int:
    """The 64-bit finaliser of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor % 2**64
    return value ^ value >> 33


MARKS = ["-", "\n", "\r", "\x1c", "\x85", "\u2028", "\u00a0", "«", "’", "…", "\u203f"]
LETTERS = [
    "Straße",
    "İ",
    "Σ",
    "ΑΣ",
    "\u212a",
    "ſ",
    "\u0345",
    "²",
    "Ⓐ",
    "é",
    "e\u0301",
    "我们",
    "ภาษา",
    "\ud800",
    "\U00020000",
]
PIECES = st.sampled_from(["word", "Word", "WORD", "a_b", "3.5", *MARKS, *LETTERS])
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=40).flatmap(
    lambda pieces: st.sampled_from(["", " ", "\n"]).map(lambda between: between.join(pieces))
)


@given(TEXTS, st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_the_fast_way_gives_what_the_plain_way_gives(text: str, ngram: int) -> None:
    scheme = MinHash(ngram=ngram)
    found = shingle_hashes(text, scheme)
    assert found.dtype == np.uint32 and found.tolist() == plain_shingles(text, scheme)


def test_every_character_makes_the_words_that_the_expression_finds() -> None:
    """Alone on a line, between ASCII words: whichever way the line goes."""
    text = "\n".join(f"a{chr(code)}b {chr(code)}" for code in range(0x3000))
    assert word_hashes(text).tolist() == [int(word_hashes(word)[0]) for word in plain_words(text)]


@pytest.mark.parametrize("size", [1, SHINGLE_BLOCK - 1, SHINGLE_BLOCK, SHINGLE_BLOCK + 1, 3 * SHINGLE_BLOCK + 7])
def test_blocks_of_every_size_give_datasketchs_signature(size: int) -> None:
    hashes = np.random.default_rng(size).integers(0, 2**32, size, np.uint32)
    theirs = datasketch.MinHash(num_perm=SCHEME.permutations, seed=SCHEME.seed, scheme="affine32", hashfunc=int)
    theirs.update_batch(hashes)
    assert np.array_equal(signature(hashes, SCHEME), theirs.hashvalues)


@pytest.mark.parametrize("around", [-3, -1, 0, 1, 5])
def test_long_texts_are_hashed_as_short_ones_word_by_word(around: int) -> None:
    """Blocks end between words: the hashes of a long text are those of its words one by one."""
    text = "w" * (TEXT_BLOCK - 20 + around) + " alpha beta我 gamma_delta " + "x y " * 20
    expected = [int(word_hashes(word)[0]) for word in plain_words(text)]
    assert word_hashes(text).tolist() == expected
    assert word_hashes("").tolist() == [] and word_hashes(" .!\n").tolist() == []


def test_a_run_of_letters_without_end_is_cut_into_words() -> None:
    hashes = word_hashes("z" * (2 * TEXT_BLOCK + 5))
    assert len(hashes) == 3 and hashes[0] == hashes[1] == word_hashes("z" * TEXT_BLOCK)[0]
