r"""Extract the body and the title of a TeX paper, and replace TeX's accented letters by Unicode.

LLaMA "removed everything before the first section, as well as the bibliography" (section 2.1). LaTeX encloses a
document and its bibliography in environments. Older papers in plain TeX, AMS-TeX or harvmac set registers and fonts
before the text, and list the references as items. The rules for older papers follow The TeXbook (chapter 24 and
appendix B), the amsppt user's guide, and the comments in harvmac's source.

The parameter `text` of all functions is TeX without comments, without branches that are never taken and without
definitions, in which macros are expanded.
"""

import re
import unicodedata
from itertools import islice
from typing import Literal

from filters.data_files import merge_items
from filters.tex.source import TABLES, compile_control, cut, find_all, find_first, find_group_end

# Groups without an end after which the search for group ends stops: such a file is damaged or hostile.
UNCLOSED = 100
GROUP_CHARACTERS = 4_000  # the longest argument in a preamble, and the longest reference
HEADING_CHARACTERS = 160  # the longest line that is a heading "References", including font commands
ENTRY_CHARACTERS = 800  # the longest reference that is not marked as an item
GAP_CHARACTERS = 400  # the next item of a list begins within this distance
REFERENCE_ITEMS = 3  # a list with fewer items below the heading "References" is kept
WORDS_PER_DEFINITION = 5  # a file with fewer words per definition, outside definitions, is a file of macros
STUB_CHARACTERS = 1_000  # a paper that is shorter than this and contains "withdrawn" is a withdrawal notice

