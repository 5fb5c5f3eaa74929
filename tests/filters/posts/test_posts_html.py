"""Posts as text: golden cases for each rule and each bug of the reproductions, hostile mark-up, linear time."""

import re
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear

from filters.posts.html import join_thread, render_post

GOLDEN = {
    "paragraphs": ("<p>One\n  two.</p>\n\n<p>Three.</p>\n", "One two.\n\nThree."),
    "line breaks": ("<p>a<br>b<br/>\n c <br /></p>", "a\nb\nc"),
    "emphasis and links": ('<p>See <a href="http://a.example/?b&amp;c">the <em>page</em></a>.</p>', "See the page."),
    "references": ("<p>&lt;b&gt; &amp;amp; &#39;x&#x27; &eacute; &nbsp;y</p>", "<b> &amp; 'x' é y"),
    "headings": ("<h2>Title</h2>\n<p>Text</p><hr><p>More</p>", "Title\n\nText\n\nMore"),
    "code is kept to the blank": (
        "<p>So:</p>\n\n<pre><code>def f(x):\n    if x &lt; 1:\n\treturn  1 \n\n\n\n    return 2\n</code></pre>\n"
        "\n<p>End</p>",
        "So:\n\ndef f(x):\n    if x < 1:\n\treturn  1 \n\n\n\n    return 2\n\nEnd",
    ),
    "code that is indented at first": ("<pre><code>    a\n  b\n</code></pre>", "    a\n  b"),
    "code with a class and spans": (
        '<pre class="lang-py prettyprint-override"><code><span class="k">if</span> a:\n  b</code></pre>',
        "if a:\n  b",
    ),
    "references in code": ("<pre><code>a &amp;&amp; b &amp;lt; &lt;p&gt;</code></pre>", "a && b &lt; <p>"),
    "inline code": ("<p>Use <code>a_b &lt; c</code>, not <code>d</code>.</p>", "Use a_b < c, not d."),
    "a bullet list": (
        "<p>a:</p>\n<ul>\n<li>one</li>\n<li>two\nlines</li>\n</ul>\n<p>b</p>",
        "a:\n\n- one\n- two lines\n\nb",
    ),
    "a numbered list": ("<ol>\n<li>one</li>\n<li>two</li></ol>", "1. one\n2. two"),
    "a list that goes on": ('<ol start="3"><li>x</li><li>y</li></ol>', "3. x\n4. y"),
    "lists in lists": ("<ul><li>a<ol><li>b</li><li>c</li></ol></li><li>d</li></ul>", "- a\n  1. b\n  2. c\n- d"),
    "paragraphs in items": ("<ul><li><p>a</p>\n<p>b</p></li><li><p>c</p></li></ul>", "- a\n\nb\n- c"),
    "code in an item": ("<ul><li>a:<pre><code>  x\n y</code></pre></li></ul>", "- a:\n\n  x\n y"),
    "an empty item": ("<ul><li></li><li>a</li></ul>", "- a"),
    "a quotation": ("<blockquote>\n<p>a</p>\n<p>b<br>c</p>\n</blockquote>\n<p>d</p>", "> a\n>\n> b\n> c\n\nd"),
    "quotations in quotations": ("<blockquote>a<blockquote>b</blockquote>c</blockquote>", "> a\n>\n> > b\n>\n> c"),
    "quoted code": ("<blockquote><pre><code>  a\n\n b</code></pre></blockquote>", ">   a\n>\n>  b"),
    "images": ('<p>a <img src="x.png" alt="enter image description here"> b</p>', "a b"),
    "powers and indices": ("<p>10<sup>6</sup> of H<sub>2</sub>O <sup>small</sup></p>", "10^6 of H_2O small"),
    "exponents of several parts": (
        "<p>2<sup>n+1</sup>, e<sup>-<em>i</em>x</sup>, 10<sup>&minus;3</sup>, a<sub>i, j</sub>, x<sup>$n+1$</sup>"
        " y<sup>[2]</sup></p>",
        "2^(n+1), e^-ix, 10^−3, a_(i, j), x^$n+1$ y^[2]",
    ),
    "ordinals": ("<p>the 5<sup>th</sup> and 21<sup>st</sup>, a<sup>th</sup></p>", "the 5th and 21st, a^th"),
    "raised text without an end": ("<p>2<sup>n<p>b</sup> c<sup></sup>", "2^n\n\nb c^"),
    "struck text": ("<p><del>100</del>50 <s>a</s>b <strike>c</strike> d</p>", "50 b d"),
    "struck text without an end": ("<p>a <s>b</p><p>c</p>", "a b\n\nc"),
    "struck code": ("<p>a</p><del><pre><code>x</code></pre></del><pre><code>  y</code></pre>", "a\n\n  y"),
    "a table": (
        "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>",
        "a | b\n1 | 2",
    ),
    "hints to highlighters": ("<!-- language: lang-js -->\n\n<pre><code>x > 1</code></pre>", "x > 1"),
    "a snippet": (
        '<!-- begin snippet: js hide: false --><div class="snippet"><div class="snippet-code"><pre class="x"><code>a()'
        "\n</code></pre>\n<pre><code>b {}</code></pre></div></div><!-- end snippet -->",
        "a()\n\nb {}",
    ),
    "no scripts": ("<p>a</p><script>if (a < b) alert('<p>')</script><style>p {}</style>b", "a\n\nb"),
    "formulas": ("<p>Let $a &lt; b_1$ and $$\\frac{1}{2}$$</p>", "Let $a < b_1$ and $$\\frac{1}{2}$$"),
    "text without tags": ("a < b, c > d", "a < b, c > d"),
    "a bracket in an attribute": ('<p>a <a title="x > y" href="z">b</a></p>', "a b"),
    "windows line ends": ("<p>a\r\nb</p><pre><code>a\r\n  b\rc</code></pre>", "a b\n\na\n  b\nc"),
    "nothing": ("<p> \n</p><pre><code>\n</code></pre>", ""),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    body, text = GOLDEN[name]
    assert render_post(body) == text


def test_layouts() -> None:
    assert join_thread("T", "Body.", ["One.", "Two."], "qa") == "Q: T\n\nBody.\n\nA: One.\n\nA: Two."
    assert join_thread("T", "Body.", ["One."], "plain") == "T\n\nBody.\n\nOne."
    assert join_thread("", "Body.", [], "qa") == "Q: Body."


HOSTILE: dict[str, Callable[[int], str]] = {
    "open tags": lambda size: "<p" * (size // 2),
    "angle brackets": lambda size: "<" * size,
    "comments": lambda size: "<!--" * (size // 4),
    "quotes": lambda size: '<a "' * (size // 4),
    "mixed quotes": lambda size: "<a \"'" * (size // 7) + "\"'" * (size // 7),
    "nested quotations": lambda size: "<blockquote>" * (size // 10) + "x",
    "nested lists": lambda size: "<ul><li>" * (size // 10) + "x",
    "nested code": lambda size: "<pre>" * (size // 5) + "x",
    "unclosed script": lambda size: "<script>" * (size // 8),
    "references": lambda size: "&" * size,
    "half references": lambda size: "&#" * (size // 2),
    "a huge number": lambda size: "<p>&#" + "9" * size + ";</p>",
    "a huge hexadecimal": lambda size: "&#x" + "f" * size,
    "named references": lambda size: "&amp" * (size // 4),
    "attributes": lambda size: "<a " + 'b="c" ' * (size // 6) + ">",
    "line breaks": lambda size: "<br>" * (size // 4),
    "cells": lambda size: "<td>" * (size // 4),
    "raised": lambda size: "<sup>" * (size // 5),
    "struck": lambda size: "<s>" * (size // 3) + "</s>",
    "blanks": lambda size: " \n\t" * (size // 3) + "x" + " " * (size // 2),
    "items": lambda size: "<li>" * (size // 4) + "x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mark_up_takes_linear_time(name: str) -> None:
    assert_linear(render_post, HOSTILE[name], 300_000)


def test_memory_is_of_the_order_of_the_text() -> None:
    body = "<blockquote><ul><li>" * 4_000 + "<p>x</p>" * 4_000
    tracemalloc.start()
    text = render_post(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(text) < 5 * len(body) and peak < 60 * len(body)


TAGS = re.findall(
    r"\S+",
    "<p> </p> <pre> </pre> <code> </code> <ul> </ul> <li> </li> <blockquote> </blockquote> <ol/start=2> <br> <!-- --> "
    '<sup> <td> </tr> <script> </script> a b &lt; < > &#0; "',
)
TAGS += [" ", "\n"]


@given(st.lists(st.sampled_from(TAGS), max_size=60))
@settings(max_examples=500, deadline=None)
def test_no_mark_up_makes_it_raise_or_invents_words(parts: list[str]) -> None:
    text = render_post("".join(parts))
    assert text.count("a") <= "".join(parts).count("a") and text.count("b") <= "".join(parts).count("b")
    assert "\0" not in text and text == text.strip("\n")


@given(st.text(alphabet="ab <>&\t\n;", max_size=80))
@settings(max_examples=300, deadline=None)
def test_code_comes_back_to_the_blank(code: str) -> None:
    escaped = code.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    expected = code.strip("\n")
    assert render_post(f"<pre><code>{escaped}</code></pre>") == (expected if expected.strip() else "")
