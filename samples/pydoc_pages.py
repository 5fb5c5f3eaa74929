"""Make web pages of the running Python's documentation: docstrings, the language reference, and longer comments.

The documented modules are a fixed list of files of the standard library, so other installed packages have no effect.
Files are parsed and never imported. So no code runs, and pages contain no path or memory address of this machine. Only
a few compiled modules are imported. They are part of every interpreter, so no file can replace them, and their
docstrings are the same in all builds of a version.
"""

import ast
import importlib
import inspect
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prose import Block, blocks, body, page

SITE = "https://docs.example.org/python"
# The list of files of the standard library that exist in every Python from 3.11 to 3.14, also in Linux distributions.
MODULES = Path(__file__).parent / "modules.txt"
TOPICS = "pydoc_data/topics.py"
COMPILED = ("_collections", "_functools", "_operator", "_weakref", "builtins", "gc", "itertools", "marshal")
PAGE_CHARACTERS = 4500
BEFORE = """<nav><ul><li><a href="/">Home</a></li><li><a href="/python/">Library</a></li>
<li><a href="/search">Search</a></li></ul></nav>
<noscript>Please enable JavaScript to use the search of this site.</noscript>
"""
AFTER = """<footer><p>This site uses cookies to remember which version of the manual you are reading.</p>
<p>Read our privacy policy and our terms of use before you write to us.</p>
<p>All examples on these pages may be copied freely.</p></footer>
"""


@dataclass
class Section:
    """A heading and the blocks below it."""

    heading: str
    content: list[Block] = field(default_factory=list)


def pages() -> list[tuple[str, str]]:
    """Return (URL, HTML) of all pages, sorted by URL."""
    return sorted(dict([*topic_pages(), *module_pages(), *builtin_pages()]).items())


def topic_pages() -> Iterator[tuple[str, str]]:
    """Yield the pages of the language reference, the texts of `help("topics")`. They are read from a Python file."""
    for node in ast.parse(source_of(TOPICS)).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in ast.literal_eval(node.value).items():
                yield from make_pages(f"reference/{name}", name.replace("-", " ").capitalize(), split_sections(text))


def module_pages() -> Iterator[tuple[str, str]]:
    """Yield pages with the docstrings and longer comments of the files listed in `MODULES`."""
    for file in MODULES.read_text("utf-8").splitlines():
        source = source_of(file)
        name = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        yield from make_pages(f"library/{name}", f"The {name} module", docstrings(ast.parse(source), name))
        yield from make_pages(f"notes/{name}", f"Notes on the source of {name}", [Section("", comments(source))])


def source_of(file: str) -> str:
    """Return the text of a file of the standard library, or "" if this Python does not have the file."""
    path = Path(sysconfig.get_path("stdlib"), file)
    return path.read_text("utf-8") if path.is_file() else ""


def builtin_pages() -> Iterator[tuple[str, str]]:
    """Yield pages with the docstrings of the standard library's compiled modules."""
    for name in COMPILED:
        module = importlib.import_module(name)
        sections = list[Section]()
        for key, thing in sorted(vars(module).items()):
            if key.startswith("_") or key == "WindowsError":  # WindowsError is another name of OSError.
                continue
            if not isinstance(thing, type) and not inspect.isbuiltin(thing):
                continue
            sections.append(Section(key, list(blocks(static_doc(thing)))))
            if isinstance(thing, type):
                members = sorted((k, v) for k, v in vars(thing).items() if not k.startswith("_"))
                sections += [Section(f"{key}.{k}", list(blocks(static_doc(v)))) for k, v in members]
        yield from make_pages(f"builtin/{name}", f"Built-in module {name}", [s for s in sections if s.content])


def static_doc(thing: object) -> str:
    """Return the docstring of a function or class without its signature."""
    doc = getattr(thing, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def docstrings(tree: ast.Module, name: str) -> Iterator[Section]:
    """Yield a section for the module and for each class and function with a docstring, in the order of the source."""
    if doc := ast.get_docstring(tree):
        yield Section("", list(blocks(doc)))
    stack = [(name, node) for node in reversed(tree.body)]
    while stack:
        prefix, node = stack.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}.{node.name}"
            if doc := ast.get_docstring(node):
                yield Section(inner, list(blocks(doc)))
            if isinstance(node, ast.ClassDef):
                stack += [(inner, child) for child in reversed(node.body)]


def comments(source: str) -> list[Block]:
    """Return the paragraphs of comments that are complete sentences, except licences and notes such as TODO."""
    out = list[Block]()
    for lines in re.findall(r"(?:^[ \t]*#.*\n)+", source, re.MULTILINE):
        text = "\n".join(line.strip().lstrip("#") for line in lines.splitlines())
        if not re.search(r"copyright|licen[cs]e|all rights|warrant|XXX|TODO|FIXME|BUG", text, re.IGNORECASE):
            found = [b for b in blocks(inspect.cleandoc(text)) if b.tag in ("p", "li")]
            out += [b for b in found if len(b.text) > 60 and b.text[0].isupper() and b.text[-1] in '.!?"']
    return out


def split_sections(text: str) -> Iterator[Section]:
    """Split a text at its headings and yield the sections."""
    section = Section("")
    for block in blocks(text):
        if block.tag == "h2":
            yield section
            section = Section(block.text)
        else:
            section.content.append(block)
    yield section


def make_pages(path: str, title: str, sections: Iterable[Section]) -> Iterator[tuple[str, str]]:
    """Yield (URL, HTML) of pages with the given sections. A text that repeats is only on the first page that has it.

    Pages with fewer than 200 characters are left out. C4 drops every page with a curly bracket, which would remove most
    pages. Therefore blocks with curly brackets are kept in only one document in four.
    """
    curly, seen = zlib.crc32(path.encode()) % 4 == 0, set[str]()
    parts, size = [list[Block]()], 0
    for block in (block for section in sections for block in pieces(section, curly, seen)):
        if size > (0.7 if block.tag == "h2" else 1) * PAGE_CHARACTERS and block.tag != "pre":
            parts.append([])
            size = 0
        parts[-1].append(block)
        size += len(block.text)
    for number, content in enumerate(parts, 1):
        if sum(len(block.text) for block in content) >= 200:
            name, heading = (f"{path}-{number}", f"{title}, part {number}") if number > 1 else (path, title)
            yield f"{SITE}/{name}.html", page(heading, body(content), before=BEFORE, after=AFTER)


def pieces(section: Section, curly: bool, seen: set[str]) -> Iterator[Block]:
    """Yield the heading and the blocks of a section.

    Args:
        section: The section.
        curly: False leaves out blocks with curly brackets.
        seen: The texts that are already on the pages of this document. They are left out; new texts are added.
    """
    if section.heading:
        yield Block("h2", section.heading)
    for block in section.content:
        if block.text not in seen and (curly or not re.search(r"[{}]", block.text)):
            seen.add(block.text)
            yield block
