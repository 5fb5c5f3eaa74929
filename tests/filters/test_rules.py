"""Rules: their order, modes and settings by language; what of a list is refused; and that no character vanishes."""

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from filters.quality.c4 import C4, MaxCharacters
from filters.quality.language import Language
from filters.reasons import CustomReason, Reason
from filters.rule import ExtractRule, Found, MinCharacters, Page, Record, Removed, Rule, Verdict, drop, edit, keep
from filters.rule_list import (
    RULES,
    apply_rules,
    check_order,
    dump_rules,
    first_reason,
    first_record_reason,
    kept_languages,
    load_rule,
    name_of,
    parse_rules,
    rule_labels,
)

CUT, GONE = (
    CustomReason("custom-cut", "a text's last character"),
    CustomReason("custom-gone", "a text of one character"),
)
ENGLISH = "The fishing boats came back to the harbour before the storm reached the coast."
GERMAN = "Die Fischerboote kehrten in den Hafen zurück, bevor der Sturm die Küste erreichte."


class Cut(Rule):
    """Take the last character, and say how long the text was."""

    REASONS = (CUT, GONE)
    SIGNALS: ClassVar[tuple[str, ...]] = ("length",)

    told: int = 1  # characters accounted for

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return the text without its last character."""
        if len(page.text) == 1:
            return drop(GONE, length=1)
        return edit(page.text[:-1], {CUT: Removed(1, self.told)}, length=len(page.text))


class Failing(ExtractRule):
    """Fail on a record with a URL, and on a text without one."""

    REASONS = (GONE,)

    def check_record(self, record: Record) -> None:
        """Fail."""
        assert not record.url, "no URL was expected"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Fail."""
        return None  # type: ignore[return-value]


class NotARule:
    """Not derived from Rule."""


class WithoutApply(Rule):
    """A rule that does nothing."""

    REASONS = (CUT,)


