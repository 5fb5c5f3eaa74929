"""Tests of filters.html.formulas: formulas in TeX, and formulas read from their visible characters."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.html.extract import extract_text

SQUARE = "<msup><mi>A</mi><mn>2</mn></msup>"


def text_of(markup: str) -> str:
    return extract_text(f"<body><p>Let {markup} be.</p>", extractor="all")


@pytest.mark.parametrize(
    "markup",
    [
        f'<math alttext="A^{{2}}">{SQUARE}</math>',
        f'<math alttext="{{\\displaystyle A^{{2}}}}">{SQUARE}</math>',
        '<math alttext="\\displaystyle A^{2}"><mi>A</mi></math>',
        f'<math><semantics>{SQUARE}<annotation encoding="application/x-tex">{{\\displaystyle A^{{2}}}}</annotation>'
        "</semantics></math>",
        '<m:math><m:semantics><m:mi>A</m:mi><m:annotation encoding="TeX">A^{2}</m:annotation></m:semantics></m:math>',
        # MediaWiki: the formula is hidden, and followed by a picture.
        f'<span><span style="display: none;"><math alttext="x"><semantics>{SQUARE}<annotation encoding='
        '"application/x-tex">A^{2}</annotation></semantics></math> </span><img alt="{\\displaystyle A^{2}}"></span>',
        # KaTeX: the formula occurs twice, for screen readers and for display.
        f'<span><span class="katex-mathml"><math><semantics>{SQUARE}<annotation encoding="application/x-tex">A^{{2}}'
        '</annotation></semantics></math></span><span class="katex-html" aria-hidden="true">A2</span></span>',
        # MathJax 2: a script alone, after its preview, or in a page that was saved after the formula was rendered.
        '<script type="math/tex">A^{2}</script>',
        '<span class="MathJax_Preview">A2</span><script type="math/tex; mode=display">A^{2}</script>',
        '<span class="MathJax" id="m"><nobr><b>A2</b></nobr></span><script type="math/tex">A^{2}</script>',
        '<span class="MathJax"><span class="MJX_Assistive_MathML"><math alttext="A^{2}"><mi>A</mi></math></span></span>'
        '<script type="math/tex">A^{2}</script>',
        '<script type="math/tex">% <![CDATA[\nA^{2} %]]></script>',
        # WordPress, and older versions of MediaWiki.
        '<img src="/latex.php?latex=A%5E2" alt="A^{2}" class="latex">',
        '<img class="mid latex" alt="$latex A^{2}$">',
        '<img class="tex" alt="A^{2}" src="a.png">',
    ],
)
def test_the_tex_of_a_formula_is_read_once(markup: str) -> None:
    assert text_of(markup) == "Let A^{2} be."


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ('<script type="math/tex">a</script><script type="math/tex">b</script>', "Let ab be."),
        ('<script type="math/tex">a < b & c &lt; d</script>', "Let a < b & c &lt; d be."),
        ('<script type="math/tex"></script>', "Let be."),
        ('<script type="text/javascript">a</script><span class="MathJax">x</span>', "Let x be."),
        ('<img class="latex"><img alt="a"><img class="vertex" alt="a"><img title=\'class="tex"\' alt="a">', "Let be."),
    ],
)
def test_scripts_and_pictures(markup: str, text: str) -> None:
    assert text_of(markup) == text


@pytest.mark.parametrize(
    "shown, text",
    [
        (SQUARE, "A^2"),
        ("</math><m:math><m:msup><m:mi>A</m:mi><m:mn>2</m:mn></m:msup></m:math><math>", "A^2"),
        ("<mn>10</mn><mn>16</mn>", "10 16"),
        ("<msup><mn>10</mn><mrow><mo>−</mo><mn>6</mn></mrow></msup>", "10^−6"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mn>1</mn></mrow><mn>2</mn></mfrac>", "(a+1)/2"),
        ("<msubsup><mo>∫</mo><mn>0</mn><mn>1</mn></msubsup><mi>x</mi>", "∫_0^1x"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", "x^(1/3)"),
        ("<msqrt><mi>a</mi><mo>&lt;</mo><mi>b</mi></msqrt>", "√(a<b)"),
        ("<msub><mi></mi><mn>2</mn></msub>", "_2"),
        ("<semantics><mi>x</mi><annotation-xml encoding='MathML-Content'><ci>x</ci></annotation-xml></semantics>", "x"),
        ("<mi>f</mi><mo>&#x2061;</mo><mi>x</mi>", "fx"),
    ],
)
def test_without_tex_the_formula_is_read_as_shown(shown: str, text: str) -> None:
    assert text_of(f"<math>{shown}</math>") == f"Let {text} be."


TREES = st.recursive(
    st.text("0123456789", min_size=1, max_size=3).map("<mn>{}</mn>".format),
    lambda inner: st.tuples(
        st.sampled_from(["mrow", "msup", "msub", "mfrac", "msqrt", "msubsup"]), st.lists(inner)
    ).map(lambda node: f"<{node[0]}>{''.join(node[1])}</{node[0]}>"),
    max_leaves=8,
)


@given(TREES)
def test_numbers_of_a_formula_are_those_shown(shown: str) -> None:
    text = text_of(f"<math>{shown}</math>")
    assert re.findall(r"\d+", text) == re.findall(r"\d+", re.sub("<[^>]*>", " ", shown))


def test_struck_formulas_are_left_out() -> None:
    assert text_of(f"<del><math>{SQUARE}</math></del>x") == "Let x be."
