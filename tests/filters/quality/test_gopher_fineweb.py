"""The rules of Gopher and FineWeb: each bound from both sides, against plain counting, in linear time."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.quality import gopher
from filters.quality.fineweb_lines import FineWebLines
from filters.quality.gopher import GopherQuality, GopherRepetition, repeated_ngrams
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, drop, keep

PROSE = "The ferry left the harbour at dawn and the keeper went with it to see the lamp on the far side of the bay."
NUMBERED = [f"word{number:03}" for number in range(400)]  # seven characters each, none repeated


def numbered(words: int, start: int = 0) -> str:
    return " ".join(NUMBERED[start : start + words])


def prose(words: int) -> str:
    """So many different words, the first of which are stop words."""
    return " ".join(["the", "of", *NUMBERED][:words])


QUALITY = [
    (prose(50), None),
    (prose(49), Reason.GOPHER_WORD_COUNT),
    ("the of " * 25 + "to be " * 2, Reason.GOPHER_WORD_LENGTH),
    ("the of " + "extraordinarily " * 60, Reason.GOPHER_WORD_LENGTH),
    (prose(94) + " #." * 6, None),
    (prose(90) + " ##." * 6, Reason.GOPHER_SYMBOLS),
    (prose(80) + " and so..." * 6 + " on", None),
    (prose(50) + " and so... wait…" * 6, Reason.GOPHER_SYMBOLS),
    ("\n".join(["no bullet", *(f"- {numbered(6, n)}" for n in range(9))]) + " the of", None),
    ("\n".join(["no bullet", *(f"• {numbered(6, n)}" for n in range(10))]) + " the of", Reason.GOPHER_BULLETS),
    ("\n".join([f"the of {numbered(12)}"] * 7 + [f"{numbered(12)}..."] * 3), None),
    ("\n".join([f"the of {numbered(12)}"] * 6 + [f"{numbered(12)}…"] * 4), Reason.GOPHER_ELLIPSES),
    (prose(80) + " 12,000" * 20, None),
    (prose(79) + " 12,000" * 21, Reason.GOPHER_FEW_LETTERS),
    (f"The Of {numbered(60)}", None),
    (f"the the {numbered(60)}", Reason.GOPHER_STOP_WORDS),
]  # fmt: skip
REPETITION = [
    (PROSE, None),
    ("", None),
    ("\n".join([*NUMBERED[:7], *(["a"] * 4)]), None),
    ("\n".join([*NUMBERED[:6], *(["a"] * 5)]), Reason.GOPHER_DUPLICATE_LINES),
    (f"{numbered(60)}\nand\n{numbered(5, 100)}\n{numbered(5, 100)}", None),
    (f"{numbered(16)}\n{numbered(10, 100)}\n{numbered(10, 100)}\n", Reason.GOPHER_DUPLICATE_LINES),
    ("\n".join(NUMBERED[:20]) + "\n\nx\n\nx\n\ny", None),
    ("\n".join(NUMBERED[:20]) + "\n\nx\n\nx", Reason.GOPHER_DUPLICATE_PARAGRAPHS),
    (f"{numbered(120)}{' aaaaaaa bbbbbbb xxxxxxx' * 5}", None),
    (" ".join(f"{numbered(1, n)} aaaaaaa bbbbbbb {numbered(3, 200 + n * 3)}" for n in range(20)),
     Reason.GOPHER_TOP_NGRAM),
    (f"{numbered(105)} {numbered(12, 200)} x {numbered(12, 200)}", None),
    (f"{numbered(70)} {numbered(15, 200)} x {numbered(15, 200)}", Reason.GOPHER_DUPLICATE_NGRAMS),
]  # fmt: skip
FINEWEB = [
    ("", None),
    ("\n".join([PROSE] + [numbered(10, n * 10) for n in range(7)]), None),
    ("\n".join([PROSE] + [numbered(10, n * 10) for n in range(8)]), Reason.FINEWEB_LINE_ENDS),
    ("\n".join([PROSE] + [f"Menu item number {n}." for n in range(2)]), None),
    ("\n".join([PROSE] + [f"Menu item number {n}." for n in range(3)]), Reason.FINEWEB_SHORT_LINES),
    (f"{PROSE}\n{numbered(100)}.\n{PROSE[:9]}.\n{PROSE[:9]}.", Reason.FINEWEB_DUPLICATE_LINES),
    (f"{PROSE}\n{numbered(200)}.\n{PROSE[:9]}.\n{PROSE[:9]}.", None),
    ("\n".join(f"{'x' * 40}{n} two three four." for n in range(9)), None),
    ("\n".join(f"{'x' * 40}{n} two three." for n in range(20)), Reason.FINEWEB_FEW_WORDS),
]  # fmt: skip
GOLDEN = [
    *((GopherQuality(), *case) for case in QUALITY),
    *((GopherRepetition(), *case) for case in REPETITION),
    *((FineWebLines(), *case) for case in FINEWEB),
]


@pytest.mark.parametrize(("rule", "text", "reason"), GOLDEN, ids=range(len(GOLDEN)))
def test_a_page_on_each_side_of_a_bound(rule: Rule, text: str, reason: Reason | None) -> None:
    assert rule.apply(Page(text), Found()) == (keep() if reason is None else drop(reason))


def test_every_reason_has_a_golden_page() -> None:
    for kind in (GopherQuality, GopherRepetition, FineWebLines):
        assert {reason for rule, _, reason in GOLDEN if isinstance(rule, kind)} == {None, *kind.REASONS}


SIZES = range(2, 11)  # words of an n-gram
WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "d"]) | st.text("xyz", min_size=1, max_size=3), max_size=60)


def plain_shares(words: list[str], size: int) -> tuple[set[float], float]:
    """By plain counting: the shares of the most frequent n-grams with the most characters, and of duplicates."""
    grams = [tuple(words[n : n + size]) for n in range(len(words) - size + 1)]
    counts = Counter(grams)
    most = max(counts.values())
    longest = max(sum(map(len, gram)) for gram in counts if counts[gram] == most)
    tops = [gram for gram in counts if counts[gram] == most and sum(map(len, gram)) == longest]

    def share(places: list[int]) -> float:
        covered = {place + n for place in places for n in range(size)}
        return sum(len(words[place]) for place in covered) / sum(map(len, words))

    later = [n for n, gram in enumerate(grams) if gram in grams[:n]]
    return {share([n for n, gram in enumerate(grams) if gram == top]) for top in tops}, share(later)


@given(WORDS)
@example(["a"] * 12)
@example(["a", "bb"] * 9)
@settings(max_examples=300, deadline=None)
def test_shares_of_ngrams_are_those_of_plain_counting(words: list[str]) -> None:
    lengths = np.array([len(word) for word in words])
    sizes = []
    for size, places, numbers in repeated_ngrams(words, 10):
        tops, duplicates = plain_shares(words, size)
        assert gopher.top_share(places, numbers, size, lengths) in tops
        assert gopher.duplicate_share(places, numbers, size, lengths) == duplicates
        sizes.append(size)
    repeating = [len(words) - size + 1 > len({*zip(*(words[n:] for n in range(size)), strict=False)}) for size in SIZES]
    assert sizes == list(SIZES)[: [*repeating, False].index(False)]


@given(st.text(st.sampled_from("ab \n.…•#1\u2028\0"), max_size=200) | st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_every_text_gets_a_verdict(text: str) -> None:
    for rule in (GopherQuality(min_words=0), GopherRepetition(), FineWebLines()):
        verdict = rule.apply(Page(text), Found())
        assert verdict.text is None and (verdict.reason is None or verdict.reason in rule.REASONS)


def exact(bound: float) -> Fraction:
    """A bound as its author wrote it."""
    return Fraction(str(bound))


def gopher_quality(text: str, rule: GopherQuality) -> Reason | None:
    """Appendix A.1.1 of the paper, sentence by sentence, in exact numbers."""
    words, lines = text.split(), [line.strip() for line in text.split("\n") if line.strip()]
    if not words or not rule.min_words <= len(words) <= rule.max_words:
        return Reason.GOPHER_WORD_COUNT
    if not exact(rule.min_word_length) <= Fraction(sum(map(len, words)), len(words)) <= exact(rule.max_word_length):
        return Reason.GOPHER_WORD_LENGTH
    if any(Fraction(count, len(words)) > exact(rule.symbols) for count in (text.count("#"), text.count("..."))):
        return Reason.GOPHER_SYMBOLS
    if Fraction(sum(line[0] in "•-" for line in lines), len(lines)) > exact(rule.bullets):
        return Reason.GOPHER_BULLETS
    if Fraction(sum(line.endswith("...") for line in lines), len(lines)) > exact(rule.ellipses):
        return Reason.GOPHER_ELLIPSES
    if Fraction(sum(any(c.isalpha() for c in word) for word in words), len(words)) < exact(rule.letters):
        return Reason.GOPHER_FEW_LETTERS
    found = {word for word in rule.stop_words if word in words}
    return Reason.GOPHER_STOP_WORDS if len(found) < rule.min_stop_words else None


def gopher_lines(text: str, rule: GopherRepetition) -> Reason | None:
    """Table A1 but for its n-grams."""
    for separator, most, characters, reason in (
        ("\n", rule.lines, rule.line_characters, Reason.GOPHER_DUPLICATE_LINES),
        ("\n\n", rule.paragraphs, rule.paragraph_characters, Reason.GOPHER_DUPLICATE_PARAGRAPHS),
    ):
        parts = [part.strip() for part in text.split(separator) if part.strip()]
        copies = [part for number, part in enumerate(parts) if part in parts[:number]]
        if parts and Fraction(len(copies), len(parts)) > exact(most):
            return reason
        if parts and Fraction(len("".join(copies)), len("".join(parts))) > exact(characters):
            return reason
    return None


def fineweb_lines(text: str, rule: FineWebLines) -> Reason | None:
    """FineWeb's filter of quality, in the order of its code."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    if Fraction(sum(line[-1] in ".?!" for line in lines), len(lines)) < exact(rule.line_ends):
        return Reason.FINEWEB_LINE_ENDS
    if Fraction(sum(len(line) <= rule.short_line for line in lines), len(lines)) > exact(rule.short_lines):
        return Reason.FINEWEB_SHORT_LINES
    copies = [line for number, line in enumerate(lines) if line in lines[:number]]
    if Fraction(len("".join(copies)), len(text.replace("\n", ""))) > exact(rule.duplicate_characters):
        return Reason.FINEWEB_DUPLICATE_LINES
    if Fraction(text.count("\n"), len(text.split())) > exact(rule.lines_a_word):
        return Reason.FINEWEB_FEW_WORDS
    return None


