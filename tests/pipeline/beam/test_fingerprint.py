"""Code versions: what an edit changes, on every Python alike."""

import ast
import importlib
import io
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from corpus import ROOT

from filters.quality.c4 import NewestUrl
from filters.quality.duplicate_lines import DuplicateLines
from filters.quality.perplexity import Perplexity
from manifests.recipe import parse_recipe
from pipeline.beam import fingerprint
from pipeline.beam.engines import Engine
from pipeline.beam.fingerprint import code_version, reached_symbols, strip_comments
from pipeline.dedup import containment, neardup, recall, survivors
from pipeline.run import run
from pipeline.sources import base as sources
from pipeline.stages import (
    corpus_index,
    extract,
    join,
    line_dedup,
    perplexity,
    references,
    split_offsets,
    statistics,
    tokenizer,
    url_dedup,
)
from pipeline.stages import filter as filters
from pipeline.stages import tokenize as tokenize_stage

READERS = {kind: sources.import_module(module) for kind, module in sources.READERS.items()}
STEPS = {
    **{f"extract {kind}": (extract.extract, reader.read) for kind, reader in READERS.items()},
    **{f"split_offsets {kind}": (split_offsets.find_offsets, reader.find_pieces) for kind, reader in READERS.items()},
    "join": (join.map_rows,),
    "url_dedup": (url_dedup.reduce_duplicates,),
    "line_dedup": (line_dedup.reduce_duplicates,),
    "perplexity": (perplexity.score_documents, Perplexity),
    "references sample": (references.sample_pages,),
    "references": (references.train_classifier,),
    "filter": (filters.filter_documents, DuplicateLines, NewestUrl),
    "neardup": (neardup.map_bands,),
    "containment": (containment.compare_documents,),
    "clusters": (survivors.choose_survivors,),
    "recall": (recall.compare_copies, recall.measure_recall),
    "tokenizer": (tokenizer.train,),
    "tokenize": (tokenize_stage.encode_documents,),
    "corpus_index": (corpus_index.write_entries,),
    "statistics": (statistics.summarize_split,),
}
FILES = sorted(path for room in ("filters", "manifests", "pipeline", "trainer") for path in (ROOT / room).rglob("*.py"))


def forget() -> None:
    for cached in (fingerprint.code_version, fingerprint._module):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def edit(monkeypatch: pytest.MonkeyPatch, path: str, old: str, new: str) -> None:
    """Replace text in a module, by its path below the root, as far as fingerprints read it; the others stay parsed."""
    read, parsed = fingerprint.read_source, fingerprint._module

    def edited(file: str) -> str:
        text = read(file)
        assert old in text
        return text.replace(old, new)

    @lru_cache
    def module(name: str) -> fingerprint._Module:
        return (parsed.__wrapped__ if fingerprint._path(name) == str(ROOT / path) else parsed)(name)

    monkeypatch.setattr(fingerprint, "read_source", edited)
    monkeypatch.setattr(fingerprint, "_module", module)
    code_version.cache_clear()


def versions() -> dict[str, str]:
    return {name: code_version(*functions) for name, functions in STEPS.items()}


def test_a_docstring_or_comment_edited_anywhere_redoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = versions(), fingerprint.read_source

    def edited(path: str) -> str:
        text = read(path)
        lines = text.splitlines()
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        spans = [
            (node.body[0].lineno, node.body[0].end_lineno, f'{" " * node.body[0].col_offset}"""Other.\n\n# words\n"""')
            for node in nodes
            if node.body and fingerprint._is_docstring(node.body[0])
        ]
        comments = tokenize.generate_tokens(io.StringIO(text).readline)
        spans += [
            (one.start[0], one.start[0], f"{lines[one.start[0] - 1][: one.start[1]]}# other words\n\n")
            for one in comments
            if one.type == tokenize.COMMENT
        ]
        for first, last, new in sorted(spans, reverse=True):
            lines[first - 1 : last] = [new]
        return "\n".join(["# a comment above", "", *lines, "# and one below"])

    monkeypatch.setattr(fingerprint, "read_source", edited)
    forget()
    assert versions() == before


def test_an_edit_changes_the_versions_of_the_steps_that_reach_it_and_of_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = versions()

    def changed_by(path: str, old: str, new: str) -> set[str]:
        with monkeypatch.context() as patch:
            edit(patch, path, old, new)
            after = versions()
        return {name for name in before if before[name] != after[name]}

    assert changed_by("filters/tex/body.py", "\nimport ", "\nEDITED = 1\nimport ") == set(), "nothing uses the name"
    assert changed_by("filters/books/gutenberg.py", "def strip_boil", "def  strip_boil") == {"extract books"}
    assert changed_by("pipeline/sources/arxiv.py", "def find_pieces", "def  find_pieces") == {"split_offsets arxiv"}
    steps = "pipeline/stages"
    assert changed_by(f"{steps}/line_dedup.py", "def reduce_duplicates", "def  reduce_duplicates") == {"line_dedup"}
    of_pages = {"filter", "perplexity", "references sample"}
    assert changed_by(f"{steps}/filter.py", "def read_masks", "def  read_masks") == of_pages
    assert changed_by(f"{steps}/filter.py", "def filter_pages", "def  filter_pages") == of_pages
    assert changed_by("filters/quality/duplicate_lines.py", "def apply", "def  apply") == {"filter"}
    assert changed_by("filters/quality/c4.py", "class NewestUrl", "class  NewestUrl") == {"filter"}
    assert changed_by("filters/quality/perplexity.py", "def apply", "def  apply") >= {"perplexity"}
    assert changed_by("manifests/files.py", "def atomic_path", "def  atomic_path") == set(), "plumbing"


