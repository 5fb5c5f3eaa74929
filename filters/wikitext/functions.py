"""Compute the text of templates that format their arguments, such as quantities, dates, money and coordinates.

The table templates.tsv assigns a function to a template by the function's key in `FUNCTIONS` behind an `@`. The table
functions.tsv lists the words and signs that the functions output: month names, date forms, units, currency signs.
Sources: the documentation of each template in the wikis that have it.
"""

import html
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from filters.data_files import read_rows
from filters.wikitext.gaps import GONE, mark_spoken, mark_unknown
from filters.wikitext.names import LANGUAGES


class Call(NamedTuple):
    """A use of a template in a page.

    Attributes:
        name: The template's name in lower case.
        language: The language code of the wiki.
        arguments: The arguments that are not empty, by name; positional arguments have the names "1", "2", ...
    """

    name: str
    language: str
    arguments: Mapping[str, str]


# The cache keys of steps that use this module contain the hashes of these files.
DATA_FILES = ("functions.tsv", "countries.tsv")
_ROWS = read_rows("filters.wikitext", "functions.tsv")


def _load_table(name: str) -> dict[str, str]:
    return {key: value for table, key, value in _ROWS if table == name}


_MONTHS = {language: names.split(", ") for language, names in _load_table("month").items()}
# The date form of each language: a list of [text before, letter, text behind], where the letter is D (day), M (month)
# or Y (year).
_DATES = {
    language: [re.split("([DMY])", part) for part in form.split("|")] for language, form in _load_table("date").items()
}
# The words for "to", "and", "or" between two quantities. {{convert}} translates the English words.
_WORDS = {language: words.split() for language, words in _load_table("range word").items()}
_SIGNS = _load_table("range sign")
_UNITS = _load_table("unit")  # the spelling that {{convert}} shows, by the spelling in its argument
_CURRENCIES = _load_table("currency")
_ACCIDENTALS = _load_table("accidental")
_TO, _AND, _OR = ("to", "to(-)", "to about"), ("and", "&", "and(-)", ", and"), ("or", ", or")
# Units that may be followed by a second quantity in a smaller unit, as in 6 ft 2 in.
_COMPOUND = frozenset("mi yd ft foot feet st lb lbs chain furlong LT ST t h min".split())
_DIGITS = r"\d½⅓⅔¼¾⅛"
_EXPONENT = r"(?:[eE][-−+]?\d{1,3}|[×·]10<sup>[-−+]?\d{1,3}</sup>)?"
_NUMBER = re.compile(rf"[-−+±~]?[{_DIGITS}.,/+⁄ \u00a0\u2009]{{0,40}}[{_DIGITS}][{_DIGITS}.,/+⁄-]{{0,40}}{_EXPONENT}\Z")
_POWER = re.compile(r"[eE]([-−+]?\d{1,3})\Z")
_MIXED = re.compile(r"(?<=\d)[-+](?=\d{1,9}[/⁄])")
_SCALED = re.compile(r"e(\d{1,2})(?=[a-zA-Z])")  # {{convert}} writes a unit with a power of ten as e6acre
_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,8})?\Z")
_DEGREES = ("°", "′", "″")
MOST_DAYS = 31  # a larger number in the position of a day is a year
# The names of each country by language. Keys are codes of ISO 3166, of the Olympic Committee, and of some former
# countries.
COUNTRIES = {
    code: dict(zip(LANGUAGES, names, strict=True))
    for codes, *names in read_rows("filters.wikitext", "countries.tsv")
    for code in codes.split(", ")
}


def _list_positional(arguments: Mapping[str, str], most: int = 16) -> list[str]:
    return [arguments[key] for key in map(str, range(1, most + 1)) if key in arguments]


def _render_convert(call: Call) -> str:
    """Return the unconverted quantity of {{convert|5|km|mi}}, here "5 km".

    Return the mark of an unknown template if the arguments have a form that is not supported.
    """
    values = _list_positional(call.arguments)
    text, place = "", 0
    while place < len(values) and _NUMBER.match(values[place]):
        text += _format_number(values[place])
        following = values[place + 1] if place + 1 < len(values) else ""
        second = place + 2 < len(values) and bool(_NUMBER.match(values[place + 2]))
        if second and (between := _format_range(following, call.language)):
            text, place = text + between, place + 2
            continue
        if call.arguments.get("adj") == "pre" and place + 2 < len(values):  # {{convert|5|narrow|mi|adj=pre}}
            text, following = f"{text} {following}", values[place + 2]
            second = False
        unit = values[place + 3] if second and place + 3 < len(values) else ""
        has_second_quantity = bool(unit) and not _NUMBER.match(unit)
        if _NUMBER.match(following) or (has_second_quantity and following not in _COMPOUND):
            return mark_unknown()  # such as {{convert|5|until|6|km}}, where "until" is not a known range word
        if scale := _SCALED.match(following):
            text, following = f"{text}×10<sup>{scale[1]}</sup>", following[scale.end() :]
        text += f" {_UNITS.get(following, following)}"
        if not has_second_quantity:
            break
        text, place = text + " ", place + 2
    return text.strip() or mark_unknown()