_BLANKS = r"[ \t\n]{0,9}"
_OPTION = rf"(?:\[[^\]]{{0,500}}\]{_BLANKS})?"
# \paragraph is not a section: letters use it for run-in headings between paragraphs of text, and abstracts use it for
# "Keywords".
_SECTION = compile_control(
    r"(?:(?:chapter|part|section|subsection|subsubsection|newsec|subsec|subsubsec|sectionhead"
    rf"|subheading)(?![a-zA-Z@])\*?{_BLANKS}{_OPTION}\{{|beginsection(?![a-zA-Z@])"
    rf"|(?:head|heading|subhead|subsubhead|specialhead)(?![a-zA-Z@])(?=[^{{}}]{{0,300}}?\\end\w{{0,10}}head)"
    rf"){_BLANKS}([^{{}}\n]{{0,40}})"
)
# Titles of sections at the end of a paper. In letters they are the only sections.
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
_KEYWORDS = re.compile(
    rf"\s*+(?:\\(?:keywords?|pacs|PACS|subjclass|amsclass)(?![a-zA-Z@])\*?{_BLANKS}{_OPTION}\{{[^{{}}]{{0,1000}}\}}"
    r"|\\begin\{(keywords?|IEEEkeywords|pacs|PACS)\}(?s:.){0,1000}?\\end\{\1\})"
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

TITLE_CHARACTERS = 500  # the longest title, without notes
TITLE_SOURCE_CHARACTERS = 2_000  # the longest title in TeX, including notes
TITLES = 20  # title commands that are examined; the first title with text is returned

_TITLE = compile_control(r"(?:title|Title|icmltitle)(?![a-zA-Z@*])[ \t\n]{0,9}(?:\[[^\]]{0,500}\][ \t\n]{0,9})?(?=\{)")
_TITLE_AMS = compile_control(r"title(?![a-zA-Z@])([^{}\\]{1,500})\\endtitle(?![a-zA-Z@])")
_NOTE = re.compile(
    r"\\(?:thanks|footnote|footnotemark|footnotetext|inst|tnoteref|label|vspace|vskip|hspace)(?![a-zA-Z@])\*?"
)
_LAYOUT = re.compile(
    r"\\(?:\\(?:\[[^\]]{0,20}\])?|(?:large|Large|LARGE|huge|Huge|bf|bfseries|boldmath|rm|sc|sf|tt|it|centering|newline"
    r"|break|linebreak|centerline|vbox|hbox)(?![a-zA-Z@]))|~"
)

# Letters that TeX writes as commands: \'e, \"{o}, \c c, \ss. From The TeXbook, chapter 9, and LaTeX's encoding T1.
ACCENTS = {command: chr(int(code, 16)) for code, commands in TABLES["accent"].items() for command in commands}
LETTERS = {command: letter for letter, commands in TABLES["letter"].items() for command in commands}
_SPELLED = re.compile(
    r"\\(?:\\|(?:([`'^~=.\"])[ \t]{0,9}|([uHrvdckb])(?![a-zA-Z@])[ \t]{0,9})"
    r"(?:\{[ \t]{0,9}(?:([a-zA-Z])|\\([ij])(?![a-zA-Z@]))[ \t]{0,9}\}|([a-zA-Z])"
    r"|\\([ij])(?![a-zA-Z@])(?:\{\}|[ \t]{0,9}))"
    rf"|({'|'.join(LETTERS)})(?![a-zA-Z@])(?:\{{\}}|[ \t]{{1,9}})?)"
)

# --- plain TeX, AMS-TeX and harvmac: preambles, reference lists, macro files ---

_UNIT = r"(?:true)?[ \t]{0,9}(?:pt|in|cm|mm|pc|bp|em|ex|sp|dd|cc|fil+|mu)(?![a-zA-Z])"
_LENGTH = rf"[-+]?[ \t]{{0,9}}(?:[0-9.,]{{1,12}}[ \t]{{0,9}}(?:{_UNIT})?|[0-9.]{{0,9}}\\[a-zA-Z@]{{1,40}}[0-9]?)"
_VALUE = rf"{_LENGTH}(?:[ \t]{{1,9}}(?:plus|minus)[ \t]{{0,9}}{_LENGTH}){{0,2}}"
# Commands that print nothing. They stand alone, or before a value, a name or a file.
_SWITCH = "|".join(TABLES["switch"]["*"])
_REGISTER = "|".join(TABLES["register"]["*"])
_STATEMENT = re.compile(
    rf"""\s*+(?:
    \\new(?:dimen|count|skip|muskip|box|toks|read|write|fam|if|insert)(?![a-zA-Z@]){_BLANKS}\\[a-zA-Z@]{{1,40}}
    |\\font(?![a-zA-Z@]){_BLANKS}\\[a-zA-Z@]{{1,40}}{_BLANKS}=?{_BLANKS}[\w-]{{1,40}}
        (?:[ \t]{{0,9}}scaled[ \t]{{0,9}}(?:\\[a-zA-Z]{{1,40}}[ \t]{{0,9}}[0-9]?|[0-9]{{1,5}})
        |[ \t]{{1,9}}at[ \t]{{0,9}}{_LENGTH})?
    |\\(?:input|openin|openout)(?![a-zA-Z@])[ \t]{{1,9}}[\w./-]{{1,80}}
    |\\catcode[ \t]{{0,9}}`?\\?.[ \t]{{0,9}}=?[ \t]{{0,9}}(?:\\[a-z]{{1,20}}|[0-9]{{1,3}})
    |\\(?:chardef|mathchardef|countdef|dimendef|skipdef|toksdef)(?![a-zA-Z@])\\[a-zA-Z@]{{1,40}}
        [ \t]{{0,9}}=?[ \t]{{0,9}}["'`]?\\?\w{{1,9}}
    |\\(?:(?:text|script|scriptscript)font|skewchar|hyphenchar|fam|mathcode|delcode|lccode|uccode)[^\n=]{{0,40}}={_BLANKS}
        (?:["'`]?\\?[\w@-]{{1,40}})
    |\\(?:{_REGISTER})(?![a-zA-Z@]){_BLANKS}(?:by(?![a-z]))?=?{_BLANKS}{_VALUE}
    |\\[a-zA-Z@]{{1,40}}[ \t]{{0,9}}={_BLANKS}{_VALUE}
    |\\(?:{_SWITCH})(?![a-zA-Z@])
    |\\documentstyle(?![a-zA-Z@])[ \t]{{0,9}}\{{[^{{}}\n]{{0,99}}\}}
    |[{{}}](?=\s*+\\(?:new|font|catcode|hsize|input))
    )""",
    re.VERBOSE,
)
# Commands of a preamble whose argument, if it is a group, is removed with them.
_GROUPS = re.compile(
    r"\s*+\\(?:headline|footline|output|everypar|everymath|everydisplay|pageheight|pagewidth|hcorrection|vcorrection"
    r"|refstyle|leftheadtext|rightheadtext|message|immediate[ \t]{0,9}\\write[0-9-]{1,4}|write[0-9-]{1,4}|hyphenation"
    r"|special|baselinestretch|headtitle|headauthor|errmessage|font)(?![a-zA-Z@])[ \t]{0,9}=?\s*+(?=\{)"
)

_HARVMAC_TITLE = compile_control(rf"Title(?![a-zA-Z@]){_BLANKS}(?=\{{)")
_HARVMAC_DATE = compile_control(rf"Date(?![a-zA-Z@]){_BLANKS}(?=\{{)")

_AMS_REFERENCE = compile_control(rf"ref{_BLANKS}\\(?:key|no|by|manyby|bysame|paper|book)(?![a-zA-Z@])")
_END_REFERENCE = re.compile(r"\\endref")
# In harvmac and phyzzx, a reference is typed where it is cited first. `_CITED` matches commands that print a citation
# at this position, `_UNCITED` commands that print none.
_CITED = compile_control(rf"(?:ref|Ref)(?![a-zA-Z@])[ \t]{{0,9}}(\\[a-zA-Z@]{{1,40}}){_BLANKS}(?=\{{)")
_UNCITED = compile_control(
    rf"(?:[nlrs]ref|REF|REFS|REFSCON|refadd)(?![a-zA-Z@])[ \t]{{0,9}}(\\[a-zA-Z@]{{1,40}}){_BLANKS}(?=\{{)"
)
_PRINTS = compile_control(
    r"(?:listrefs|listfigs|listtoc|writetoc|refout|figout|footatend|centerline\{\}|endref)(?![a-zA-Z@])"
)

_WORDS = merge_items(TABLES["references heading"])
_DECORATION = re.compile(r"\\[a-zA-Z@]+[ \t]?|\\.|[^\w]|[\d_]|(?:true)?(?:pt|cm|mm)(?![a-zA-Z])")
_ITEM = re.compile(
    r"^[ \t]*+(?:\\(?:noindent|par|smallskip|medskip|hang)(?![a-zA-Z@])[ \t]*+)*"
    r"(?:\\(?:item|itemitem|bibitem|refitem|refis|reftext|rf|bib|textindent)(?![a-zA-Z@])|[\[(]?[0-9]{1,3}[\]).]"
    r"|\[[\w+*.,' -]{1,24}\])",
    re.MULTILINE,
)
_BRACKETED_ITEM = re.compile(r"^[ \t]*+\\item[ \t]{0,9}\{[ \t]{0,9}\[[^\]{}\n]{1,24}\][ \t]{0,9}\}", re.MULTILINE)
_YEAR = re.compile(r"(?<![0-9])(?:1[6-9]|20)[0-9]{2}(?![0-9])")
_ENTRY_END = re.compile(r"\n[ \t]*(?=\n)|\\(?:par|hfil\\break|hfill\\break|bye|end|vfill)(?![a-zA-Z@])[ \t]*|\\\\")
_LIST_END = re.compile(r"\s{0,99}\\end[ \t]{0,9}\{([a-zA-Z]{1,20}\*?)\}")
_ENDS_LIST = re.compile(
    r"\n[ \t]*\n|\\(?:vfill|eject|bye|end|newpage|appendix|section|newsec|beginsection|endRefs)(?![a-zA-Z@])"
)

_DEFINITION = re.compile(
    r"\\(?:[egx]?def|let|newcommand|renewcommand|providecommand|newenvironment|newtheorem|DeclareMathOperator|newcount"
    r"|newdimen|newskip|newbox|newtoks|newif|newfam|font|chardef|mathchardef|mathcode|catcode)(?![a-zA-Z@])"
)
_CODE = re.compile(r"\\(?:[a-zA-Z@]+|.)|\{[^{}\s]{0,40}\}|=[ \t]{0,9}[\w.-]+|[#$][\w]*", re.DOTALL)
_PROSE_WORD = re.compile(r"(?<![\w@])[^\W\d_]{2,}(?=[\s,.;:!?)'-])")
_MESSAGE = compile_control(
    rf"(?:message|errmessage|immediate{_BLANKS}\\write[0-9-]{{1,4}}|errhelp{_BLANKS}=?){_BLANKS}(?=\{{)"
)


def extract_body(text: str, appendix: Literal["keep", "drop"]) -> str:
    r"""Return the body of a paper, or "" if it has no body.

    The body begins at the first section: \chapter to \subsubsection with a title in braces, plain TeX's \beginsection,
    AMS-TeX's \head, or harvmac's \newsec. Sections of acknowledgements and references do not count. In a paper without
    sections, such as a letter, the body begins after the last of abstract, \maketitle and title page, and after the
    keywords that follow. Without these, it begins with the document; in plain TeX, after the settings at its start.

    The body ends with the document. Bibliographies are removed at any position, and the text after them is kept.

    Args:
        text: The paper's TeX, see the module's docstring.
        appendix: "drop" ends the body before the appendix.
    """
    begin, stop = _find_document(text)
    if appendix == "drop" and (mark := find_first(_APPENDIX, text, begin, stop)):
        stop = mark.start()
    sections = find_all(_SECTION, text, begin, stop)
    first = next((mark.start() for mark in sections if not _CLOSES.match(mark[1])), None)
    if first is None:
        first = max((mark.end() for mark in find_all(_FRONT, text, begin, stop)), default=begin)
        first = max(first, find_title_page(text, begin, stop))
        while keywords := _KEYWORDS.match(text, first, stop):
            first = keywords.end()
        latex = find_first(_BEGIN, text)
        if not (latex and latex[0].startswith("\\begin")):
            first = min(skip_preamble(text, first), stop)
    inner = strip_references(_strip_bibliographies(text[first:stop]))
    lines = "\n".join(line.rstrip() for line in inner.split("\n"))
    kept = _EMPTY_LINES.sub("\n\n", lines).strip()
    return kept if any(character.isalpha() for character in _NO_WORDS.sub(" ", kept)) else ""


def is_document(text: str) -> bool:
    """Return True if a text contains a document's start, end, title page or a section."""
    marks = (_BEGIN, _END, _PLAIN_END, _FRONT, _SECTION)
    return any(find_first(mark, text) for mark in marks)


def is_notice(paper: str) -> bool:
    """Return True if the text of a paper is only a notice that the paper was withdrawn."""
    return len(paper) < STUB_CHARACTERS and "withdrawn" in paper.lower()


def _find_document(text: str) -> tuple[int, int]:
    """Return (start, end) of the document in LaTeX, AMS-TeX or plain TeX. Plain TeX has no mark at the start."""
    begin = find_first(_BEGIN, text)
    start = begin.end() if begin else 0
    end = find_first(_END, text, start)
    if begin is None and end is None:
        end = find_first(_PLAIN_END, text)
    return start, end.start() if end else len(text)


def _strip_bibliographies(text: str) -> str:
    """Remove bibliographies, and commands that print or style them.

    A bibliography without an end mark extends to the end of the text.
    """

    def measure(mark: re.Match[str]) -> int:
        ending = f"\\end{{{mark[1]}}}" if mark[1] else f"\\end{mark[2]}"
        close = text.find(ending, mark.end())
        return len(text) if close < 0 else close + len(ending)

    text = cut(text, find_all(_LIST, text), measure)
    return cut(text, find_all(_CALL, text), re.Match.end)


def extract_title(text: str) -> str:
    """Return a paper's title in TeX on one line, without notes and font commands.

    Return "" if there is no title, or if it is too long. `text` is the same as for `extract_body`.
    """
    if title := _clean_title(find_harvmac_title(text)):
        return title
    for mark in islice(find_all(_TITLE, text), TITLES):
        stop = find_group_end(text, mark.end(), TITLE_SOURCE_CHARACTERS)
        found = _clean_title(text[mark.end() + 1 : stop - 1]) if stop > 0 else ""
        if found:
            return found
    return next((_clean_title(mark[1]) for mark in find_all(_TITLE_AMS, text)), "")


def _clean_title(found: str) -> str:
    """Return a title on one line, without notes, font commands and braces around it, or "" if it is too long."""

    def measure(note: re.Match[str]) -> int:
        group = found.startswith("{", note.end())
        return max(find_group_end(found, note.end(), len(found)) if group else -1, note.end())

    plain = " ".join(_LAYOUT.sub(" ", cut(found, _NOTE.finditer(found), measure)).split())
    if len(plain) > TITLE_CHARACTERS:
        return ""
    while plain.startswith("{") and find_group_end(plain, 0, len(plain)) == len(plain):
        plain = plain[1:-1].strip()  # remove braces around the whole title
    return plain


def replace_accents(text: str) -> str:
    """Replace commands for accented letters by Unicode letters. Blanks that end a command's name are removed with it.

    Commands without a corresponding Unicode letter are unchanged. So are tabbing commands that look like accents,
    because no letter follows them.
    """
    return _SPELLED.sub(_compose_letter, text)


def _compose_letter(spelled: re.Match[str]) -> str:
    """Return the Unicode letter for a command, or the command if there is no such letter."""
    accent, letter = spelled[1] or spelled[2], spelled[3] or spelled[4] or spelled[5] or spelled[6]
    if spelled[7]:
        return LETTERS[spelled[7]]
    if accent is None:
        return spelled[0]
    composed = unicodedata.normalize("NFC", letter + ACCENTS[accent])
    return composed if len(composed) == 1 else spelled[0]


def skip_preamble(text: str, position: int) -> int:
    r"""Return the position behind the settings of registers, fonts and pages at the start of a plain TeX document."""
    while True:
        if statement := _STATEMENT.match(text, position):
            position = statement.end()
        elif command := _GROUPS.match(text, position):
            close = find_group_end(text, command.end(), GROUP_CHARACTERS)
            if close < 0:
                return position
            position = close
        else:
            return position


def find_title_page(text: str, start: int, stop: int) -> int:
    r"""Return the end of harvmac's title page, or -1 if there is none.

    The title page begins with \Title{number}{title} and ends behind \Date{…} or, without a date, behind the title.
    """
    found = -1
    for mark in islice(find_all(_HARVMAC_TITLE, text, start, stop), TITLES):
        found = max(found, _skip_groups(text, mark.end(), 2))
    for mark in islice(find_all(_HARVMAC_DATE, text, max(found, start), stop), TITLES if found > 0 else 0):
        found = max(found, _skip_groups(text, mark.end(), 1))
    return found


def find_harvmac_title(text: str) -> str:
    r"""Return the second argument of harvmac's \Title{number}{title}, or "" if there is none."""
    for mark in islice(find_all(_HARVMAC_TITLE, text), TITLES):
        first = _skip_groups(text, mark.end(), 1)
        both = _skip_groups(text, mark.end(), 2)
        if both > 0:
            return text[first:both].strip()[1:-1]
    return ""


def _skip_groups(text: str, position: int, number: int) -> int:
    """Return the position behind `number` consecutive groups, or -1 if there are fewer."""
    for _ in range(number):
        while text[position : position + 1] in (" ", "\t", "\n"):
            position += 1
        if text[position : position + 1] != "{":
            return -1
        position = find_group_end(text, position, GROUP_CHARACTERS)
        if position < 0:
            return -1
    return position


def strip_references(text: str) -> str:
    r"""Remove references outside of environments: of amsppt, of harvmac, and items below a heading "References".

    Of a citation that contains its reference (\ref\name{…}), the name (\name) is kept.
    """

    def find_end(reference: re.Match[str]) -> int:
        close = _END_REFERENCE.search(text, reference.end(), reference.end() + GROUP_CHARACTERS)
        return close.end() if close else -1

    text = cut(text, find_all(_AMS_REFERENCE, text), find_end)
    text = _strip_groups(_UNCITED, text, "")
    text = _strip_groups(_CITED, text, r"\1")
    return _strip_listed(cut(text, find_all(_PRINTS, text), re.Match.end))


def _strip_groups(pattern: re.Pattern[str], text: str, replacement: str) -> str:
    """Replace commands of references, with the group behind them, by `replacement`, a template for `Match.expand`."""
    unclosed = 0

    def measure(mark: re.Match[str]) -> int:
        nonlocal unclosed
        close = find_group_end(text, mark.end(), GROUP_CHARACTERS) if unclosed <= UNCLOSED else -1
        unclosed += close < 0
        return close

    return cut(text, find_all(pattern, text), measure, replacement)


def _strip_listed(text: str) -> str:
    """Remove reference lists below a heading, and lists of items that have bracketed labels and years."""
    out: list[str] = []
    start = position = 0
    while position < len(text):
        newline = text.find("\n", position)
        following = len(text) if newline < 0 else newline + 1
        line = text[position:following]
        if _is_heading(line):
            stop, is_list = _measure_list(text, following, _ITEM, years=False)
            if not is_list:
                stop, is_list = _measure_entries(text, following)
        elif _BRACKETED_ITEM.match(line):
            stop, is_list = _measure_list(text, position, _BRACKETED_ITEM, years=True)
        else:
            stop, is_list = following, False
        if is_list:
            while (ending := _LIST_END.match(text, stop)) and f"\\begin{{{ending[1]}}}" in text[position:stop]:
                stop = ending.end()
            out.append(text[start:position])
            start = stop
        position = max(stop, following)
    return "".join([*out, text[start:]])


def _is_heading(line: str) -> bool:
    """Return True if a line is a heading such as "References", in any font."""
    if len(line) > HEADING_CHARACTERS or not line.strip():
        return False
    return _DECORATION.sub("", line).lower() in _WORDS


def _measure_list(text: str, start: int, item: re.Pattern[str], years: bool) -> tuple[int, bool]:
    """Return (end of a list of items, True if the items are references).

    Args:
        text: TeX.
        start: The position where the list begins.
        item: A pattern for the start of an item.
        years: True if half of the items must contain a year, because other lists use the same labels.
    """
    number = dated = 0
    stop = start
    while mark := item.search(text, stop, stop + GAP_CHARACTERS):
        between = text[stop : mark.start()].strip()
        if between and (number or len(between) > HEADING_CHARACTERS):
            break
        number += 1
        stop = _find_item_end(text, mark.end())
        dated += bool(_YEAR.search(text, mark.end(), stop))
    return stop, number >= REFERENCE_ITEMS and (not years or 2 * dated >= number)


def _measure_entries(text: str, start: int) -> tuple[int, bool]:
    """Return (end of consecutive paragraphs that contain a year, True if they are enough for a reference list)."""
    number = 0
    stop = position = start
    while mark := _ENTRY_END.search(text, position, position + ENTRY_CHARACTERS):
        entry = text[position : mark.start()]
        if _DECORATION.sub("", entry):
            if not _YEAR.search(entry):
                break
            number, stop = number + 1, mark.end()
        position = mark.end()
    return stop, number >= REFERENCE_ITEMS


def _find_item_end(text: str, position: int) -> int:
    """Return the end of an item: the start of the next item, an empty line, or a command that ends lists."""
    limit = min(position + GROUP_CHARACTERS, len(text))
    end = _ENDS_LIST.search(text, position, limit)
    stop = end.start() if end else limit
    following = _ITEM.search(text, position, stop)
    return following.start() if following else stop


def is_macro_file(source: str, expanded: str) -> bool:
    """Return True if a file consists of definitions and is not a document.

    Args:
        source: The file without comments.
        expanded: The file without comments and definitions.
    """
    number = len(_DEFINITION.findall(source))
    return number > 0 and count_prose(expanded) < WORDS_PER_DEFINITION * number


def count_prose(text: str) -> int:
    """Count the words outside commands, messages and values."""
    return len(_PROSE_WORD.findall(_CODE.sub(" ", _strip_groups(_MESSAGE, text, "")) + " "))