SHARES = st.integers(0, 100).map(lambda n: n / 100)
LINES = st.sampled_from(["- a the of", "the ab", "12 of", "abc be...", "a. #", "", "x.", "of of of of of of of."])
TEXTS = st.lists(st.tuples(LINES, st.integers(1, 30)), max_size=4).map(
    lambda parts: "\n".join(line for line, times in parts for _ in range(times))
)
QUALITIES = st.builds(
    GopherQuality,
    min_words=st.integers(0, 3),
    min_word_length=st.integers(0, 30).map(lambda n: n / 10),
    symbols=SHARES,
    bullets=SHARES,
    ellipses=SHARES,
    letters=SHARES,
    min_stop_words=st.integers(0, 2),
)
REPETITIONS = st.builds(
    GopherRepetition,
    lines=SHARES,
    paragraphs=SHARES,
    line_characters=SHARES,
    paragraph_characters=SHARES,
    top=st.just([]),
    duplicates=st.just([]),
)
LINE_RULES = st.builds(
    FineWebLines,
    line_ends=SHARES,
    short_lines=SHARES,
    short_line=st.integers(0, 9),
    duplicate_characters=SHARES,
    lines_a_word=SHARES,
)
SIXTY_THREE_OF_NINETY = "\n".join(["- a the of"] * 63 + ["the ab"] * 27)