def test_an_edited_table_changes_the_versions_of_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reader_of_tables.py").write_text(
        "from pathlib import Path\n\nDATA_FILES = ('words.tsv',)\n\n\ndef read():\n    return Path(__file__)\n", "utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    read = importlib.import_module("reader_of_tables").read
    found = []
    for words in ("a", "b"):
        (tmp_path / "words.tsv").write_text(words, "utf-8")
        forget()
        found.append(code_version(read))
    assert found[0] != found[1]


TEX = r"\documentclass{article}\begin{document}\section{One}" + "The caf\\'e of the keeper. " * 40 + r"\end{document}"


def test_an_edit_in_the_accents_redoes_the_extraction_of_arxiv_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("arxiv", "books"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            text = TEX if folder == "arxiv" else f"Book {number}. " + "The keeper walked down to the harbour. " * 40
            (tmp_path / folder / f"2401.0000{number}.txt").write_text(text.replace("One", f"One {number}"), "utf-8")
    for path in sorted((tmp_path / "arxiv").iterdir()):
        path.rename(path.with_suffix(".tex"))
    inputs = {name: {"weight": 1.0, "inputs": [str(tmp_path / name / "*")]} for name in ("arxiv", "books")}
    plain = {"name": "x", "seed": 1, "goal_tokens": 9, "sources": inputs, "tokenizer": {"vocabulary": 320}}
    recipe = parse_recipe({**plain, "deduplication": {"canaries": 0}}, "r")

    def ran() -> list[str]:
        before = set((tmp_path / "out/runs").glob("2*.json"))
        run(recipe, tmp_path / "out", Engine(1, (), tmp_path / "out/runs", quiet=True))
        records = set((tmp_path / "out/runs").glob("2*.json")) - before
        tasks = [task for record in records for task in json.loads(record.read_bytes())["tasks"]]
        return sorted(f"{task['stage']} {task['task']}" for task in tasks)

    assert "extract arxiv/2401.00000.tex" in ran()
    module = next(name for name, symbol in reached_symbols(*STEPS["extract arxiv"]) if "accent" in symbol.lower())
    path = module.replace(".", "/") + ".py"
    symbol = next(s for m, s in reached_symbols(*STEPS["extract arxiv"]) if m == module and "accent" in s.lower())
    assert (ROOT / path).is_file() and module.startswith("filters.tex")
    text = (ROOT / path).read_text("utf-8")
    defined = (f"def {symbol}(", f"{symbol} = ", f"{symbol}: ")
    line = next(line for line in text.splitlines() if line.startswith(defined))
    edit(monkeypatch, path, line, line.replace(symbol, f"{symbol} ", 1))
    merged = "statistics/merge all"  # its input names the manifest, which names the code
    assert ran() == ["extract arxiv/2401.00000.tex", "extract arxiv/2401.00001.tex", merged]
    assert ran() == []


TRICKY = '''"""Module."""
import os  # an import

TEXT = """line  

# no comment
"""  # a comment
QUOTED = "#" + '#' + r"\\\\" + f"{'#'}{TEXT!r:>{len('##')}}"  # 'here' "there"


class Empty(Exception):
    """Nothing but words, "quoted" and # marked."""


def function(value: int = 1) -> str:  # why
    """Return it.

    # no comment, a docstring
    """

    """A bare string."""
    if value:
        # alone
        return "a"  \\
            "b"
    return b"#".decode()

'''
GOLDEN = "dad1f9a9cb8ae68e8c6bd9c6554991f26daa0406c50776371bf62177003c40ea"
PRINT_DIGESTS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pipeline.beam import fingerprint
tricky, files = Path(sys.argv[2]), sys.argv[3:]
def digest(paths):
    digest = hashlib.sha256()
    for path in paths:
        fingerprint._path = lambda module: module
        for name, statements in sorted(fingerprint._module(str(path)).statements.items()):
            for one in statements:
                digest.update(repr((name, one.text, sorted(one.uses))).encode())
    return digest.hexdigest()
print(digest([tricky]), digest(files))
"""


def interpreters() -> list[str]:
    found = sorted(Path.home().glob(".pyenv/versions/3.1[1-9]*/bin/python"))
    mine = ".".join(map(str, sys.version_info[:3]))
    return [sys.executable, *(str(path) for path in found if path.parents[1].name != mine)]


def test_the_text_of_code_is_the_same_on_every_python(tmp_path: Path) -> None:
    (tmp_path / "tricky.py").write_text(TRICKY, "utf-8")
    found = {}
    for python in interpreters():
        command = [python, "-c", PRINT_DIGESTS, str(ROOT), str(tmp_path / "tricky.py"), *map(str, FILES)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[python] = done.stdout.split()
    assert {golden for golden, _ in found.values()} == {GOLDEN}
    assert len({own for _, own in found.values()}) == 1, found


def test_comments_are_found_where_the_tokenizer_finds_them() -> None:
    for path in FILES:
        text = path.read_text("utf-8")
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        lines = text.splitlines(keepends=True)
        for token in reversed([token for token in tokens if token.type == tokenize.COMMENT]):
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column] + lines[row - 1][token.end[1] :]
        assert strip_comments("".join(lines)) == strip_comments(text), path
        stripped = [token.string for token in tokenize.generate_tokens(io.StringIO(strip_comments(text)).readline)]
        kept = [t.string for t in tokens if t.type not in (tokenize.COMMENT, tokenize.NL)]
        assert [one for one in stripped if one.strip()] == [one for one in kept if one.strip()], path


def test_strings_keep_their_white_space() -> None:
    assert strip_comments('A = """x  \n\n# y\n"""  # z\n\n\nB = 1 \n') == 'A = """x  \n\n# y\n"""\nB = 1\n'
