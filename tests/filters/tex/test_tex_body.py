"""Which part of a paper is the paper, by every rule and bug of the peers; what it is called."""

import pytest

from filters.tex.body import extract_body, extract_title, is_notice

DOCUMENT = "\\documentclass{article}\\title{T}\n\\begin{document}\n%s\n\\end{document}\nleft over"


@pytest.mark.parametrize(
    ("inside", "kept"),
    [
        ("\\maketitle Before. \\section{A} In.", "\\section{A} In."),
        ("x \\section*{A} In.", "\\section*{A} In."),
        ("x \\section [short] {A} In.", "\\section [short] {A} In."),
        ("x \\chapter{A} In.", "\\chapter{A} In."),
        ("x \\part{A} In.", "\\part{A} In."),
        ("\\maketitle Text. \\paragraph{P} More.", "Text. \\paragraph{P} More."),  # RedPajama: nothing
        ("\\paragraph{Keywords} K. \\section{A} In.", "\\section{A} In."),
        ("x \\subparagraph{P} text only", "x \\subparagraph{P} text only"),
        ("\\maketitle\n\\keywords{a, b}\n\\pacs{1.2}\nA letter.", "A letter."),
        ("\\maketitle\\begin{keywords}a\\end{keywords} A letter. \\keywords{x}", "A letter. \\keywords{x}"),
        ("x \\subsection{A} B \\section{C} D", "\\subsection{A} B \\section{C} D"),
        ("\\titleformat{\\section}{x} \\sectionmark y \\section{A} B", "\\section{A} B"),
        ("x\\\\section{A} \\section{B} C", "\\section{B} C"),
        ("\\begin{abstract}An abstract.\\end{abstract}\nA letter.", "A letter."),
        ("\\maketitle A letter.", "A letter."),
        ("\\maketitle \\begin{abstract}x\\end{abstract} A letter.", "A letter."),
        ("\\begin{abstract}x\\end{abstract} \\maketitle A letter.", "A letter."),
        ("A letter.", "A letter."),
        (
            "\\maketitle A letter. \\section*{Acknowledgements} Thanks.",
            "A letter. \\section*{Acknowledgements} Thanks.",
        ),
        ("\\maketitle A. \\section*{\\bf References} [1]", "A. \\section*{\\bf References} [1]"),
        ("\\section{Reference frames} Here.", "\\section{Reference frames} Here."),
        ("\\section{A} B \\bibliographystyle{plain}\\bibliography{all} C", "\\section{A} B  C"),
        ("\\section{A} B \\begin{thebibliography}{9}\\bibitem{x} Y\\end{thebibliography} C", "\\section{A} B  C"),
        ("\\section{A} B \\begin{references} Y\\end{references}", "\\section{A} B"),
        ("\\section{A} B \\printbibliography[title=Works]", "\\section{A} B"),
        ("\\section{A} B \\begin{thebibliography}{9} never ends", "\\section{A} B"),
        (
            "\\section{A} B\n\\section*{References}\n\\begin{small}\n\\begin{enumerate}\n\\item C, 1990.\n"
            "\\item D, 1991.\n\\item E, 1992.\n\\end{enumerate}\n\\end{small}\n\\end{center}\nF",
            "\\section{A} B\n\n\\end{center}\nF",
        ),
        ("\\section{A}\n\n\n\n B   \n \nC", "\\section{A}\n\n B\n\nC"),
    ],
)
def test_a_paper_s_body(inside: str, kept: str) -> None:
    assert extract_body(DOCUMENT.replace("%s", inside), "keep") == kept


def test_appendices_stay_or_go_by_recipe() -> None:
    paper = DOCUMENT.replace("%s", "\\section{A} B \\bibliography{x} \\appendix \\section{C} D")
    assert extract_body(paper, "keep") == "\\section{A} B  \\appendix \\section{C} D"
    assert extract_body(paper, "drop") == "\\section{A} B"


def test_plain_and_ams_tex() -> None:
    assert extract_body("\\magnification=1200 Some text.\\bye more", "keep") == "Some text."
    assert extract_body("x \\beginsection 1. A\n\nText. \\end\nmore", "keep") == "\\beginsection 1. A\n\nText."
    ams = "\\input amstex\n\\document\\topmatter\\title A \\endtitle\\endtopmatter "
    ams += "Text. \\Refs x \\endRefs\\enddocument y"
    assert extract_body(ams, "keep") == "Text." and extract_title(ams) == "A"


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "\\maketitle",
        "\\includepdf[pages=-]{paper.pdf}",
        "\\section{}",
        "\\begin{center}\\includegraphics{a.eps}\\end{center}",
    ],
)
def test_papers_without_a_word(inside: str) -> None:
    assert extract_body(DOCUMENT.replace("%s", inside), "keep") == ""


def test_notices_of_withdrawal() -> None:
    assert is_notice("This paper has been Withdrawn by the authors.")
    assert not is_notice("The claim was withdrawn." + " It was wrong." * 100) and not is_notice("A letter.")


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("\\title{A {\\bf bold} title}", "A {bold} title".replace("bold", " bold")),
        ("\\title[short]{Long\\thanks{To {all}}\\\\ title\\footnote{x}~2}", "Long title 2"),
        ("\\title{\\Large \\textbf{A}}\\title{B}", "\\textbf{A}"),
        ("\\title{}\\title{B}", "B"),
        ("\\titlerunning{R}", ""),
        ("\\title{open", ""),
        ("\\title{" + "x" * 501 + "}", ""),
    ],
)
def test_titles(typed: str, found: str) -> None:
    assert extract_title(typed) == " ".join(found.split())
