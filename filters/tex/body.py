"""The body and the title of a paper's TeX, and its accented letters as Unicode.

LLaMA "removed everything before the first section, as well as the bibliography" (section 2.1). `text` is always
without comments, false branches and definitions, its macros expanded.
"""

import re
import unicodedata
from itertools import islice
from typing import Literal

from filters.tex.plain import find_title_page, harvmac_title, skip_preamble, strip_references
from filters.tex.source import compile_control, find_all, find_group_end

STUB_CHARACTERS = 1_000  # a shorter paper that says it was withdrawn is a notice

_BLANKS = r"[ \t\n]{0,9}"
_OPTION = rf"(?:\[[^\]]{{0,500}}\]{_BLANKS})?"
_SECTION = compile_control(
    r"(?:(?:chapter|part|section|subsection|subsubsection|paragraph|subparagraph|newsec|subsec|subsubsec|sectionhead"
    rf"|subheading)(?![a-zA-Z@])\*?{_BLANKS}{_OPTION}\{{|beginsection(?![a-zA-Z@])"
    rf"|(?:head|heading|subhead|subsubhead|specialhead)(?![a-zA-Z@])(?=[^{{}}]{{0,300}}?\\end\w{{0,10}}head)"
    rf"){_BLANKS}([^{{}}\n]{{0,40}})"
)
# Titles of sections that end a paper: letters have these and no others.
_CLOSES = re.compile(
    r"(?:\\[a-zA-Z]+\*?[ \t]?|[^a-zA-Z\\]){0,9}(?:acknowledg|references?\b|bibliography|literature cited)",
    re.IGNORECASE,
)
_BEGIN = compile_control(r"begin[ \t]{0,9}\{document\}|document(?![a-zA-Z@])")
_END = compile_control(r"end[ \t]{0,9}\{document\}|(?:enddocument|bye)(?![a-zA-Z@])")
_PLAIN_END = compile_control(rf"end(?![a-zA-Z@])(?!{_BLANKS}\{{)")
_FRONT = compile_control(
    r"(?:maketitle|endtopmatter|endabstract)(?![a-zA-Z@])|end[ \t]{0,9}\{(?:abstract|frontmatter)\}"
)
_LIST = compile_control(
    r"begin[ \t]{0,9}\{((?:the|num|chapthe)?bibliography|(?:the)?references|REFERENCES|reflist|bibdiv|biblist)\}"
    r"|(Refs|thebibliography|numbibliography|references)(?![a-zA-Z@])"
)
_CALL = compile_control(
    r"(?:bibliography|bibliographystyle|printbibliography|nobibliography|addbibresource)(?![a-zA-Z@])\*?"
    rf"[ \t]{{0,9}}{_OPTION}(?:\{{[^{{}}]{{0,1000}}\}})?"
)
_APPENDIX = compile_control(r"appendix(?![a-zA-Z@])|begin[ \t]{0,9}\{(?:appendix|appendices|subappendices)\}")
_NO_WORDS = re.compile(
    r"\\include(?:pdf|pdfmerge|graphics)(?![a-zA-Z@])\*?[ \t]{0,9}(?:\[[^\]]{0,300}\])?[ \t]{0,9}(?:\{[^{}]{0,300}\})?"
    r"|\\(?:begin|end|pagestyle|thispagestyle|label|input|include)[ \t]{0,9}\{[^{}]{0,100}\}|\\[a-zA-Z@]+"
)
_EMPTY_LINES = re.compile(r"\n{3,}")

TITLE_CHARACTERS = 500  # of a title without notes
GROUP_CHARACTERS = 2_000  # of a title as typed, notes included
TITLES = 20  # examined, of which the first with text is taken

_TITLE = compile_control(r"(?:title|Title|icmltitle)(?![a-zA-Z@*])[ \t\n]{0,9}(?:\[[^\]]{0,500}\][ \t\n]{0,9})?(?=\{)")
_TITLE_AMS = compile_control(r"title(?![a-zA-Z@])([^{}\\]{1,500})\\endtitle(?![a-zA-Z@])")
_NOTE = re.compile(
    r"\\(?:thanks|footnote|footnotemark|footnotetext|inst|tnoteref|label|vspace|vskip|hspace)(?![a-zA-Z@])\*?"
)
_LAYOUT = re.compile(
    r"\\(?:\\(?:\[[^\]]{0,20}\])?|(?:large|Large|LARGE|huge|Huge|bf|bfseries|boldmath|rm|sc|sf|tt|it|centering|newline"
    r"|break|linebreak|centerline|vbox|hbox)(?![a-zA-Z@]))|~"
)

# Letters that TeX spells with commands: \'e, \"{o}, \c c, \ss (The TeXbook, chapter 9; others of LaTeX's encoding T1).
ACCENTS = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", "=": "\u0304", "u": "\u0306", ".": "\u0307",
    '"': "\u0308", "r": "\u030a", "H": "\u030b", "v": "\u030c", "d": "\u0323", "c": "\u0327",
    "k": "\u0328", "b": "\u0331",
}  # fmt: skip
LETTERS = {
    "ss": "ß", "o": "ø", "O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "l": "ł",
    "L": "Ł", "i": "ı", "j": "ȷ", "dh": "ð", "DH": "Ð", "th": "þ", "TH": "Þ", "dj": "đ", "DJ": "Đ", "ng": "ŋ",
    "NG": "Ŋ",
    "SS": "ẞ",
}  # fmt: skip

