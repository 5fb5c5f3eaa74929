"""What unknown templates leave: whole sentences and whole numbers; and tables as lines."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.wikitext.render import render_text

# Unknown templates that stood for text: their sentence goes, or the brackets around them, or their argument is shown.
SENTENCES = {
    "The river is {{länge|5|km}} long. It is nice.": "It is nice.",
    "It is nice. The river is {{länge|5|km}} long. It flows.": "It is nice. It flows.",
    "He sailed on {{schiffsname|Tustumena}} home.": "He sailed on Tustumena home.",
    "It lies at the sea (about {{länge|5|km}} away) in the north.": "It lies at the sea in the north.",
    "The mass is 10{{potenz|6}} kg. It is heavy.": "It is heavy.",
    "From 2009{{strich}}2014 he ruled. He died.": "He died.",
    "One of {{zahl}}5 kings. He died.": "He died.",
    "Berlin has {{einwohner}} inhabitants in {{jahr}}. It is big.": "It is big.",
    "{{schiff|Beagle|x}} sailed away. She sank.": "She sank.",
    "He came home{{sfn|A}}{{efn|B}}. It is {{länge|5|km}} long<ref>C</ref>. It is nice.": "He came home. It is nice.",
    "Leo ({{geboren|5|6}} – 20 May 1910) wrote. He died.": "Leo wrote. He died.",
    "Leo (5 June 1828 – {{gestorben|5|6}}) wrote. He died.": "Leo wrote. He died.",
    "The river is {{{length}}} km long. It is nice.": "It is nice.",
    "a b\n\nThe river is {{länge|5|km}} long.": "a b",
    "== Length {{x}} ==\nIt is [[long|very long {{länge|5|km}} in all]]. He came.": "Length\n\nHe came.",
}
# Unknown templates that look like notes, boxes or marks for editors: nothing else goes.
NOTES = {
    "It is nice.{{anm|5}} It flows.": "It is nice. It flows.",
    "It is nice{{anm|5}}, it flows{{anm}}.": "It is nice, it flows.",
    "It is nice. {{anm|5}} It flows. {{anm}}": "It is nice. It flows.",
    "It is nice.<ref>A</ref> {{anm|5}} It flows.": "It is nice. It flows.",
    "It is nice.<ref>A</ref><ref>B</ref> {{anm|5|6}} It flows. He died.": "It is nice. It flows. He died.",
    "It is nice.<ref>A</ref> {{anm|5}} The {{x}} river flows. He died.": "It is nice. He died.",
    "{{kasten\n| a = 5\n| b = 6\n}}'''Berlin''' is a city.": "Berlin is a city.",
    "{{kasten}}\nberlin is a city.": "berlin is a city.",
    "It is nice, {{unbekannt|a|b}}. It flows.": "It is nice. It flows.",
    "It {{beleg|date=May 2015}} flows {{beleg|reason=x|date=y}}.": "It flows.",
    "It {{DEFAULTSORT:x}} flows {{ORDENAR:y}}.": "It flows.",
    "Berlin ({{unbekannt}}, {{unbekannt2}}; born 5) is nice.": "Berlin (born 5) is nice.",
    "* {{fahne|USA}} Los Angeles\n* Paris {{fahne|FRA}}": "Los Angeles\nParis",
    "It {{who?|x}} flows {{citation needed|y}} here.": "It flows here.",
}
SPOKEN = {
    "'''Aruba''' ({{IPAc-en|ə}}; {{IPA-nl|aː}}) is it.": "Aruba is it.",
    "The vowel {{IPA|/a/}} is open. Next.": "The vowel /a/ is open. Next.",
    "The word {{IPA|fr|bɔ̃}} is nice.": "The word bɔ̃ is nice.",
    "Angola {{IPAc-en|æ}}, officially the '''Republic''', is it.": "Angola, officially the Republic, is it.",
    "Berlin {{IPA|/b/}} {{respell|ber}} is it.": "Berlin /b/ is it.",
}


@pytest.mark.parametrize("wikitext", [*SENTENCES, *NOTES, *SPOKEN])
def test_gaps_by_hand(wikitext: str) -> None:
    assert render_text(wikitext, "en") == {**SENTENCES, **NOTES, **SPOKEN}[wikitext]


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")  # two marks in a row end a number
_TEMPLATES = [
    *("{{sfn|A|1}}", "{{unbekannt}}", "{{unbekannt|x}}", "{{IPA|/a/}}", "{{a|b|c}}", "{{cn}}", "{{respell|A}}"),
    *("<ref>x</ref>", "[[File:a.png]]", "{{lang|fr}}", "{{#if:a|b}}", "{{{p}}}", "{{", "}}", "[[", "]]"),
]
_PIECES = st.lists(
    st.one_of(
        st.sampled_from(_TEMPLATES),
        st.from_regex(r"\A\d{1,3}\Z"),
        st.sampled_from(
            [" ", " ", ".", ",", ". ", ", ", "(", ")", "-", "–", " km ", "word ", " Next", "\n", "\n* ", "'''"]
        ),
    ),
    max_size=24,
)


@given(_PIECES)
@example(["1939", "{{unbekannt}}", "1945"])
@example(["[[", "0", "]]", "0"])
@example(["0", "{{sfn|A|1}}", ".", ".", "0"])
@example(["5", "{{cn}}", ",", "000"])
@example(["5", ",", "{{cn}}", "000"])
@example(["(", "{{a|b|c}}", "5", ")", "6"])
@example(["0", "'''", "'''", "0"])
@settings(max_examples=300, deadline=None)
def test_no_number_is_joined_or_altered_by_a_vanishing_template(pieces: list[str]) -> None:
    """Every number of the text is a number of the page, where templates separate what is around them."""
    numbers: set[str] = set()
    for shown in ("", " "):  # the brackets of a link show nothing, and separate nothing
        separate = [shown if piece in ("[[", "]]") else " " if piece in _TEMPLATES else piece for piece in pieces]
        plain = "".join(separate).replace("'" * 6, "'").replace("'''", "")  # five apostrophes at most are mark-up
        numbers |= set(_NUMBER.findall(plain))
    text = render_text("".join(pieces), "en")
    assert set(_NUMBER.findall(text)) <= numbers, text


_MARKUP = [
    "{{a}}",
    "{{a|b c}}",
    "{{IPA|x}}",
    "{{sfn}}",
    "(",
    ")",
    ". ",
    " A",
    "b",
    "\n",
    "* ",
    "{|\n",
    "|}\n",
    "||",
    "\n|-\n",
]


@given(st.lists(st.sampled_from(_MARKUP)))
@settings(max_examples=200, deadline=None)
def test_no_mark_is_left_in_the_text(pieces: list[str]) -> None:
    for tables in (False, True):
        text = render_text("".join(pieces), "en", tables=tables)
        assert not re.search("[\x00-\x08\x0e-\x1f]", text)


@pytest.mark.parametrize(
    "piece", ["{{a}}", "{{a}} ", "({{a}}", "A. {{a|b c}} d", "{{IPA|x}}", "{{sfn}}", "a. ", "()", '."']
)
def test_many_gaps_take_linear_time(piece: str) -> None:
    assert_linear(lambda text: render_text(text, "en"), repeated(piece), 100_000)


TABLES = {
    "{| class=x\n|+ Crossings\n! Year !! style=a | Name\n|-\n| 1900 || [[London|the city]]\n|-\n| 1 || 2\n|}\nb": (
        "Crossings\nYear | Name\n1900 | the city\n\nb"
    ),
    "a\n{|\n| " + "Some prose. " * 12 + "\n| b cde\n|}": "a\n\n" + ("Some prose. " * 12).strip() + "\nb cde",
    "{|\n|\n* Anna\n* Berta\n| x<br />y zzz\n|}": "Anna, Berta | x y zzz",
    "<table><tr><th>Name</th><td>a|b</td></tr><tr><td>5</td></tr></table>c": "Name | a|b\n\nc",
    "{|\n| aaa\n{|\n| bbb || ccc\n|}\n|}": "aaa, bbb | ccc",
    "{{Infobox|x=\n{|\n| aaa\n|}\n}}b": "b",
    "{|\n| {{convert|5|km|mi}} aaa<ref>b</ref> || {{unbekannt}}\n|}": "5 km aaa",
}


@pytest.mark.parametrize("wikitext", TABLES)
def test_tables_as_lines(wikitext: str) -> None:
    assert render_text(wikitext, "en", tables=True) == TABLES[wikitext]


def test_many_tables_take_linear_time() -> None:
    for piece in ("{|\n|a\n|}\n", "{|\n", "\n|-\n|abc||d", "\n* a", "<table><tr><td>a"):
        assert_linear(lambda text: render_text(text, tables=True), repeated(piece, "{|\n"), 100_000)
