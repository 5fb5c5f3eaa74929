"""Test command lines: valid numbers are parsed like Python literals, and every error is reported in one sentence."""

import argparse
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import arguments
from manifests.__main__ import main as manifests
from pipeline.__main__ import main as pipeline
from trainer.__main__ import main as trainer

NUMBERS = st.one_of(st.integers().map(str), st.floats().map(repr), st.text(max_size=8))
ALLOWED = {
    "COUNT": lambda number: 0 <= number <= 2**53 and number == int(number),
    "POSITIVE": lambda number: 1 <= number <= 2**53 and number == int(number),
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
    for name, text in (
        ("COUNT", "-1"),
        ("POSITIVE", "0"),
        ("POSITIVE", "1.0"),
        ("POSITIVE", "1" + "0" * 30),
        ("ABOVE_ZERO", "0"),
        ("SHARE", "1.01"),
    ):
        with pytest.raises(argparse.ArgumentTypeError):
            getattr(arguments, name)(text)


MISTAKES = {
    "a missing option": (
        pipeline,
        "run r.yaml",
        "arguments are required: --output: see `python -m pipeline run --help`",
    ),
    "a number out of range": (pipeline, "run r.yaml --output c --workers 0", "see `python -m pipeline run --help`"),
    "an unknown option": (
        pipeline,
        "run r.yaml --output c --bogus",
        "error: unknown arguments: --bogus: see `python -m pipeline run --help`",
    ),
    "an unknown option of a command of a command": (
        pipeline,
        "download c4 --output dumps --files 1 --bogus 3",
        "error: unknown arguments: --bogus 3: see `python -m pipeline download c4 --help`",
    ),
    "no command": (pipeline, "", "see `python -m pipeline --help`"),
    "an option before the command": (
        pipeline,
        "--bogus engines",
        "arguments: --bogus: see `python -m pipeline --help`",
    ),
    "another command's option": (manifests, "show c --fast", "see `python -m manifests show --help`"),
    "no choice": (trainer, "train c --model demo --output r --schedule cos", "see `python -m trainer train --help`"),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_in_the_arguments_is_one_line(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    main, arguments, expected = MISTAKES[mistake]
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ") and said.endswith(f"{expected}\n") and said.count("\n") == 1