def _format_number(value: str) -> str:
    """Return a number with its exponent written as a power of ten, and with a blank before its fraction."""
    value = _MIXED.sub(" ", value.replace("//", "/"))
    return _POWER.sub(r"×10<sup>\1</sup>", value)


def _format_range(word: str, language: str) -> str:
    """Return the text between the two quantities of a range, or "" if `word` is not a range word."""
    word = html.unescape(word).strip().lower()
    for english, shown in zip((_TO, _AND, _OR), _WORDS.get(language, _WORDS["en"]), strict=True):
        if word in english or word == shown:
            return "–" if shown == "–" else f" {shown} "
    return _SIGNS.get(word, "")


def _render_as_of(call: Call) -> str:
    """Return {{as of|2015|3}} as "As of March 2015"."""
    shown = call.arguments.get("alt")
    return shown or f"{'as' if call.arguments.get('lc') else 'As'} of {_render_iso_date(call)}"


def _render_iso_date(call: Call) -> str:
    """Return the date of {{start date|1990|5|3}}. A first argument that is not a year is shown unchanged."""
    return _format_date(call.language, *_read_date(call.arguments, 1))


def _render_date(call: Call) -> str:
    """Return the date of French {{date|3|mai|1990}} or {{date|29 9 2019}}, or of a similar template elsewhere."""
    year, month, day = _read_date(call.arguments, 1)
    parts = [] if month or day else year.split()
    if len(parts) in (2, 3) and all(map(str.isdecimal, parts)):
        day, month, year = ["", *parts] if len(parts) == 2 and _is_year(parts[1]) else [*parts, ""][:3]
    elif not _is_year(year):  # the first argument is the day
        year, day = day, year
    return _format_date(call.language, year, month, day)


def _render_age(call: Call) -> str:
    """Return the full years between the two dates of {{age|1989|7|23|2003|7|14}}.

    With only one date, the template shows the age today, which is unknown.
    """
    values = _read_date(call.arguments, 1) + _read_date(call.arguments, 4)
    if not all(value.isdecimal() and len(value) <= 4 for value in values):
        return mark_unknown()
    born, died = (tuple(map(int, date)) for date in (values[:3], values[3:]))
    years = died[0] - born[0] - (died[1:] < born[1:])
    return str(years) if years >= 0 else mark_unknown()


def _read_date(arguments: Mapping[str, str], first: int) -> tuple[str, str, str]:
    """Return (year, month, day) of the three positional arguments from number `first` on.

    The arguments may also be in the order day, month, year.
    """
    year, month, day = (arguments.get(str(number), "") for number in range(first, first + 3))
    return (day, month, year) if _is_year(day) else (year, month, day)


def _is_year(value: str) -> bool:
    return value.isdecimal() and int(value[:9]) > MOST_DAYS


def _render_old_style_date(call: Call) -> str:
    """Return Russian {{OldStyleDate|1 марта|1900|17 февраля}} as 17 февраля (1 марта) 1900."""
    new, year, old = (call.arguments.get(number, "") for number in "123")
    return " ".join(filter(None, [*([old, f"({new})"] if old else [new]), year]))


def _format_date(language: str, year: str, month: str, day: str) -> str:
    """Return a date in the form of a language, with the name of the month instead of its number."""
    if month.isdecimal() and len(month) <= 2 and 1 <= int(month) <= 12:
        month = _MONTHS.get(language, _MONTHS["en"])[int(month) - 1]
    parts, text = {"Y": year, "M": month, "D": day.lstrip("0") if day.isdecimal() else day}, ""
    for before, part, behind in _DATES.get(language, _DATES["en"]):
        if parts[part]:
            text += (before if text else "") + parts[part] + behind
    return text


def _render_country(call: Call) -> str:
    """Return the country name for {{flag|FRA}} in the wiki's language. An argument that is no code is unchanged."""
    shown = call.arguments.get("name") or call.arguments.get("1", "")
    return COUNTRIES.get(shown, {}).get(call.language, shown)


def render_country_code(call: Call) -> str:
    """Return the country name for a template whose name is a country code, such as {{FRA}}.

    {{FRA|#}} shows a flag without a name, so the result is `GONE`.
    """
    unknown = mark_unknown()
    return GONE if call.arguments.get("1") == "#" else COUNTRIES[call.name.upper()].get(call.language, unknown)


