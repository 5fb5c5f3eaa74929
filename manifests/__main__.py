"""The command line of the manifests: `python -m manifests show | verify | trace | duplicates | report`."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from manifests.duplicates import SHOWN, duplicates
from manifests.errors import UserError
from manifests.manifest import load_manifest
from manifests.report import write_report
from manifests.show import summary
from manifests.trace import trace
from manifests.verify import verify


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 1 a corpus that is not what it says, 2 a mistake."""
    options = _parser().parse_args(arguments)
    try:
        commands = {"show": _show, "verify": _verify, "trace": _trace, "duplicates": _duplicates, "report": _report}
        return commands[options.command](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _show(options: argparse.Namespace) -> int:
    manifest = load_manifest(options.corpus)
    print(json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False) if options.json else summary(manifest))
    return 0


def _verify(options: argparse.Namespace) -> int:
    problems = verify(options.corpus, options.fast)
    manifest = load_manifest(options.corpus)
    if options.json:
        print(json.dumps({"manifest_sha": manifest.manifest_sha, "problems": problems}, indent=2, ensure_ascii=False))
    elif problems:
        print("\n".join(problems))
    else:
        checked = "sizes and counts" if options.fast else "hashes, counts, token ids and ledger"
        print(f"{options.corpus}: {len(manifest.shards())} shards as the manifest says ({checked})")
    return 1 if problems else 0


def _trace(options: argparse.Namespace) -> int:
    lineage = trace(options.corpus, options.shard, options.token)
    if options.json:
        print(json.dumps(lineage.as_dict(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(lineage.lines()))
    return 0


def _duplicates(options: argparse.Namespace) -> int:
    cluster = duplicates(options.corpus, options.document, options.most)
    if options.json:
        print(json.dumps(cluster.as_dict(options.diff), indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        for line in cluster.lines(options.diff):
            console.print(line, soft_wrap=True)
    return 0


def _report(options: argparse.Namespace) -> int:
    print(write_report(options.corpus, options.output))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m manifests", description="Look into a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="what it holds, and where the rest went")
    check = commands.add_parser("verify", help="whether it is what its manifest says")
    check.add_argument("--fast", action="store_true", help="sizes and counts only")
    walk = commands.add_parser("trace", help="where a token comes from")
    same = commands.add_parser("duplicates", help="a document's near-duplicates: who stayed, who went, how they differ")
    for command in (show, check, walk, same):
        command.add_argument("corpus", type=Path)
        command.add_argument("--json", action="store_true")
    page = commands.add_parser("report", help="write its report, one HTML file")
    page.add_argument("corpus", type=Path)
    page.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the corpus")
    walk.add_argument("shard", help="path below shards/")
    walk.add_argument("token", type=int, help="index in the flat token column")
    same.add_argument("document", help="hexadecimal id, the beginning of one, or URL")
    same.add_argument("--no-diff", dest="diff", action="store_false", help="without the texts' differences")
    same.add_argument("--most", type=int, default=SHOWN, metavar="N", help=f"removed documents shown (default {SHOWN})")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
