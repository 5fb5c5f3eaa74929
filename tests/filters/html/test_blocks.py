"""Tests of filters.html.blocks and filters.html.names: an example for each rule."""

import html

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree, NodeType

from filters.html.blocks import PREFORMATTED, Page, parse_blocks
from filters.html.features import describe_blocks
from filters.html.model import MODEL, STEP, WEIGHT_STEP, collect_inputs, score_alone, score_blocks
from filters.html.names import BITS, GROUPS, LABELS, read_names


def blocks_of(page: str) -> Page:
    body = HTMLTree.parse(page).body
    assert body is not None
    return parse_blocks(body.html)


def lines_of(page: str) -> list[str]:
    return blocks_of(page).texts


def test_lines_end_at_block_elements_and_breaks() -> None:
    page = blocks_of(
        "<h2>Title <a href=/x>more</a></h2><p>a &lt;b&gt; &amp;amp; <b>c</b><br>d<br><br>e</p>plain\n"
        "<ul><li>one<li>two</ul>"
    )
    assert page.texts == ["Title more", "a <b> &amp; c", "d", "e", "plain", "one", "two"]
    assert page.linked == [4, 0, 0, 0, 0, 0, 0]
    assert page.gaps[1:] == ["\n\n", "\n", "\n\n", "\n\n", "\n\n", "\n"]


def test_dates_in_paragraphs_are_part_of_their_sentences() -> None:
    assert lines_of("<p>On <time datetime=x>1 May</time> it <b>rained <time>all <i>day</i></time></b>.</p>b") == [
        "On 1 May it rained all day.",
        "b",
    ]
    page = blocks_of(
        "<div>By A <time>1 May</time> B<p>c</p><time>2 May<p>d <time>3</time></p>e</time></time></p>f</div>g"
    )
    assert page.texts == ["By A", "1 May", "B", "c", "2 May", "d 3", "e", "f", "g"]
    assert [page.tags[place] for place in page.places] == [
        "div",
        "time",
        "div",
        "p",
        "time",
        "p",
        "time",
        "div",
        "body",
    ]


@pytest.mark.parametrize(
    ("heading", "text"),
    [
        ("<h2>Install<a class=headerlink href=#a title=Link>¶</a></h2>", "Install"),
        ("<h2><a href=#a>#</a> Install</h2>", "Install"),
        ("<h2>C<a href=#a>#</a></h2><h2>A <a href=/b>C#</a> <a href=#a><b>#</b></a> b</h2>", "C A C# b"),
        ("<h2>Item # 5, § 7 ¶</h2>", "Item # 5, § 7 ¶"),
        (
            "<h2>History<span class='a mw-editsection'>[<a href=x>edit</a> | <a href=y>source</a>]</span></h2>",
            "History",
        ),
        ("<p>He said <q cite=x>yes, <q>no</q></q>.</p>", "He said “yes, “no””."),
    ],
)
def test_links_to_headings_and_quotes(heading: str, text: str) -> None:
    page = blocks_of(heading)
    assert " ".join(page.texts) == text
    assert all(linked <= len(line) for linked, line in zip(page.linked, page.texts, strict=True))


def test_cells_of_a_row_are_on_one_line() -> None:
    page = blocks_of("<table><tr><th>a<th>b<tr><td>1<td>2</table>")
    assert "".join(map("".join, zip(page.gaps, page.texts, strict=True))).strip() == "a\tb\n1\t2"


CODE = "\ndef f(x):\n\n    if x:  # two  blanks\n\treturn  1 \n\n"


@pytest.mark.parametrize(
    "markup, lines",
    [
        (f"<p>Code:</p><pre>{CODE}</pre>", ["Code:", "def f(x):\n\n    if x:  # two  blanks\n\treturn  1"]),
        ("<pre><code>    <b>if</b> a &lt; b:<br>\ty</code></pre>", ["    if a < b:\n\ty"]),
        ("<pre>a<br>&nbsp; b\u200b</pre><p>  c  d", ["a\n  b", "c d"]),
        ("<listing>  a</listing><pre> \n\t</pre>", ["  a"]),
    ],
)
def test_preformatted_lines_are_one_block_with_their_blanks(markup: str, lines: list[str]) -> None:
    assert lines_of(markup) == lines


