"""Run benchmarks: `python -m benchmarks NAME… | all` prints a table for each, or says which data is missing.

`evaluation`, `extraction`, `fit-extraction`, `oracle`, `scale`, `templates`, `train` and `walks` take options:
`python -m benchmarks oracle --help`.
"""

import ast
import importlib
import sys
from pathlib import Path

from manifests.display import end_quietly

# The module whose `run` returns the table, by name. Each is imported alone, since each needs packages of its own.
BENCHMARKS = {
    "blocklist": "blocklist",
    "clusters": "clusters",
    "crawl": "crawl",
    "encodings": "detection",
    "engines": "engines",
    "extraction": "extraction",
    "find": "find",
    "lines": "lines",
    "loader": "loader",
    "local-workers": "local_workers",
    "minhash": "minhash",
    "object-stores": "object_stores",
    "perplexity": "perplexity",
    "reading": "reading",
    "rules": "rules",
    "shards": "shards",
    "sources": "sources",
    "stages": "stages",
    "tokenize": "encoding",
    "train": "training",
    "wikitext": "wikitext",
}
WITH_OPTIONS = {  # modules whose `main` takes options
    "evaluation": "evaluation",
    "extraction": "extraction",
    "fit-extraction": "fit_extraction",
    "oracle": "oracle",
    "scale": "scale",
    "templates": "templates",
    "train": "training",
    "walks": "walks",
}


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or the one that takes options.

    Returns:
        The exit code: that of the benchmark with options, else 0, or 2 for an unknown name.
    """
    if arguments and arguments[0] in WITH_OPTIONS:
        module = importlib.import_module(f"benchmarks.{WITH_OPTIONS[arguments[0]]}")
        return int(module.main(arguments[1:]))
    names = list(BENCHMARKS) if arguments == ["all"] else arguments
    if not names or set(names) - set(BENCHMARKS):
        print("usage: python -m benchmarks NAME…, or all\n", file=sys.stderr)
        for name, module in sorted({**BENCHMARKS, **WITH_OPTIONS}.items()):
            print(f"  {name:15} {_summary(module)}", file=sys.stderr)
        return 2
    for name in names:
        table = importlib.import_module(f"benchmarks.{BENCHMARKS[name]}").run()
        print(f"## {name}\n\n{table}\n", flush=True)
    return 0


def _summary(module: str) -> str:
    """Return the first line of a module's docstring, without importing it."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(end_quietly(lambda: main(sys.argv[1:])))
