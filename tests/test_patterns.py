"""Regular expressions have no possessive or atomic group, so that they match the same text on every supported Python.

Before 3.11.5, Python does not go back to the start of such a group if the group fails half way (CPython issue 106052).
For example, `(?:[ ]*+%)*+` matches the blanks of "  x". A possessive repeat of one character is right on all versions.
"""

import importlib
import pkgutil
import re
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterator
from typing import Any

import pytest

import filters
import manifests

SINGLE = {codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY, codes.CATEGORY}


def patterns(value: Any, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    """Yield the compiled patterns in a value, also in nested lists, tuples and dicts."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from patterns(item, depth - 1)


def unsafe(parsed: Any) -> Iterator[str]:
    """Yield a description of each possessive or atomic group in a parsed pattern."""
    for code, argument in parsed:
        if code is codes.ATOMIC_GROUP:
            yield "(?>…)"
        if code is codes.POSSESSIVE_REPEAT and not (len(argument[2]) == 1 and argument[2][0][0] in SINGLE):
            yield f"(…){{{argument[0]},{argument[1]}}}+"
        for part in argument if isinstance(argument, tuple | list) else (argument,):
            if isinstance(part, parser.SubPattern):
                yield from unsafe(part)
            elif isinstance(part, list):
                yield from (found for item in part if isinstance(item, parser.SubPattern) for found in unsafe(item))


def test_the_check_finds_what_it_should() -> None:
    for pattern in (r"(?:a*+b)*+", r"(?>ab?)", r"x(?:(?:ab|b)?+|c)", r"(?=(?:ab)++)"):
        assert list(unsafe(parser.parse(pattern))), pattern
    for pattern in (r"a*+[bc]++.?+", r"(?:a*+b)*", r"(a|b*+)?"):
        assert not list(unsafe(parser.parse(pattern))), pattern


@pytest.mark.parametrize("room", [filters, manifests], ids=lambda room: room.__name__)
def test_no_pattern_has_a_possessive_group(room: Any) -> None:
    count, found = 0, []
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            for pattern in patterns(value):
                count += 1
                found += [f"{module.name}.{name}: {group}" for group in unsafe(parser.parse(pattern.pattern))]
    assert found == [] and count > 5