@given(st.text(alphabet="ab <>&\t\n;", max_size=80))
def test_code_keeps_its_blanks(code: str) -> None:
    lines = "\n".join(line.rstrip() for line in code.split("\n")).strip("\n")
    assert lines_of(f"<p>x</p><pre>\n{html.escape(code)}</pre><p>x</p>")[1:-1] == [lines] * bool(lines)


@pytest.mark.parametrize(
    "markup, text",
    [
        ("10<sup>16</sup> and 3×10<sup>-4</sup>, 10<sup>−6</sup>, 10<sup>−n</sup>", "10^16 and 3×10^-4, 10^−6, 10^−n"),
        ("10<sup>n</sup>, <i>x</i><sup><i>k</i></sup> and n<sup>o</sup> 5, a<sup>b</sup>", "10^n, x^k and no 5, ab"),
        ("in 1990<sup>12</sup>, 1991<sup><a href=#n>33</a></sup>", "in 1990^12, 1991^33"),
        ("<b>10</b><sup>6</sup> m<sup>2</sup>/s, (a+b)<sup>2</sup>, Ca<sup>2+</sup>", "10^6 m^2/s, (a+b)^2, Ca^2+"),
        (
            "grew by 5.<sup>12</sup> He said “no.”<sup>3</sup> 北京。<sup>4</sup>",
            "grew by 5.^12 He said “no.”^3 北京。^4",
        ),
        ("10<sup> 6 </sup>of", "10^6 of"),
        ("10<sub>2</sub>, H<sub>2</sub>O, x<sub>1</sub><sup>2</sup>, SO<sub>4</sub>", "10_2, H2O, x1^2, SO4"),
        ("1<sup>st</sup> 2<sup>e</sup> x<sup>[3]</sup> TM<sup>TM</sup> x<sup>*</sup>", "1st 2e x[3] TMTM x*"),
        (
            "<sup>14</sup>C, &nbsp;<sup>238</sup>U, AMS-<sup>14</sup>C, <sup>1</sup>/<sub>2</sub>",
            "14C, 238U, AMS-14C, 1/2",
        ),
        ("2<sup>1</sup>/<sub>2</sub> and 2<sup>1</sup>⁄<sub>2</sub>", "2 1/2 and 2 1⁄2"),
        ("a<sup></sup>2 b<sub></sub>3 1<sup> </sup>2", "a2 b3 1 2"),
        (
            "2<sup>n+1</sup>x, 2<sup><i>n</i> −&nbsp;1</sup>, e<sup>x<sup>2</sup>+1</sup>",
            "2^(n+1)x, 2^(n − 1), e^(x^2+1)",
        ),
        (
            "x<sub>i,j</sub>, (a)<sub><i>k</i>&lt;n</sub>, C<sub>n</sub>H<sub>2n+2</sub>",
            "x_(i,j), (a)_(k<n), CnH_(2n+2)",
        ),
        (
            "x<sup>1/2</sup>, T<sub>1/2</sub>, 10<sup>-<i>n</i></sup>, x<sup>−1/2</sup>",
            "x^(1/2), T_(1/2), 10^-n, x^(−1/2)",
        ),
        (
            "x<sup>n</sup>y, x<sup>n</sup>2, x<sup>n</sup> y, x<sup>n</sup>-y, m<sup>2</sup>K",
            "x^n y, x^n 2, x^n y, x^n-y, m^2K",
        ),
        ("end.<sup>1,2</sup> 1999<sup>3–5</sup> x<sub>1,2</sub> CO<sub>2-eq</sub>", "end.^1,2 1999^3–5 x1,2 CO2-eq"),
        ("n<sup><b>n</b>o</sup>, e<sup>-x<sup>2</sup></sup>, , <sub>i,j</sub>", "nno, e^-x^2, , i,j"),
        ("log<sub>10</sub>100, 10<sup>6</sup>20, 10<sup>6</sup>-20", "log10 100, 10^6 20, 10^6-20"),
    ],
)
def test_raised_and_lowered_numbers_stay_numbers_of_their_own(markup: str, text: str) -> None:
    assert lines_of(f"<p>{markup}</p>") == [text]