_SPELLED = re.compile(
    r"\\(?:\\|(?:([`'^~=.\"])[ \t]{0,9}|([uHrvdckb])(?![a-zA-Z@])[ \t]{0,9})"
    r"(?:\{[ \t]{0,9}(?:([a-zA-Z])|\\([ij])(?![a-zA-Z@]))[ \t]{0,9}\}|([a-zA-Z])"
    r"|\\([ij])(?![a-zA-Z@])(?:\{\}|[ \t]{0,9}))"
    r"|(ss|ae|AE|oe|OE|aa|AA|dh|DH|th|TH|dj|DJ|ng|NG|SS|[oOlLij])(?![a-zA-Z@])(?:\{\}|[ \t]{1,9})?)"
)


def extract_body(text: str, appendix: Literal["keep", "drop"]) -> str:
    r"""Return the body of a paper, "" without one.

    It begins with the first section of the document (\chapter to \subparagraph with a title in braces, plain TeX's
    \beginsection, AMS-TeX's \head, harvmac's \newsec), the headings of acknowledgements and references aside. A paper
    without one, such as a letter, begins after its abstract, \maketitle or title page, whichever comes last, else with
    the document, which in plain TeX is behind its settings. It ends with the document; bibliographies are removed
    wherever they are, and the text after one stays. `appendix` tells if it stays.
    """
    begin, stop = _find_document(text)
    if appendix == "drop":
        stop = next((mark.start() for mark in find_all(_APPENDIX, text, begin, stop)), stop)
    sections = find_all(_SECTION, text, begin, stop)
    first = next((mark.start() for mark in sections if not _CLOSES.match(mark[1])), None)
    if first is None:
        first = max((mark.end() for mark in find_all(_FRONT, text, begin, stop)), default=begin)
        first = max(first, find_title_page(text, begin, stop))
        if not _is_latex(text):
            first = min(skip_preamble(text, first), stop)
    inner = strip_references(_strip_bibliographies(text[first:stop]))
    lines = "\n".join(line.rstrip() for line in inner.split("\n"))
    kept = _EMPTY_LINES.sub("\n\n", lines).strip()
    return kept if any(character.isalpha() for character in _NO_WORDS.sub(" ", kept)) else ""


def is_document(text: str) -> bool:
    """Return True if a text has a mark of a document: its start, end, title page or a section."""
    marks = (_BEGIN, _END, _PLAIN_END, _FRONT, _SECTION)
    return any(next(find_all(mark, text), None) is not None for mark in marks)


def _is_latex(text: str) -> bool:
    begin = next(find_all(_BEGIN, text), None)
    return begin is not None and begin[0].startswith("\\begin")


def is_notice(paper: str) -> bool:
    """Return True if all that is left of a paper is a notice that it was withdrawn."""
    return len(paper) < STUB_CHARACTERS and "withdrawn" in paper.lower()


def _find_document(text: str) -> tuple[int, int]:
    """Return the document's start and end: LaTeX's, AMS-TeX's, or plain TeX's, which does not mark its start."""
    begin = next(find_all(_BEGIN, text), None)
    start = begin.end() if begin else 0
    end = next(find_all(_END, text, start), None)
    if begin is None and end is None:
        end = next(find_all(_PLAIN_END, text), None)
    return start, end.start() if end else len(text)


def _strip_bibliographies(text: str) -> str:
    """Remove lists of references and the commands that print or style one. A list without an end extends to the end."""
    out: list[str] = []
    start = 0
    for mark in find_all(_LIST, text):
        if mark.start() < start:
            continue
        ending = f"\\end{{{mark[1]}}}" if mark[1] else f"\\end{mark[2]}"
        close = text.find(ending, mark.end())
        out.append(text[start : mark.start()])
        start = len(text) if close < 0 else close + len(ending)
    out.append(text[start:])
    return _CALL.sub(lambda mark: mark[0] if mark["found"] is None else "", "".join(out))


def extract_title(text: str) -> str:
    """Return a paper's title on one line, as TeX, without notes and font changes; "" without one or if it is too long.

    `text` is as `extract_body` takes it.
    """
    if title := _clean_title(harvmac_title(text)):
        return title
    for mark in islice(find_all(_TITLE, text), TITLES):
        stop = find_group_end(text, mark.end(), GROUP_CHARACTERS)
        found = _clean_title(text[mark.end() + 1 : stop - 1]) if stop > 0 else ""
        if found:
            return found
    return next((_clean_title(mark[1]) for mark in find_all(_TITLE_AMS, text)), "")


def _clean_title(found: str) -> str:
    out: list[str] = []
    start = 0
    for mark in _NOTE.finditer(found):
        if mark.start() >= start:
            out.append(found[start : mark.start()])
            start = (
                max(find_group_end(found, mark.end(), len(found)), mark.end())
                if found[mark.end() :][:1] == "{"
                else mark.end()
            )
    plain = " ".join(_LAYOUT.sub(" ", "".join([*out, found[start:]])).split())
    return plain if len(plain) <= TITLE_CHARACTERS else ""


def replace_accents(text: str) -> str:
    """Replace commands for accented letters by the letters. Blanks that end a command's name go with it.

    Commands without a letter in Unicode stay unchanged; so do the marks of tabbing, which no letter follows.
    """
    return _SPELLED.sub(_compose_letter, text)


def _compose_letter(spelled: re.Match[str]) -> str:
    accent, letter = spelled[1] or spelled[2], spelled[3] or spelled[4] or spelled[5] or spelled[6]
    if spelled[7]:
        return LETTERS[spelled[7]]
    if accent is None:
        return spelled[0]
    composed = unicodedata.normalize("NFC", letter + ACCENTS[accent])
    return composed if len(composed) == 1 else spelled[0]
