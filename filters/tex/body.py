"""Which part of a paper's TeX is the paper: LLaMA "removed everything before the first section, as well as the
bibliography" (section 2.1). `text` is always without comments, false branches and definitions, its macros written out.
"""

import re
from typing import Literal

from filters.tex.tokens import control, occurrences

STUB_CHARACTERS = 1_000
"""a shorter paper that says it was withdrawn is a notice"""

_BLANKS = r"[ \t\n]{0,9}"
_OPTION = rf"(?:\[[^\]]{{0,500}}\]{_BLANKS})?"
_SECTION = control(
    r"(?:(?:chapter|part|section|subsection|subsubsection|paragraph|subparagraph)(?![a-zA-Z@])\*?"
    rf"{_BLANKS}{_OPTION}\{{|beginsection(?![a-zA-Z@])){_BLANKS}([^{{}}\n]{{0,40}})"
)
_CLOSES = re.compile(
    r"(?:\\[a-zA-Z]+\*?[ \t]?|[^a-zA-Z\\]){0,9}(?:acknowledg|references?\b|bibliography|literature cited)",
    re.IGNORECASE,
)
"""titles of sections that end a paper: letters have these and no others"""
_BEGIN = control(r"begin[ \t]{0,9}\{document\}|document(?![a-zA-Z@])")
_END = control(r"end[ \t]{0,9}\{document\}|(?:enddocument|bye)(?![a-zA-Z@])")
_PLAIN_END = control(rf"end(?![a-zA-Z@])(?!{_BLANKS}\{{)")
_FRONT = control(r"(?:maketitle|endtopmatter|endabstract)(?![a-zA-Z@])|end[ \t]{0,9}\{(?:abstract|frontmatter)\}")
_LIST = control(
    r"begin[ \t]{0,9}\{(thebibliography|references|REFERENCES|bibliography|chapthebibliography|bibdiv|biblist)\}"
    r"|Refs(?![a-zA-Z@])"
)
_CALL = control(
    r"(?:bibliography|bibliographystyle|printbibliography|nobibliography|addbibresource)(?![a-zA-Z@])\*?"
    rf"[ \t]{{0,9}}{_OPTION}(?:\{{[^{{}}]{{0,1000}}\}})?"
)
_APPENDIX = control(r"appendix(?![a-zA-Z@])|begin[ \t]{0,9}\{(?:appendix|appendices|subappendices)\}")
_NO_WORDS = re.compile(
    r"\\include(?:pdf|pdfmerge|graphics)(?![a-zA-Z@])\*?[ \t]{0,9}(?:\[[^\]]{0,300}\])?[ \t]{0,9}(?:\{[^{}]{0,300}\})?"
    r"|\\(?:begin|end|pagestyle|thispagestyle|label|input|include)[ \t]{0,9}\{[^{}]{0,100}\}|\\[a-zA-Z@]+"
)
_EMPTY_LINES = re.compile(r"\n{3,}")


def body(text: str, appendix: Literal["keep", "drop"]) -> str:
    """The body of a paper; empty if there is none.

    It begins with the first section (\\chapter to \\subparagraph with a title in braces, or plain TeX's \\beginsection)
    of the document, the headings of acknowledgements and references aside. A paper without one, such as a letter,
    begins behind its abstract or \\maketitle, whichever comes later, else with the document. It ends with the document;
    bibliographies are taken out wherever they stand, and what follows one stays. `appendix`: whether it stays.
    """
    begin, stop = _document(text)
    if appendix == "drop":
        stop = next((mark.start() for mark in occurrences(_APPENDIX, text, begin, stop)), stop)
    sections = occurrences(_SECTION, text, begin, stop)
    first = next((mark.start() for mark in sections if not _CLOSES.match(mark[1])), None)
    if first is None:
        first = max((mark.end() for mark in occurrences(_FRONT, text, begin, stop)), default=begin)
    inner = _without_bibliographies(text[first:stop])
    lines = "\n".join(line.rstrip() for line in inner.split("\n"))
    kept = _EMPTY_LINES.sub("\n\n", lines).strip()
    return kept if any(character.isalpha() for character in _NO_WORDS.sub(" ", kept)) else ""


def is_notice(paper: str) -> bool:
    """Whether all that is left of a paper is that it was withdrawn."""
    return len(paper) < STUB_CHARACTERS and "withdrawn" in paper.lower()


def _document(text: str) -> tuple[int, int]:
    """Where the document begins and ends: LaTeX's, AMS-TeX's, or plain TeX's, which has no mark for its beginning."""
    begin = next(occurrences(_BEGIN, text), None)
    start = begin.end() if begin else 0
    end = next(occurrences(_END, text, start), None)
    if begin is None and end is None:
        end = next(occurrences(_PLAIN_END, text), None)
    return start, end.start() if end else len(text)


def _without_bibliographies(text: str) -> str:
    """Text without lists of references, of which one that does not end goes on to the end, and without the commands
    that print or style one."""
    out: list[str] = []
    start = 0
    for mark in occurrences(_LIST, text):
        if mark.start() < start:
            continue
        ending = f"\\end{{{mark[1]}}}" if mark[1] else "\\endRefs"
        close = text.find(ending, mark.end())
        out.append(text[start : mark.start()])
        start = len(text) if close < 0 else close + len(ending)
    out.append(text[start:])
    return _CALL.sub(lambda mark: mark[0] if mark["found"] is None else "", "".join(out))