DIGITS = st.text("0123456789", min_size=1, max_size=4)
AROUND = st.sampled_from(["{}", "<b>{}</b>", "<a href=x>{}</a>", "<i><b>{}</b></i>", "<!-- c -->{}"])


@given(st.tuples(DIGITS, DIGITS, DIGITS), st.tuples(AROUND, AROUND, AROUND), st.sampled_from(["sup", "sub"]))
def test_a_raised_number_never_joins_another(numbers: tuple[str, ...], around: tuple[str, ...], name: str) -> None:
    base, raised, behind = (each.format(number) for each, number in zip(around, numbers, strict=True))
    first, *others = numbers
    mark = "^" if name == "sup" else "_"
    assert lines_of(f"<p>{base}<{name}>{raised}</{name}>{behind}") == [f"{first}{mark}{' '.join(others)}"]


VARIABLE = st.sampled_from("abnxyαβ")


@given(
    st.lists(st.one_of(VARIABLE, DIGITS, st.tuples(DIGITS, VARIABLE).map("".join)), min_size=2, max_size=5),
    st.sampled_from(["+", "−", " + ", "/", ","]), VARIABLE, st.one_of(VARIABLE, DIGITS), AROUND, st.sampled_from("^_"),
)  # fmt: skip
def test_an_exponent_or_index_of_several_parts_never_joins_its_neighbours(
    operands: list[str], operator: str, base: str, behind: str, around: str, sign: str
) -> None:
    expression = operator.join(operands)
    name = {"^": "sup", "_": "sub"}[sign]
    [line] = lines_of(f"<p>{base}<{name}>{around.format(expression)}</{name}>{behind}")
    if any(map(str.isalpha, expression)) or operator not in (",", "−"):
        assert line == f"{base}{sign}({expression}){behind}"


def test_noscript_in_a_paragraph_is_part_of_its_sentence() -> None:
    page = "<p>Write <script>x</script><noscript>to <b>us</b></noscript> now.</p><noscript>Scripts!</noscript>b"
    assert lines_of(page) == ["Write to us now.", "Scripts!", "b"]
    assert lines_of("<p>a<noscript><p>b</p></noscript>c</p><p>d<noscript>e") == ["a", "b", "c", "de"]


SKIN, JOIN, TAG = "\U0001f3fd", "\u200d", "\U000e0067"


@pytest.mark.parametrize(
    "text",
    [
        "🙂", f"👨{JOIN}👩{JOIN}👧", "🇩🇪", "1\ufe0f\u20e3", "\u2600\ufe0f", "\u26a1", f"👍{SKIN}",
        f"🏃{JOIN}\u2642\ufe0f", f"🏃{JOIN}\u2642", f"❤\ufe0f{JOIN}🔥", f"🏴{TAG}\U000e007f", "é", "卍",
    ],
)  # fmt: skip
def test_a_picture_of_one_character_is_that_character(text: str) -> None:
    assert lines_of(f'<p>Well <img class=emoji alt="{text}">done</p>') == [f"Well {text}done"]


@pytest.mark.parametrize(
    "text", ["", "A", "1", "\u2022", "\u2192", "\u2713", "\U0001f642 smile", "smile", "\u2600", "北京", "\ufe0f"]
)
def test_other_descriptions_of_pictures_are_no_text(text: str) -> None:
    assert lines_of(f'<p>Well <img alt="{text}">done</p><p title="\U0001f642">b</p>') == ["Well done", "b"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("中文\n  字，\n\tテスト\n。", "中文字，テスト。"),
        ("中 文\na\nb\n字 \n 中\r\n文", "中 文 a b 字中文"),
        ("中<b>\n文</b>\n<i>字</i>\n<a href=x>中</a>\n文", "中文 字 中文"),
        ("한국\n어 ｱ\nｲ 中\n\U0001f642", "한국 어 ｱｲ 中 \U0001f642"),
        ("中&nbsp;\n文 中\u3000\n文", "中 文 中 文"),
    ],
)
def test_line_breaks_of_the_source_are_no_blanks_in_writing_without_blanks(markup: str, text: str) -> None:
    assert lines_of(f"<p>{markup}</p>") == [text]


