"""Beside RedPajama: its sample rows, and its rules (written from their description) on the real submissions at hand.
docs/sources/arxiv.md has the counts."""

import gzip
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from filters.formats.tar import read_entries
from filters.tex.body import extract_body
from filters.tex.macros import expand_macros
from filters.tex.source import strip_comments, strip_false_branches
from manifests.source import Source
from pipeline.sources import arxiv

SHARED = Path(__file__).parents[4] / "shared/data"
ROWS = SHARED / "c4_redpajama/redpajama-sample_arxiv1.jsonl.gz"
HERE = pytest.mark.skipif(not ROWS.exists(), reason="the real sample data (../shared/data) is not here")

_HEAD = re.compile(r"\\(?:chapter|part|section|subsection|subsubsection)\b\*?(?:\[.*?\])?\{.*?\}", re.DOTALL)
_CUT = re.compile(
    r"(?:\\appendix|\\begin\{(?:references|REFERENCES|thebibliography)\}|\\bibliography\{.*\}).*\Z", re.DOTALL
)
_MACRO = re.compile(r"(?m)^\s*(?:\\newcommand\*?\{?\\([a-zA-Z]+)\}?|\\def\s*\\([a-zA-Z]+))\{(.*)\}[ \t]*$")


def theirs(files: dict[str, bytes]) -> str | None:
    """RedPajama's text of a project: its `.tex` files in order; None where one of them is not UTF-8."""
    try:
        texts = [data.decode() for name, data in files.items() if name.endswith(".tex") or name == ""]
    except UnicodeDecodeError:
        return None
    macros = {found[1] or found[2]: found[3] for text in texts for found in _MACRO.finditer(text)}
    out = []
    for text in texts:
        head = _HEAD.search(text)
        if head is None:
            continue
        cleaned = re.sub(r"(?m)^%.*\n?", "", text[head.start() :])
        cleaned = _CUT.sub("", re.sub(r"(?m)[^\\]%.+$", "", cleaned))
        for name, value in macros.items():
            cleaned = re.sub(rf"\\{name}(?=[^a-zA-Z0-9])", lambda _, value=value: value, cleaned)
        out.append(cleaned)
    return "\n".join(out)


def submissions() -> Iterator[tuple[str, bytes]]:
    for path in sorted((SHARED / "arxiv").rglob("*")):
        if path.suffix == ".tar":
            stored = path.read_bytes()
            yield from ((i.name, stored[i.data : i.data + i.size]) for i in read_entries(stored) if i.kind == "file")
        elif path.is_file():
            yield path.name, path.read_bytes()


def project(stored: bytes) -> dict[str, bytes]:
    data = gzip.decompress(stored)
    if data[257:262] != b"ustar":
        return {"": data}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = ((item.name, archive.extractfile(item)) for item in archive if item.isfile())
        return {name: file.read() for name, file in found if file is not None}


@HERE
def test_their_rows_differ_from_ours_in_the_ways_the_docs_name() -> None:
    with gzip.open(ROWS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["text"] for line in file]
    told: Counter[str] = Counter()
    for text in rows:
        marks = {
            "CR": "\r" in text, "blank at the ends": text != text.strip(),
            "comment": re.search(r"(?m)(?<!\\)%", text) is not None,
            "style of a bibliography": "\\bibliographystyle" in text,
            "preamble and definitions": "\\begin{document}" in text,
        }  # fmt: skip
        told.update(name for name, found in marks.items() if found)
        cleaned = strip_false_branches(strip_comments(text.replace("\r\n", "\n"), []))
        ours = extract_body(
            f"\\begin{{document}}{cleaned}" if not marks["preamble and definitions"] else cleaned, "keep"
        )
        same = ours.split() == text.split()
        told["the same words"] += same
        assert same or any(marks[name] for name in ("comment", "style of a bibliography", "preamble and definitions"))
    assert told == {
        "CR": 1, "blank at the ends": 10, "comment": 2, "style of a bibliography": 1, "preamble and definitions": 1,
        "the same words": 6,
    }  # fmt: skip
    preamble = next(text for text in rows if "\\begin{document}" in text)
    assert preamble.startswith("\\section{#1}"), "a heading in a macro counts as a section"
    ours = extract_body(
        expand_macros("\\newcommand{\\sect}[1]{" + strip_comments(preamble, []), 32, 1_000_000).text, "keep"
    )
    assert ours.startswith("\\section{") and "\\newcommand" not in ours and "#1" not in ours


def differences(ours: str, files: dict[str, bytes]) -> list[str]:
    """In which ways RedPajama's text of a project differs from ours."""
    their = theirs(files)
    if their is None:
        visible = {name: data for name, data in files.items() if "._" not in name}
        return ["dropped: not UTF-8" if theirs(visible) is None else "dropped: hidden files are not UTF-8"]
    if not their:
        named = any(name.endswith(".tex") or not name for name in files)
        return ["dropped: no section" if named else "dropped: no .tex"]
    told = ["begins in the preamble"] if "\\begin{document}" in their else []
    told += ["no appendix"] if "\\appendix" in ours else []
    words, others = (Counter(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", text)) for text in (ours, their))
    typed = (data for name, data in files.items() if name.endswith(".tex") or not name)
    tex = " ".join(data.decode("latin-1") for data in typed)
    calls = re.findall(r"\\newcommand\*?\{?\\([a-zA-Z]+)|\\def\s*\\([a-zA-Z]+)", tex)
    named = {f"\\{one or two}" for one, two in calls}
    assert not named & set(re.findall(r"\\[a-zA-Z]+", ours)), "every macro of these papers is written out"
    left = named & set(re.findall(r"\\[a-zA-Z]+", their)) - set(re.findall(r"\\[a-zA-Z]+", ours))
    told += ["macros left"] if left else []
    told += ["style of the bibliography left"] if "\\bibliographystyle" in their else []
    return told or ["the same words" if words == others else "other words"]


@HERE
def test_their_rules_on_real_submissions_differ_in_the_ways_the_docs_name() -> None:
    told: dict[str, list[str]] = {}
    for name, stored in submissions():
        for outcome in arxiv.read(stored, name, "arxiv", Source(weight=1.0, kind="arxiv")):
            if outcome.document is not None:
                told[name] = differences(outcome.document.text, project(stored))
    assert Counter(way for ways in told.values() for way in ways) == {
        "dropped: not UTF-8": 2, "dropped: hidden files are not UTF-8": 2, "dropped: no .tex": 1,
        "dropped: no section": 1, "begins in the preamble": 1, "no appendix": 2, "macros left": 6,
        "style of the bibliography left": 2, "the same words": 3,
    }, told  # fmt: skip
