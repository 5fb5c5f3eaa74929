r"""The body and the title of a paper's TeX, and its accented letters as Unicode.

LLaMA "removed everything before the first section, as well as the bibliography" (section 2.1). LaTeX encloses a
document and its bibliography in environments. Older papers, in plain TeX, AMS-TeX or with harvmac, set registers and
fonts before their text, and type their references as items: the rules for them follow The TeXbook (chapter 24 and
appendix B), the amsppt user's guide and harvmac's own comments. `text` is always without comments, false branches and
definitions, its macros expanded.
"""

import re
import unicodedata
from itertools import islice
from typing import Literal

from filters.data_files import merge_items
from filters.tex.source import TABLES, compile_control, cut, find_all, find_first, find_group_end

UNCLOSED = 100  # groups without an end after which no more are looked for: damage, or hostile input
GROUP_CHARACTERS = 4_000  # of an argument that a preamble sets, or of one reference
HEADING_CHARACTERS = 160  # of a line that says "References", with its fonts
ENTRY_CHARACTERS = 800  # of a reference without a mark
GAP_CHARACTERS = 400  # in which the next item of a list begins
REFERENCE_ITEMS = 3  # with fewer, a list below a heading of references stays
WORDS_PER_DEFINITION = 5  # with fewer words outside definitions, a file without a document is one of macros
STUB_CHARACTERS = 1_000  # a shorter paper that says it was withdrawn is a notice

