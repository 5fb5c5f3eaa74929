"""Books in books: no candidate lost but by the stated rules, unbiased estimates, and the true editions of real ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from corpus import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup import containment as module
from filters.dedup.containment import find_candidates, hashes_needed, sketch, verify_candidates
from filters.dedup.minhash import MinHash, intersection_size, jaccard, shingle_hashes
from filters.dedup.recall import binomial

WIDE = 10**9


def containment(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of `a` that is in `b`."""
    return intersection_size(a, b) / len(a) if len(a) else 0.0


def hashes(chance: np.random.Generator, count: int, dtype: type = np.uint64) -> np.ndarray:
    return np.unique(chance.integers(0, np.iinfo(dtype).max, count, dtype, endpoint=True))


def in_another(chance: np.random.Generator, size: int, times: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A set of that size, and one so many times larger that holds just that share of it."""
    inner, rest = hashes(chance, size), hashes(chance, size * times)
    common = chance.choice(inner, round(share * len(inner)), replace=False)
    return inner, np.union1d(common, rest[: size * times - len(common)])


@given(
    st.lists(st.sets(st.integers(0, 25), max_size=20), max_size=12),
    st.floats(0.3, 1),
    st.sampled_from([1e-3, 0.05, 0.5]),
    st.integers(1, 40),
)
@settings(deadline=None, max_examples=300)
def test_no_pair_of_sketches_is_lost(sets: list[set[int]], threshold: float, miss: float, block: int) -> None:
    """Looking up the rarest hashes alone finds what comparing all pairs finds."""
    expected = [
        (a, b, len(first & second) / len(first))
        for a, first in enumerate(sets)
        for b, second in enumerate(sets)
        if a != b and first and len(first & second) >= hashes_needed(len(first), threshold, miss)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = find_candidates([np.array(sorted(one), np.uint32) for one in sets], threshold, miss, WIDE)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


@given(st.integers(1, 500), st.floats(0.3, 0.99), st.sampled_from([1e-3, 0.01]))
@settings(deadline=None)
def test_needed_is_the_quantile(size: int, threshold: float, miss: float) -> None:
    least = hashes_needed(size, threshold, miss)
    likely = binomial(size, threshold)
    assert 1 <= least <= size and (least == 1 or likely[:least].sum() <= miss + 1e-12)
    assert likely[: least + 1].sum() > miss


def test_needed_by_hand() -> None:
    """Of ten at 0.9, at most four are shared with a probability of 0.00015, at most five with one of 0.0016."""
    assert [hashes_needed(size, 0.9) for size in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert hashes_needed(10, 0.9) == 5


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_a_sketch_is_a_sample_below_a_bound(dtype: type) -> None:
    found = hashes(np.random.default_rng(1), 50_000, dtype)
    part = sketch(found, 100)
    assert 400 < len(part) < 600 and int(part[-1]) * 100 < int(np.iinfo(dtype).max) < int(found[len(part)]) * 100
    assert np.array_equal(sketch(found, 1), found) and len(sketch(found[:0], 100)) == 0


@pytest.mark.parametrize("times", [1, 10])
def test_estimates_are_unbiased_however_unequal_the_books(times: int) -> None:
    """60 pairs at 0.9, some 200 hashes a sketch: the mean within four standard errors."""
    chance, estimates = np.random.default_rng(times), []
    for _ in range(60):
        inner, outer = in_another(chance, 6400, times, 0.9)
        sketches = [sketch(one, 32) for one in (inner, outer)]
        estimates.append(containment(*sketches))
    assert abs(np.mean(estimates) - 0.9) < 4 * (0.09 / 200 / 60) ** 0.5


def test_a_pair_at_the_threshold_is_a_candidate() -> None:
    """400 books at exactly 0.9, in others three times as long: one in a thousand may be missed."""
    chance, sets = np.random.default_rng(3), []
    for _ in range(400):
        sets += in_another(chance, 2000, 3, 0.9)
    inner, outer, _ = find_candidates([sketch(one, 32) for one in sets], 0.9)
    found = verify_candidates(inner, outer, sets.__getitem__, 0.9)
    assert (found.outer == found.inner + 1).all() and (found.inner % 2 == 0).all()
    assert len(found.inner) >= 398
    assert (found.containment == 0.9).all() and len(inner) < 2 * len(found.inner)


def test_what_every_book_carries_makes_no_candidates() -> None:
    """300 books of which a third is one licence, and a pair: nothing but the pair is looked at."""
    chance = np.random.default_rng(4)
    licence = hashes(chance, 1000)
    sets = [np.union1d(licence, hashes(chance, 2000)) for _ in range(300)]
    sets.append(np.union1d(sets[7], hashes(chance, 500)))
    inner, outer, _ = find_candidates([sketch(one, 16) for one in sets], 0.9)
    assert list(zip(inner.tolist(), outer.tolist(), strict=True)) == [(7, 300), (300, 7)]
    found = verify_candidates(inner, outer, sets.__getitem__, 0.9)
    assert found.inner.tolist() == [7] and found.outer.tolist() == [300] and found.containment.tolist() == [1.0]


def test_many_copies_each_meet_the_largest() -> None:
    """200 copies with an own preface each: 200 x 3 pairs rather than 200 x 199, and each is found in a larger one."""
    chance = np.random.default_rng(5)
    book = hashes(chance, 6400)
    sets = [np.union1d(book, hashes(chance, 2 * size + 1)) for size in range(200)]
    inner, outer, _ = find_candidates([sketch(one, 16) for one in sets], 0.9, max_books=3)
    assert len(inner) <= 3 * 200 and set(inner.tolist()) == set(range(200))
    largest = sorted(range(200), key=lambda i: -len(sketch(sets[i], 16)))[:3]
    assert set(outer.tolist()) == set(largest)


def test_both_directions_are_given_with_their_exact_values() -> None:
    a, b = np.arange(100, dtype=np.uint32), np.arange(5, 105, dtype=np.uint32)
    small = np.arange(20, dtype=np.uint32)
    sets = [a, b, small, np.empty(0, np.uint32)]
    found = verify_candidates(np.array([1, 2, 2, 3]), np.array([0, 0, 1, 0]), sets.__getitem__, 0.9)
    assert list(zip(found.inner, found.outer, found.containment, strict=True)) == [
        (0, 1, 0.95),
        (1, 0, 0.95),
        (2, 0, 1.0),
    ]
    assert found.jaccard.tolist() == [95 / 105, 95 / 105, 0.2]
    none = np.empty(0, np.int64)
    assert len(verify_candidates(none, none, sets.__getitem__, 0.9).inner) == 0
    assert [len(column) for column in find_candidates([], 0.9)] == [0, 0, 0]
    assert [len(column) for column in find_candidates([sets[3], sets[3]], 0.9)] == [0, 0, 0]


EDITIONS = [
    {"a-alice_in_wonderland", "b-11-0"},
    {"a-dorian_gray", "b-pg174"},
    {"a-importance_of_being_earnest", "b-pg844"},
    {"a-jekyll_and_hyde", "b-43-0"},
    {"a-legend_of_sleepy_hollow", "b-41-0"},
    {"a-metamorphosis", "b-pg5200"},
    {"a-modest_proposal", "b-pg1080"},
    {
        "a-pride_and_prejudice",
        "b-Pride_and_Prejudice_JaneAusten",
        "b-archive__project-gutenberg-data__pg1342",
    },
    {"a-sherlock_holmes", "b-archive__project-gutenberg-data__pg1661"},
    {"a-time_machine", "b-35-0"},
    {"a-scarlet_letter", "a-tractatus"},
]
"""releases of one book; the last is one "not found" page saved as two books. A translation is another book."""


def test_the_editions_of_real_books_and_nothing_else() -> None:
    folder = SHARED / "gutenberg"
    if not folder.exists():
        pytest.skip("no shared books of Project Gutenberg")
    paths: list[Path] = sorted(folder.glob("*.txt.gz"))
    names = [path.name.removesuffix(".txt.gz") for path in paths]
    texts = [gzip.decompress(path.read_bytes()).decode("utf-8", "replace") for path in paths]
    sets = [shingle_hashes(text, MinHash(ngram=5)) for text in texts]
    assert len(sets) == 34
    true = {
        (a, b): intersection_size(sets[a], sets[b])
        for a in range(34)
        for b in range(34)
        if a != b and containment(sets[a], sets[b]) >= 0.9
    }
    pairs = {frozenset((names[a], names[b])) for a, b in true}
    assert pairs == {frozenset((a, b)) for books in EDITIONS for a in books for b in books if a != b}
    inner, outer, estimates = find_candidates([sketch(one, 64) for one in sets], 0.9)
    found = verify_candidates(inner, outer, sets.__getitem__, 0.9)
    assert list(zip(found.inner.tolist(), found.outer.tolist(), strict=True)) == list(true)
    for a, b, inside, alike in zip(found.inner, found.outer, found.containment, found.jaccard, strict=True):
        assert inside == true[a, b] / len(sets[a]) and alike == jaccard(sets[a], sets[b])
    exact = [containment(sets[a], sets[b]) for a, b in zip(inner, outer, strict=True)]
    assert len(inner) <= len(true) + 2 and np.abs(estimates - exact).max() < 0.06
