"""Parser functions, by hand from MediaWiki's documentation and against an oracle: Python's own arithmetic."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.wikitext.parser_functions import compute, format_number
from filters.wikitext.render import render_text

SHOWN = {
    "The area is {{#expr: 1990 - 1950}} km.": "The area is 40 km.",
    "It is {{#expr: (10/3) round 2}} m {{#expr: 1/3}} {{#expr:0.1 + 0.2}}": "It is 3.33 m 0.33333333333333 0.3",
    "{{#expr:-2^2}} {{#expr: 7 mod 3}} {{#expr:2*(3+4)}} {{#expr: trunc 2.7 + abs -3}} {{#expr: 2.5 round 0}}": (
        "4 1 14 5 3"
    ),
    "{{#expr: 1234 round -2}} {{#expr: 3 > 2 and 2 <> 2}} {{#expr: not 0}}": "1200 0 1",
    "{{formatnum:{{#expr: 5 * 1000}}}} men": "5000 men",
    "It is {{#if: x | big | small}}, {{#if: | big | small}}, {{#if: x || small}}here": "It is big, small, here",
    "It is {{#if: {{{1|}}} | big}} nice": "It is nice",
    "{{#if:a|{{#if:|5|{{convert|6|km|mi}}}}|7}} [[b|{{#if:|c|d}}]]": "6 km d",
    "{{#ifeq: 1 | 1.0 | same | other}} {{#ifeq: a | A | same | other}} {{#ifeq: [[a|b]] | b |same}}": "same other same",
    "{{#ifexpr: 3 > 2 | yes | no}} {{#ifexpr: | yes | no}} {{#ifexpr: 1 - 1 | yes}}": "yes no",
    "{{#switch: 2 | 1 = one | 2 | 3 = two or three | many}} {{#switch: 7 | 1 = one | many}}": "two or three many",
    "{{#switch: 7 | 1 = one | #default = x | 3 = y}} {{#switch: b | a = 5 | b }} {{#switch: c | a = 5}}": "x b",
}
# What depends on anything else than the page is unknown: its sentence goes.
UNKNOWN = [
    "{{#expr: {{CURRENTYEAR}} - 1950}}",
    "{{#expr: 1,000 + 1}}",
    "{{#expr: 1 / 0}}",
    "{{#expr: (1}}",
    "{{#expr: 1 +}}",
    "{{#expr: 10^30}}",
    "{{#if: {{unbekannt|a|b}} | 5 | 6}}",
    "{{#ifeq: {{unbekannt|a|b}} | 5 | 5 | 6}}",
    "{{#ifexpr: {{NUMBEROFARTICLES}} > 5 | 5 | 6}}",
    "{{#switch: {{unbekannt|a|b}} | 5 = 5 | 6}}",
    "{{#switch: 5 | {{unbekannt|a|b}} = 5 | 5 = 6}}",
    "{{#time: Y}}",
]


@pytest.mark.parametrize("wikitext", SHOWN)
def test_what_parser_functions_show(wikitext: str) -> None:
    assert render_text(wikitext, "en") == SHOWN[wikitext]


@pytest.mark.parametrize("function", UNKNOWN)
def test_what_the_page_does_not_determine_loses_its_sentence(function: str) -> None:
    assert render_text(f"The river is {function} km long. It is nice.", "en") == "It is nice."


_SUMS = st.recursive(
    st.integers(0, 999).map(str),
    lambda inner: st.tuples(inner, st.sampled_from([" + ", "-", "*", " / "]), inner).map("({0[0]}{0[1]}{0[2]})".format),
    max_leaves=12,
)


@given(_SUMS)
@settings(max_examples=300, deadline=None)
def test_sums_are_those_of_an_oracle(text: str) -> None:
    try:
        expected = eval(text)  # the sums of `_SUMS`
    except ZeroDivisionError:
        assert compute(text) is None
        return
    found = compute(text)
    assert found is not None and math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)
    assert compute(text[1:-1] if text[0] == "(" else text) == found


@given(st.text("0123456789+-*/^().e modundrab<>=abstruncfl", max_size=40))
@settings(max_examples=500, deadline=None)
def test_no_sum_makes_it_raise(text: str) -> None:
    value = compute(text)
    assert value is None or (math.isfinite(value) and "E" not in (format_number(value) or ""))


def test_many_arguments_take_linear_time() -> None:
    for function in ("#if:a", "#ifeq:a|a", "#switch:z", "#expr:1", "formatnum:1"):
        for piece in ("|a", "|a=b", "1+", "(", "|#default="):
            make = repeated(piece, "{{" + function)
            assert_linear(lambda size: render_text(make(size) + "}}", "en"), int, 100_000)  # noqa: B023  # called here
    assert_linear(lambda text: render_text(text, "en"), repeated("{{#if:a|"), 100_000)