@given(
    st.lists(st.text("中文字あア。，（々", min_size=1, max_size=4), min_size=1, max_size=6),
    st.sampled_from(["\n", " \n\t", "\n\n"]),
)
def test_a_paragraph_of_wide_characters_is_the_same_however_its_source_is_wrapped(lines: list[str], wrap: str) -> None:
    assert lines_of(f"<p>{wrap.join(lines)}</p>") == ["".join(lines)]
    assert lines_of(f"<pre>{wrap.join(lines)}</pre>") == ["\n".join(wrap.join(lines).replace(" ", "").split("\n"))]


@pytest.mark.parametrize(
    "left_out",
    [
        "<svg>a<svg>b</svg>c</svg>", "<object>a<object>b</object>c</object>", "<svg><!-- <svg> -->a</svg>",
        "<svg><style><svg></style>a</svg>", "<svg title='<svg>'>a</svg>", "<del>100</del>", "<s>a<s>b</s>c</s>",
        "<strike>a</strike>", "<span hidden>a<span>b</span>c</span>", "<i style='color: red; display:none'>a</i>",
        "<a hidden href=x>a</a>", "<b style='visibility: hidden'>a</b>", "<rt>kan</rt>", "<rp>(</rp><rt>a</rt>",
        "\xad", "\u200b",
        "\ufeff", "\u2060", "\x07", "&shy;", "&#8203;",
    ],
)  # fmt: skip
def test_what_is_left_out_of_a_line_leaves_no_trace(left_out: str) -> None:
    assert lines_of(f"<p>one{left_out}50 two</p><p>{left_out}after</p>") == ["one50 two", "after"]


@pytest.mark.parametrize(
    "shown",
    ["<span hidden=until-found>a</span>", "<span class=hidden>a</span>", "<b title=' hidden='>a</b>", "<br hidden>a",
     "<keygen hidden>a",
     '<!--b hidden="" x-->a',
     "<ins>a</ins>", "<img style='display:none'>a", "<i aria-hidden=true>a</i>", "<ruby>a<rt>b</rt></ruby>"],
)  # fmt: skip
def test_what_is_shown_stays(shown: str) -> None:
    assert "".join(lines_of(f"<p>one {shown} two</p>")).replace(" ", "") == "oneatwo"


def test_characters_that_join_letters_stay() -> None:
    assert lines_of("<p>می\u200cخواهم \U0001f468\u200d\U0001f469</p>") == ["می\u200cخواهم \U0001f468\u200d\U0001f469"]


@pytest.mark.parametrize(
    "unseen",
    [
        "<script>if (a < b) document.write('<p>x</p>')</script>", "<style>p > a {}</style>", "<!---->",
        "<template><p>x</p></template>",
        "<!-- a comment <p>x</p> \" -->", "<!---->", "<svg><title>x</title></svg>", "<select><option>x</select>",
        "<textarea><p>x</textarea>", "<iframe>x</iframe>",
    ],
)  # fmt: skip
def test_what_is_not_shown_is_no_text(unseen: str) -> None:
    assert lines_of(f"<p>before</p>{unseen}<p>after</p>") == ["before", "after"]


SCRIPT = st.sampled_from(["<!--", "-->", "<script>", "</script>", "<SCRIPT src=a>", "</scripts>", "<scripts>", "\n"])


@given(st.lists(st.one_of(SCRIPT, st.text("xy-<>!", max_size=3)), max_size=9).map("".join))
def test_a_script_ends_where_the_parser_ends_it(script: str) -> None:
    body = HTMLTree.parse(f"<body><p>one<script>{script}</script>").body
    assert body is not None
    shown = [node.text for node in body if node.type == NodeType.TEXT and node.parent.tag != "script"]
    assert " ".join(parse_blocks(body.html).texts).split() == "".join(shown).split()


@pytest.mark.parametrize(
    "tag",
    ["<a title='x > y'>", "<a title='x < y'>", "<a href='x\"><b>hidden</b>'>", '<b ="" a"b>', "<img alt='<p>a</p>'>"],
)
def test_brackets_and_quotes_in_attributes_are_no_text(tag: str) -> None:
    assert lines_of(f"<p>See {tag}this</a> for more.</p><p>after</p>") == ["See this for more.", "after"]


