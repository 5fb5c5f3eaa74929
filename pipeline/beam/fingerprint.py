"""Compute code versions: hashes of the source text of all code that a function reaches, directly or indirectly.

The code is found definition by definition. The names that a function uses are resolved to definitions in the same
module, or in the modules from which they are imported, including imports inside functions. So a changed definition
invalidates only the results of the steps that reach it. Docstrings and comments are removed before hashing, so changes
of docstrings and comments invalidate nothing. Source text is hashed instead of syntax trees, because the printed form
of a syntax tree differs between Python versions.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGES = ("filters", "manifests", "pipeline")
# Modules whose code counts in no version: they only move bytes, or their values are part of the fingerprint.
NOT_COVERED = frozenset(
    {
        "filters.errors",
        "filters.reasons",  # the values of Reason never change
        "filters.dedup.settings",  # the values of settings are hashed
        "manifests.files",
        "manifests.ledger",
        "manifests.order",
        "manifests.recipe",  # the values of settings are hashed
        "manifests.source",
        "manifests.stages",
        "pipeline.beam.counters",
        "pipeline.beam.engines",
        "pipeline.beam.quarantine",
        "pipeline.beam.job",
        "pipeline.beam.marks",
        "pipeline.beam.receipts",
        "pipeline.beam.step",
        "pipeline.beam.task",
        "pipeline.beam.tasklist",
        "pipeline.beam.waves",
        "pipeline.beam.work",
        "manifests.mirror",
        "manifests.storage",
    }
)

_STRING = r"'''(?:\\.|(?!''').)*'''|\"\"\"(?:\\.|(?!\"\"\").)*\"\"\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\""
_LAYOUT = re.compile(rf"({_STRING})|(?:[ \t]*(?:#[^\n]*)?\n)+|[ \t]*#[^\n]*|[ \t]+\Z", re.DOTALL)

DATA_FILES = "DATA_FILES"  # name of a module's constant that lists the data files which the module reads
Symbol = tuple[str, str]  # a module's dotted name, and a name that the module defines at its top level


@lru_cache(maxsize=512)
def code_version(*functions: Callable[..., Any]) -> str:
    """Return the SHA-256, in hexadecimal, of all code that module-level functions reach.

    The hash includes the version of each installed distribution that the code imports, and the version of Unicode.

    Args:
        functions: the function of a step, and the functions that it looks up at run time.
    """
    digest = hashlib.sha256(f"unicode {unicodedata.unidata_version}\n".encode())
    code, libraries = _reach(functions)
    for (module, _), text in sorted({(key, text) for key, texts in code.items() for text in texts}):
        digest.update(f"{module}\0{text}\0".encode())
    for library in sorted(libraries - set(sys.stdlib_module_names)):
        for distribution in _versions(library):
            digest.update(f"{distribution}\n".encode())
    return digest.hexdigest()


def reached_symbols(*functions: Callable[..., Any]) -> set[Symbol]:
    """Return all definitions that the code version of functions covers."""
    return set(_reach(functions)[0])


def strip_comments(text: str) -> str:
    """Return source text without comments, blank lines and trailing white space. Strings are not changed."""
    return _LAYOUT.sub(lambda found: found[1] or ("\n" if "\n" in found[0] else ""), text)


def read_source(path: str) -> str:
    """Return the source text of a module's file."""
    return Path(path).read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Statement:
    """A statement at a module's top level.

    Attributes:
        text: source text without docstrings and comments.
        uses: dotted names in the statement, split at the dots.
        imports: from each name that an import inside the statement binds to the imported dotted name.
    """

    text: str
    uses: frozenset[tuple[str, ...]]
    imports: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Module:
    """The statements of a module.

    Attributes:
        statements: from a name to the statements that define it. The key "" has the statements that define no name.
            They run when the module is imported.
        imports: from each name that an import at top level binds to the imported dotted name.
    """

    statements: Mapping[str, list[_Statement]]
    imports: Mapping[str, tuple[str, ...]]


def _reach(functions: tuple[Callable[..., Any], ...]) -> tuple[dict[Symbol, list[str]], set[str]]:
    """Follow the code of functions.

    Returns:
        A dict from each reached definition to its source texts, and the top-level names of all other packages that the
        definitions import.
    """
    waiting: list[Symbol] = [(one.__module__, one.__qualname__.partition(".")[0]) for one in functions]
    packages = {*PACKAGES, *(module.partition(".")[0] for module, _ in waiting)}
    found: dict[Symbol, list[str]] = {}
    libraries: set[str] = set()
    while waiting:
        module, name = symbol = waiting.pop()
        if symbol in found or module in NOT_COVERED:
            continue
        statements = _module(module).statements
        if name not in statements and name not in _module(module).imports and not name.startswith("__"):
            raise LookupError(
                f"{module} defines no {name!r}: the version of {functions[0].__module__} would not cover it"
            )
        found[symbol] = [statement.text for statement in statements.get(name, ())]
        found[symbol] += _data(module) if name == DATA_FILES else []
        waiting += [(module, one) for one in ("", DATA_FILES) if one in statements]
        targets = [_module(module).imports[name]] if name in _module(module).imports else []
        for statement in statements.get(name, ()):
            for first, *rest in statement.uses:
                if first in statement.imports:
                    targets.append((*statement.imports[first], *rest))
                elif first in _module(module).statements:
                    waiting.append((module, first))
                elif first in _module(module).imports:
                    targets.append((*_module(module).imports[first], *rest))
        for target in targets:
            if target[0] in packages:
                waiting += _symbols(target)
            else:
                libraries.add(target[0])
    return found, libraries


