"""Run benchmarks: `python -m benchmarks NAME… | all` prints a table for each benchmark.

If the data for a benchmark is missing, a message names the data. The benchmarks `evaluation`, `extraction`,
`fit-extraction`, `oracle`, `scale`, `templates`, `train` and `walks` have options. To list them, run for example
`python -m benchmarks oracle --help`.
"""

import ast
import importlib
import sys
from pathlib import Path

from manifests.display import end_quietly

# By name of the benchmark: the module whose function `run` returns the table. A module is imported only when its
# benchmark runs, because each benchmark needs different packages.
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
# By name of the benchmark: the module whose function `main` parses options.
WITH_OPTIONS = {
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
    """Run the named benchmarks, or one benchmark with its options.

    Args:
        arguments: names of benchmarks, or one name from `WITH_OPTIONS` and its options.

    Returns:
        The exit code. A benchmark with options returns its own exit code. Otherwise it is 0, or 2 for an unknown name.
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
    """Return the first line of a module's docstring without importing the module."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(end_quietly(lambda: main(sys.argv[1:])))
