"""Small inputs of each source as their authors write them, and the texts that people read and found good.

A file of `golden` has one example after another: `=====` and its name, the input, `-----`, the text. A paper's files
begin with `+++++` and their path; the first line of a paper's text is its title, that of a source file its licence.
"""

from pathlib import Path

import pytest

from filters.code.headers import strip_licence
from filters.code.languages import detect_language
from filters.code.licences import identify_header_licence
from filters.formats.characters import normalise_text
from filters.posts.html import render_post
from filters.tex.body import extract_body, extract_title, replace_accents
from filters.tex.macros import expand_macros
from filters.tex.source import restore_literals, strip_false_branches
from filters.tex.submission import assemble
from filters.wikitext.render import render_text

GOLDEN = Path(__file__).with_name("golden")


def render_paper(typed: str) -> str:
    files = dict(file.split("\n", 1) for file in ("\n" + typed).split("\n+++++ ")[1:])
    project = assemble({path: f"{text}\n".encode() for path, text in files.items()}, 16, 1_000_000)
    expanded = expand_macros(strip_false_branches(project.text), 32, 1_000_000).text
    body = replace_accents(extract_body(expanded, "keep"))
    text = normalise_text(restore_literals(body, project.literals, 1_000_000) or "")
    return f"{extract_title(expanded)}\n\n{text}\n"


def render_code(typed: str, path: str) -> str:
    found = strip_licence(typed, detect_language(path))
    return f"{identify_header_licence(found.legal) if found.legal else ''}\n\n{found.text}"


RENDERERS = {
    "arxiv": lambda typed, name: render_paper(typed),
    "github": render_code,
    "stackexchange": lambda typed, name: render_post(typed.removesuffix("\n")) + "\n",
    "wikipedia": lambda typed, name: render_text(typed, name, "T", apparatus=False) + "\n",
}
EXAMPLES = [
    (source, *example.split("\n", 1))
    for source in RENDERERS
    for example in ("\n" + (GOLDEN / f"{source}.txt").read_text(encoding="utf-8")).split("\n===== ")[1:]
]


@pytest.mark.parametrize(("source", "name", "example"), EXAMPLES, ids=[f"{one[0]}, {one[1]}" for one in EXAMPLES])
def test_texts_are_those_that_people_read(source: str, name: str, example: str) -> None:
    typed, _, text = example.partition("\n-----\n")
    assert RENDERERS[source](typed + "\n", name).rstrip("\n") == text.rstrip("\n")
