"""C4's page rules, one by one and in their order, and that no character vanishes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.quality.c4 import C4, CITATION, POLICY, MinSentences, clean, count_sentences
from filters.reasons import AnyReason, Reason
from filters.rule import Found, Page, Removed, Verdict, drop, edit

RULES = C4()
LINE = "This is a whole sentence of the page."
PAGE = [LINE, "Here is another one that is long enough.", "And a third one closes the little page."]


def page(*lines: str, rules: C4 = RULES) -> tuple[str, AnyReason | None, dict[AnyReason, int]]:
    cleaned = clean("\n".join([*PAGE, *lines]), rules)
    return cleaned.text or "", cleaned.reason, {reason: removed.lines for reason, removed in cleaned.removed.items()}


def test_the_thresholds_are_those_of_the_reference() -> None:
    """TFDS c4_utils: 5 words a line, 3 sentences a page (other tools copied these the wrong way round)."""
    assert (RULES.min_words_per_line, RULES.min_sentences) == (5, 3)
    assert (RULES.max_page_characters, RULES.max_word_characters) == (190_000, 1_000)


@pytest.mark.parametrize("mark", [".", "?", "!", '"'])
def test_lines_that_end_in_a_terminal_mark_stay(mark: str) -> None:
    line = f"one two three four five{mark}"
    assert page(line)[0].endswith(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("one two three four five", Reason.C4_NO_TERMINAL_MARK),
        ("one two three four five,", Reason.C4_NO_TERMINAL_MARK),
        ("one two three four five...", Reason.C4_NO_TERMINAL_MARK),
        ("one two three four five'", Reason.C4_NO_TERMINAL_MARK),
        ("one two three four.", Reason.C4_TOO_FEW_WORDS),
        ("", Reason.C4_TOO_FEW_WORDS),
        (f"one two {'x' * 1001} four five.", Reason.C4_LONG_WORD),
        ("Please enable JavaScript to see this page.", Reason.C4_JAVASCRIPT),
        ("By going on you accept our Privacy Policy today.", Reason.C4_POLICY),
        ("These are our terms of use for you.", Reason.C4_POLICY),
        ("This site makes use of cookies for everyone.", Reason.C4_POLICY),
        ("This site uses cookies for everyone here.", Reason.C4_POLICY),
        ("We use cookies on all our pages.", Reason.C4_POLICY),
        ("Read about it in our cookie policy now.", Reason.C4_POLICY),
    ],
)
def test_lines_that_go(line: str, reason: Reason) -> None:
    text, dropped, removed = page(line)
    assert dropped is None and text == "\n".join(PAGE) and removed == {reason: 1}


@pytest.mark.parametrize("word", ["x" * 1000, "1,000.5", "don't"])
def test_words_up_to_the_limit_stay(word: str) -> None:
    line = f"one two {word} four five."
    assert page(line)[0].endswith(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Here stands lorem ipsum dolor sit amet.", Reason.C4_LOREM_IPSUM),
        ("This line holds a { of some code.", Reason.C4_CURLY_BRACKET),
    ],
)
def test_lines_that_take_the_page_along(line: str, reason: Reason) -> None:
    text, dropped, removed = page(line)
    assert (text, dropped, removed) == ("", reason, {})


def test_a_bracket_on_a_line_that_goes_anyway_does_not_take_the_page() -> None:
    """The reference looks at a line's length and mark first."""
    assert page("{ x }")[1] is None
    assert page("lorem ipsum")[1] is None


def test_javascript_is_asked_before_the_bracket() -> None:
    assert page("A javascript line with { and an end.")[1] is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  Water boils at one hundred degrees[12] Celsius.  ", "Water boils at one hundred degrees Celsius."),
        ("The history of the town is long.[edit]", "The history of the town is long."),
        ("It was the first of its kind.[citation needed]", "It was the first of its kind."),
        ("Arrays such as a[x] and b[1a] are left alone.", "Arrays such as a[x] and b[1a] are left alone."),
    ],
)
def test_citation_marks_and_outer_space_are_taken_out(line: str, expected: str) -> None:
    assert page(line)[0].split("\n")[-1] == expected


def test_a_page_needs_three_sentences_wherever_they_stand() -> None:
    assert clean(LINE, RULES).reason is Reason.C4_TOO_FEW_SENTENCES
    assert clean("\n".join(PAGE[:2]), RULES).reason is Reason.C4_TOO_FEW_SENTENCES
    assert clean("\n".join(PAGE), RULES).reason is None
    assert clean(" ".join(PAGE), RULES).reason is None
    assert clean("", RULES).reason is Reason.C4_TOO_FEW_SENTENCES


def test_a_page_over_the_limit_goes_whole() -> None:
    long = "\n".join(PAGE * 2_000)
    assert clean(long, RULES).reason is Reason.C4_PAGE_TOO_LONG
    assert clean(long, C4(max_page_characters=10**7)).reason is None


