"""Macros written out: every form of definition, TeX's way with arguments, and macros that want to blow up."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.reasons import Reason
from filters.tex.macros import expand_macros


def expanded(text: str, depth: int = 32) -> str:
    found = expand_macros(text, depth, 100_000)
    assert found.problem is None
    return found.text


@pytest.mark.parametrize(
    ("definition", "use", "written"),
    [
        (r"\newcommand{\R}{\mathbb{R}}", r"$x\in\R^n$", r"$x\in\mathbb{R}^n$"),
        (r"\newcommand\R{\mathbb{R}}", r"\R{} and \R\ and \R.", r"\mathbb{R} and \mathbb{R}\ and \mathbb{R}."),
        (r"\newcommand*{\norm}[1]{\|#1\|}", r"\norm{x} \norm y \norm\alpha", r"\|x\| \|y\| \|\alpha\|"),
        (r"\newcommand{\f}[2][k]{#1(#2)}", r"\f{x} \f[y]{z} \f [a]{b}", "k(x) y(z) a(b)"),
        (r"\newcommand{\f}[2][]{#1#2}", r"\f{x} \f[y[z]]{z} \f[{a]b}]{c}", "x y[z]{z} a]bc"),
        (r"\renewcommand{\vec}[1]{\mathbf{#1}}", r"\vec v", r"\mathbf{v}"),
        (r"\providecommand{\x}{1}\providecommand{\x}{2}", r"\x", "1"),
        (r"\DeclareRobustCommand{\x}[1]{<#1>}", r"\x{a}", "<a>"),
        (r"\DeclareMathOperator{\tr}{Tr}", r"\tr A", r"\operatorname{Tr} A"),
        (r"\DeclareMathOperator*{\argmin}{arg\,min}", r"\argmin_x", r"\operatorname*{arg\,min}_x"),
        (r"\DeclarePairedDelimiter{\abs}{\lvert}{\rvert}", r"\abs{x}\abs\a", r"\lvert x\rvert\lvert\a\rvert"),
        (r"\DeclarePairedDelimiter\x{(}{)}", r"\x[\big]{\x*{a}}", r"\big(\left(a\right)\big)"),
        (r"\DeclarePairedDelimiter\at{.}{|}", r"\at{f}_0 \at*{f}_0 \at*", r"f|_0 \left.f\right|_0 \at*"),
        (r"\DeclarePairedDelimiter\a{\a}{\b}", r"\a{x}", r"\a{x}"),
        (r"\def\bra#1{\langle #1|}", r"\bra{\psi}\bra\phi", r"\langle \psi|\langle \phi|"),
        (r"\def\pair#1#2{(#1,#2)}", r"\pair ab \pair{x y}z", "(a,b) (x y,z)"),
        (r"\def\pair(#1,#2){<#1|#2>}", r"\pair(a,{b,c}) \pair ({d},e)", "<a|b,c> <d|e>"),
        (r"\def\to#1.{[#1]}", r"\to the end. more", "[the end] more"),
        (r"\long\def\x#1{(#1)}\global\let\y\x", r"\y{a}", "(a)"),
        (r"\gdef\x{1}\edef\y{\x2}\xdef\z{3}", r"\x\y\z", "1123"),
        (r"\let\eps=\varepsilon \let\longto\longrightarrow", r"\eps\longto x", r"\varepsilon\longrightarrow x"),
        (r"\let\x=a", r"\x b", "a b"),
        (r"\newcommand{\a}{\b{x}}\newcommand{\b}[1]{\c{#1}y}\def\c#1{#1#1}", r"\a", "xxy"),
        (r"\newcommand{\b}[1]{[#1]}", r"\b{\b{\b x}}", "[[[x]]]"),
        (r"\def\use{\bra}\def\bra#1{<#1>}\def\again{\use}", r"\use{x} \again{y}", "<x> <y>"),
        (r"\newcommand{\,}{;}\def\!{?}", r"a\,b\!", "a;b?"),
        (r"\newcommand{\x}{1}\renewcommand{\x}{2}", r"\x", "2"),
        (r"\newcommand{\ie}{i.e.\@ }", r"\ie{}x", r"i.e.\@ x"),
        (r"\NewDocumentCommand\R{}{\mathbb{R}}", r"\R^n", r"\mathbb{R}^n"),
        (r"\NewDocumentCommand{\f}{m +m}{#2(#1)}", r"\f{x}{y}", "y(x)"),
        (r"\DeclareDocumentCommand\f{O{k} m}{#1(#2)}", r"\f{x} \f[y]{z}", "k(x) y(z)"),
        (r"\NewDocumentCommand{\f}{s o m}{\IfBooleanTF{#1}{a}{b}}", r"\f*[x]{y}", r"\f*[x]{y}"),
        (r"\newcommand{\todo}[1]{}", r"a\todo{not {this}} b", "a b"),
    ],
)  # fmt: skip
def test_every_form_of_definition(definition: str, use: str, written: str) -> None:
    assert expanded(f"{definition}\n{use}").strip() == written


def test_a_macro_means_what_it_was_last_defined_as_from_there_on() -> None:
    assert expanded("\\x \\def\\x{1}\\x{} {\\def\\x{2}\\x} \\x") == "\\x 1 {2} 2"


@pytest.mark.parametrize(
    "alias",
    [
        r"\newcommand{\nc}{\newcommand}",
        r"\newcommand\nc{ \newcommand }",
        r"\def\nc{\newcommand}",
        r"\let\nc=\newcommand",
    ],
)
def test_another_name_of_a_defining_command_defines(alias: str) -> None:
    assert expanded(rf"{alias}\nc{{\la}}{{\lambda}}\nc{{\half}}[1]{{#1/2}}$\la \half{{3}}$") == r"$\lambda 3/2$"
    assert expanded(rf"{alias}\nc{{\rnc}}{{\renewcommand}}\rnc\rnc{{\lambda}}$\rnc$") == r"$\lambda$"
    assert expanded(r"\let\x\long\x\def\y{z}\y").endswith("z")


def test_words_stay_apart() -> None:
    assert expanded("\\def\\V{Real}\\bf\\V") == "\\bf Real"
    assert expanded("\\def\\x#1{#1}\\x{\\alpha}beta") == "\\alpha beta"
    assert expanded("\\def\\x#1{\\textbf#1}\\x{word}") == "\\textbf word"
    assert expanded("\\def\\x#1{#1b}\\x\\alpha \\x\\\\") == "\\alpha b \\\\b"
    assert expanded("\\def\\x{1}a\\x\\x b") == "a11 b"


def test_xspace_keeps_words_apart_and_nothing_else() -> None:
    define = "\\newcommand{\\us}{\\textsc{Us}\\xspace}\n"
    assert expanded(define + "The \\us set, \\us, \\us$x$ \\us{} (\\us).") == (
        "The \\textsc{Us} set, \\textsc{Us}, \\textsc{Us} $x$ \\textsc{Us} (\\textsc{Us})."
    )
    assert expanded("\\xspace") == "\\xspace"


def test_definitions_are_taken_out_with_their_line() -> None:
    assert expanded("a\n\\newcommand{\\x}\n  [1]\n  {y}\nb \\def\\z{q} c\n") == "a\nb  c\n"
    assert expanded("\\newenvironment{ex}[1][a]{\\begin{quote}#1}{\\end{quote}}\n\\begin{ex}b\\end{ex}") == (
        "\\begin{ex}b\\end{ex}"
    )
    assert expanded("\\newtheorem{thm}{Theorem}") == "\\newtheorem{thm}{Theorem}"


@pytest.mark.parametrize(
    "definition",
    [
        r"\def\x#1{\ifmmode #1\else $#1$\fi}", r"\newcommand{\x}{\@ifnextchar[{\y}{\z}}", r"\def\x{\expandafter\y}",
        r"\def\x{\def\y{z}}", r"\newcommand{\x}{\csname a\endcsname}", r"\def\x#2{y}", r"\newcommand{\x}{#1}",
        r"\def\x{a \catcode`\@=11}", r"\newcommand{\x}[1]{\renewcommand{\y}{#1}}",
    ],
)  # fmt: skip
def test_programs_are_left_as_they_are_called(definition: str) -> None:
    assert expanded(f"\\newcommand{{\\x}}{{old}}\n{definition}\n\\x a") == "\\x a"
    assert expanded("\\def\\x{a \\iff b}\\x") == "a \\iff b"


def test_what_is_no_definition_stays() -> None:
    for text in (r"\newcommand", r"\def", r"\newcommand{x}{y}", r"\def\x", r"\newcommand{\x}[1]", r"\let\x", r"\long x",
                 r"\def\x{", r"\newcommand{\x}{a", r"\DeclareMathOperator{\x}", r"\newenvironment{a}{b}",
                 r"\DeclarePairedDelimiter\x{a}"):  # fmt: skip
        assert expanded(text) == text


def test_calls_without_their_arguments_stay() -> None:
    assert expanded("\\def\\x#1{<#1>}\n{\\x} \\x") == "{\\x} \\x"
    assert expanded("\\def\\x#1;{<#1>}\n\\x a") == "\\x a"
    assert expanded("\\def\\x(#1){<#1>}\n\\x[a]") == "\\x[a]"
    assert expanded("\\newcommand{\\x}[1]{<#1>}\n\\x\n\nnew") == "\\x\n\nnew"
    assert expanded("\\def\\x#1{<#1>}\n\\def\\y{a\\x}\n{\\y} \\y b") == "{a\\x} a<b>"


def test_sections_keep_their_name() -> None:
    assert expanded("\\def\\section{\\bf}\\section{A}") == "\\section{A}"
    old = "\\let\\old\\section\\renewcommand{\\section}[1]{\\old{#1}}\\section{A} \\old{B}"
    assert expanded(old) == "\\section{A} \\section{B}"
    assert expanded("\\newcommand{\\sect}[1]{\\section{#1}\\x}\\sect{A}") == "\\section{A}\\x"


def test_macros_that_lead_to_themselves_are_left() -> None:
    assert expanded(r"\def\a{\a\a}\a x") == r"\a x"
    assert expanded(r"\def\a{x\b}\def\b{y\c}\def\c{z\a}\a \b") == r"\a \b"
    assert expanded(r"\def\a{1\b}\def\b{\b}\a") == r"1\b", "one that only leads there is not circular"


def test_macros_that_blow_up_end_in_a_reason() -> None:
    names = [f"\\{chr(97 + n)}" for n in range(26)]
    laughs = "".join(f"\\def{a}{{{b * 10}}}" for a, b in itertools.pairwise(names)) + r"\def\z{lol}\a"
    found = expand_macros(laughs, 32, 1_000_000)
    assert found.problem is Reason.TOO_LARGE and found.text == "" and found.expansions <= 60_001
    doubling = "\\def\\x#1{#1#1}" + "\\x{" * 60 + "lol" + "}" * 60
    assert expand_macros(doubling, 100, 1_000_000).problem is Reason.TOO_LARGE
    assert len(expand_macros(doubling, 8, 1_000_000).text) < 100_000, "what lies deeper is left as it is called"


def test_a_chain_of_macros_ends_at_the_depth_given() -> None:
    names = [f"\\{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(100)]
    chain = "".join(f"\\def{a}{{{b}}}" for a, b in itertools.pairwise(names))
    assert expanded(chain + names[0]) == names[32]


def steps(text: str) -> int:
    """How many characters and matches the expander looks at, by a count that does not depend on the machine."""
    import sys

    count = 0

    def tick(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return tick

    sys.settrace(tick)  # type: ignore[arg-type]
    try:
        expand_macros(text, 32, 10_000_000)
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize(
    "hostile",
    [
        lambda n: "{" * n,
        lambda n: "\\def\\x#1{#1}" + "\\x{" * n,
        lambda n: "\\def\\x#1;{#1}" + "\\x a" * n,
        lambda n: "\\newcommand{\\x}[2][a]{#1}" + "\\x[" * n,
        lambda n: "\\newcommand{\\x}[2][a]{#1}" + "\\x[" * n + "]",
        lambda n: "\\def\\x#1{#1}" + "\\x{" * n + "}" * n,
        lambda n: "\\def\\x" * n,
        lambda n: "\\newcommand{\\x}[1]" * n,
        lambda n: "\\def\\x{\\x}\\x" * n,
        lambda n: "\\newcommand{\\x}{" * n,
        lambda n: "\\long" * n,
        lambda n: "\\def\\x#1#2{#2}" + "\\x{a}" * n,
        lambda n: "\\let\\x\\x " * n,
        lambda n: "\\def\\x#1{\\y}\\def\\y#1{#1}" + "\\x{" + "\\y " * n + "}",
        lambda n: "".join(f"\\def\\{'a' * (i % 50)}b{{\\{'a' * (i % 50 + 1)}b}}" for i in range(n // 20)),
    ],
)
def test_hostile_macros_take_steps_in_proportion(hostile: object) -> None:
    assert callable(hostile)
    once, thrice = steps(hostile(500)), steps(hostile(1_500))
    assert thrice < 3.5 * once + 1_000


@given(st.text(alphabet="\\{}[]#12ab xd;", max_size=60))
def test_any_text_is_read_to_its_end(tail: str) -> None:
    text = "\\def\\a#1{[#1]}\\newcommand{\\b}[2][x]{#1\\a{#2}}\\let\\d\\def " + tail
    expand_macros(text, 4, 10_000)
    plain = tail.replace("\\", "/")
    assert expanded(plain) == plain
