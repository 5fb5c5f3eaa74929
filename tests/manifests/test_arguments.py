"""Numbers on command lines: a value in range comes out as Python reads it, any other text is refused in words."""

import argparse
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import arguments

NUMBERS = st.one_of(st.integers().map(str), st.floats().map(repr), st.text(max_size=8))
ALLOWED = {
    "COUNT": lambda number: number >= 0 and number == int(number),
    "POSITIVE": lambda number: number >= 1 and number == int(number),
    "ABOVE_ZERO": lambda number: 0 < number < math.inf,
    "SHARE": lambda number: 0 < number <= 1,
    "SECONDS": lambda number: 0 < number <= 3600,
}


@pytest.mark.parametrize("name", ALLOWED)
@given(text=NUMBERS)
def test_a_number_is_in_range_or_refused_in_words(name: str, text: str) -> None:
    convert = getattr(arguments, name)
    try:
        number = convert(text)
    except argparse.ArgumentTypeError as error:
        assert str(error).startswith("must be ") and str(error).endswith(f", not {text!r}")
        return
    assert ALLOWED[name](number) and number == type(number)(text)


def test_edges_of_the_ranges() -> None:
    assert [arguments.COUNT("0"), arguments.POSITIVE("1"), arguments.SHARE("1"), arguments.SECONDS("3600")] == [
        0,
        1,
        1,
        3600,
    ]
    for name, text in (("COUNT", "-1"), ("POSITIVE", "0"), ("POSITIVE", "1.0"), ("ABOVE_ZERO", "0"), ("SHARE", "1.01")):
        with pytest.raises(argparse.ArgumentTypeError):
            getattr(arguments, name)(text)