def _symbols(target: tuple[str, ...]) -> Iterator[Symbol]:
    """Yield the definition to which a dotted name refers. If it refers to a module, yield all its definitions."""
    length = next(size for size in range(len(target), 0, -1) if _path(".".join(target[:size])))
    module = ".".join(target[:length])
    if length < len(target):
        yield module, target[length]
    elif module not in NOT_COVERED:
        yield from ((module, name) for name in _module(module).statements)


@lru_cache(maxsize=1024)
def _module(name: str) -> _Module:
    """Parse the source text of a module, given its dotted name."""
    path = _path(name)
    text = read_source(path) if path else ""
    tree = ast.parse(text)
    stored, starts = text.encode(), [0]
    for line in stored.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    statements: dict[str, list[_Statement]] = {"": []}
    imports: dict[str, tuple[str, ...]] = {}
    for node in tree.body:
        if _is_docstring(node):
            continue
        nodes = _walk(node)
        own = dict(_imports(nodes))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.If | ast.Try):
            imports |= own
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        pieces, place = [], starts[first - 1]
        inside = [inner for inner in nodes if isinstance(inner, ast.Expr) and _is_docstring(inner)]
        for inner in sorted(inside, key=lambda one: (one.lineno, one.col_offset)):
            pieces.append(stored[place : starts[inner.lineno - 1] + inner.col_offset])
            place = starts[(inner.end_lineno or inner.lineno) - 1] + (inner.end_col_offset or 0)
        pieces.append(stored[place : starts[node.end_lineno or first]])
        statement = _Statement(strip_comments(b"".join(pieces).decode()).strip("\n"), frozenset(_uses(nodes)), own)
        for defined in sorted(_defined(nodes)) or [""]:
            statements.setdefault(defined, []).append(statement)
        if isinstance(node, ast.If | ast.Try | ast.For | ast.While | ast.With):
            statements[""].append(statement)
    return _Module(statements, imports)


def _walk(node: ast.AST) -> list[ast.AST]:
    """Return a node and all its descendants, parents first. This is several times as fast as `ast.walk`."""
    nodes = [node]
    for one in nodes:
        for name in one._fields:
            value = getattr(one, name, None)
            if isinstance(value, list):
                nodes += [inner for inner in value if isinstance(inner, ast.AST)]
            elif isinstance(value, ast.AST):
                nodes.append(value)
    return nodes


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each name that the imports in a statement bind, and the imported dotted name."""
    for inner in nodes:
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                parts = tuple(alias.name.split("."))
                yield (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            for alias in inner.names:
                yield alias.asname or alias.name, (*inner.module.split("."), alias.name)


def _uses(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names in a statement, and strings that are identifiers, such as quoted annotations."""
    inside: set[int] = set()
    for inner in nodes:
        parts: list[str] = []
        while isinstance(inner, ast.Attribute) and id(inner) not in inside:
            inside.add(id(inner))
            parts.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and id(inner) not in inside:
            inside.add(id(inner))
            yield (inner.id, *parts)
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
            yield (inner.value,)


def _defined(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names that a statement at a module's top level binds, or whose objects it changes."""
    node = nodes[0]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    names: set[str] = set()
    for inner in nodes:
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, ast.Attribute | ast.Subscript) and isinstance(inner.ctx, ast.Store):
            names |= {base.id for base in ast.walk(inner.value) if isinstance(base, ast.Name)}
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(inner.name)
    return names


def _data(module: str) -> list[str]:
    """Return name and hash of each file that a module lists in DATA_FILES, such as tables of phrases."""
    files: list[str] = []
    for statement in _module(module).statements[DATA_FILES]:
        folder = Path(_path(module)).parent
        paths = [folder / name for name in ast.literal_eval(statement.text.partition("=")[2].strip())]
        files += [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return files


@lru_cache(maxsize=4096)
def _path(module: str) -> str:
    """Return the path of a module's file without importing the module, or "" if there is no such module."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.origin or not spec.has_location:
        return ""
    base = Path(spec.origin)
    if not rest:
        return str(base)
    inner = base.parent.joinpath(*rest)
    files = [inner.with_name(f"{inner.name}.py"), inner / "__init__.py"] if base.name == "__init__.py" else []
    return next((str(path) for path in files if path.is_file()), "")


@lru_cache(maxsize=1024)
def _versions(library: str) -> list[str]:
    """Return name and version of each distribution that provides a top-level package."""
    names = {distribution.metadata["Name"] for distribution in _distributions().get(library, ())}
    return [f"{name} {importlib.metadata.version(name)}" for name in sorted(names)]


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[importlib.metadata.Distribution]]:
    """Return a dict from top-level package to the distributions that provide it.

    `importlib.metadata.packages_distributions` also does this, but it spends most of its time on parsing the metadata
    of all distributions.
    """
    found: dict[str, list[importlib.metadata.Distribution]] = {}
    for distribution in importlib.metadata.distributions():
        names = set((distribution.read_text("top_level.txt") or "").split())
        for line in () if names else (distribution.read_text("RECORD") or "").splitlines():
            path = line.partition(",")[0]
            if path.endswith(".py"):
                names.add(path.partition("/")[0].removesuffix(".py"))
        for name in names:
            found.setdefault(name, []).append(distribution)
    return found
