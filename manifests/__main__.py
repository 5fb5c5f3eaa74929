"""Command line of the corpus tools: `python -m manifests show | verify | sample | trace | …`.

Each command imports its tool when it runs, so that it does not load the libraries of other commands.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from filters.errors import RunError, UserError
from manifests.arguments import POSITIVE, Parser, describe
from manifests.display import (
    MOST_SHOWN,
    end_quietly,
    escape_unencodable_output,
    print_parts,
    safe_line,
    standard_output,
)

CHARACTERS = 600  # Default for `sample --characters`: the maximum number of characters shown per document.


def main(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Returns:
        0: success. 1: the corpus differs from its manifest, `diff` found a difference, `find` found nothing, or a file
        cannot be read. 2: an argument is wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        from manifests.mirror import open_corpus

        options.corpus = open_corpus(options.corpus)
        return int(options.run(options))
    except (UserError, RunError) as error:
        print(f"error: {safe_line(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        place, why = safe_line(str(error.filename or "a file")), error.strerror or error
        print(f"error: {place} cannot be used ({why}): check its rights and the room on its disk", file=sys.stderr)
        return 1


def _show(options: argparse.Namespace) -> int:
    from manifests.manifest import load_manifest
    from manifests.tools.show import summarize, summary_parts

    manifest = load_manifest(options.corpus)
    show = partial(print_parts, summary_parts(manifest))
    return _print_either(options, lambda: {**manifest.model_dump(), "summary": summarize(manifest)}, show)


def _verify(options: argparse.Namespace) -> int:
    from manifests.manifest import advise_repair, load_manifest
    from manifests.mirror import place_of
    from manifests.tools.verify import checked_bytes, verify

    manifest, started = load_manifest(options.corpus, checked=False), time.perf_counter()
    size = checked_bytes(manifest)
    with _progress_bar(size, options.quiet or options.json) as progress:
        problems = verify(options.corpus, options.fast, progress)
    seconds = time.perf_counter() - started
    advice = f"to restore them: {advise_repair(options.corpus)}" if problems else ""
    if options.json:
        found = {"problems": problems, "advice": advice, "bytes": size, "seconds": seconds}
        _print_json({"manifest_sha": manifest.manifest_sha, **found})
        return 1 if problems else 0
    checked = "sizes and counts" if options.fast else "hashes, counts, documents, token ids, index and ledger"
    good = f"{place_of(options.corpus)}: {len(manifest.shards())} shards as the manifest says ({checked})"
    print("\n".join(map(safe_line, [*problems, advice] if problems else [good])))
    if not options.fast:
        print(f"{size / 1e6:,.1f} MB in {seconds:,.1f} s: {size / 1e6 / seconds:,.0f} MB/s")
    return 1 if problems else 0


def _sample(options: argparse.Namespace) -> int:
    from manifests.tools.sample import SampleQuery, parse_score, sample

    score = parse_score(options.score) if options.score else None
    names = ("number", "seed", "source", "language", "side", "reason")
    found = sample(options.corpus, SampleQuery(**{name: getattr(options, name) for name in names}, score=score))
    if options.json:
        _print_json({"documents": [one.as_dict(options.characters) for one in found.drawn], "note": found.note})
        return 0
    console = standard_output()
    for one in found.drawn:
        console.rule(style="dim")
        for line in one.lines(options.characters):
            console.print(line, markup=False, soft_wrap=True)
    if found.note:
        print(found.note, file=sys.stderr)
    return 0


def _trace(options: argparse.Namespace) -> int:
    from manifests.tools.trace import trace

    lineage = trace(options.corpus, options.shard, options.token)
    return _print_either(options, lineage.as_dict, partial(_print_lines, lineage.lines()))


def _find(options: argparse.Namespace) -> int:
    from manifests.tools.find import find

    found = find(options.corpus, options.what, options.most)
    _print_either(options, partial(asdict, found), partial(_print_lines, found.lines(options.corpus)))
    return 0 if found else 1


def _duplicates(options: argparse.Namespace) -> int:
    from rich.console import Console

    from manifests.tools.duplicates import duplicates

    cluster = duplicates(options.corpus, options.document, options.most)
    if options.json:
        _print_json(cluster.as_dict(options.diff))
        return 0
    console = Console(highlight=False)
    for line in cluster.lines(options.diff):
        console.print(line, soft_wrap=True)
    return 0


def _diff(options: argparse.Namespace) -> int:
    from manifests.mirror import open_corpus
    from manifests.tools.diff import diff

    found = diff(options.corpus, open_corpus(options.other))
    _print_either(options, found.as_dict, partial(print_parts, found.parts()))
    return 0 if found.equal else 1


def _remove(options: argparse.Namespace) -> int:
    from manifests.mirror import new_corpus
    from manifests.tools.remove import remove

    if options.dry_run or options.output is None:
        done = remove(options.corpus, options.list, None)
    else:
        with new_corpus(options.output) as output:
            done = remove(options.corpus, options.list, output)
    written = f"{options.output} holds the rest, manifest {done.manifest_sha}"
    last = written if done.manifest_sha else "nothing is written: give --output NEW for a corpus without them"
    return _print_either(options, done.as_dict, partial(_print_lines, [*done.lines(), last]))


def _freeze(options: argparse.Namespace) -> int:
    from manifests.mirror import open_corpus
    from manifests.tools.held_out import freeze_held_out

    compared = [open_corpus(place) for place in options.compared]
    found = freeze_held_out(options.corpus, compared, options.output, options.documents)
    return _print_either(options, partial(asdict, found), partial(_print_lines, found.lines()))


def _report(options: argparse.Namespace) -> int:
    from manifests.mirror import mirror_of
    from manifests.report.page import FILE, write_report

    path, mirror = str(write_report(options.corpus, options.output)), mirror_of(options.corpus)
    if mirror is not None and options.output is None:
        mirror.push([FILE])
        path = f"{mirror.storage.url}/{FILE}"
    print(json.dumps({"report": path}) if options.json else path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m manifests", description="Inspect a corpus or change it.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> Callable[..., Any]:
        made = commands.add_parser(name, **describe(summary))
        made.add_argument("corpus", help="folder or URL of the corpus")
        made.add_argument("--json", action="store_true", help="print JSON for programs")
        made.set_defaults(run=run)
        return made.add_argument

    command("show", _show, "print sources, dropped records by reason, and hashes")
    add = command("verify", _verify, "compare every file of a corpus with its manifest")
    add("--fast", action="store_true", help="check only sizes, counts and a sample of each shard")
    add("--quiet", action="store_true", help="show no progress bar")
    add = command("sample", _sample, "print documents or dropped records, drawn by keyed hash")
    add("-n", dest="number", type=POSITIVE, default=5, metavar="N", help="number of documents (default 5)")
    add("--seed", type=int, default=0, metavar="K", help="seed of the selection (default 0)")
    add("--source", default="", help="select only this source")
    add("--language", default="", help="select only this language")
    add("--score", metavar="[NAME=]LOW:HIGH", help="select by a score: reference (default), language or perplexity")
    add(
        "--side",
        choices=("train", "validation"),
        default="",
        help="select only documents of the training or the validation shards",
    )
    add("--reason", default="", help="print records dropped for this reason, instead of documents")
    add("--characters", type=POSITIVE, default=CHARACTERS, help=f"maximum length of each text (default {CHARACTERS})")
    add = command("trace", _trace, "print the document and the byte range of a token")
    add("shard", help="path below shards/")
    add("token", type=int, help="index of the token in the shard")
    add = command("find", _find, "print the shard and row of a document, or the reason why no shard contains it")
    add("what", help="hexadecimal id, first digits of an id, or URL")
    add("--most", type=POSITIVE, default=MOST_SHOWN, metavar="N", help=f"show at most N (default {MOST_SHOWN})")
    add = command("duplicates", _duplicates, "print the duplicates of a document and the differences of their texts")
    add("document", help="hexadecimal id, first digits of an id, or URL")
    add("--no-diff", dest="diff", action="store_false", help="do not print the differences of the texts")
    add("--most", type=POSITIVE, default=MOST_SHOWN, metavar="N", help=f"show at most N (default {MOST_SHOWN})")
    add = command("diff", _diff, "print the differences of two corpora; exit code 1 if there are any")
    add("other", help="folder or URL of the other corpus")
    add = command("remove", _remove, "write a corpus without the documents that a list names")
    add("--list", type=Path, required=True, metavar="FILE", help="file with one URL, domain, owner/name or id per line")
    add("--output", metavar="NEW", help="folder or URL of the new corpus; without it nothing is written")
    add("--dry-run", action="store_true", help="count the documents and write nothing")
    add = command("freeze", _freeze, "write held-out text that no other corpus trains on")
    compared = "folders or URLs of the corpora that runs train on; repeat the first corpus if a run trains on it"
    add("compared", nargs="+", metavar="CORPUS", help=compared)
    add("--output", type=Path, required=True, metavar="FILE", help="JSON lines file for `python -m trainer compare`")
    add(
        "--documents",
        type=POSITIVE,
        default=500,
        metavar="N",
        help="maximum number of documents per source (default 500)",
    )
    add = command("report", _report, "write the report of a corpus, one HTML file")
    add("--output", type=Path, metavar="FILE", help="file to write (default: report.html in the corpus)")
    return parser


@contextmanager
def _progress_bar(size: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if standard error is a terminal.

    Yields:
        A function that advances the bar by a number of bytes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("", total=size)
        yield lambda done: progress.advance(task, done)


def _print_either(options: argparse.Namespace, plain: Callable[[], Any], show: Callable[[], None]) -> int:
    """Print `plain()` as JSON if `--json` is given; otherwise call `show`. Return 0."""
    if options.json:
        _print_json(plain())
    else:
        show()
    return 0


def _print_lines(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def _print_json(value: Any) -> None:
    """Print a value as JSON. Lone surrogates are escaped, because UTF-8 cannot encode them."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())


if __name__ == "__main__":
    escape_unencodable_output()
    sys.exit(end_quietly(lambda: main(sys.argv[1:])))