def test_sentences_are_counted_again_in_what_other_rules_leave() -> None:
    rule = MinSentences(least=3)
    assert rule.apply(Page("\n".join(PAGE)), Found()).reason is None
    assert rule.apply(Page(" ".join(PAGE)), Found()).reason is None
    assert rule.apply(Page("\n".join(PAGE[1:])), Found()) == drop(Reason.C4_TOO_FEW_SENTENCES)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two. Three.", 3),
        ("Is it? Yes! Well.", 3),
        ('He said "No." She left.', 2),
        ("Mr. Smith met Dr. Jones on St. Mary's Street.", 1),
        ("J. R. R. Tolkien wrote it.", 1),
        ("Version 3.14 came out in May.", 1),
        ("The file is at a.example.com today.", 1),
        ("no mark at all", 1),
        ("", 0),
    ],
)
def test_sentences_are_counted(line: str, count: int) -> None:
    assert count_sentences(line) == count


WORDS = st.lists(
    st.sampled_from(
        ["word", "Long", "a", "[1]", "[edit]", " ", "\t", "javascript", "use cookies", ".", "...", '"', "é"]
    ),
    max_size=12,
).map(" ".join)


@given(st.lists(WORDS | st.text(max_size=40) | st.sampled_from(PAGE), max_size=12).map("\n".join))
@settings(max_examples=400, deadline=None)
def test_characters_are_conserved_on_any_text(text: str) -> None:
    cleaned = clean(text, RULES)
    if cleaned.reason is None:
        assert cleaned.text is not None
        assert len(text) == len(cleaned.text) + sum(removed.characters for removed in cleaned.removed.values())
        assert all(removed.lines > 0 and removed.characters > 0 for removed in cleaned.removed.values())
        assert clean(cleaned.text, RULES).text == cleaned.text, "a cleaned page passes its own rules unchanged"
    else:
        assert cleaned.text is None and cleaned.removed == {}


def test_a_page_of_one_endless_line_is_read_in_linear_time() -> None:
    rules = C4(max_page_characters=10**8)
    for piece in ("a. ", "[1", "[", ". ", "A.", '"', "Mr. "):
        clean(piece * 300_000, rules)


def plainly(text: str, rules: C4) -> Verdict:
    """The rules one after the other on every line, and every sentence counted."""
    if len(text) > rules.max_page_characters:
        return drop(Reason.C4_PAGE_TOO_LONG)
    kept: list[str] = []
    gone: list[tuple[Reason, int]] = []
    for line in text.split("\n"):
        bare = CITATION.sub("", line.strip()).strip()
        folded, reason = bare.lower(), None
        if not line.strip():
            reason = Reason.C4_TOO_FEW_WORDS
        elif max(map(len, line.split())) > rules.max_word_characters:
            reason = Reason.C4_LONG_WORD
        elif not re.search(r"[.?!\"]\Z", bare) or bare.endswith("..."):
            reason = Reason.C4_NO_TERMINAL_MARK
        elif len(bare.split()) < rules.min_words_per_line:
            reason = Reason.C4_TOO_FEW_WORDS
        elif "lorem ipsum" in folded:
            return drop(Reason.C4_LOREM_IPSUM)
        elif "javascript" in folded:
            reason = Reason.C4_JAVASCRIPT
        elif "{" in bare:
            return drop(Reason.C4_CURLY_BRACKET)
        elif any(phrase in folded for phrase in POLICY):
            reason = Reason.C4_POLICY
        if reason is None:
            kept.append(bare)
            gone += [(Reason.C4_EDITED, len(line) - len(bare))] if bare != line else []
        else:
            gone.append((reason, len(line) + 1))
    if sum(count_sentences(line) for line in kept) < max(rules.min_sentences, 1):
        return drop(Reason.C4_TOO_FEW_SENTENCES)
    found = {reason for reason, _ in gone}
    counts = {reason: [size for name, size in gone if name is reason] for reason in found}
    return edit("\n".join(kept), {reason: Removed(len(sizes), sum(sizes)) for reason, sizes in counts.items()})


ODD = ["İ", "Σ", "ΑΣ", "\u212a", "straße", "’", "\u00a0", "_", "é", "\t", "\x1c", "\u2028", "\ud800", "x" * 30]
MARKED = ["[1]", "[edit]", "java[2]script", "javascript", "use ", "[3]cookies", "{", "lorem ", "[4]ipsum", "dar[]n"]
PIECES = st.sampled_from(
    ["word", "Long", "a", " ", "darn", "Darn", ".", "...", '"', "!", "Mr. ", "e.g. ", *MARKED, *ODD]
)
LINES = st.lists(PIECES, max_size=14).map("".join) | st.lists(PIECES, max_size=10).map(" ".join) | WORDS
SMALL = st.builds(
    C4,
    min_words_per_line=st.integers(0, 6),
    min_sentences=st.integers(0, 4),
    max_page_characters=st.integers(100, 2_000),
    max_word_characters=st.integers(1, 40),
)


@given(st.lists(LINES | st.text(max_size=40) | st.sampled_from(PAGE), max_size=12).map("\n".join), SMALL)
@settings(max_examples=400, deadline=None)
def test_the_fast_way_gives_what_the_plain_way_gives(text: str, rules: C4) -> None:
    assert clean(text, rules) == plainly(text, rules)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("We use [1]cookies on all our pages.", Reason.C4_POLICY),
        ("Please enable Java[edit]Script to see this page.", Reason.C4_JAVASCRIPT),
    ],
)
def test_a_phrase_that_only_stands_there_without_a_citation_mark_counts(line: str, reason: Reason) -> None:
    assert page(line)[2] == {
        reason: 1,
    }