@given(TEXTS, QUALITIES, REPETITIONS, LINE_RULES)
@example(SIXTY_THREE_OF_NINETY, GopherQuality(min_words=0, min_word_length=0, bullets=0.7), GopherRepetition(),
         FineWebLines())  # fmt: skip
@example("\n".join(["x."] * 7 + ["the ab"] * 18), GopherQuality(), GopherRepetition(), FineWebLines(line_ends=0.28))
@settings(max_examples=400, deadline=None)
def test_the_rules_are_those_of_the_papers_in_exact_numbers(
    text: str, quality: GopherQuality, repetition: GopherRepetition, lines: FineWebLines
) -> None:
    assert quality.apply(Page(text), Found()).reason == gopher_quality(text, quality)
    assert repetition.apply(Page(text), Found()).reason == gopher_lines(text, repetition)
    assert lines.apply(Page(text), Found()).reason == fineweb_lines(text, lines)


def test_stop_words_are_a_setting_of_a_language() -> None:
    rule = GopherQuality(by_language={"de": {"stop_words": ["der", "die", "und"]}})
    text = f"Der Wind und das Meer. {numbered(60)}"
    assert rule.apply(Page(text), Found()) == drop(Reason.GOPHER_STOP_WORDS)
    assert rule.for_language("de").apply(Page(text), Found()) == keep()


@pytest.mark.parametrize("unit", ["a", "a ", "ab \n", "\n", "\n\n", "• x\n", "# ", "..", "a b c d e f g h i j k\n\n"])
def test_time_is_linear(unit: str) -> None:
    rules = (GopherQuality(max_words=10**9, max_word_length=1e9, symbols=1.0),
             GopherRepetition(lines=1.0, line_characters=1.0, paragraphs=1.0, top=[1.0] * 3,
                              paragraph_characters=1.0, duplicates=[1.0] * 6),
             FineWebLines(line_ends=0.0, short_lines=1.0, duplicate_characters=1.0))  # fmt: skip
    for rule in rules:
        assert_linear(lambda text, rule=rule: rule.apply(Page(text), Found()), repeated(unit), 1 << 19)