class BadReasons(Rule):
    """A rule with a reason of ours."""

    REASONS = (Reason.TOO_SHORT,)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Keep every text."""
        return keep()


def passed(text: str, rules: list[Rule], language: str = "") -> Any:
    return apply_rules(Page(text, language=language), rules, [Found()] * len(rules))


def test_every_rule_that_a_recipe_can_name_says_what_it_gives() -> None:
    for name in RULES:
        rule = load_rule(name)
        assert rule.REASONS and rule.__doc__ and rule.__doc__ != Rule.__doc__, name
        assert set(rule.AT) <= {"extract", "filter"}


# Order


def test_each_rule_sees_what_those_before_it_leave() -> None:
    cut, least = Cut(), MinCharacters(least=3, at="filter")
    done = passed("abc", [least, cut])
    assert (done.text, done.reason, done.removed) == ("ab", None, {CUT: Removed(1, 1)})
    done = passed("abc", [cut, least])
    assert (done.text, done.reason, done.removed) == ("", Reason.TOO_SHORT, {})
    done = passed("abcd", [cut, cut, MinCharacters(least=2, at="filter")])
    assert (done.text, done.removed, done.signals) == ("ab", {CUT: Removed(2, 2)}, {"length": 3})


def test_a_document_that_is_dropped_meets_no_further_rule() -> None:
    done = passed("a", [Cut(), MinCharacters(least=9, at="filter", mode="annotate")])
    assert (done.reason, done.signals, done.flags) == (GONE, {"length": 1}, [])


def test_the_language_that_a_rule_finds_is_the_pages_for_those_after_it() -> None:
    language = Language(keep=["en", "de"], threshold=0.0)
    least = MinCharacters(least=10_000, at="filter", by_language={"de": {"least": 1}})
    assert passed(GERMAN, [language, least]).text == GERMAN
    assert passed(ENGLISH, [language, least]).reason is Reason.TOO_SHORT
    assert passed(ENGLISH, [least], language="de").text == ENGLISH, "a reader's language counts where no rule tells it"


# Modes and settings


def test_annotate_drops_and_edits_nothing_and_keeps_reasons_and_signals() -> None:
    long, cut = MaxCharacters(most=2, mode="annotate"), Cut(mode="annotate")
    done = passed("abc", [long, cut, MinCharacters(least=3, at="filter")])
    assert (done.text, done.reason, done.removed) == ("abc", None, {})
    assert done.flags == ["c4-page-too-long", "custom-cut"] and done.signals == {"length": 3}
    done = passed("a", [cut, MaxCharacters(most=1)])
    assert (done.text, done.flags, done.signals) == ("a", ["custom-gone"], {"length": 1})


def test_annotated_language_is_told_and_every_language_stays() -> None:
    rules: list[Rule] = [Language(keep=["en"], mode="annotate")]
    done = passed(GERMAN, rules)
    assert done.text == GERMAN and done.language == "de" and done.flags == ["language"]
    assert kept_languages(rules) is None and kept_languages([Language(keep=["en"])]) == ["en"]


def test_settings_by_language_are_those_of_documents_in_it() -> None:
    rule = Language(keep=["en", "de"], threshold=0.0, by_language={"de": {"threshold": 1.0}})
    assert passed(ENGLISH, [rule]).reason is None
    assert passed(GERMAN, [rule]).reason is Reason.LANGUAGE_UNSURE
    c4 = C4(min_sentences=1, by_language={"de": {"min_words_per_line": 99}})
    assert c4.for_language("en") is c4 and c4.for_language("de").min_words_per_line == 99
    assert c4.for_language("de").min_sentences == 1


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("min_characters", MinCharacters()),
        ({"min_characters": None}, MinCharacters()),
        ({"min_characters": 9}, MinCharacters(least=9)),
        ({"min_characters": {"least": 9, "at": "filter"}}, MinCharacters(least=9, at="filter")),
        ({"max_characters": 9}, MaxCharacters(most=9)),
        ({"language": {}}, Language()),
        ({"test_rules:Cut": {"told": 2}}, Cut(told=2)),
    ],
)
def test_an_entry_is_a_name_a_setting_or_settings(entry: Any, expected: Rule) -> None:
    (rule,) = parse_rules([entry])
    assert rule.model_dump() == expected.model_dump() and name_of(rule) == name_of(expected)
    assert [again.model_dump() for again in parse_rules(dump_rules([rule]))] == [rule.model_dump()]


def test_a_rule_that_is_off_keeps_every_document_and_stays_off_when_written_down() -> None:
    rules = parse_rules(["min_sentences", {"language": False}, {"http_status": False}])
    check_order(rules, language_is_known=False)
    assert first_record_reason(rules, Record("http://a.example/", 404)) is None
    assert dump_rules(rules)[1:] == [{"language": False}, {"http_status": False}]
    assert [name_of(rule) for rule in parse_rules(dump_rules(rules))] == ["min_sentences", "language", "http_status"]


def test_rules_of_one_name_have_labels_of_their_own() -> None:
    rules = parse_rules(["c4", {"max_characters": 9}, "c4", "c4"])
    assert rule_labels(rules) == ["c4", "max_characters", "c4-2", "c4-3"]


def test_rules_at_extract_look_at_records_and_texts_in_order(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("b.example\n", encoding="utf-8")
    rules = parse_rules(["http_status", {"blocklist": [str(tmp_path / "list")]}, {"min_characters": 3}, "c4"])
    assert first_record_reason(rules, Record("http://b.example/", 404)) is Reason.HTTP_STATUS
    assert first_record_reason(rules, Record("http://b.example/", 301)) is Reason.REDIRECT
    assert first_record_reason(rules, Record("http://b.example/", 200)) is Reason.BLOCKED_URL
    assert first_record_reason(rules, Record("http://a.example/", 200)) is None
    assert first_reason(rules, Page("ab")) is Reason.TOO_SHORT and first_reason(rules, Page("{ }")) is None


# What is refused, and that the sentence says what to do

NOT_FIRST = {"language": {"keep": ["en"]}}
REFUSED = {
    "no list": ({"c4": {}}, "give a list of rules"),
    "no name": ([3], r"entry 1 \(3\) is not the name of a rule"),
    "unknown": ([{"langauge": {}}], "there is no rule 'langauge': did you mean 'language'\\? known are bad_words"),
    "unlike any": (["zzzzzz"], "there is no rule 'zzzzzz': known are bad_words, .*, and MODULE:CLASS of your own"),
    "two keys": ([{"c4": {}, "language": {}}], "entry 1 has 2 keys: give each rule its own entry"),
    "unknown setting": ([{"c4": {"min_sentence": 1}}], "entry 1, c4: .*did you mean 'min_sentences'"),
    "wrong value": (["c4", {"language": {"threshold": 2}}], "entry 2, language: key threshold = 2"),
    "missing setting": (["bad_words"], "entry 1, bad_words: key words is missing"),
    "wrong place": ([{"c4": {"at": "extract"}}], "at: extract is not possible here, only filter"),
    "annotated at extract": ([{"http_status": {"mode": "annotate"}}], "mode: annotate and by_language are for rules"),
    "fixed by language": (
        [{"duplicate_lines": {"by_language": {"de": {"keep": "first"}}}}],
        "by_language.de: keep is the same for all languages: set it once",
    ),
    "file by language": ([{"language": {"by_language": {"de": {"model": "m"}}}}], "by_language.de: model is the same"),
    "mode by language": ([{"c4": {"by_language": {"de": {"mode": "annotate"}}}}], "by_language.de: mode is the same"),
    "wrong by language": (
        [{"c4": {"by_language": {"de": {"min_sentences": -1}}}}],
        "by_language.de: key min_sentences = -1",
    ),
    "no words pass": ([{"gopher_quality": {"min_words": 9, "max_words": 8}}], "smallest value is above the largest"),
    "no length passes": ([{"gopher_quality": {"min_word_length": 11}}], "a smallest value is above the largest one"),
    "no stop words": ([{"gopher_quality": {"stop_words": ["a", "a"]}}], "above the number of stop_words"),
    "no words in a language": (
        [{"gopher_quality": {"by_language": {"de": {"min_words": 200_000}}}}],
        "by_language.de: .*smallest value is above the largest",
    ),
    "no module": (["no_such_module:Rule"], "run where no_such_module can be imported"),
    "no class": (["test_rules:Missing"], "module test_rules has no Missing"),
    "no rule": (["test_rules:NotARule"], "test_rules:NotARule is not a rule: derive it from filters.rule.Rule"),
    "not a class": (["test_rules:passed"], "is not a class"),
    "no apply": (["test_rules:WithoutApply"], "has no function apply"),
    "our reasons": (["test_rules:BadReasons"], "REASONS must name its reasons"),
}


@pytest.mark.parametrize("mistake", sorted(REFUSED))
def test_a_mistake_is_one_sentence(mistake: str) -> None:
    plain, expected = REFUSED[mistake]
    with pytest.raises(ValueError, match=expected) as caught:
        parse_rules(plain)
    assert "\n" not in str(caught.value)


BY_LANGUAGE = {"c4": {"by_language": {"de": {"min_sentences": 1}}}}


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ([NOT_FIRST, "http_status"], "http_status acts at extract, before language: put it before language"),
        (["c4", {"min_characters": 9}], "min_characters acts at extract, before c4: put it before c4"),
        ([BY_LANGUAGE, NOT_FIRST], "c4 has settings by_language before the language is known: put language before it"),
        (["newest_url", "c4", "newest_url"], "newest_url compares all documents and can stand in"),
        (["duplicate_lines", "duplicate_lines"], "duplicate_lines compares all documents and can stand in"),
    ],
)
def test_a_list_that_cannot_be_applied_in_its_order_is_refused(plain: list[Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_order(parse_rules(plain), language_is_known=False)


def test_what_may_stand_twice_and_where_the_reader_knows_the_language() -> None:
    check_order(parse_rules(["c4", {"min_characters": {"least": 9, "at": "filter"}}, "c4"]), language_is_known=False)
    check_order(parse_rules([BY_LANGUAGE]), language_is_known=True)
    check_order(parse_rules([NOT_FIRST, BY_LANGUAGE]), language_is_known=False)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        (Cut(told=2), "abc", "rule test_rules:Cut takes 1 characters and accounts for 2"),
        (Cut(told=0), "abc", "rule test_rules:Cut takes 1 characters and accounts for 0"),
    ],
)
def test_an_edit_that_does_not_account_for_its_characters_ends_the_run(rule: Rule, text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        passed(text, [rule])


def test_an_edit_that_leaves_no_text_ends_the_run() -> None:
    class Empty(Rule):
        REASONS = (CUT,)

        def apply(self, page: Page, found: Found) -> Verdict:
            return edit("", {CUT: Removed(1, len(page.text))})

    with pytest.raises(UserError, match="leaves no text: let it drop the document"):
        passed("abc", [Empty()])


# Properties


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("scoundrel\n", encoding="utf-8")
    return str(path)


LINES = st.sampled_from(
    [
        ENGLISH, GERMAN, f"{ENGLISH} {ENGLISH}", "Menu", "", "  He saw the old harbour[1] again that day.  ",
        "Please turn on javascript to read this.", "He was called a scoundrel by everyone there.",
        "It holds lorem ipsum for all to read.", "A line without a mark at its end",
    ]
) | st.text(max_size=30)  # fmt: skip
TEXTS = st.lists(LINES, min_size=1, max_size=12).map("\n".join)


def pure_rules(words: str, order: list[int], modes: list[bool]) -> list[Rule]:
    """The rules that need nothing but the text, in an order; some of them only annotate."""
    entries: list[tuple[str, dict[str, Any]]] = [
        ("language", {"keep": ["en"], "threshold": 0.2}),
        ("c4", {"min_sentences": 2}),
        ("bad_words", {"words": words}),
        ("min_sentences", {"least": 2}),
        ("min_characters", {"least": 60, "at": "filter"}),
        ("max_characters", {"most": 400}),
    ]
    return parse_rules([{entries[n][0]: {**entries[n][1], "mode": "annotate" if modes[n] else "drop"}} for n in order])


MODES = st.lists(st.booleans(), min_size=6, max_size=6)


@given(TEXTS, st.permutations(range(6)), MODES)
@settings(max_examples=300, deadline=None)
def test_characters_balance_in_any_order(words: str, text: str, order: list[int], modes: list[bool]) -> None:
    done = passed(text, pure_rules(words, order, modes))
    removed = sum(more.characters for more in done.removed.values())
    dropped = len(text) if done.reason is not None else 0
    assert len(text) == len(done.text) + dropped + removed
    assert (done.reason is None) == bool(done.text) or not text
    assert all(more.lines > 0 and more.characters > 0 for more in done.removed.values())


@given(TEXTS, st.permutations(range(6)), MODES, st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_signals_and_texts_depend_on_no_later_rule(
    words: str, text: str, order: list[int], modes: list[bool], count: int
) -> None:
    rules = pure_rules(words, order, modes)
    first, whole = passed(text, rules[:count]), passed(text, rules)
    assert first.signals.items() <= whole.signals.items()
    assert whole.flags[: len(first.flags)] == first.flags
    if first.reason is not None:
        assert whole == first
    elif whole.reason is None:
        assert first.removed.keys() <= whole.removed.keys()


@given(TEXTS, st.permutations(range(6)))
@settings(max_examples=200, deadline=None)
def test_a_list_that_only_annotates_changes_no_text(words: str, text: str, order: list[int]) -> None:
    done = passed(text, pure_rules(words, order, [True] * 6))
    assert (done.text, done.reason, done.removed) == (text, None, {})
    assert {"language", "language_score"} == set(done.signals)


def test_the_texts_of_the_properties_meet_every_fate(words: str) -> None:
    """Else the properties would hold for want of a case."""
    chance, fates = random.Random(3), set[str]()
    lines = [ENGLISH, GERMAN, "Menu", f"{ENGLISH} He was called a scoundrel.", "", f"{ENGLISH} {ENGLISH}"]
    for _ in range(400):
        text = "\n".join(chance.choices(lines, k=chance.randint(1, 8)))
        order = chance.sample(range(6), 6)
        fates.add(str(passed(text, pure_rules(words, order, [False] * 6)).reason))
    assert fates >= {"None", "language", "c4-too-few-sentences", "c4-bad-word", "too-short", "c4-page-too-long"}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("name", RULES)
@given(PLAIN)
@settings(max_examples=30, deadline=None)
def test_any_value_of_any_setting_is_taken_or_refused_with_a_sentence(name: str, value: Any) -> None:
    for entry in (value, *({field: value} for field in load_rule(name).model_fields)):
        try:
            (rule,) = parse_rules([{name: entry}])
        except ValueError as error:
            assert str(error).startswith(f"entry 1, {name}: ")
        else:
            assert name_of(rule) == name


def test_a_users_rule_that_fails_while_a_dump_is_read_is_a_sentence() -> None:
    assert first_record_reason([Failing()], Record("", None)) is None
    with pytest.raises(UserError, match=r"Failing failed on the record of http://a/ \(AssertionError: no URL"):
        first_record_reason([Failing()], Record("http://a/", None))
    with pytest.raises(UserError, match=r"Failing failed on the text that begins 'a text' \(AttributeError"):
        first_reason([Failing()], Page("a text"))


class Saying(Rule):
    """Return the verdict that a test gives it."""

    REASONS = (GONE,)
    SIGNALS: ClassVar[tuple[str, ...]] = ("length", "language")
    AT: ClassVar[tuple[str, ...]] = ("filter", "extract")
    VERDICT: ClassVar[Verdict] = keep()

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return the verdict."""
        return self.VERDICT


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (drop(CUT), "gives the reason 'custom-cut': list it in its REASONS"),
        (drop("custom-gone"), "gives the reason 'custom-gone'"),  # type: ignore[arg-type]
        (drop(True), "gives the reason True"),  # type: ignore[arg-type]
        (drop(Reason.TOO_SHORT), "gives the reason <Reason.TOO_SHORT"),
        (edit("a tex", {CUT: Removed(1, 1)}), "gives the reason 'custom-cut'"),
        (keep(width=1), "gives the signal width = 1: list it in its SIGNALS"),
        (keep(length="two"), "gives the signal length = 'two': list it in its SIGNALS, and give a number"),
        (keep(length=[2]), r"gives the signal length = \[2\]"),
        (drop(GONE, language=3), "gives the signal language = 3: list it in its SIGNALS, and give text"),
    ],
)
@pytest.mark.parametrize("mode", ["drop", "annotate"])
def test_what_a_rule_gives_without_declaring_it_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, message: str, mode: str
) -> None:
    """Else it would end the run with a traceback where it is counted or stored, or be counted without a description."""
    monkeypatch.setattr(Saying, "VERDICT", verdict)
    with pytest.raises(UserError, match=f"rule {Saying.__module__}:Saying {message}"):
        passed("a text", [Saying(mode=mode)])
    with pytest.raises(UserError, match=f"rule {Saying.__module__}:Saying {message}"):
        first_reason([Saying(at="extract")], Page("a text"))


@given(
    st.sampled_from([None, GONE]), st.sampled_from([None, 1, 0.5, np.float32(0.5), True]), st.sampled_from([None, "en"])
)
def test_what_a_rule_declares_passes(reason: CustomReason | None, length: Any, language: str | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saying, "VERDICT", Verdict(reason=reason, signals={"length": length, "language": language}))
        done = passed("a text", [Saying()])
    assert (done.reason, done.signals) == (reason, {"length": length, "language": language})


@pytest.mark.parametrize("verdict", [edit("a", {GONE: Removed(1, 5)}), keep(length=1)])
def test_a_rule_that_edits_or_signals_while_a_dump_is_read_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    """Else its edit and its signals would be lost in silence."""
    monkeypatch.setattr(Saying, "VERDICT", verdict)
    with pytest.raises(UserError, match="acts at extract, where it can only keep or drop: use at: filter"):
        first_reason([Saying(at="extract")], Page("a text"))
