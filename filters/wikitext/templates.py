r"""Render the templates that represent text in an article; all others vanish.

The table templates.tsv has, by language (`*`: all), the names of templates in lower case and the text that they show.
In a text, `{1}` is an argument by position, `{text}` by name, `{text|1}` the first of several that is given, `{2|=e}`
the argument or else "e", `{*, }` all arguments by position with ", " between them. `[...]` is left out if an argument
in it is missing; if one outside is missing, the template shows nothing. `\n` breaks a line, `\_` is a blank, `\|` and
`\=` are characters that do not separate arguments. `@name` is a function of this module.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from filters.data_files import read_rows

DATA_FILES = ("templates.tsv",)  # part of the code version of a step
GONE = "\x04"  # marks the place of removed markup, which may leave a gap
BAR, EQUALS = "\x05", "\x06"  # represent a bar and an equals sign that do not separate arguments
MAX_ARGUMENTS = 64  # of a template; those behind are read as part of the last


class Slot(NamedTuple):
    """A place for the first given argument of `names`; with `between`, for all arguments by position."""

    names: tuple[str, ...]
    between: str | None = None


class OptionalPart(NamedTuple):
    """A part of a rule that is left out if an argument in it is missing."""

    parts: "list[Part]"


Part = str | Slot | OptionalPart
Rule = list[Part] | Callable[[Mapping[str, str]], str]

_ROWS = read_rows("filters.wikitext", "templates.tsv")
_ESCAPES = {r"\n": "\n", r"\|": BAR, r"\=": EQUALS, r"\u0301": "\u0301"}
_MONTHS = {
    "en": "January February March April May June July August September October November December".split(),
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(),
}
_RANGES = {"to": " to ", "and": " and ", "or": " or ", "by": " by ", "x": " × ", "×": " × ", "-": "–", "–": "–",
           "+/-": " ± ", "±": " ± "}  # fmt: skip
# {{convert}} spells these otherwise when it shows them.
_UNITS = {"C": "°C", "F": "°F", "km2": "km²", "m2": "m²", "cm2": "cm²", "sqmi": "sq mi", "sqkm": "km²", "sqft": "sq ft",
          "m3": "m³", "cm3": "cm³", "km3": "km³", "impgal": "imp gal", "USgal": "US gal", "kg/m3": "kg/m³",
          "PD/sqmi": "per sq mi", "PD/km2": "per km²"}  # fmt: skip
_NUMBER = re.compile(r"[-−+]?[\d.,/+⁄ ]{0,40}\d[\d.,/+⁄]{0,40}\Z")
_TOKEN = re.compile(r"\[|\]|\{(?:\*([^{}]*)|([^{}]+))\}")
_LANGUAGE_TEMPLATE = re.compile(r"(?:lang|jez|јез|мова)-\w{2,4}(?:-\w{2,8})?\Z")
_PARSER_FUNCTIONS: dict[str, Callable[[str], str]] = {  # those that show their argument
    "formatnum": str.strip,
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda text: text[:1].lower() + text[1:],
    "ucfirst": lambda text: text[:1].upper() + text[1:],
}
_TITLES = frozenset(["pagename", "fullpagename", "basepagename", "subpagename"])
_TRIMMED = " \n\t" + GONE


def render_template(content: str, language: str = "", title: str = "") -> str:
    """Return the text that a template shows, or `GONE` if it does not represent text.

    Args:
        content: Everything between the template's braces.
        language: The code of the wiki, whose names of templates apply.
        title: The page's title, for {{PAGENAME}}.
    """
    name, bar, rest = content.partition("|")
    name = name.strip(_TRIMMED).lower().replace("_", " ")
    rule = load_rules(language).get(name)
    if rule is None:
        if _LANGUAGE_TEMPLATE.match(name):
            rule = [Slot(("1",))]
        else:
            function, colon, _ = name.partition(":")
            if colon and function in _PARSER_FUNCTIONS:
                return _PARSER_FUNCTIONS[function](content.partition(":")[2].partition("|")[0])
            return title if name in _TITLES and title else GONE
    arguments = _parse_arguments(rest) if bar else {}
    return (rule(arguments) if callable(rule) else _fill(rule, arguments)) or GONE


@cache
def load_rules(language: str) -> dict[str, Rule]:
    """Return the rules for a language by template name, or those common to all languages if it is unknown."""
    rules: dict[str, Rule] = {}
    for of_language, names, text in _ROWS:
        if of_language in ("*", language):
            for escape, character in _ESCAPES.items():
                text = text.replace(escape, character)
            rule = _FUNCTIONS[text[1:]] if text.startswith("@") else _parse_rule(text)
            rules.update(dict.fromkeys(names.split(", "), rule))
    return rules


def _parse_arguments(listed: str) -> dict[str, str]:
    """Return the arguments that are not empty, by name or number."""
    arguments: dict[str, str] = {}
    number = 0
    for part in listed.split("|", MAX_ARGUMENTS):
        name, equals, value = part.partition("=")
        if not equals:
            number += 1
            name, value = str(number), part
        value = value.strip(_TRIMMED)
        if value:
            arguments[name.strip(_TRIMMED).lower()] = value
    return arguments


def _parse_rule(text: str) -> list[Part]:
    stack: list[list[Part]] = [[]]
    position = 0
    for token in _TOKEN.finditer(text):
        stack[-1].append(text[position : token.start()])
        position = token.end()
        if token[0] == "[":
            stack.append([])
        elif token[0] == "]":
            part = OptionalPart(stack.pop())
            stack[-1].append(part)
        else:
            stack[-1].append(Slot(tuple(token[2].split("|"))) if token[2] else Slot((), token[1]))
    return [*stack[0], text[position:]]


def _fill(parts: list[Part], arguments: Mapping[str, str]) -> str | None:
    """Return the text of a rule, or None if an argument is missing."""
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, OptionalPart):
            out.append(_fill(part.parts, arguments) or "")
        else:
            names = part.names or map(str, range(1, MAX_ARGUMENTS))
            values = [arguments.get(name, name[1:]) for name in names if name in arguments or name[0] == "="]
            if not values:
                return None
            out.append(values[0] if part.between is None else part.between.join(values))
    return "".join(out)


def _render_convert(arguments: Mapping[str, str]) -> str:
    """Return the quantity of {{convert|5|km|mi}} before its conversion."""
    values = [arguments[number] for number in "12345678" if number in arguments]
    text, place = "", 0
    while place < len(values) and _NUMBER.match(values[place]):
        text += values[place]
        following = values[place + 1] if place + 1 < len(values) else ""
        if following in _RANGES and place + 2 < len(values):
            text, place = text + _RANGES[following], place + 2
            continue
        text += f" {_UNITS.get(following, following)}"
        further = values[place + 2 : place + 4]
        if not (len(further) == 2 and _NUMBER.match(further[0]) and not _NUMBER.match(further[1])):
            break
        text, place = text + " ", place + 2  # 6 ft 2 in
    return text.strip()


def _render_as_of(arguments: Mapping[str, str]) -> str:
    """Return the date of {{as of|2015|3}} behind "As of"."""
    date = _format_date("en", [arguments.get(number, "") for number in "321"])
    return arguments.get("alt") or f"{'as' if arguments.get('lc') else 'As'} of {date}"


def _render_french_date(arguments: Mapping[str, str]) -> str:
    """Return the date of {{date|3|mai|1990}} or {{date|29 9 2019}}."""
    parts = [arguments.get(number, "") for number in "123"]
    return _format_date("fr", parts if any(parts[1:]) else parts[0].split())


def _format_date(language: str, parts: list[str]) -> str:
    """Return day, month and year with the month by its name."""
    if len(parts) > 1 and parts[1].isdecimal() and len(parts[1]) <= 2 and 1 <= int(parts[1]) <= 12:
        parts = [parts[0], _MONTHS[language][int(parts[1]) - 1], *parts[2:]]
    return " ".join(part for part in parts if part)


def _render_fraction(arguments: Mapping[str, str]) -> str:
    """Return {{frac|1|2}} as 1/2, {{frac|3|1|2}} as 3 1/2, and {{frac|2}} as 1/2."""
    parts = [arguments[number] for number in "123" if number in arguments]
    whole = f"{parts[0]} " if len(parts) == 3 else ""
    return f"{whole}{parts[-2] if len(parts) > 1 else 1}/{parts[-1]}" if parts else ""


_FUNCTIONS = {
    "fraction": _render_fraction,
    "convert": _render_convert,
    "as_of": _render_as_of,
    "french_date": _render_french_date,
}