def test_containers_hold_ranges_of_blocks() -> None:
    page = blocks_of("<div class=comments><p>one</p><p>two</p></div><p>three</p>")
    div = page.tags.index("div")
    assert page.texts[page.starts[div] : page.ends[div]] == ["one", "two"]
    assert page.names[div] == BITS["word_comments"] | BITS["element_division"]
    assert all(parent < child for child, parent in enumerate(page.parents))


TAGS = st.sampled_from("div p a b ul li table tr td pre span h1 script article br".split())
PIECES = st.one_of(
    TAGS.map("<{}>".format),
    TAGS.map("</{}>".format),
    st.text("ab <>&\"'=-!\n", max_size=9),
    st.just("<p title='<>\"'>"),
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_page_has_blocks_in_order_and_only_code_begins_with_blanks(markup: str) -> None:
    body = HTMLTree.parse(markup).body
    page = parse_blocks(body.html if body is not None else markup)
    for text, place in zip(page.texts, page.places, strict=True):
        assert text.strip() and text == text.strip("\n") and all(line == line.rstrip() for line in text.split("\n"))
        while place > 0 and page.tags[place] not in PREFORMATTED:
            place = page.parents[place]
        assert place > 0 or text == " ".join(text.split())
    assert len({len(column) for column in page[:4]}) == 1 and len({len(column) for column in page[4:]}) == 1
    for container, (start, end) in enumerate(zip(page.starts, page.ends, strict=True)):
        parent = max(page.parents[container], 0)
        assert page.starts[parent] <= start <= end <= page.ends[parent]
    for index, place in enumerate(page.places):
        assert page.starts[place] <= index < page.ends[place]
    if page.texts:
        features = describe_blocks(page, "a title")
        scores = score_blocks(features, page, MODEL)
        assert len(scores) == len(page.texts) and all(abs(score) < 1e3 for score in scores.tolist())
        assert set(MODEL.features) == set(features.columns)


@pytest.mark.parametrize(
    "attributes, groups",
    [
        ('class="comments-area"', ["word_comments"]),
        ('id="NAV"', ["word_menu"]),
        ('class="no-sidebar has-share tag-comments"', []),
        ('class="card--related"', ["word_item"]),
        ('class="overflow"', []),
        ('class="entry-content"', ["name_body", "word_text"]),
        ('role="navigation"', ["schema_apart"]),
        ('itemtype="https://schema.org/NewsArticle"', ["schema_article"]),
        ('style="color: red; display: none"', ["word_hidden"]),
        ('hidden=""', ["word_hidden"]),
        ('aria-hidden="false"', []),
    ],
)
def test_names_say_what_an_element_is(attributes: str, groups: list[str]) -> None:
    bits = read_names(attributes)
    assert [group for group in GROUPS if bits & BITS[group]] == sorted(groups, key=GROUPS.index)


def test_labels_are_in_lower_case() -> None:
    assert all(label == label.lower().strip() and len(label) > 3 for labels in LABELS.values() for label in labels)


def test_scores_are_exact_so_that_the_order_of_additions_does_not_matter() -> None:
    page = blocks_of("<main><h1>A title</h1><p>A line of 1,234 words, <a>linked</a>.</p></main>" * 30)
    features, network = describe_blocks(page, "A title"), MODEL.blocks
    inputs = np.round(collect_inputs(features, MODEL.features) / STEP).astype(np.int64)
    weights, output = ((part / WEIGHT_STEP).astype(np.int64) for part in (network.weights, network.output))
    sums = (inputs @ weights) * (STEP * WEIGHT_STEP) + network.bias
    exact = np.round(np.maximum(sums[:, :-1], 0) / STEP).astype(np.int64) @ output
    assert np.array_equal(score_alone(features, MODEL), exact * (STEP * WEIGHT_STEP) + sums[:, -1])


def test_the_end_of_a_body_ends_its_last_line_whatever_is_open() -> None:
    for cut in ("<body><div><p>one", "<body><div><p>one<svg><p>two</body>", "<body><p>one<!-- </p></body>"):
        page = parse_blocks(cut)
        assert page.texts == ["one"] and page.ends == [1] * len(page.tags)
    assert parse_blocks("<body><plaintext>a</>b").texts == ["ab"]
