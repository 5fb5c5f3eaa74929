r"""Plain TeX, AMS-TeX and harvmac: preambles, lists of references and files of macros, which nothing marks as such.

LaTeX encloses a document and its bibliography in environments. Older papers set registers and fonts before their text,
and type their references as items. The rules follow The TeXbook (chapter 24 and appendix B), the amsppt user's guide
and harvmac's own comments. `text` is always without comments.
"""

import re
from itertools import islice

from filters.tex.source import compile_control, find_all, find_group_end, split_names

TITLES = 20  # title commands that are looked at: a paper has one
UNCLOSED = 100  # groups without an end after which no more are looked for: damage, or hostile input
GROUP_CHARACTERS = 4_000  # of an argument that a preamble sets, or of one reference
HEADING_CHARACTERS = 160  # of a line that says "References", with its fonts
ENTRY_CHARACTERS = 800  # of a reference without a mark
GAP_CHARACTERS = 400  # in which the next item of a list begins
REFERENCE_ITEMS = 3  # with fewer, a list below a heading of references stays
WORDS_PER_DEFINITION = 5  # with fewer words outside definitions, a file without a document is one of macros

_BLANKS = r"[ \t\n]{0,9}"
_UNIT = r"(?:true)?[ \t]{0,9}(?:pt|in|cm|mm|pc|bp|em|ex|sp|dd|cc|fil+|mu)(?![a-zA-Z])"
_LENGTH = rf"[-+]?[ \t]{{0,9}}(?:[0-9.,]{{1,12}}[ \t]{{0,9}}(?:{_UNIT})?|[0-9.]{{0,9}}\\[a-zA-Z@]{{1,40}}[0-9]?)"
_VALUE = rf"{_LENGTH}(?:[ \t]{{1,9}}(?:plus|minus)[ \t]{{0,9}}{_LENGTH}){{0,2}}"
# Commands that print nothing, alone or before a value, a name or a file.
_SWITCH = """nopagenumbers|raggedbottom|raggedright|frenchspacing|nonfrenchspacing|loadmsbm|loadmsam|loadeufm|loadbold
    |UseAMSsymbols|NoBlackBoxes|BlackBoxes|TagsOnRight|TagsOnLeft|NoRunningHeads|CenteredTagsOnSplits|NoPageNumbers|normalspace
    |writelabels|draftmode|writedefs|writetoc|PHYSREV|doublespace|singlespace|bigskip|medskip|smallskip|null|vfill|eject
    |makeatletter|makeatother|relax|batchmode|nonstopmode|scrollmode|errorstopmode|unlock|lock|tenpoint|twelvepoint
    |normalbaselines|sloppy|fussy|pageno|draft|newpage|vfil|supereject|obeylines"""
_REGISTER = """magnification|mag|hsize|vsize|hoffset|voffset|baselineskip|parskip|parindent|lineskip|lineskiplimit
    |tolerance|pretolerance|hfuzz|vfuzz|overfullrule|hbadness|vbadness|abovedisplayskip|belowdisplayskip|pageno|vskip|vglue
    |hangindent|hangafter|leftskip|rightskip|topskip|maxdepth|clubpenalty|widowpenalty|hyphenpenalty|mathsurround
    |abovedisplayshortskip|belowdisplayshortskip|jot|thickmuskip|medmuskip|thinmuskip|emergencystretch|delimitershortfall
    |brokenpenalty|interlinepenalty|openup|showboxdepth|maxdeadcycles"""
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
    |\\(?:{"".join(_REGISTER.split())})(?![a-zA-Z@]){_BLANKS}(?:by(?![a-z]))?=?{_BLANKS}{_VALUE}
    |\\[a-zA-Z@]{{1,40}}[ \t]{{0,9}}={_BLANKS}{_VALUE}
    |\\(?:{"".join(_SWITCH.split())})(?![a-zA-Z@])
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
_END_REFERENCE = "\\endref"
# harvmac and phyzzx: references typed where they are cited first; those of the second kind print no number there.
_CITED = compile_control(rf"(?:ref|Ref)(?![a-zA-Z@])[ \t]{{0,9}}(\\[a-zA-Z@]{{1,40}}){_BLANKS}(?=\{{)")
_UNCITED = compile_control(
    rf"(?:[nlrs]ref|REF|REFS|REFSCON|REFSCON|refadd)(?![a-zA-Z@])[ \t]{{0,9}}(\\[a-zA-Z@]{{1,40}}){_BLANKS}(?=\{{)"
)
_PRINTS = compile_control(
    r"(?:listrefs|listfigs|listtoc|writetoc|refout|figout|footatend|centerline\{\}|endref)(?![a-zA-Z@])"
)

_WORDS = split_names(
    """references reference referencescited bibliography literature literaturecited workscited literatur
    literaturverzeichnis bibliographie referencesbibliographiques bibliografia bibliografía referencias referências
    literatura riferimenti riferimentibibliografici література литература списоклитературы"""
)
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


def harvmac_title(text: str) -> str:
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
    text = _strip_ams_references(text)
    text = _strip_groups(_UNCITED, text, "")
    text = _strip_groups(_CITED, text, r"\1")
    text = _PRINTS.sub(lambda mark: mark[0] if mark["found"] is None else "", text)
    return _strip_listed(text)


def _strip_ams_references(text: str) -> str:
    out: list[str] = []
    start = 0
    for mark in find_all(_AMS_REFERENCE, text):
        if mark.start() < start:
            continue
        close = text.find(_END_REFERENCE, mark.end(), mark.end() + GROUP_CHARACTERS)
        if close >= 0:
            out.append(text[start : mark.start()])
            start = close + len(_END_REFERENCE)
    return "".join([*out, text[start:]])


def _strip_groups(pattern: re.Pattern[str], text: str, replacement: str) -> str:
    """Remove commands of references with the group behind them; `replacement` is a template of the match."""
    out: list[str] = []
    start = unclosed = 0
    for mark in find_all(pattern, text):
        if mark.start() < start:
            continue
        close = find_group_end(text, mark.end(), GROUP_CHARACTERS)
        unclosed += close < 0
        if unclosed > UNCLOSED:
            break
        if close >= 0:
            out.append(text[start : mark.start()] + mark.expand(replacement))
            start = close
    return "".join([*out, text[start:]])


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
        stop = _end_of_item(text, mark.end())
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


def _end_of_item(text: str, position: int) -> int:
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
