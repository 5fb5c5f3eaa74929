"""The command line of the manifests: `python -m manifests show | verify | sample | trace | …`, one function each."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from filters.errors import UserError
from manifests.display import safe, spell_out_what_the_terminal_lacks
from manifests.manifest import load_manifest
from manifests.report import write_report
from manifests.tools.diff import diff
from manifests.tools.duplicates import SHOWN, duplicates
from manifests.tools.find import MOST, find
from manifests.tools.remove import remove
from manifests.tools.sample import Wanted, parse_score, sample
from manifests.tools.show import WIDTH, figures, print_summary, summary
from manifests.tools.trace import trace
from manifests.tools.verify import checked_bytes, verify

CHARACTERS = 600
"""of a sampled document that are shown"""


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 1 a corpus that is not what it says, of `diff` another one, of `find`
    nothing found; 2 a mistake."""
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _show(options: argparse.Namespace) -> int:
    manifest = load_manifest(options.corpus)
    if options.json:
        _print_json({**manifest.model_dump(), "summary": figures(manifest)})
    elif (console := _console()).is_terminal:
        print_summary(manifest, console)
    else:
        print(summary(manifest))
    return 0


def _verify(options: argparse.Namespace) -> int:
    manifest, started = load_manifest(options.corpus), time.perf_counter()
    size = checked_bytes(manifest)
    with _bar(size, options.quiet or options.json) as progress:
        problems = verify(options.corpus, options.fast, progress)
    seconds = time.perf_counter() - started
    if options.json:
        _print_json({"manifest_sha": manifest.manifest_sha, "problems": problems, "bytes": size, "seconds": seconds})
    elif problems:
        print("\n".join(problems))
    else:
        checked = "sizes and counts" if options.fast else "hashes, counts, documents, token ids, index and ledger"
        print(f"{options.corpus}: {len(manifest.shards())} shards as the manifest says ({checked})")
    if not options.json and not options.fast:
        print(f"{size / 1e6:,.1f} MB in {seconds:,.1f} s: {size / 1e6 / seconds:,.0f} MB/s")
    return 1 if problems else 0


def _sample(options: argparse.Namespace) -> int:
    score = parse_score(options.score) if options.score else None
    names = ("number", "seed", "source", "language", "side", "reason")
    wanted = Wanted(**{name: getattr(options, name) for name in names}, score=score)
    found = sample(options.corpus, wanted)
    if options.json:
        _print_json({"documents": [one.as_dict(options.characters) for one in found.drawn], "note": found.note})
        return 0
    console = _console()
    for one in found.drawn:
        console.rule(style="dim")
        for line in one.lines(options.characters):
            console.print(line, markup=False, soft_wrap=True)
    if found.note:
        print(found.note, file=sys.stderr)
    return 0


def _trace(options: argparse.Namespace) -> int:
    lineage = trace(options.corpus, options.shard, options.token)
    if options.json:
        _print_json(lineage.as_dict())
    else:
        print("\n".join(lineage.lines()))
    return 0


def _find(options: argparse.Namespace) -> int:
    found = find(options.corpus, options.what, options.most)
    if options.json:
        _print_json(found.as_dict())
    else:
        print("\n".join(safe(line) for line in found.lines(options.corpus)))
    return 0 if found else 1


def _duplicates(options: argparse.Namespace) -> int:
    cluster = duplicates(options.corpus, options.document, options.most)
    if options.json:
        _print_json(cluster.as_dict(options.diff))
    else:
        console = Console(highlight=False)
        for line in cluster.lines(options.diff):
            console.print(line, soft_wrap=True)
    return 0


def _diff(options: argparse.Namespace) -> int:
    found = diff(options.corpus, options.other)
    if options.json:
        _print_json(found.as_dict())
    else:
        found.print(_console())
    return 0 if found.equal else 1


def _remove(options: argparse.Namespace) -> int:
    done = remove(options.corpus, options.list, None if options.dry_run else options.output)
    if options.json:
        _print_json(done.as_dict())
        return 0
    print("\n".join(done.lines()))
    if done.manifest_sha:
        print(f"{options.output} holds the rest, manifest {done.manifest_sha}")
    else:
        print("nothing is written: give --output NEW for a corpus without them")
    return 0


def _report(options: argparse.Namespace) -> int:
    path = str(write_report(options.corpus, options.output))
    print(json.dumps({"report": path}) if options.json else path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m manifests", description="Look into a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        made.add_argument("corpus", type=Path)
        made.add_argument("--json", action="store_true", help="for programs")
        made.set_defaults(run=run)
        return made

    command("show", _show, "what it holds, and where the rest went")
    check = command("verify", _verify, "whether it is what its manifest says")
    check.add_argument("--fast", action="store_true", help="sizes, counts and a sample of each shard only")
    check.add_argument("--quiet", action="store_true", help="no progress bar")
    draw = command("sample", _sample, "documents to look at, drawn by keyed hash")
    draw.add_argument("-n", dest="number", type=_positive, default=5, metavar="N", help="how many (default 5)")
    draw.add_argument("--seed", type=int, default=0, metavar="K", help="another seed draws others (default 0)")
    draw.add_argument("--source", default="", help="of this source only")
    draw.add_argument("--language", default="", help="of this language only")
    draw.add_argument("--score", metavar="[NAME=]LOW:HIGH", help="by reference (default), language or perplexity")
    draw.add_argument("--side", choices=("train", "validation"), default="", help="of this side only")
    draw.add_argument("--reason", default="", help="of what was dropped for this reason, instead of what stayed")
    draw.add_argument("--characters", type=_positive, default=CHARACTERS, help=f"of each text (default {CHARACTERS})")
    walk = command("trace", _trace, "where a token comes from")
    walk.add_argument("shard", help="path below shards/")
    walk.add_argument("token", type=int, help="index in the flat token column")
    seek = command("find", _find, "which shard and row hold a document")
    seek.add_argument("what", help="hexadecimal id, the beginning of one, or URL")
    seek.add_argument("--most", type=int, default=MOST, metavar="N", help=f"documents shown (default {MOST})")
    same = command("duplicates", _duplicates, "a document's near-duplicates: who stayed, who went, how they differ")
    same.add_argument("document", help="hexadecimal id, the beginning of one, or URL")
    same.add_argument("--no-diff", dest="diff", action="store_false", help="without the texts' differences")
    same.add_argument("--most", type=int, default=SHOWN, metavar="N", help=f"removed documents shown (default {SHOWN})")
    compare = command("diff", _diff, "what changed from one corpus to another; exit code 1 if anything did")
    compare.add_argument("other", type=Path)
    take = command("remove", _remove, "a corpus without the documents that a list names")
    take.add_argument(
        "--list", type=Path, required=True, metavar="FILE", help="URLs, domains, owner/name, ids, one a line"
    )
    take.add_argument("--output", type=Path, metavar="NEW", help="folder of the new corpus; without it, a dry run")
    take.add_argument("--dry-run", action="store_true", help="only say what would go")
    page = command("report", _report, "its report, one HTML file")
    page.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the corpus")
    return parser


@contextmanager
def _bar(size: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on the standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("", total=size)
        yield lambda done: progress.advance(task, done)


def _console() -> Console:
    """The standard output: coloured and as wide as the terminal, or plain and of a fixed width where it is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH, no_color=True)


def _print_json(value: Any) -> None:
    """JSON for programs; characters that no encoding takes are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


if __name__ == "__main__":
    spell_out_what_the_terminal_lacks()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
