"""C4's page rules, one by one and in their order, and that no character vanishes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.c4 import C4Rules, clean, sentences
from manifests.reasons import Reason

RULES = C4Rules()
LINE = "This is a whole sentence of the page."
PAGE = [LINE, "Here is another one that is long enough.", "And a third one closes the little page."]


def page(*lines: str, rules: C4Rules = RULES) -> tuple[str, Reason | None, dict[Reason, int]]:
    cleaned = clean("\n".join([*PAGE, *lines]), rules)
    return cleaned.text, cleaned.reason, {reason: removed.lines for reason, removed in cleaned.removed.items()}


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
    assert clean(long, C4Rules(max_page_characters=10**7)).reason is None


@pytest.mark.parametrize(
    ("word", "line", "gone"),
    [
        ("darn", "Well, Darn it said the man.", True),
        ("darn", "He was darning a sock by the fire.", False),
        ("darn", "Oh (darn) it all, he said.", True),
    ],
)
def test_bad_words_count_between_other_characters_alone(word: str, line: str, gone: bool) -> None:
    rules = C4Rules(bad_words=frozenset({word}))
    assert (page(line, rules=rules)[1] is Reason.C4_BAD_WORD) is gone


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
    assert sentences(line) == count


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
        assert len(text) == len(cleaned.text) + sum(removed.characters for removed in cleaned.removed.values())
        assert all(removed.lines > 0 and removed.characters > 0 for removed in cleaned.removed.values())
        assert clean(cleaned.text, RULES).text == cleaned.text, "a cleaned page passes its own rules unchanged"
    else:
        assert cleaned.text == "" and cleaned.removed == {}


def test_a_page_of_one_endless_line_is_read_in_linear_time() -> None:
    rules = C4Rules(max_page_characters=10**8)
    for piece in ("a. ", "[1", "[", ". ", "A.", '"', "Mr. "):
        clean(piece * 300_000, rules)
