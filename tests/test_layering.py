"""Check the import rules of docs/architecture.md on the source text, so that imports inside functions are found too."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIRST_PARTY = {"filters", "manifests", "pipeline", "trainer"}
ALLOWED = {
    "filters": {
        "numpy",
        "pyarrow",
        "backports",  # zstd before Python 3.14
        "compression",  # zstd since Python 3.14
        "brotli",
        "chardetng_py",
        "datasketch",
        "fasttext",
        "google",  # protobuf
        "isal",
        "kenlm",
        "py7zr",
        "pydantic",
        "resiliparse",
        "sentencepiece",
        "xxhash",
        "yaml",
    },
    "manifests": {
        "filters",
        "google",  # storage and its credentials, from the extra gcs
        "numpy",
        "obstore",  # from the extra s3
        "pyarrow",
        "pydantic",
        "rich",
        "sentencepiece",
        "yaml",
    },
    "pipeline": {
        "apache_beam",
        "distributed",
        "google",  # credentials, from the extra gcp
        "numpy",
        "pyarrow",
        "rich",
        "sentencepiece",
        "warcio",
        "yaml",
        "filters",
        "manifests",
    },
    "trainer": {
        "fasttext",
        "lm_eval",
        "numpy",
        "pyarrow",
        "rich",
        "safetensors",
        "sentencepiece",
        "tokenizers",
        "torch",
        "transformers",
        "wandb",
        "xxhash",
        "yaml",
        "manifests",
    },
}
# The folders of each package. A folder may import only folders before it in the list; "." is the package itself.
FOLDERS = {
    "filters": [".", "formats", "models", "dedup", "html", "wikitext", "tex", "code", "books", "posts", "quality"],
    "manifests": [".", "tools", "planning", "report"],
    "pipeline": ["beam", "download", "sources", "dedup", "stages", "."],
    "trainer": [".", "evaluation"],
}


@cache
def imports(path: Path) -> set[str]:
    """Return the names of all modules that a source file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    import sys

    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 1
    for path in files:
        for module in imports(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top == package:
                continue
            if package == "filters" and module == "filters.reasons":
                continue  # All packages use one list of reasons (docs/decisions.md).
            if package == "filters" and module == "filters.errors":
                continue
            if module in {"filters.errors", "filters.reasons"}:
                continue  # All packages may use errors and reasons.
            assert top in ALLOWED[package], f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_a_folder_imports_only_folders_named_before_it(package: str) -> None:
    order = FOLDERS[package]
    held = {path.parent.relative_to(ROOT / package).as_posix() for path in (ROOT / package).rglob("*.py")}
    assert held <= set(order), "FOLDERS lacks a folder"
    for path in sorted((ROOT / package).rglob("*.py")):
        mine = path.parent.relative_to(ROOT / package).as_posix()
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != package or path.stem == "__main__":
                continue
            theirs = parts[1] if len(parts) > 1 and parts[1] in held else "."
            assert order.index(theirs) <= order.index(mine), f"{path.relative_to(ROOT)} imports {module}"


def test_test_files_have_names_of_their_own() -> None:
    """Pytest cannot collect two test files of the same name, even in different folders."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_no_committed_file_names_the_machine_it_was_made_on() -> None:
    for pattern in ("*.py", "*.md", "*.yaml", "*.toml", "Makefile"):
        for path in ROOT.rglob(pattern):
            parts = path.relative_to(ROOT).parts
            if parts[0] in {".venv", "build"} or any(part.endswith(".egg-info") for part in parts):
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for machine_path in ("/wor" + "k/", "/roo" + "t/", "/hom" + "e/"):
                assert machine_path not in text, f"{path.relative_to(ROOT)} holds {machine_path}"