def _render_fraction(call: Call) -> str:
    """Return {{frac|1|2}} as 1/2, {{frac|3|1|2}} as 3 1/2, and {{frac|2}} as 1/2.

    The result begins with `GONE`, so that a blank separates it from a digit before it.
    """
    parts = _list_positional(call.arguments, 3)
    whole = f"{parts[0]} " if len(parts) == 3 else ""
    return f"{GONE}{whole}{parts[-2] if len(parts) > 1 else 1}/{parts[-1]}" if parts else ""


def _render_dash_year(call: Call) -> str:
    """Return {{dash year|2009|14}} as 2009–14, and 2009{{dash year|14}} also as 2009–14."""
    years = _list_positional(call.arguments)
    return "–".join(years) if len(years) > 1 else "–" + "".join(years)


def _render_currency(call: Call) -> str:
    """Return {{currency|1,000|JPY}} as ¥1,000. If a currency has no sign, its code is put before the amount."""
    arguments = call.arguments
    amount = arguments.get("1") or arguments.get("amount") or arguments.get("value")
    if not amount:
        return mark_unknown()
    code = arguments.get("2") or arguments.get("code") or arguments.get("type") or ""
    sign = _CURRENCIES.get(code.upper(), f"{code} " if code else "")
    return f"{sign}{amount}"


def _render_coordinates(call: Call) -> str:
    """Return {{coord|13|19|N|169|9|W}} as 13°19′N 169°9′W.

    Return `GONE` for coordinates that are shown above the page only, and not in the text.
    """
    display = call.arguments.get("display", "inline").split(",")
    if not {"inline", "i", "it"} & {word.strip() for word in display}:
        return GONE
    parts = []
    for value in _list_positional(call.arguments):
        if not (_NUMBER.match(value) or value.upper() in ("N", "S", "E", "W", "O")):
            break
        parts.append(value)
    if not any(part.isalpha() for part in parts):
        return ", ".join(parts) or GONE
    text, degree = "", 0
    for part in parts:
        text += f"{part} " if part.isalpha() else part + _DEGREES[min(degree, 2)]
        degree = 0 if part.isalpha() else degree + 1
    return text.strip()


def _render_ordinal(call: Call) -> str:
    """Return English {{ordinal|21}} as 21st."""
    number = call.arguments.get("1", "")
    if not number.isdecimal():
        return number or mark_unknown()
    is_teen = number[-2:-1] == "1"
    return number + ("th" if is_teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th"))


def _render_music(call: Call) -> str:
    return _ACCIDENTALS.get(call.arguments.get("1", ""), call.arguments.get("1", ""))


def _render_height(call: Call) -> str:
    """Return {{height|ft=6|in=2}} as 6 ft 2 in."""
    values = [f"{call.arguments[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if unit in call.arguments]
    return " ".join(values) or call.arguments.get("1") or mark_unknown()


def _render_harvard(call: Call) -> str:
    """Return {{harvtxt|Boolos|Jeffrey|1974}} as Boolos & Jeffrey (1974)."""
    parts = _list_positional(call.arguments)
    return f"{' & '.join(parts[:-1])} ({parts[-1]})" if len(parts) > 1 else "".join(parts)


def _render_ship(call: Call) -> str:
    """Return {{USS|Nimitz}} as USS Nimitz: the template's name is the prefix of the ship's name."""
    return f"{call.name.upper()} {call.arguments['1']}" if "1" in call.arguments else GONE


def _render_verses(call: Call) -> str:
    """Return {{poemquote|…}} with a break behind each verse."""
    lines = (call.arguments.get("text") or call.arguments.get("1", "")).split("\n")
    return "\n" + "".join(line.strip(" \t:") + ("<br>\n" if line.strip() else "\n") for line in lines) + "\n"


def _render_spoken(call: Call) -> str:
    """Return {{IPA|/a/}} or {{IPA|fr|bɔ̃}} marked as a pronunciation."""
    values = _list_positional(call.arguments)
    if len(values) > 1 and _CODE.match(values[0]):
        values = values[1:]
    return mark_spoken(values[0] if values else "")


def _render_unspoken(call: Call) -> str:
    """Return the mark of a pronunciation without its text, as for {{respell|ASS|kee}}."""
    return mark_spoken("")


FUNCTIONS: dict[str, Callable[[Call], str]] = {
    "age": _render_age,
    "as_of": _render_as_of,
    "convert": _render_convert,
    "coordinates": _render_coordinates,
    "country": _render_country,
    "currency": _render_currency,
    "date": _render_date,
    "dash_year": _render_dash_year,
    "fraction": _render_fraction,
    "harvard": _render_harvard,
    "height": _render_height,
    "iso_date": _render_iso_date,
    "music": _render_music,
    "old_style_date": _render_old_style_date,
    "ordinal": _render_ordinal,
    "ship": _render_ship,
    "spoken": _render_spoken,
    "unspoken": _render_unspoken,
    "verses": _render_verses,
}
