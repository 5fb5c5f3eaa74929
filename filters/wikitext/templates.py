"""What a template shows, by the rules of `filters.wikitext.template_rules`."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from filters.wikitext.template_rules import BY_LANGUAGE, COMMON

GONE = "\x04"
"""stands where something vanished that may leave a gap"""
BAR, EQUALS = "\x05", "\x06"
"""stand for a bar and an equals sign that part no arguments"""


class Place(NamedTuple):
    """A place in a rule for the first of these arguments that is there, or for `all` by position with `between`."""

    names: tuple[str, ...]
    between: str | None = None


class Optional(NamedTuple):
    """Part of a rule that is left out where an argument in it is missing."""

    parts: "list[Part]"


Part = str | Place | Optional
Rule = list[Part] | Callable[[Mapping[str, str]], str]

_MONTHS = {
    "en": [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    "fr": [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
}
_RANGES = {"to": " to ", "and": " and ", "or": " or ", "by": " by ", "x": " × ", "×": " × ", "-": "–", "–": "–",
           "+/-": " ± ", "±": " ± "}  # fmt: skip
_UNITS = {"C": "°C", "F": "°F", "km2": "km²", "m2": "m²", "cm2": "cm²", "sqmi": "sq mi", "sqkm": "km²", "sqft": "sq ft",
          "m3": "m³", "cm3": "cm³", "km3": "km³", "impgal": "imp gal", "USgal": "US gal", "kg/m3": "kg/m³",
          "PD/sqmi": "per sq mi", "PD/km2": "per km²"}  # fmt: skip
"""how {{convert}} shows units that it spells otherwise"""
_NUMBER = re.compile(r"[-−+]?[\d.,/+⁄ ]{0,40}\d[\d.,/+⁄]{0,40}\Z")
_TOKEN = re.compile(r"\[|\]|\{(?:\*([^{}]*)|([^{}]+))\}")
_LANGUAGE_TEMPLATE = re.compile(r"(?:lang|jez|јез|мова)-\w{2,4}(?:-\w{2,8})?\Z")
_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": str.strip,
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda text: text[:1].lower() + text[1:],
    "ucfirst": lambda text: text[:1].upper() + text[1:],
}
"""parser functions that show what they are given"""
_TITLES = frozenset(["pagename", "fullpagename", "basepagename", "subpagename"])
_TRIMMED = " \n\t" + GONE
MAX_ARGUMENTS = 64
"""of a template; those behind are not told apart"""


def shown(content: str, language: str = "", title: str = "") -> str:
    """What a template shows, given all that stands between its braces; `GONE` if it is none that stands for text."""
    name, bar, rest = content.partition("|")
    name = name.strip(_TRIMMED).lower().replace("_", " ")
    rule = rules(language).get(name)
    if rule is None:
        if _LANGUAGE_TEMPLATE.match(name):
            rule = [Place(("1",))]
        else:
            function, colon, _ = name.partition(":")
            if colon and function in _FUNCTIONS:
                return _FUNCTIONS[function](content.partition(":")[2].partition("|")[0])
            return title if name in _TITLES and title else GONE
    given_arguments = _arguments(rest) if bar else {}
    text = rule(given_arguments) if callable(rule) else _filled(rule, given_arguments)
    return GONE if text is None or not text else text


@cache
def rules(language: str) -> dict[str, Rule]:
    """The rules for a language by name of the template; those common to all for an unknown one."""
    found: dict[str, Rule] = {}
    for line in f"{COMMON}{BY_LANGUAGE.get(language, '')}".split("\n"):
        names, arrow, rule = line.partition(" => ")
        rule = rule.replace(r"\n", "\n").replace(r"\_", " ").replace(r"\x05", BAR).replace(r"\x06", EQUALS)
        rule = rule.replace(r"\u0301", "\u0301")
        for name in names.split(", ") if arrow else ():
            found[name] = _BY_NAME[rule[1:]] if rule.startswith("@") else _parsed(rule)
    return found


def _arguments(listed: str) -> dict[str, str]:
    """Arguments by name or number, those without text left out."""
    given: dict[str, str] = {}
    number = 0
    for part in listed.split("|", MAX_ARGUMENTS):
        name, equals, value = part.partition("=")
        if not equals:
            number += 1
            name, value = str(number), part
        value = value.strip(_TRIMMED)
        if value:
            given[name.strip(_TRIMMED).lower()] = value
    return given


def _parsed(rule: str) -> list[Part]:
    """A rule of the tables, taken apart."""
    stack: list[list[Part]] = [[]]
    position = 0
    for token in _TOKEN.finditer(rule):
        stack[-1].append(rule[position : token.start()])
        position = token.end()
        if token[0] == "[":
            stack.append([])
        elif token[0] == "]":
            part = Optional(stack.pop())
            stack[-1].append(part)
        else:
            stack[-1].append(Place(tuple(token[2].split("|"))) if token[2] else Place((), token[1]))
    return [*stack[0], rule[position:]]


def _filled(parts: list[Part], given: Mapping[str, str]) -> str | None:
    """The text of a rule; None if an argument is missing."""
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, Optional):
            out.append(_filled(part.parts, given) or "")
        else:
            names = part.names or map(str, range(1, MAX_ARGUMENTS))
            values = [given.get(name, name[1:]) for name in names if name in given or name[0] == "="]
            if not values:
                return None
            out.append(values[0] if part.between is None else part.between.join(values))
    return "".join(out)


def converted(given: Mapping[str, str]) -> str:
    """{{convert|5|km|mi}}: the quantity as it was given, without what it was converted to."""
    values = [given[number] for number in map(str, range(1, 9)) if number in given]
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


def as_of(given: Mapping[str, str]) -> str:
    """{{as of|2015|3}}: a date behind "As of"."""
    date = _dated("en", [given.get("3", ""), given.get("2", ""), given.get("1", "")])
    return given.get("alt") or f"{'as' if given.get('lc') else 'As'} of {date}"


def french_date(given: Mapping[str, str]) -> str:
    """{{date|3|mai|1990}}, {{date|29 9 2019}}."""
    parts = [given.get(number, "") for number in ("1", "2", "3")]
    return _dated("fr", parts if any(parts[1:]) else parts[0].split())


def _dated(language: str, parts: list[str]) -> str:
    """Day, month and year, the month by its name."""
    if len(parts) > 1 and parts[1].isdecimal() and len(parts[1]) <= 2 and 1 <= int(parts[1]) <= 12:
        parts = [parts[0], _MONTHS[language][int(parts[1]) - 1], *parts[2:]]
    return " ".join(part for part in parts if part)


def fraction(given: Mapping[str, str]) -> str:
    """{{frac|1|2}}, {{frac|3|1|2}} for three and a half, {{frac|2}} for a half."""
    parts = [given[number] for number in ("1", "2", "3") if number in given]
    whole = f"{parts[0]} " if len(parts) == 3 else ""
    return f"{whole}{parts[-2] if len(parts) > 1 else 1}/{parts[-1]}" if parts else ""


_BY_NAME = {"fraction": fraction, "converted": converted, "as_of": as_of, "french_date": french_date}
