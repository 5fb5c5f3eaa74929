"""Code versions: hashes over the source text of all code that a function reaches, docstrings and comments cut out.

A function is followed definition by definition: through the names that it uses, into the modules that they are imported
from, lazy imports included. So an edit redoes only the work of the steps that reach it, and an edited docstring or
comment redoes nothing. Text is compared, not syntax trees, whose printed form differs between Python versions.
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
NOT_COVERED = frozenset(
    {
        "filters.errors",
        "filters.reasons",  # the values of Reason are a contract and never change
        "filters.dedup.settings",  # settings: their values are hashed
        "manifests.files",
        "manifests.ledger",
        "manifests.order",
        "manifests.recipe",  # as above
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
)  # modules that no version covers: they move bytes and make none, or their values are hashed by themselves

_STRING = r"'''(?:\\.|(?!''').)*'''|\"\"\"(?:\\.|(?!\"\"\").)*\"\"\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\""
_LAYOUT = re.compile(rf"({_STRING})|(?:[ \t]*(?:#[^\n]*)?\n)+|[ \t]*#[^\n]*|[ \t]+\Z", re.DOTALL)

DATA_FILES = "DATA_FILES"  # a module's constant: files beside it that it reads
Symbol = tuple[str, str]  # a module's dotted name, and a name that it defines at its top level


@lru_cache(maxsize=512)
def code_version(*functions: Callable[..., Any]) -> str:
    """Return the SHA-256, in hexadecimal, of the code behind module-level functions: a step's and those it looks up."""
    digest = hashlib.sha256(f"unicode {unicodedata.unidata_version}\n".encode())
    code, libraries = _reach(functions)
    for (module, _), text in sorted({(key, text) for key, texts in code.items() for text in texts}):
        digest.update(f"{module}\0{text}\0".encode())
    for library in sorted(libraries - set(sys.stdlib_module_names)):
        for distribution in _versions(library):
            digest.update(f"{distribution}\n".encode())
    return digest.hexdigest()


def reached_symbols(*functions: Callable[..., Any]) -> set[Symbol]:
    """Return every definition that the version of functions covers."""
    return set(_reach(functions)[0])


def strip_comments(text: str) -> str:
    """Return source text without comments, blank lines and white space at line ends; strings stay as they are."""
    return _LAYOUT.sub(lambda found: found[1] or ("\n" if "\n" in found[0] else ""), text)


def read_source(path: str) -> str:
    """Return the source text of a module's file."""
    return Path(path).read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Statement:
    """A statement at a module's top level: its stripped text, the dotted names that it uses, and its own imports."""

    text: str
    uses: frozenset[tuple[str, ...]]
    imports: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Module:
    """A module's statements by the names that they define; under "" those that define none and run at import."""

    statements: Mapping[str, list[_Statement]]
    imports: Mapping[str, tuple[str, ...]]


def _reach(functions: tuple[Callable[..., Any], ...]) -> tuple[dict[Symbol, list[str]], set[str]]:
    """Return the texts of all reached definitions, and the top-level names of the other packages that they use."""
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
    """Yield the definition that a dotted name means; all of its module where it means a module."""
    length = next(size for size in range(len(target), 0, -1) if _path(".".join(target[:size])))
    module = ".".join(target[:length])
    if length < len(target):
        yield module, target[length]
    elif module not in NOT_COVERED:
        yield from ((module, name) for name in _module(module).statements)


@lru_cache(maxsize=1024)
def _module(name: str) -> _Module:
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
    """Return a node and all below it, parents first, as `ast.walk`, which takes several times as long."""
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
    """Yield each name that the imports in a statement bind, and the dotted name that it means."""
    for inner in nodes:
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                parts = tuple(alias.name.split("."))
                yield (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            for alias in inner.names:
                yield alias.asname or alias.name, (*inner.module.split("."), alias.name)


def _uses(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names in a statement, and strings that may be names in quotes."""
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
    """Return the names that a statement at a module's top level binds or changes."""
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
    """Return the hashes of the files that a module lists in DATA_FILES, such as tables of phrases."""
    files: list[str] = []
    for statement in _module(module).statements[DATA_FILES]:
        folder = Path(_path(module)).parent
        paths = [folder / name for name in ast.literal_eval(statement.text.partition("=")[2].strip())]
        files += [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return files


@lru_cache(maxsize=4096)
def _path(module: str) -> str:
    """Return the file of a module, empty if there is no such module; nothing is imported."""
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
    """Return the names of the distributions behind an importable name, each with its version."""
    names = {distribution.metadata["Name"] for distribution in _distributions().get(library, ())}
    return [f"{name} {importlib.metadata.version(name)}" for name in sorted(names)]


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[importlib.metadata.Distribution]]:
    """Return the distributions behind each importable name, as `packages_distributions`, but without their metadata.

    To parse that of all takes most of its time.
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
