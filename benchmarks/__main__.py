"""`python -m benchmarks NAME… | all`: print a table, and say where the data it needs is not there.

`train`, and what measures no speed, take options: `python -m benchmarks oracle --help`.
"""

import importlib
import sys

BENCHMARKS = {
    "blocklist": "blocklist",
    "clusters": "clusters",
    "crawl": "crawl",
    "extraction": "extraction",
    "find": "find",
    "lines": "lines",
    "loader": "loader",
    "minhash": "minhash",
    "perplexity": "perplexity",
    "reading": "reading",
    "shards": "shards",
    "sources": "sources",
    "stages": "stages",
    "tokenize": "encoding",
    "train": "training",
    "wikitext": "wikitext",
}
"""by name, the module whose `run` gives the table; each is imported alone, since each needs packages of its own"""
WITH_OPTIONS = {"oracle": "oracle", "train": "training", "walks": "walks"}
"""the modules whose `main` takes options"""


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or the one that takes options; exit code 2 for an unknown name."""
    if arguments and arguments[0] in WITH_OPTIONS:
        module = importlib.import_module(f"benchmarks.{WITH_OPTIONS[arguments[0]]}")
        return int(module.main(arguments[1:]))
    names = list(BENCHMARKS) if arguments == ["all"] else arguments
    if not names or set(names) - set(BENCHMARKS):
        known = ", ".join(sorted({*BENCHMARKS, *WITH_OPTIONS}))
        print(f"usage: python -m benchmarks NAME, one of: {known}, all", file=sys.stderr)
        return 2
    for name in names:
        table = importlib.import_module(f"benchmarks.{BENCHMARKS[name]}").run()
        print(f"## {name}\n\n{table}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
