"""Which licence a text is, as an SPDX expression (SPDX 2.3, annex D), by its words and never by its file's name.

Texts are compared without case, punctuation, line ends and copyright lines, by phrases that only one licence has. This
errs to one side: a text with terms besides that are not known (a clause against commerce, say) is no known licence, and
several licences must all be kept ones unless the text itself offers a choice.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

UNKNOWN = "NOASSERTION"
"""SPDX's name for no known licence"""
MAX_CHARACTERS = 1 << 20
"""of a licence; longer texts are no known one"""
SPARE_WORDS = 150
"""of a licence file besides the licences found in it: a title, names, a sentence on what it covers"""
DEPTH = 16
"""nested parentheses of an expression"""


class _Text(NamedTuple):
    """A licence's own words: phrases that must and that may not be there, the first as often as the licence, which has
    about `words` words."""

    name: str
    phrases: tuple[str, ...]
    without: tuple[str, ...]
    words: int


_GRANT = "permission is hereby granted free of charge to any person obtaining a copy"
_NOTICE = "the above copyright notice and this permission notice"
_BSD = "redistribution and use in source and binary forms with or without modification are permitted provided"
_RETAIN = "redistributions of source code must retain the above copyright notice"
_ENDORSE = "to endorse or promote products derived from this software"
_ADVERTISING = "all advertising materials mentioning features"
_X11, _JSON = "except as contained in this notice", "shall be used for good not evil"
_NCSA = "to deal with the software without restriction"
_CLEAR = "no express or implied licenses to any party s patent rights"

_TEXTS = (
    _Text("MIT", (_GRANT, _NOTICE), (_X11, _JSON, _NCSA), 170),
    _Text("X11", (_GRANT, _NOTICE, _X11), (), 200),
    _Text("JSON", (_GRANT, _JSON), (), 180),
    _Text("MIT-0", (_GRANT,), (_NOTICE, _JSON, _NCSA), 140),
    _Text("NCSA", (_GRANT, _NCSA), (), 250),
    _Text("BSD-2-Clause", (_BSD, _RETAIN), (_ENDORSE, _ADVERTISING, _CLEAR), 190),
    _Text("BSD-3-Clause", (_BSD, _RETAIN, _ENDORSE), (_ADVERTISING, _CLEAR), 230),
    _Text("BSD-3-Clause-Clear", (_BSD, _RETAIN, _CLEAR), (), 250),
    _Text("BSD-4-Clause", (_BSD, _RETAIN, _ADVERTISING), (), 260),
    _Text("Apache-2.0", ("version 2 0 january 2004", "terms and conditions for use reproduction"), (), 1650),
    _Text("Apache-2.0", ("licensed under the apache license version 2 0",), ("terms and conditions for use",), 90),
    _Text("ISC", ("permission to use copy modify and or distribute this software for any purpose",), (), 130),
    _Text("Unlicense", ("this is free and unencumbered software released into the public domain",), (), 220),
    _Text("Zlib", ("this software is provided as is without any express or implied warranty in no event",), (), 140),
)

_OTHERS = {
    "GPL": ("gnu general public license", "gnu gpl", "gplv2", "gplv3", "gpl v2", "gpl v3", "gpl license"),
    "LGPL": ("gnu lesser general public", "gnu library general public", "lgpl"),
    "AGPL": ("gnu affero general public", "agpl"),
    "MPL": ("mozilla public license", "mpl 2 0", "mpl 1 1"),
    "EPL": ("eclipse public license",),
    "CDDL": ("common development and distribution license",),
    "CPL": ("common public license",),
    "MS-PL": ("microsoft public license", "ms pl"),
    "MS-RL": ("microsoft reciprocal license",),
    "EUPL": ("european union public licence",),
    "OSL": ("open software license",),
    "ECL": ("educational community license",),
    "Apache-1": ("apache software license version 1", "the apache group for use in the apache"),
    "Artistic": ("artistic license",),
    "BSL": ("boost software license",),
    "OFL": ("sil open font license",),
    "WTFPL": ("do what the fuck you want",),
    "CC": ("creative commons", "cc by", "cc0"),
    "SSPL": ("server side public license",),
    "BUSL": ("business source license",),
    "Elastic": ("elastic license",),
    "Commons-Clause": ("commons clause",),
    "NC": ("non commercial", "noncommercial", "for academic use only", "for research purposes only"),
    "Field-of-use": ("nuclear facility", "military", "human rights", "no part of this"),
    "Proprietary": (
        "proprietary and confidential", "confidential and proprietary", "trade secret", "unauthorized copying",
        "unauthorised copying", "all rights are reserved and", "may not be copied", "no license is granted",
    ),
}  # fmt: skip
"""licences and terms that are known so as not to be kept, each by the ways it is called"""

_CALLED = {
    "MIT": ("mit license", "mit licence", "license mit", "expat license", "mit licensed"),
    "X11": ("x11 license",),
    "BSD-3-Clause": ("bsd 3 clause", "3 clause bsd", "three clause bsd", "new bsd license", "modified bsd license"),
    "BSD-2-Clause": ("bsd 2 clause", "2 clause bsd", "two clause bsd", "simplified bsd license", "freebsd license"),
    "Apache-2.0": ("apache license version 2 0", "apache license 2 0", "apache 2 0", "apache license v2", "apache v2"),
    "ISC": ("isc license",),
}
"""what licences are called where their text is not at hand"""

