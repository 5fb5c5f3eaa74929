"""Plain TeX, AMS-TeX and harvmac: what comes before the text and after it; files of macros; Cyrillic without a name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.reasons import Reason
from filters.tex.body import extract_body, extract_title, is_macro_file, skip_preamble, strip_references
from filters.tex.source import CYRILLIC, decode
from manifests.source import Source
from pipeline.sources import arxiv

PREAMBLES = [
    "\\magnification=1200\n",
    "\\magnification\\magstep1 \\hsize=6.5truein\\vsize 9 true in\n",
    "\\magnification=\\magstephalf\n\\baselineskip=18pt plus 2pt minus 1pt\\parskip 3pt\n",
    "\\newdimen\\offdimen \\newcount\\EQNO \\EQNO=0 \\newif\\ifdraft \\newbox\\strutbox\n",
    "\\font\\big=cmbx10 scaled\\magstep2 \\font\\bb=msbm10 at 12pt\\font\\it cmti10 scaled 1200\n",
    '\\newfam\\bmfam\\textfont\\bmfam=\\tenbm \\mathchardef\\Theta="7102 \\chardef\\x=`x\n',
    "\\catcode`\\@=11 \\catcode`@ = 12 \\nopagenumbers\\raggedbottom\n",
    "\\headline={\\ifnum\\pageno>1 \\hfil{\\sl A Title}\\hfil\\fi}\\footline = {\\hss\\folio\\hss}\n",
    "\\input amstex \\documentstyle{amsppt}\n\\NoBlackBoxes\\pagewidth{30pc}\\TagsOnRight\n",
    "\\input harvmac\n\\overfullrule=0pt\\tolerance=1000\\abovedisplayskip=12pt plus 3pt\n",
    "\\vskip 1cm\\bigskip\\null\\vfill\\eject\n",
]
BODIES = [
    "The text begins. It has words.",
    "\\noindent The text begins.",
    "$x=1$ is known.",
    "{\\bf Abstract.} We show.",
]

# Lists of references, none of which an environment of LaTeX encloses, and the text before and after them.
REFERENCES = [
    "\\centerline{\\bf REFERENCES}\n\\bigskip\n\n\\item{[1]} A. B, {\\it Phys.} {\\bf 76} (1949).\n\n"
    "\\item{[2]} C (1965).\n\n\\item{[3]} D.\n\n",
    "{\\bf References}\n\\item{1.} A, 1990.\n\\item{2.} B, 1991.\n\\item{3.} C, in\nD, 1992.\n\n",
    "\\noindent{\\bf R\\'ef\\'erences}\\par\n[1] A, 1990.\n[2] B.\n[3] C.\n\n",
    "\\beginsection Bibliography\n\n1. A.\n\n2. B.\n\n3. C.\n\n",
    "\\newsec{References}\n\\item{[A]} A.\n\\item{[B1]} B.\n\\item{[C]} C.\n\n",
    "\\centerline{\\bf References}\\medskip\nA 1990\\ {\\it Phys.}\\ \\par\nB (1991)\\par\nC, D, 1992.\\par\n",
    "{\\bf References}\n\nA, 1990.\n\nB, {\\it J. Phys.} (1991).\n\nC, D, 1992.\n\n",
    "\\section*{Литература}\n\\item A.\n\\item B.\n\\item C.\n\n",
    "\\item{[1]} A, 1990.\n\\item{[2]} B, 1991.\n\\item{[3]} C, 1992.\n\n",
    "\\ref\\key 1\\by A \\paper B \\yr 1990\\endref\n\\ref \\no 2\\by C\\endref ",
    "\\Refs\n\\ref\\key{A}\\by A\\endref\\endRefs ",
    "\\Refs\\widestnumber\\key{9}\n\\ref\\no1\\by A\\book B\\endref\n\\endRefs\n",
    "\\thebibliography{99}\\bibitem{a} A\\endthebibliography ",
    "\\begin{numbibliography}\\bibitem{a} A\\end{numbibliography} ",
    "\\begin{thereferences}{9}A\\end{thereferences} ",
    "\\lref\\wein{S. Weinberg, Phys. Rev. {\\bf 1} (1967)}\\nref\\gl{S. Glashow}\\listrefs ",
    "\\REF\\a{A, Phys. Rev.}\\refout ",
]
STAYS = [
    "\\item{[1]} An axiom.\n\\item{[2]} Another.\n\\item{[3]} A third.\n\n",
    "\\item{(i)} One of 1990.\n\\item{(ii)} Two of 1991.\n\\item{(iii)} Three of 1992.\n\n",
    "{\\bf References}\n\nThese are given in the text of the first part, which is a paragraph.\n\n",
    "{\\bf References}\n\nIn 1990 it began.\n\nThen it went on.\n\nIt ended in 1992.\n\n",
    "see \\ref{fig} and \\ref{x}, References to others.\n\n",
    "{\\bf References and notation}\n\\item{1.} A.\n\\item{2.} B.\n\\item{3.} C.\n\n",
]


@given(st.lists(st.sampled_from(PREAMBLES), max_size=5), st.sampled_from(BODIES))
@settings(max_examples=200, deadline=None)
def test_a_plain_paper_begins_behind_its_settings(settings_: list[str], body: str) -> None:
    assert extract_body("".join(settings_) + body + "\n\\bye\n", "keep") == body


@pytest.mark.parametrize("before", ["\\section{A} b", "\\newsec{A} b", "\\head A\\endhead b", "\\subheading{A} b"])
@pytest.mark.parametrize(
    "start", ["\\Title{HUTP-1}{A title}\n\\Date{5/90}", "\\topmatter\\title A\\endtitle\\endtopmatter"]
)
def test_sections_of_every_format(before: str, start: str) -> None:
    assert extract_body(f"\\input harvmac\n{start}\nAbstract.\n{before}\n\\bye", "keep") == before


def test_harvmac_without_sections_begins_behind_its_title_page() -> None:
    paper = "\\hsize=6in\\Title{\\vbox{HUTP-1}}{\\centerline{A {\\it good} title}}\nAbstract."
    paper += "\\Date{1/90}\nText.\\listrefs\\bye"
    assert extract_body(paper, "keep") == "Text."
    assert extract_body(paper.replace("\\Date{1/90}", ""), "keep").endswith("Text.")
    assert extract_title(paper) == "A { good} title"


@pytest.mark.parametrize("references", REFERENCES)
def test_lists_of_references_go(references: str) -> None:
    text = strip_references(extract_body(f"\\section{{A}} Before.\n\n{references}After it.\n\\bye", "keep"))
    assert text.split() == ["\\section{A}", "Before.", "After", "it."]


@pytest.mark.parametrize("text", STAYS)
def test_other_lists_stay(text: str) -> None:
    assert strip_references(f"Before.\n\n{text}After.") == f"Before.\n\n{text}After."


def test_a_citation_that_holds_its_reference_keeps_its_name() -> None:
    assert (
        strip_references("as in \\ref\\wein{S. {W}, 1967} and \\refs{\\a,\\b}.") == "as in \\wein and \\refs{\\a,\\b}."
    )


MACROS = r"""\catcode`\@=11
\newcount\secno \global\secno=0
\def\newsec#1{\global\advance\secno by1\message{(section)}}
\newdimen\fullhsize\def\eqn#1#2{\xdef #1{(\secsym\the\meqno)}}
\font\titlerms=cmr7 scaled\magstep4
\message{This will be big or little, and a long text says so in many words.}\let\l@r=L
\def\a{alpha beta}
"""


@pytest.mark.parametrize("name", ["macros.tex", ""])
def test_files_of_macros_are_no_documents(name: str) -> None:
    data = MACROS.encode()
    (outcome,) = arxiv.read(data, name or "0001001", "a", Source(weight=1, kind="arxiv"))
    assert outcome.reason is Reason.NO_BODY_TEXT and outcome.document is None
    assert not is_macro_file(MACROS, "Words of a paper, which has a text, too. " * 20)


RUSSIAN = (
    "Доказательство теоремы основано на утверждении. Пусть функция непрерывна на отрезке, тогда она достигает "
    "своего наибольшего значения. Рассмотрим последовательность операторов, действующих в гильбертовом пространстве. "
)
UKRAINIAN = (
    "Доведення теореми ґрунтується на такому твердженні. Нехай функція неперервна на відрізку, тоді вона досягає свого "
    "найбільшого значення. Розглянемо послідовність операторів, що діють у гільбертовому просторі. "
)
BULGARIAN = (
    "Доказателството на теоремата се основава на твърдение. Нека функцията е непрекъсната в интервала, тогава тя "
    "достига своята най-голяма стойност. Разглеждаме редица от оператори, които действат в пространството. "
)
WESTERN = {
    "cp1252": "Über die Lösung der Gleichungen für große Räume; théorème démontré à l'école où les élèves étudiaient. ",
    "latin-1": "Öll börn eiga rétt á þessu; años después señaló la solución número través; não há mais informações. ",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy; zażółć gęślą jaźń i żółte kwiaty. ",
}


@pytest.mark.parametrize("encoding", CYRILLIC)
@pytest.mark.parametrize("text", [RUSSIAN, UKRAINIAN, BULGARIAN], ids=["ru", "uk", "bg"])
@pytest.mark.parametrize(
    "form", ["\\section{%s} $x_1=\\alpha$", "%%s\n{\\bf %s}", "%s", "\\title{On x}English words: %s"]
)
def test_undeclared_cyrillic_is_detected(encoding: str, text: str, form: str) -> None:
    if encoding in ("cp866", "iso8859-5"):
        text = text.replace("ґ", "г")  # letters that they lack
    if encoding == "cp866":
        text = text.replace("і", "и")
    typed = form.replace("%s", text)
    assert decode(typed.encode(encoding)) == typed


@pytest.mark.parametrize("encoding", CYRILLIC)
def test_a_line_of_cyrillic_is_enough(encoding: str) -> None:
    """As the title and the first sentence of an abstract have it; fewer words may be anything."""
    typed = "\\title{" + " ".join(RUSSIAN.split()[:12]) + "} The text is English."
    assert decode(typed.encode(encoding)) == typed
    few = "Name: " + " ".join(RUSSIAN.split()[:4])
    assert decode(few.encode("cp1251")) == few.encode("cp1251").decode("cp1252")


@pytest.mark.parametrize("character", "─═│█")
def test_boxes_of_dos_are_no_cyrillic(character: str) -> None:
    data = f"% {character * 3} a {character * 30}\n".encode("cp437") * 20 + "é".encode("cp1252")
    assert not any("а" <= letter <= "я" for letter in decode(data).lower())


@pytest.mark.parametrize("encoding", WESTERN)
def test_other_encodings_are_not_taken_for_cyrillic(encoding: str) -> None:
    data = (WESTERN[encoding] * 20).encode(encoding)
    assert decode(data) == data.decode("cp1252", "replace") or encoding == "cp1250"
    assert not any("а" <= letter <= "я" for letter in decode(data))


HOSTILE = """References
|References
\\item{[1]} a 1990
|\\item{[1]}|\\item{[1]} a
|\\ref\\key|\\ref\\a{|\\lref\\a{b}|\\Title{a}{b}|\\Title{|\\head a|\\hsize=1in|\\font\\a=b |\\headline={|{\\bf |[1]
|\\newif"""


@pytest.mark.parametrize("piece", HOSTILE.split("|"))
def test_hostile_plain_tex_takes_linear_time(piece: str) -> None:
    assert_linear(lambda text: extract_body(text, "keep"), repeated(piece), 80_000)
    assert_linear(lambda text: skip_preamble(text, 0), repeated(piece), 80_000)
    assert_linear(lambda text: is_macro_file(text, text), repeated(piece), 80_000)
