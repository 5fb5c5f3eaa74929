"""The command line of the manifests: `python -m manifests show | verify | trace | find | duplicates`."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from manifests.duplicates import SHOWN, duplicates
from manifests.errors import UserError
from manifests.find import MOST, find
from manifests.manifest import load_manifest
from manifests.show import summary
from manifests.trace import trace
from manifests.verify import verify


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 1 a corpus that is not what it says, 2 a mistake."""
    options = _parser().parse_args(arguments)
    try:
        commands = {"show": _show, "verify": _verify, "trace": _trace, "duplicates": _duplicates, "find": _find}
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


def _find(options: argparse.Namespace) -> int:
    found = find(options.corpus, options.what, options.most)
    if options.json:
        print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(found.lines(options.corpus)))
    return 0 if found else 1


def _duplicates(options: argparse.Namespace) -> int:
    cluster = duplicates(options.corpus, options.document, options.most)
    if options.json:
        print(json.dumps(cluster.as_dict(options.diff), indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        for line in cluster.lines(options.diff):
            console.print(line, soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m manifests", description="Look into a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="what it holds, and where the rest went")
    check = commands.add_parser("verify", help="whether it is what its manifest says")
    check.add_argument("--fast", action="store_true", help="sizes and counts only")
    walk = commands.add_parser("trace", help="where a token comes from")
    same = commands.add_parser("duplicates", help="a document's near-duplicates: who stayed, who went, how they differ")
    seek = commands.add_parser("find", help="which shard and row hold a document")
    for command in (show, check, walk, same, seek):
        command.add_argument("corpus", type=Path)
        command.add_argument("--json", action="store_true")
    walk.add_argument("shard", help="path below shards/")
    walk.add_argument("token", type=int, help="index in the flat token column")
    same.add_argument("document", help="hexadecimal id, the beginning of one, or URL")
    same.add_argument("--no-diff", dest="diff", action="store_false", help="without the texts' differences")
    same.add_argument("--most", type=int, default=SHOWN, metavar="N", help=f"removed documents shown (default {SHOWN})")
    seek.add_argument("what", help="hexadecimal id, the beginning of one, or URL")
    seek.add_argument("--most", type=int, default=MOST, metavar="N", help=f"documents shown (default {MOST})")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
