"""Which part of a paper's TeX is the paper: LLaMA "removed everything before the first section, as well as the
bibliography" (section 2.1). `text` is always without comments, false branches and definitions, its macros written out.
"""

import re
from typing import Literal

STUB_CHARACTERS = 1_000
"""a shorter paper that says it was withdrawn is a notice"""
TITLE_CHARACTERS = 500

_SECTION = re.compile(
    r"\\(?:\\|(?:(?:chapter|part|section|subsection|subsubsection|paragraph|subparagraph)(?![a-zA-Z@])\*?[ \t\n]{0,9}"
    r"(?:\[[^\]]{0,500}\][ \t\n]{0,9})?\{|beginsection(?![a-zA-Z@]))[ \t\n]{0,9}([^{}\n]{0,40}))"
)
_NOT_FIRST = re.compile(
    r"(?:\\[a-zA-Z]+\*?[ \t]?|[^a-zA-Z\\]){0,9}(acknowledg|references?\W|bibliography|literature cited)", re.IGNORECASE
)
"""titles of sections that close a paper: letters have these and no others"""
_BEGIN = re.compile(r"\\(?:\\|(?:begin[ \t]{0,9}\{document\}|document(?![a-zA-Z@]))())")
_END = re.compile(r"\\(?:\\|(?:end[ \t]{0,9}\{document\}|(?:enddocument|bye)(?![a-zA-Z@]))())")
_PLAIN_END = re.compile(r"\\(?:\\|end(?![a-zA-Z@])(?![ \t\n]{0,9}\{)())")
_FRONT = re.compile(
    r"\\(?:\\|(?:maketitle|endtopmatter|endabstract|end[ \t]{0,9}\{abstract\}|end[ \t]{0,9}\{frontmatter\})(?![a-zA-Z@])())"
)
_LIST = re.compile(
    r"\\(?:\\|begin[ \t]{0,9}\{(thebibliography|references|REFERENCES|bibliography|chapthebibliography|bibdiv|biblist)\}|(Refs)(?![a-zA-Z@]))"
)
_CALL = re.compile(
    r"\\(?:\\|(?:bibliography|bibliographystyle|printbibliography|nobibliography|addbibresource|bibliographyunit)(?![a-zA-Z@])\*?"
    r"[ \t]{0,9}(?:\[[^\]]{0,200}\])?[ \t]{0,9}(?:\{[^{}]{0,1000}\})?())"
)
_APPENDIX = re.compile(r"\\(?:\\|(?:appendix(?![a-zA-Z@])|begin[ \t]{0,9}\{(?:appendix|appendices|subappendices)\})())")
_TITLE = re.compile(
    r"\\(?:\\|(?:title|Title|icmltitle|titlerunning)(?![a-zA-Z@*])[ \t\n]{0,9}(?:\[[^\]]{0,500}\][ \t\n]{0,9})?(\{))"
)
_TITLE_AMS = re.compile(r"\\(?:\\|title(?![a-zA-Z@])()([^{}]{1,500}?)\\endtitle)")
_THANKS = re.compile(r"\\(?:thanks|footnote|footnotemark|footnotetext|inst|tnoteref|label|vspace|vskip|hspace)\*?")
_LAYOUT = re.compile(
    r"\\(?:\\(?:\[[^\]]{0,20}\])?|(?:large|Large|LARGE|huge|Huge|bf|bfseries|boldmath|rm|sc|sf|tt|it|centering|newline|break|linebreak)(?![a-zA-Z@]))|~"
)
_PICTURE = re.compile(
    r"\\include(?:pdf|pdfmerge|graphics)(?![a-zA-Z@])\*?[ \t]{0,9}(?:\[[^\]]{0,300}\])?[ \t]{0,9}(?:\{[^{}]{0,300}\})?"
    r"|\\(?:begin|end)[ \t]{0,9}\{[^{}]{0,40}\}|\\(?:pagestyle|thispagestyle|label|input|include)[ \t]{0,9}\{[^{}]{0,100}\}|\\[a-zA-Z@]+"
)
_BLANK_LINES = re.compile(r"\n{3,}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def body(text: str, appendix: Literal["keep", "drop"]) -> str:
    """The body of a paper; empty if there is none.

    It begins with the first section (\\chapter to \\subparagraph, or plain TeX's \\beginsection, with a title in braces)
    of the document, the headings of acknowledgements and references aside. A paper without one, such as a letter,
    begins behind its abstract or \\maketitle, whichever comes later, else with the document. It ends with the document;
    bibliographies are taken out wherever they stand, and what follows one stays. `appendix`: the paper keeps it;
    RedPajama cuts there.
    """
    begin, stop = _document(text)
    if appendix == "drop":
        stop = next(_found(_APPENDIX, text, begin, stop), (stop, stop))[0]
    section = next((mark.start() for mark in _SECTION.finditer(text, begin, stop) if _opens(mark)), None)
    if section is None:
        section = max((end for _, end in _found(_FRONT, text, begin, stop)), default=begin)
    inner = _without_bibliographies(text[section:stop])
    lines = "\n".join(line.rstrip() for line in inner.split("\n"))
    kept = _BLANK_LINES.sub("\n\n", lines).strip()
    return kept if _says_something(kept) else ""


def is_notice(paper: str) -> bool:
    """Whether all that is left of a paper is that it was withdrawn."""
    return len(paper) < STUB_CHARACTERS and "withdrawn" in paper.lower()


def title(text: str) -> str:
    """The title that a paper states, on one line, as TeX; empty if none or an overlong one."""
    for mark in _TITLE.finditer(text):
        if mark[1]:
            stop = _closing(text, mark.end() - 1)
            found = _plain_title(text[mark.end() : stop]) if stop >= 0 else ""
            if found:
                return found
    ams = next((mark[2] for mark in _TITLE_AMS.finditer(text) if mark[2]), "")
    return _plain_title(ams)


def _document(text: str) -> tuple[int, int]:
    """Where the document begins and ends."""
    begin = next(_found(_BEGIN, text, 0, len(text)), None)
    start = begin[1] if begin else 0
    end = next(_found(_END, text, start, len(text)), None)
    if end is None and begin is None:
        end = next(_found(_PLAIN_END, text, 0, len(text)), None)
    return start, end[0] if end else len(text)


def _found(pattern: re.Pattern[str], text: str, start: int, stop: int):  # type: ignore[no-untyped-def]
    """Where a command stands; the patterns also match \\\\, which begins none, and so has no group."""
    return ((mark.start(), mark.end()) for mark in pattern.finditer(text, start, stop) if mark.lastindex)


def _opens(mark: re.Match[str]) -> bool:
    """Whether a section may be a paper's first."""
    return mark[1] is not None and _NOT_FIRST.match(mark[1]) is None


def _without_bibliographies(text: str) -> str:
    out: list[str] = []
    start = seen = 0
    while mark := _LIST.search(text, seen):
        seen = mark.end()
        if not mark.lastindex:
            continue
        ending = f"\\end{{{mark[1]}}}" if mark[1] else "\\endRefs"
        close = text.find(ending, seen)
        out.append(text[start : mark.start()])
        start = seen = len(text) if close < 0 else close + len(ending)
    out.append(text[start:])
    return _CALL.sub(lambda mark: mark[0] if mark.lastindex is None else "", "".join(out))


def _says_something(text: str) -> bool:
    """Whether there is a word besides commands and pictures."""
    return any(character.isalpha() for character in _PICTURE.sub(" ", text))


def _closing(text: str, position: int) -> int:
    """Where a short group closes; -1 if it does not."""
    depth = 0
    for brace in _BRACE.finditer(text, position, position + 4 * TITLE_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return -1


def _plain_title(found: str) -> str:
    while mark := _THANKS.search(found):
        stop = _closing(found, mark.end()) if found[mark.end() : mark.end() + 1] == "{" else mark.end() - 1
        found = found[: mark.start()] + found[max(stop, mark.end() - 1) + 1 :]
    plain = " ".join(_LAYOUT.sub(" ", found).split()).strip("{} ")
    return plain if len(plain) <= TITLE_CHARACTERS else ""
