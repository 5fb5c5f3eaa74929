"""The version of a stage's code, so that no output of older code is ever taken for one of today's.

It covers the source text of the stage's module and of every module it reaches through imports that shapes bytes
(`FOLLOWED`), and the versions of the third-party libraries these import. The plumbing (jobs, progress, command line) is
left out: it moves bytes and makes none.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

FOLLOWED = (
    "filters.",
    "pipeline.stages.judge",
    "pipeline.stages.line_hashes",
    "pipeline.sources",
    "pipeline.stages.signatures",
    "pipeline.beam.tables",
    "pipeline.stages.texts",
    "pipeline.stages.url_keys",
    "manifests.document",
    "manifests.index",
    "manifests.shard",
)


@lru_cache(maxsize=64)
def code_version(module: str) -> str:
    """SHA-256, in hexadecimal, of the code that makes a stage's output. `module`: the stage's dotted name."""
    digest = hashlib.sha256(f"unicode {unicodedata.unidata_version}\n".encode())
    libraries: set[str] = set()
    for name, text in sorted(_reached(module).items()):
        digest.update(f"{name}\0{text}\0".encode())
        libraries |= {imported.split(".")[0] for imported in _imports(text)}
    distributions = _distributions()
    for library in sorted(libraries - set(sys.stdlib_module_names)):
        for distribution in sorted(set(distributions.get(library, ()))):
            if distribution != "teratoken":
                digest.update(f"{distribution} {importlib.metadata.version(distribution)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    """Which distributions give each importable name: looked up once, since it reads the records of all of them."""
    return importlib.metadata.packages_distributions()


def _reached(module: str) -> dict[str, str]:
    """Source text by name, of a module and of the followed modules that it reaches."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        text = _source(name)
        if text is None or name in found:
            continue
        found[name] = text
        waiting += [imported for imported in _imports(text) if imported.startswith(FOLLOWED)]
    return found


def _imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _source(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin and spec.has_location else None