_BLANKS = r"[ \t\n]{0,9}"
_OPTION = rf"(?:\[[^\]]{{0,500}}\]{_BLANKS})?"
# A \paragraph is no section: letters have its run-in headings behind paragraphs of text, and abstracts "Keywords".
_SECTION = compile_control(
    r"(?:(?:chapter|part|section|subsection|subsubsection|newsec|subsec|subsubsec|sectionhead"
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

TITLE_CHARACTERS = 500  # of a title without notes
TITLE_SOURCE_CHARACTERS = 2_000  # of a title as typed, notes included
TITLES = 20  # title commands examined, of which the first with text is taken

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
ACCENTS = {command: chr(int(code, 16)) for code, commands in TABLES["accent"].items() for command in commands}
LETTERS = {command: letter for letter, commands in TABLES["letter"].items() for command in commands}
_SPELLED = re.compile(
    r"\\(?:\\|(?:([`'^~=.\"])[ \t]{0,9}|([uHrvdckb])(?![a-zA-Z@])[ \t]{0,9})"
    r"(?:\{[ \t]{0,9}(?:([a-zA-Z])|\\([ij])(?![a-zA-Z@]))[ \t]{0,9}\}|([a-zA-Z])"
    r"|\\([ij])(?![a-zA-Z@])(?:\{\}|[ \t]{0,9}))"
    rf"|({'|'.join(LETTERS)})(?![a-zA-Z@])(?:\{{\}}|[ \t]{{1,9}})?)"
)

# --- plain TeX, AMS-TeX and harvmac: preambles, lists of references, files of macros ---

_UNIT = r"(?:true)?[ \t]{0,9}(?:pt|in|cm|mm|pc|bp|em|ex|sp|dd|cc|fil+|mu)(?![a-zA-Z])"
_LENGTH = rf"[-+]?[ \t]{{0,9}}(?:[0-9.,]{{1,12}}[ \t]{{0,9}}(?:{_UNIT})?|[0-9.]{{0,9}}\\[a-zA-Z@]{{1,40}}[0-9]?)"
_VALUE = rf"{_LENGTH}(?:[ \t]{{1,9}}(?:plus|minus)[ \t]{{0,9}}{_LENGTH}){{0,2}}"
# Commands that print nothing, alone or before a value, a name or a file.
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
# Commands of a preamble whose argument, if it is a group, goes with them.
_GROUPS = re.compile(
    r"\s*+\\(?:headline|footline|output|everypar|everymath|everydisplay|pageheight|pagewidth|hcorrection|vcorrection"
    r"|refstyle|leftheadtext|rightheadtext|message|immediate[ \t]{0,9}\\write[0-9-]{1,4}|write[0-9-]{1,4}|hyphenation"
    r"|special|baselinestretch|headtitle|headauthor|errmessage|font)(?![a-zA-Z@])[ \t]{0,9}=?\s*+(?=\{)"
)

_HARVMAC_TITLE = compile_control(rf"Title(?![a-zA-Z@]){_BLANKS}(?=\{{)")
_HARVMAC_DATE = compile_control(rf"Date(?![a-zA-Z@]){_BLANKS}(?=\{{)")

_AMS_REFERENCE = compile_control(rf"ref{_BLANKS}\\(?:key|no|by|manyby|bysame|paper|book)(?![a-zA-Z@])")
_END_REFERENCE = re.compile(r"\\endref")
# harvmac and phyzzx: references typed where they are cited first; those of the second kind print no number there.
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
    r"""Return the body of a paper, "" without one.

    It begins with the first section of the document (\chapter to \subsubsection with a title in braces, plain TeX's
    \beginsection, AMS-TeX's \head, harvmac's \newsec), the headings of acknowledgements and references aside. A paper
    without one, such as a letter, begins after its abstract, \maketitle or title page, whichever comes last, and the
    keywords behind it, else with the document, which in plain TeX is behind its settings. It ends with the document;
    bibliographies are removed wherever they are, and the text after one stays. `appendix` tells if it stays.
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
    """Return True if a text has a mark of a document: its start, end, title page or a section."""
    marks = (_BEGIN, _END, _PLAIN_END, _FRONT, _SECTION)
    return any(find_first(mark, text) for mark in marks)


def is_notice(paper: str) -> bool:
    """Return True if all that is left of a paper is a notice that it was withdrawn."""
    return len(paper) < STUB_CHARACTERS and "withdrawn" in paper.lower()


def _find_document(text: str) -> tuple[int, int]:
    """Return the document's start and end: LaTeX's, AMS-TeX's, or plain TeX's, which does not mark its start."""
    begin = find_first(_BEGIN, text)
    start = begin.end() if begin else 0
    end = find_first(_END, text, start)
    if begin is None and end is None:
        end = find_first(_PLAIN_END, text)
    return start, end.start() if end else len(text)


def _strip_bibliographies(text: str) -> str:
    """Remove lists of references and the commands that print or style one. A list without an end extends to the end."""

    def measure(mark: re.Match[str]) -> int:
        ending = f"\\end{{{mark[1]}}}" if mark[1] else f"\\end{mark[2]}"
        close = text.find(ending, mark.end())
        return len(text) if close < 0 else close + len(ending)

    text = cut(text, find_all(_LIST, text), measure)
    return cut(text, find_all(_CALL, text), re.Match.end)


def extract_title(text: str) -> str:
    """Return a paper's title on one line, as TeX, without notes and font changes; "" without one or if it is too long.

    `text` is as `extract_body` takes it.
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
    def measure(note: re.Match[str]) -> int:
        group = found.startswith("{", note.end())
        return max(find_group_end(found, note.end(), len(found)) if group else -1, note.end())

    plain = " ".join(_LAYOUT.sub(" ", cut(found, _NOTE.finditer(found), measure)).split())
    if len(plain) > TITLE_CHARACTERS:
        return ""
    while plain.startswith("{") and find_group_end(plain, 0, len(plain)) == len(plain):
        plain = plain[1:-1].strip()  # the braces of a box
    return plain


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


def skip_preamble(text: str, position: int) -> int:
    r"""Return the position behind the settings of registers, fonts and pages that a plain TeX document begins with."""
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
    r"""Return the end of harvmac's title page, -1 without one: \Title{number}{title} …, or up to \Date{…}."""
    found = -1
    for mark in islice(find_all(_HARVMAC_TITLE, text, start, stop), TITLES):
        found = max(found, _skip_groups(text, mark.end(), 2))
    for mark in islice(find_all(_HARVMAC_DATE, text, max(found, start), stop), TITLES if found > 0 else 0):
        found = max(found, _skip_groups(text, mark.end(), 1))
    return found


def find_harvmac_title(text: str) -> str:
    r"""Return the second argument of harvmac's \Title{number}{title}, "" without one."""
    for mark in islice(find_all(_HARVMAC_TITLE, text), TITLES):
        first = _skip_groups(text, mark.end(), 1)
        both = _skip_groups(text, mark.end(), 2)
        if both > 0:
            return text[first:both].strip()[1:-1]
    return ""


def _skip_groups(text: str, position: int, number: int) -> int:
    """Return the position behind some groups that follow one another, -1 without as many."""
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
    r"""Remove references that no environment encloses: amsppt's, harvmac's, and items below a heading of references.

    A citation that holds its reference (\ref\name{…}) keeps its name.
    """

    def find_end(reference: re.Match[str]) -> int:
        close = _END_REFERENCE.search(text, reference.end(), reference.end() + GROUP_CHARACTERS)
        return close.end() if close else -1

    text = cut(text, find_all(_AMS_REFERENCE, text), find_end)
    text = _strip_groups(_UNCITED, text, "")
    text = _strip_groups(_CITED, text, r"\1")
    return _strip_listed(cut(text, find_all(_PRINTS, text), re.Match.end))


def _strip_groups(pattern: re.Pattern[str], text: str, replacement: str) -> str:
    """Remove commands of references with the group behind them; `replacement` is a template of the match."""
    unclosed = 0

    def measure(mark: re.Match[str]) -> int:
        nonlocal unclosed
        close = find_group_end(text, mark.end(), GROUP_CHARACTERS) if unclosed <= UNCLOSED else -1
        unclosed += close < 0
        return close

    return cut(text, find_all(pattern, text), measure, replacement)


def _strip_listed(text: str) -> str:
    """Remove lists of references below their heading, and lists of items with numbers in brackets and years."""
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
    """Return True for a line that says "References" or the like, whatever its fonts."""
    if len(line) > HEADING_CHARACTERS or not line.strip():
        return False
    return _DECORATION.sub("", line).lower() in _WORDS


def _measure_list(text: str, start: int, item: re.Pattern[str], years: bool) -> tuple[int, bool]:
    """Return the end of a list of items, and True if they are references.

    With `years`, half of the items must have a year: other lists have the same marks.
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
    """Return the end of paragraphs of which each has a year, and True if there are enough of them for references."""
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
    """Return the end of an item: the next item's line, an empty line, or a command that ends lists."""
    limit = min(position + GROUP_CHARACTERS, len(text))
    end = _ENDS_LIST.search(text, position, limit)
    stop = end.start() if end else limit
    following = _ITEM.search(text, position, stop)
    return following.start() if following else stop


def is_macro_file(source: str, expanded: str) -> bool:
    """Return True for a file of definitions alone, which is no document.

    Args:
        source: The file without comments.
        expanded: The same without definitions.
    """
    number = len(_DEFINITION.findall(source))
    return number > 0 and count_prose(expanded) < WORDS_PER_DEFINITION * number


def count_prose(text: str) -> int:
    """Return the number of words outside commands, messages and values."""
    return len(_PROSE_WORD.findall(_CODE.sub(" ", _strip_groups(_MESSAGE, text, "")) + " "))
