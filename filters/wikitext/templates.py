r"""Render the templates that represent text in an article.

The table templates.tsv lists the names of templates in lower case, and the text that they show, by language (`*`: all
languages). The text is a rule with these placeholders:

- `{1}` is a positional argument, `{text}` a named argument.
- `{text|1}` is the first of several arguments that is given.
- `{2|=e}` is the argument 2, or "e" if it is missing.
- `{*, }` is a list of all positional arguments with ", " between them.
- `[...]` is left out if an argument in it is missing. If an argument outside of brackets is missing, the template shows
  nothing.
- `\n` is a line break, `\_` a blank, `\[` and `\]` are brackets. `\|` and `\=` are characters that do not separate
  arguments.
- `@name` calls a function of `filters.wikitext.functions`.

The table silent_templates.tsv lists the names of templates that show nothing in running text, such as notes, boxes and
marks for editors. A `*` in a name matches any characters. A template in neither table is unknown, see
`filters.wikitext.gaps`.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from filters.data_files import read_rows
from filters.wikitext.functions import COUNTRIES, FUNCTIONS, Call, render_country_code
from filters.wikitext.gaps import GONE, mark_spoken, mark_unknown
from filters.wikitext.names import LANGUAGES, OTHER_LANGUAGES
from filters.wikitext.parser_functions import render_parser_function

# The cache keys of steps that use this module contain the hashes of these files.
DATA_FILES = ("templates.tsv", "silent_templates.tsv")
BAR, EQUALS = "\x05", "\x06"  # represent a bar and an equals sign that do not separate arguments
ANY = r"\*"  # matches any characters in a template name; this is its form after `re.escape`
NAME_CHARACTERS = 120  # a longer template name is not compared with the names of silent templates
MAX_ARGUMENTS = 64  # arguments per template; all further arguments are read as part of the last one


class Slot(NamedTuple):
    """A placeholder in a rule.

    Attributes:
        names: Names of arguments, of which the first given one is shown.
        between: If not None, all positional arguments are shown with this text between them.
    """

    names: tuple[str, ...]
    between: str | None = None


class OptionalPart(NamedTuple):
    """A part of a rule that is left out if an argument in it is missing."""

    parts: "list[Part]"


Part = str | Slot | OptionalPart
Rule = list[Part] | Callable[[Call], str]

_ROWS = read_rows("filters.wikitext", "templates.tsv")
_SILENT_ROWS = read_rows("filters.wikitext", "silent_templates.tsv")
_OPENING, _CLOSING = "\x10", "\x11"  # represent the escaped brackets in a rule
_ESCAPES = {r"\n": "\n", r"\|": BAR, r"\=": EQUALS, r"\u0301": "\u0301", r"\[": _OPENING, r"\]": _CLOSING}
_TOKEN = re.compile(r"\[|\]|\{(?:\*([^{}]*)|([^{}]+))\}")
_LANGUAGE_TEMPLATE = re.compile(r"(?:lang|jez|jezik|јез|мова|ny)-\w{2,4}(?:-\w{2,8})?\Z")
_GERMAN_LANGUAGE_TEMPLATE = re.compile(rf"(?:{'|'.join(sorted(OTHER_LANGUAGES | frozenset(LANGUAGES)))})s\Z")
_FRENCH_NUMERAL = re.compile(r"-?(?:\d{1,4}|[ivxlcdm]{1,9})(?:er|re|e|es|ème|nd|nde)(?: siècle)?\Z")
_PAGE_VARIABLE = re.compile(r"\s*+[^\W\d_a-z]{4,40}:")
_BOX = re.compile(r"\n[ \t]*+\|.*\n[ \t]*+\|", re.DOTALL)
_EDITORS = re.compile(
    r"\s*+(?:date|datum|dato|fecha|data|dátum|дата|датум|année|year|month|reason|razón|motivo|motif|grund|причина|bot"
    r"|comment|talk|discuss|section|cat|small|sure)\s*+=",
    re.IGNORECASE,
)
_TITLES = frozenset(["pagename", "fullpagename", "basepagename", "subpagename"])
_TRIMMED = " \n\t" + GONE


def render_template(content: str, language: str = "", title: str = "") -> str:
    """Return the text that a template shows, `GONE` if it shows none, or the mark of an unknown template.

    Args:
        content: The text between the template's braces.
        language: The language code of the wiki, which selects the rules.
        title: The page's title, for {{PAGENAME}}.
    """
    raw, bar, rest = content.partition("|")
    raw = raw.strip(_TRIMMED)
    name = raw.lower().replace("_", " ")
    # Country codes are compared in upper case only: {{ESP}} is not the template {{esp}}.
    rule = render_country_code if raw in COUNTRIES else load_rules(language).get(name)
    if rule is None:
        if _LANGUAGE_TEMPLATE.match(name) or (language == "de" and bar and _GERMAN_LANGUAGE_TEMPLATE.match(name)):
            rule = [Slot(("1",))]
        elif language == "fr" and _FRENCH_NUMERAL.match(name):
            rule = [Slot(("=" + raw,)), OptionalPart([" ", Slot(("1",))])]
    if rule is not None:
        arguments = _parse_arguments(rest) if bar else {}
        shown = rule(Call(name, language, arguments)) if callable(rule) else _fill(rule, arguments)
        return shown or GONE
    function, colon, _ = name.partition(":")
    if colon and (text := render_parser_function(function, content.partition(":")[2])) is not None:
        return text
    if name in _TITLES:
        return title or GONE
    if name.startswith("ipa"):
        return mark_spoken("" if name.startswith("ipac") else rest.partition("|")[0].strip(_TRIMMED))
    if _is_silent(name, raw, content, language):
        return GONE
    return mark_unknown("" if "|" in rest else rest.strip(_TRIMMED))  # a template with one argument may show it


def _is_silent(name: str, raw: str, content: str, language: str) -> bool:
    """Return True if a template shows nothing in running text.

    Its name is listed as silent, or it has one of these forms:

    - A variable that describes the page ({{DEFAULTSORT:…}}).
    - A box with one argument per line.
    - A mark for editors: all arguments are dates or reasons.
    """
    if _is_listed_silent(name, language) or _PAGE_VARIABLE.match(raw) or _BOX.search(content):
        return True
    arguments = content.split("|")[1:]
    return bool(arguments) and all(_EDITORS.match(argument) for argument in arguments)


@lru_cache(maxsize=1 << 14)
def _is_listed_silent(name: str, language: str) -> bool:
    return not name or (len(name) <= NAME_CHARACTERS and load_silent(language).match(name) is not None)


@cache
def load_rules(language: str) -> dict[str, Rule]:
    """Return a dict from template name to rule: the rules of a language, and the rules for all languages."""
    rules: dict[str, Rule] = {}
    for code, names, text in _ROWS:
        if code in ("*", language):
            for escape, character in _ESCAPES.items():
                text = text.replace(escape, character)
            rule = FUNCTIONS[text[1:]] if text.startswith("@") else _parse_rule(text)
            rules.update(dict.fromkeys(names.split(", "), rule))
    return rules


@cache
def load_silent(language: str) -> re.Pattern[str]:
    """Return a pattern that matches the names of silent templates in a language."""
    names = [name for code, listed in _SILENT_ROWS if code in ("*", language) for name in listed.split(", ")]
    return re.compile(f"(?:{'|'.join(re.escape(name).replace(ANY, '.*') for name in names)})\\Z", re.DOTALL)


def _parse_arguments(listed: str) -> dict[str, str]:
    """Return a dict from name or number to value, for all arguments that are not empty."""
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
    """Return the text of a rule with its placeholders replaced, or None if an argument is missing."""
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
    return "".join(out).replace(_OPENING, "[").replace(_CLOSING, "]")