_HARMLESS = (
    " software that is licensed under the gplv2 ",  # LLVM's exception to Apache's licence
    " commercial or non commercial ",
    " commercial and non commercial ",
)
"""phrases that name other terms without imposing them"""
_CHOICE = (
    "dual license", "dual licensed", "dually licensed", "licensed under either", "under the terms of either",
    "under either the", "either of these licenses", "your choice of", "at your choice", "choose either",
)  # fmt: skip
_ELSEWHERE = ("license apache", "license mit", "license bsd", "copying mit", "license txt")
"""names of files that a text of no licence points to"""
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]{0,8}([A-Za-z0-9.+()\- \t]{1,200})")
_COPYRIGHT_LINE = re.compile(r"(?m)^[^\w\n]{0,40}(?:copyright\b|\(c\)|©)[^\n]{0,200}$")
_OTHER_THAN_WORDS = re.compile(r"[^a-z0-9]+")
_TOKEN = re.compile(r"[()]|[^\s()]+")


def words_of(text: str) -> str:
    """A text as it is compared: words in lower case, parted by one blank, without copyright lines; a blank at either
    end."""
    words = f" {_OTHER_THAN_WORDS.sub(' ', _COPYRIGHT_LINE.sub(' ', text.lower())).strip()} "
    for phrase in _HARMLESS:
        words = words.replace(phrase, " ")
    return words


def licence_of_file(text: str) -> str:
    """The licence that a licence file's text is, as an SPDX expression: `MIT`, `Apache-2.0 OR MIT`; `NOASSERTION` if it
    is no known one, or holds much else; empty if it only points to other files."""
    if len(text) > MAX_CHARACTERS:
        return UNKNOWN
    words = words_of(text)
    found = {item.name: _count(words, item) * item.words for item in _TEXTS if _is(words, item)}
    others = _called(words, _OTHERS)
    stated = _stated(text)
    named = {*(found or (set() if stated else _called(words, _CALLED))), *others}
    bundle = words.count(" ") - sum(found.values()) > SPARE_WORDS
    if bundle and not others:
        return UNKNOWN
    if not named and not stated and any(f" {phrase} " in words for phrase in _ELSEWHERE):
        return ""
    return both(one for one in (stated, _spelled(named, words, not bundle)) if one) or UNKNOWN


def licence_of_header(comment: str) -> str:
    """The licence that a comment at the top of a file names: its SPDX-License-Identifier, else by its words. Empty if
    it names none; then the repository's licence is the file's."""
    stated = _stated(comment)
    if stated:
        return stated
    words = words_of(comment[:MAX_CHARACTERS])
    found = {item.name for item in _TEXTS if _is(words, item)}
    return _spelled({*(found or _called(words, _CALLED)), *_called(words, _OTHERS)}, words, True)


def both(expressions: Iterable[str]) -> str:
    """The licence of what is under each of these."""
    found = sorted(set(expressions))
    return " AND ".join(f"({one})" if " OR " in one and len(found) > 1 else one for one in found)


def allows(expression: str, kept: Collection[str]) -> bool:
    """Whether an SPDX expression lets a file be used under licences that are `kept`: of `OR` one must be kept, of `AND`
    all; what follows `WITH` only adds permissions. Names' case is nothing. False for what is no expression."""
    names = {name.lower() for name in kept}
    tokens = _TOKEN.findall(expression[:MAX_CHARACTERS])
    answer, rest = _either(tokens, 0, names, 0)
    return answer and rest == len(tokens)


def _either(tokens: list[str], place: int, names: set[str], depth: int) -> tuple[bool, int]:
    """The value of alternatives that begin at a token, and where they end; behind all tokens if they are none."""
    answer, place = _all(tokens, place, names, depth)
    while place < len(tokens) and tokens[place].upper() == "OR":
        other, place = _all(tokens, place + 1, names, depth)
        answer = answer or other
    return answer, place


def _all(tokens: list[str], place: int, names: set[str], depth: int) -> tuple[bool, int]:
    answer, place = _one(tokens, place, names, depth)
    while place < len(tokens) and tokens[place].upper() == "AND":
        other, place = _one(tokens, place + 1, names, depth)
        answer = answer and other
    return answer, place


def _one(tokens: list[str], place: int, names: set[str], depth: int) -> tuple[bool, int]:
    broken = (False, len(tokens) + 1)
    if place >= len(tokens) or tokens[place].upper() in ("AND", "OR", "WITH", ")"):
        return broken
    if tokens[place] == "(":
        if depth == DEPTH:
            return broken
        answer, place = _either(tokens, place + 1, names, depth + 1)
        return (answer, place + 1) if place < len(tokens) and tokens[place] == ")" else broken
    answer = tokens[place].lower() in names
    if place + 1 < len(tokens) and tokens[place + 1].upper() == "WITH":
        return (answer, place + 3) if place + 2 < len(tokens) else broken
    return answer, place + 1


def _stated(text: str) -> str:
    """What a text's SPDX lines say; all of them, if there are several."""
    found = dict.fromkeys(" ".join(line.split()).rstrip(" -") for line in _SPDX.findall(text[:MAX_CHARACTERS]))
    return both(one for one in found if one)


def _is(words: str, text: _Text) -> bool:
    return all(phrase in words for phrase in text.phrases) and not any(phrase in words for phrase in text.without)


def _count(words: str, text: _Text) -> int:
    return words.count(text.phrases[0])


def _called(words: str, table: dict[str, tuple[str, ...]]) -> set[str]:
    return {name for name, phrases in table.items() if any(f" {phrase} " in words for phrase in phrases)}


def _spelled(names: set[str], words: str, may_choose: bool) -> str:
    choice = may_choose and any(f" {phrase} " in words for phrase in _CHOICE)
    return (" OR " if choice else " AND ").join(sorted(names))
