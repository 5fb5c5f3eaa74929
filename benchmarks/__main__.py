"""`python -m benchmarks NAME | all | train [options]`: print a table, and say where the data it needs is not there."""

import sys
from collections.abc import Callable

from benchmarks import (
    blocklist,
    clusters,
    crawl,
    encoding,
    extraction,
    find,
    lines,
    loader,
    minhash,
    perplexity,
    reading,
    shards,
    sources,
    stages,
    training,
    wikitext,
)

BENCHMARKS: dict[str, Callable[[], str]] = {
    "blocklist": blocklist.run,
    "clusters": clusters.run,
    "crawl": crawl.run,
    "extraction": extraction.run,
    "find": find.run,
    "lines": lines.run,
    "loader": loader.run,
    "minhash": minhash.run,
    "perplexity": perplexity.run,
    "reading": reading.run,
    "shards": shards.run,
    "sources": sources.run,
    "stages": stages.run,
    "tokenize": encoding.run,
    "train": training.run,
    "wikitext": wikitext.run,
}


def main(arguments: list[str]) -> int:
    """Run the named benchmarks; exit code 2 for an unknown name."""
    if arguments[:1] == ["train"]:
        return training.main(arguments[1:])
    names = list(BENCHMARKS) if arguments == ["all"] else arguments
    if not names or set(names) - set(BENCHMARKS):
        print(f"usage: python -m benchmarks NAME, one of: {', '.join(BENCHMARKS)}, all", file=sys.stderr)
        return 2
    for name in names:
        print(f"## {name}\n\n{BENCHMARKS[name]()}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
