"""TeX made ready to be read: encodings, comments, literal text, false branches, accents."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.tex.body import extract_body, extract_title, replace_accents
from filters.tex.macros import expand_macros
from filters.tex.source import (
    CLOSE,
    OPEN,
    declared_encoding,
    decode,
    restore_literals,
    strip_comments,
    strip_false_branches,
)


def clean(text: str) -> str:
    literals: list[str] = []
    found = restore_literals(strip_comments(text, literals), literals, 1_000_000)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("word % note\nnext", "word next"),  # RedPajama keeps the %
        ("word% note\nnext", "wordnext"),  # RedPajama: "wor", and TeX has no blank here either
        ("word% note", "word"),
        ("{%\n  in}", "{in}"),
        ("50\\% of % all\n  them", "50\\% of them"),
        ("a\\\\% note\nb", "a\\\\b"),  # an even number of backslashes: RedPajama keeps the comment
        ("a\\\\\\% no note", "a\\\\\\% no note"),
        ("a\n% whole line\nb", "a\nb"),
        ("a\n   % whole line, indented\n  b", "a\n  b"),
        ("a\n%\n\nb", "a\n\nb"),
        ("a % ends a paragraph\n\nb", "a \n\nb"),
        ("a %\n% and\n  % on\n  b", "a b"),
        ("\\alpha% note\nbeta", "\\alpha beta"),
        ("\\alpha%\n\\beta", "\\alpha\\beta"),
        ("\\\\alpha%\nbeta", "\\\\alphabeta"),
        ("% \\begin{verbatim}\na % b\n% \\end{verbatim}\n", "a \n"),
        ("%", ""),
        ("%a\n%b", ""),
        ("", ""),
    ],
)
def test_comments(typed: str, read: str) -> None:
    assert clean(typed) == read


@pytest.mark.parametrize(
    "typed",
    [
        "\\begin{verbatim}\n% no comment \\x{\n\\end{verbatim}",
        '\\begin{lstlisting}[language=C]\nprintf("%d");\n\\end{lstlisting}',
        "\\verb|100%|",
        "\\verb*+%+",
        "\\lstinline!a % b!",
        "\\lstinline[language=C]{a % b}",
        "\\begin{alltt}\n%\\end{alltt}",
        "\\url{http://a.example/x%20y}",
        "\\url|a%b|",
        "\\href{http://a.example/%7Ex}{text}",
        "\\path{a%b}",
    ],
)
def test_literal_text_is_left_alone(typed: str) -> None:
    assert clean(f"a {typed} b % c") == f"a {typed} b "
    literals: list[str] = []
    marked = strip_comments(typed, literals)
    assert len(literals) == 1 and OPEN in marked and "%" not in marked


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("\\verb % a", "\\verb "),
        ("\\verb|a % b\nc|", "\\verb|a c|"),
        ("\\verbatim % a", "\\verbatim "),
        ("\\url{no percent} % a", "\\url{no percent} "),
        ("\\url{open % a", "\\url{open "),
        ("\\href{a}{50 % b}", "\\href{a}{50 "),
        ("\\url{a%\n  b}", "\\url{a%\n  b}".replace("%\n  ", "")),
        ("\\begin{verbatim} % a", "\\begin{verbatim} "),
        ("a\\begin{comment} b \\end{comment}c", "ac"),
        ("\\begin{filecontents}{a.bib} % b \\end{filecontents}c", "c"),
    ],
)
def test_what_only_looks_like_literal_text(typed: str, read: str) -> None:
    assert clean(typed) == read


def test_literal_text_that_is_repeated_counts_each_time() -> None:
    literals: list[str] = []
    marked = strip_comments("\\verb|" + "x" * 900 + "|", literals)
    assert restore_literals(marked * 10, literals, 10_000) is not None
    assert restore_literals(marked * 20, literals, 10_000) is None
    assert restore_literals(f"{OPEN}7{CLOSE}", literals, 10) == ""


@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        ("é".encode(), "", "é"),
        (b"\xef\xbb\xbfa\r\nb\rc", "", "a\nb\nc"),
        ("é".encode("latin-1"), "", "é"),
        (b"\x93a\x94", "", "“a”"),
        (b"\x81\xe9", "", "\x81é"),
        ("\\usepackage[latin2]{inputenc} ő".encode("iso8859-2"), "", "\\usepackage[latin2]{inputenc} ő"),
        ("\\usepackage[cp1251]{inputenc} и".encode("cp1251"), "", "\\usepackage[cp1251]{inputenc} и"),
        ("% \\usepackage[latin2]{inputenc}\né".encode("latin-1"), "", "% \\usepackage[latin2]{inputenc}\né"),
        ("\\usepackage[utf8]{inputenc} é".encode("latin-1"), "", "\\usepackage[utf8]{inputenc} é"),
        ("\\usepackage[latin1]{inputenc} é".encode(), "", "\\usepackage[latin1]{inputenc} é"),
        ("\\begin{CJK*}{GBK}{song} 茶".encode("gbk"), "", "\\begin{CJK*}{GBK}{song} 茶"),
        ("и".encode("koi8-r"), "koi8-r", "и"),
        ("a\ufeff".encode("utf-16"), "", "a\ufeff"),
        ("\\é".encode("utf-16-le"), "", "\\é"),
        ("% é".encode("utf-16-be"), "", "% é"),
        (b"a\0\xef\xb7\x90b\x0c", "", "a\ufffd\ufffdb\n"),
    ],
)
def test_encodings(data: bytes, declared: str, text: str) -> None:
    assert decode(data, declared) == text


def test_an_encoding_is_declared_outside_comments() -> None:
    assert declared_encoding(b"%\\usepackage[latin2]{inputenc}\n\\usepackage [koi8-r] {inputenc}") == "koi8-r"
    assert declared_encoding(b"\\inputencoding{ansinew}") == "cp1252"
    assert declared_encoding(b"\\usepackage[nonesuch]{inputenc}") == ""


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("a\\iffalse b\\fi c", "a c"),
        ("a\\iffalse b\\else c\\fi d", "a c d"),
        ("a\\if0 b\\fi c", "a c"),
        ("a\\iffalse \\ifx\\y\\z b\\else c\\fi d\\fi e", "a e"),
        ("a\\iffalse b\\iffalse c\\fi d\\fi e", "a e"),
        ("a\\iffalse b\\else c\\iffalse d\\fi e\\fi f", "a c e f"),
        ("a\\ifx\\y\\z b\\else c\\fi d", "a\\ifx\\y\\z b\\else c\\fi d"),
        ("a\\ifthenelse{b}{c}{d}\\iffalse e\\fi f", "a\\ifthenelse{b}{c}{d} f"),
        ("\\newif\\ifdraft \\let\\ifx\\iffalse a\\iffalse b\\fi", "\\newif\\ifdraft \\let\\ifx\\iffalse a"),
        ("a\\iffalse b", "a\\iffalse b"),
        ("a\\fi b\\else", "a\\fi b\\else"),
        ("a\\\\iffalse b \\iff c\\fi", "a\\\\iffalse b \\iff c\\fi"),
        ("a\n\\iffalse\nb\n\\fi\nc", "a\nc"),  # no paragraph ends here
        ("a \\iffalse b\\fi\n\nc", "a \n\nc"),
        ("\\iftrue a\\else b\\fi c", " a c"),
    ],
)
def test_false_branches(typed: str, read: str) -> None:
    assert strip_false_branches(typed) == read


@pytest.mark.parametrize(
    ("preamble", "shown"),
    [
        ("\\newif\\iflong", "b"),
        ("\\newif\\iflong\\longtrue", "a"),
        ("\\newif\\iflong\n\\longtrue\n\\longfalse\n", "b"),
        ("\\newif\\iflonger \\longtrue", ""),
        ("\\newif\\iflong \\def\\x{\\longtrue}", ""),
        ("\\newif\\iflong \\ifx\\x\\y\\longtrue\\fi", ""),
        ("\\newif\\iflong\n\\begin{document}\\longtrue", ""),
    ],
)
def test_conditions_that_a_paper_makes(preamble: str, shown: str) -> None:
    whole = "\\iflong a\\else b\\fi"
    assert strip_false_branches(f"{preamble}\n{whole} c").rpartition("\n")[2] == f"{f' {shown}' if shown else whole} c"


_BRANCHES = st.recursive(  # texts with conditions, and what TeX shows of them
    st.sampled_from([("x ", "x "), ("y{z} ", "y{z} "), ("", "")]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["long", "draft", "true", "false"]), inner, inner).map(
            lambda found: (
                f"\\if{found[0]}{{}}{found[1][0]}\\else{{}}{found[2][0]}\\fi{{}}",
                f"{{}}{found[1 if found[0] in ('long', 'true') else 2][1]}{{}}",
            )
        ),
        st.tuples(inner, inner).map(lambda found: (found[0][0] + found[1][0], found[0][1] + found[1][1])),
        inner.map(lambda found: (f"\\ifx\\a\\b {found[0]}\\fi ", f"\\ifx\\a\\b {found[1]}\\fi ")),
    ),
    max_leaves=12,
)


@given(_BRANCHES)
def test_nested_conditions_are_those_of_an_oracle(branches: tuple[str, str]) -> None:
    preamble = "\\newif\\iflong\\longtrue\\newif\\ifdraft\\begin{document}"
    assert strip_false_branches(preamble + branches[0]) == preamble + branches[1]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("G\\'omez-Ram\\'{\\i}rez", "Gómez-Ramírez"),
        ('Schr\\"odinger, Erd\\H{o}s, \\v{C}ech', "Schrödinger, Erdős, Čech"),
        ("Stra\\ss e, \\O re, \\L{}\\'od\\'z", "Straße, Øre, Łódź"),
        ("\\c c \\c{S} \\k{a} \\r A \\u{g} \\.I \\=a \\~n \\^\\i \\`e", "ç Ş ą Å ğ İ ā ñ îè"),
        (
            "\\'{} \\'x \\\\'e \\.{x} \\d{x} \\'\\alpha \\cite{a} \\over b",
            "\\'{} \\'x \\\\'e ẋ \\d{x} \\'\\alpha \\cite{a} \\over b",
        ),
        ("\\int \\o\\omega \\l1", "\\int ø\\omega ł1"),
    ],
)
def test_accents(typed: str, read: str) -> None:
    assert replace_accents(typed) == read


@given(st.text(alphabet="\\%{}[]|\n ab" + OPEN, max_size=80))
def test_any_text_can_be_cleaned_and_what_is_clean_stays(text: str) -> None:
    text = text.replace(OPEN, "\\begin{verbatim}%\\end{verbatim}\\url{%}\\verb")
    once = clean(text)
    assert clean(once) == once or "verb" in text or "url" in text
    assert "%" not in once or "\\%" in once or "verb" in text or "url" in text
    for done in (strip_false_branches(once), extract_body(once, "drop"), extract_title(once), replace_accents(once)):
        assert len(done) <= len(once)


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "\\",
        "%",
        "%\n",
        "\\url{",
        "\\url{%",
        "\\url{a}",
        "\\verb|",
        "\\begin{verbatim}",
        "\\begin{comment}",
        "\\iffalse ",
        "\\iffalse \\else ",
        "\\iffalse\\fi ",
        "\\newif\\iflong\\longtrue",
        "\n\\iftrue \\fi",
        "\\section[",
        "\\section",
        "\\begin{thebibliography}",
        "\\title{",
        "\\title[",
        "\\bibliography[",
        "\\includegraphics[",
        "\\end",
        "\\'",
        "x",
        "\n",
        " ",
        "% x",
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:

    def work(text: str) -> None:
        cleaned = strip_false_branches(strip_comments(text, []))
        extract_body(cleaned, "keep")
        extract_title(cleaned)
        replace_accents(cleaned)

    assert_linear(work, repeated(piece, "\\begin{document}"), 120_000)


@pytest.mark.parametrize("piece", ["{", "{}", "ab%\n", "\\verb|a|", "\\iffalse \\fi", "\\x{}"])
def test_hostile_text_takes_memory_in_proportion(piece: str) -> None:
    text = "\\def\\x#1{#1}\\x{}" + piece * (20_000 // len(piece))
    tracemalloc.start()
    expand_macros(strip_false_branches(strip_comments(text, [])), 32, 100_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * len(text)
