"""The title that a paper's TeX states."""

import re
from itertools import islice

from filters.tex.tokens import closing, control, occurrences

TITLE_CHARACTERS = 500
GROUP_CHARACTERS = 2_000
"""of a title as it is typed, notes included"""
LOOKED_AT = 20
"""titles, of which the first that is one is taken"""

_TITLE = control(r"(?:title|Title|icmltitle)(?![a-zA-Z@*])[ \t\n]{0,9}(?:\[[^\]]{0,500}\][ \t\n]{0,9})?(?=\{)")
_TITLE_AMS = control(r"title(?![a-zA-Z@])([^{}\\]{1,500})\\endtitle(?![a-zA-Z@])")
_NOTE = re.compile(
    r"\\(?:thanks|footnote|footnotemark|footnotetext|inst|tnoteref|label|vspace|vskip|hspace)(?![a-zA-Z@])\*?"
)
_LAYOUT = re.compile(
    r"\\(?:\\(?:\[[^\]]{0,20}\])?|(?:large|Large|LARGE|huge|Huge|bf|bfseries|boldmath|rm|sc|sf|tt|it|centering|newline"
    r"|break|linebreak)(?![a-zA-Z@]))|~"
)


def title(text: str) -> str:
    """The title that a paper states, on one line, as TeX, without notes and changes of font; empty if none, or an
    overlong one. `text`: as `filters.tex.body.body` takes it."""
    for mark in islice(occurrences(_TITLE, text), LOOKED_AT):
        stop = closing(text, mark.end(), GROUP_CHARACTERS)
        found = _plain(text[mark.end() + 1 : stop - 1]) if stop > 0 else ""
        if found:
            return found
    return next((_plain(mark[1]) for mark in occurrences(_TITLE_AMS, text)), "")


def _plain(found: str) -> str:
    out: list[str] = []
    start = 0
    for mark in _NOTE.finditer(found):
        if mark.start() >= start:
            out.append(found[start : mark.start()])
            start = (
                max(closing(found, mark.end(), len(found)), mark.end())
                if found[mark.end() :][:1] == "{"
                else mark.end()
            )
    plain = " ".join(_LAYOUT.sub(" ", "".join([*out, found[start:]])).split())
    return plain if len(plain) <= TITLE_CHARACTERS else ""
