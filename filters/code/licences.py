"""Identify the licence in a text as an SPDX expression (SPDX 2.3, annex D).

Licences are identified by phrases that only one licence contains, and never by file names. Case, punctuation, line ends
and copyright lines are ignored. In case of doubt, a text is not accepted: if it contains unknown additional terms (for
example, a clause against commercial use), its licence is unknown. If it contains several licences, all of them must be
allowed, unless the text offers a choice.

The table licences.tsv lists phrases in the form that `_normalize` returns. Its kinds are:

- `known`: names of licences, for texts that name a licence without containing its words.
- `other`: names of licences and terms that are never allowed.
- `harmless`: phrases that mention other terms without imposing them.
- `choice`: phrases that offer a choice of licences.
- `reference`: phrases that refer to other files.

The table licence_texts.tsv has the fields of `_Licence` for each licence that is identified by its words.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from filters.data_files import read_lists, read_rows

# The cache keys of steps that use this module contain the hashes of these files.
DATA_FILES = ("licences.tsv", "licence_texts.tsv")
UNKNOWN = "NOASSERTION"  # SPDX's name for an unknown licence
MAX_CHARACTERS = 1 << 20  # the licence of a longer text is unknown
# Characters at the start of a long file in which a choice may be offered. It must name all licences in the file.
OPENING_CHARACTERS = 600
# Words that a licence file may have in addition to the found licences: a title, names, a sentence about its scope.
SPARE_WORDS = 150
MAX_DEPTH = 16  # nested parentheses of an expression


class _Licence(NamedTuple):
    """A licence that is identified by its words.

    Attributes:
        name: The SPDX identifier.
        required: Phrases of its text. The first one occurs exactly once in each copy of the licence.
        excluded: Phrases that only other licences contain.
        words: The approximate number of words.
    """

    name: str
    required: tuple[str, ...]
    excluded: tuple[str, ...]
    words: int


# Names in the kind `other` that are terms in addition to a licence. They apply even if there is a choice of licences.
_TERMS = frozenset({"Commons-Clause", "Field-of-use", "NC", "Proprietary"})
_LICENCES = [
    _Licence(name, tuple(required.split(", ")), tuple(filter(None, excluded.split(", "))), int(words))
    for name, required, excluded, words in read_rows("filters.code", "licence_texts.tsv")
]
_PHRASES = read_lists("filters.code", "licences.tsv")
_KNOWN, _OTHERS = _PHRASES["known"], _PHRASES["other"]
_HARMLESS, _CHOICES, _REFERENCES = (_PHRASES[kind]["*"] for kind in ("harmless", "choice", "reference"))
# "the MIT license or the GNU General Public License": two names with "or" between them.
_NAME = r"(?:mit|expat|isc|zlib|bsd|apache|gpl|lgpl|agpl|gnu|mpl|mozilla|epl|eclipse|artistic|boost|unlicense|cc0)"
_OR_NAME = re.compile(
    rf" {_NAME}(?: \w+){{0,6}}? or (?:(?:under|the|a|at|new|modified|simplified|2 clause|3 clause) ){{0,3}}{_NAME} "
)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]{0,8}[\"'`]?((?:[A-Za-z0-9.+()\- \t]|(?<=\w)/(?=\w)){1,200})")
_SLASHES = re.compile(r"[\w.+-]{1,60}(?:/[\w.+-]{1,60}){1,9}")  # a choice of licences in older manifests of Cargo
# A copyright line. A line that also names a licence does not match, such as "(c) 2010 X. Licensed under the GPL".
_COPYRIGHT_LINE = re.compile(
    r"(?m)^[^\w\n]{0,40}(?:copyright\b|\(c\)|©)"
    r"(?![^\n]{0,200}(?:licen[cs]|gpl|\bunder\b|creative commons))[^\n]{0,200}$"
)
_OTHER_THAN_WORDS = re.compile(r"[^a-z0-9]+")
_TOKEN = re.compile(r"[()]|[^\s()]+")
_EXCEPTION = re.compile(r"(?<![^\s()])(?!(?:AND|OR|WITH)\s)([^\s()]+)\s+WITH\s+[^\s()]+", re.IGNORECASE)
_SIGNS = {"AND": "&", "OR": "|", "(": "(", ")": ")", "WITH": "?"}  # a WITH that is left makes the expression invalid
_INNERMOST = re.compile(r"\(([TF](?:[&|][TF])*)\)")  # an innermost pair of parentheses


def identify_licence(text: str) -> str:
    """Return the licence of a licence file as an SPDX expression, such as `MIT` or `Apache-2.0 OR MIT`.

    Return `NOASSERTION` if the text is not a known licence, or contains much other text. Return "" if the text only
    refers to other files.
    """
    if len(text) > MAX_CHARACTERS:
        return UNKNOWN
    words = _normalize(text)
    lengths = {item.name: words.count(item.required[0]) * item.words for item in _LICENCES if _matches(words, item)}
    others, stated = _find_named(words, _OTHERS), _find_stated(text)
    known = _find_named(words, _KNOWN)
    named = {*(lengths or (set() if stated else known)), *others}
    is_bundle = words.count(" ") - sum(lengths.values()) > SPARE_WORDS
    if is_bundle and not others:
        return UNKNOWN
    if not named and not stated and _contains_any(words, _REFERENCES):
        return ""
    may_choose = not is_bundle or named <= _find_families(words[:OPENING_CHARACTERS], named)
    is_offer = may_choose and _offers_choice(words[:OPENING_CHARACTERS] if is_bundle else words)
    named |= known if is_offer and lengths and not is_bundle else set()
    return join_licences(one for one in (stated, _format_expression(named, is_offer)) if one) or UNKNOWN


def identify_header_licence(comment: str) -> str:
    """Return the licence that a comment at the top of a file names, by SPDX-License-Identifier or else by its words.

    Return "" if the comment names no licence, so that the licence of the repository applies.
    """
    if stated := _find_stated(comment):
        return stated
    words = _normalize(comment[:MAX_CHARACTERS])
    is_offer, known = _offers_choice(words), _find_named(words, _KNOWN)
    names = {item.name for item in _LICENCES if _matches(words, item)} or known
    return _format_expression(names | _find_named(words, _OTHERS) | (known if is_offer else set()), is_offer)


def join_licences(expressions: Iterable[str]) -> str:
    """Return the SPDX expression for a work to which all these licences apply."""
    distinct = sorted(set(expressions))
    return " AND ".join(f"({one})" if " OR " in one and len(distinct) > 1 else one for one in distinct)


def is_allowed(expression: str, kept: Collection[str]) -> bool:
    """Return True if an SPDX expression permits use under the licences `kept`, and False if it is invalid.

    One operand of `OR`, and all operands of `AND`, must be in `kept`. `AND` binds more tightly than `OR`. The exception
    behind `WITH` is ignored, because it only adds permissions. The case of names is ignored.
    """
    names = {name.lower() for name in kept}
    tokens = _TOKEN.findall(_EXCEPTION.sub(r"\1", expression[:MAX_CHARACTERS]))
    signs = (_SIGNS.get(token.upper()) or ("T" if token.lower() in names else "F") for token in tokens)
    value = f"({''.join(signs)})"
    for _ in range(MAX_DEPTH + 1):
        value = _INNERMOST.sub(_evaluate, value)
    return value == "T"


def _evaluate(innermost: re.Match[str]) -> str:
    """Return "T" or "F", the value of an expression of T, F, & (AND) and | (OR) in parentheses."""
    return "T" if any("F" not in operands for operands in innermost[1].split("|")) else "F"


def _normalize(text: str) -> str:
    """Return the words of a text in lower case, separated and enclosed by single blanks, without copyright lines."""
    words = f" {_OTHER_THAN_WORDS.sub(' ', _COPYRIGHT_LINE.sub(' ', text.lower())).strip()} "
    for phrase in _HARMLESS:
        words = words.replace(f" {phrase} ", " ")
    return words


def _find_stated(text: str) -> str:
    """Return the SPDX expression for all SPDX-License-Identifier lines of a text together, or ""."""
    lines = (_SLASHES.sub(_spell_choice, line) for line in _SPDX.findall(text[:MAX_CHARACTERS]))
    stated = {" ".join(line.split()).rstrip(" -") for line in lines}
    return join_licences(stated - {""})


def _spell_choice(names: re.Match[str]) -> str:
    return f"({names[0].replace('/', ' OR ')})"


def _matches(words: str, licence: _Licence) -> bool:
    return all(phrase in words for phrase in licence.required) and not any(
        phrase in words for phrase in licence.excluded
    )


def _contains_any(words: str, phrases: Iterable[str]) -> bool:
    return any(f" {phrase} " in words for phrase in phrases)


def _find_named(words: str, table: dict[str, list[str]]) -> set[str]:
    """Return the names in a table from name to phrases of which a phrase occurs in a text."""
    return {name for name, phrases in table.items() if _contains_any(words, phrases)}


def _find_families(words: str, names: set[str]) -> set[str]:
    """Return the licences in `names` that a text mentions, in any version: "BSD" mentions BSD-3-Clause."""
    found = _find_named(words, _KNOWN) | _find_named(words, _OTHERS)
    return {name for name in names if name in found or f" {name.partition('-')[0].lower()} " in words}


def _offers_choice(words: str) -> bool:
    """Return True if a text offers a choice of licences."""
    return _contains_any(words, _CHOICES) or _OR_NAME.search(words) is not None


def _format_expression(names: set[str], is_offer: bool) -> str:
    """Return the SPDX expression for licences and terms. If `is_offer`, the licences (not the terms) are a choice."""
    if not is_offer:
        return " AND ".join(sorted(names))
    return join_licences(one for one in (" OR ".join(sorted(names - _TERMS)), *(names & _TERMS)) if one)
