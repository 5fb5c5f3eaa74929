"""The command line of the pipeline: `python -m pipeline run | append | plan | status | trace | engines | …`.

The tables at the end list the commands and their options. Each command imports its modules when it runs, so that
`--help` is fast.
"""

import argparse
import itertools
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from filters.errors import RunError, UserError
from manifests import stages
from manifests.arguments import ABOVE_ZERO, COUNT, POSITIVE, SECONDS, SHARE, Parser, describe
from manifests.display import end_quietly, escape_unencodable_output, format_quantity, print_parts

if TYPE_CHECKING:
    from manifests.recipe import Recipe
    from pipeline.beam.engines import Engine

ENGINES = ("local", "dask", "portable", "flink", "spark", "dataflow")
QUARANTINE = "quarantine.jsonl"  # Equals `pipeline.beam.quarantine.FILE`, which is not imported for `--help`.
STAGES = [name for name in stages.STAGES if name != "statistics"]
EPILOG = "Arguments after `--` go to Apache Beam, as in `--engine flink -- --flink_master=HOST:8081`."
Argument = tuple[str, dict[str, Any]]  # name or flag, and the keyword arguments of `add_argument`


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        help: Help text.
        run: Function that runs the command and returns the exit code.
        arguments: Arguments and options.
        takes_beam_options: True if options after `--` are passed to Beam.
    """

    help: str
    run: Callable[[argparse.Namespace], int]
    arguments: tuple[Argument, ...]
    takes_beam_options: bool = False


def main(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Returns:
        0: success.
        1: a failure: a trace that does not match, a ledger that does not balance, a worker that died, a failed
            download, or a file that cannot be used.
        2: a mistake in the arguments or the recipe.
        130: stopped by Ctrl-C or `kill`.
    """
    logging.getLogger().setLevel(logging.ERROR)  # Beam's warnings do not help users of this command.
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    try:
        options = _parser().parse_args(arguments[:cut])
        options.beam = arguments[cut + 1 :]
        return COMMANDS[options.command].run(options)
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        from manifests.storage import storage_error

        print(f"error: {storage_error(error, arguments[0])}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: run the same command again to continue", file=sys.stderr)
        return 130


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt


def _print_traceback(thread: threading.ExceptHookArgs) -> None:
    """Print the exception that ended a thread. Exceptions of gRPC are omitted: the main thread reports them."""
    frames = traceback.walk_tb(thread.exc_traceback)
    if not any(frame.f_globals.get("__name__", "").startswith("grpc.") for frame, _ in frames):
        threading.__excepthook__(thread)


def _run(options: argparse.Namespace) -> int:
    from manifests.ledger import empty_sources
    from manifests.mirror import place_of
    from manifests.tools.show import summary_parts
    from pipeline.run import run

    recipe = _load_recipe(options).with_inputs(_parse_inputs(options.input))
    if options.dry_run is not None:
        return _dry_run(recipe, options.dry_run)
    engine, started = _engine(options, options.output), time.monotonic()
    if options.max_cost is not None:
        _check_price(recipe, options, engine)
    elif options.rates:
        raise UserError("--rates needs --max-cost: without a limit no price is computed")
    done = run(
        recipe,
        options.output,
        engine,
        options.keep_dropped,
        options.stage,
        skip_unreadable=options.skip_unreadable,
        quarantined=options.quarantine,
    )
    if done.manifest is None:
        print(f"stage {options.stage} is finished: {done.ran} tasks ran, in {place_of(options.output)}")
        return 0
    print_parts(summary_parts(done.manifest))
    for name, why in empty_sources(done.manifest.ledger).items():
        print(f"\nwarning: source {name} has no document: {why}")
    if done.recall:
        print(f"\n{done.recall}")
    _print_unreadable(done.unreadable)
    if done.quarantined:
        listed = f"{place_of(options.output)}/{QUARANTINE}"
        print(f"\n{done.quarantined} records kill the interpreter and were dropped: see {listed}")
    result = f"built in {time.monotonic() - started:.0f} s" if done.ran else "nothing to do, already finished"
    print(f"\n{place_of(options.output)}: {result}, manifest {done.manifest.manifest_sha}")
    return 0


def _dry_run(recipe: "Recipe", splits: int) -> int:
    from pipeline.dryrun import dry_run

    graphs = dry_run(recipe, splits)
    for graph in graphs:
        print(f"{graph.units:>9,} tasks  {graph.bytes:>9,} bytes of graph  {', '.join(graph.steps)}")
    largest = max(graph.bytes for graph in graphs)
    print(f"\n{len(graphs)} jobs over {splits:,} splits of each source, the largest graph {largest:,} bytes; none ran")
    return 0


def _check_price(recipe: "Recipe", options: argparse.Namespace, engine: "Engine") -> None:
    from pipeline.choices import option
    from pipeline.dataflow import check_price
    from pipeline.plan import PlanRequest

    if options.engine != "dataflow":
        raise UserError("--max-cost needs --engine dataflow: the other engines have no price list")
    workers = int(option(engine.arguments, "max_num_workers") or PlanRequest.workers)
    request = PlanRequest({}, {}, rates=tuple(options.rates), workers=workers)
    print(f"estimate: {check_price(recipe, request, options.max_cost)}", file=sys.stderr)


def _load_recipe(options: argparse.Namespace) -> "Recipe":
    """Load the recipe, and apply `--only`, `--without` and `--goal-tokens`."""
    from manifests.recipe import load_recipe

    recipe = load_recipe(options.recipe).with_sources(options.only, options.without)
    return recipe.model_copy(update={"goal_tokens": options.goal_tokens or recipe.goal_tokens})


def _append(options: argparse.Namespace) -> int:
    from manifests.mirror import mirror_of
    from manifests.tools.show import summary_parts
    from pipeline.append import append

    if mirror_of(options.corpus.absolute()) is not None:
        raise UserError("append changes a corpus on this machine's disk: copy it here, append, and copy it back")
    engine, started = _engine(options, options.corpus), time.monotonic()
    done = append(options.corpus, _parse_inputs(options.input), engine, options.skip_unreadable)
    manifest = done.manifest
    assert manifest is not None, "no stage was named to stop after"
    print_parts(summary_parts(manifest))
    _print_unreadable(done.unreadable)
    number, seconds = len(manifest.generations), time.monotonic() - started
    print(f"\n{options.corpus}: generation {number} appended in {seconds:.0f} s, manifest {manifest.manifest_sha}")
    return 0


def _print_unreadable(names: tuple[str, ...]) -> None:
    if names:
        count = format_quantity(len(names), "inputs")
        print(f"\nskipped {count} that could not be read: {', '.join(names)}; the next run tries again")


def _engine(options: argparse.Namespace, corpus: Path) -> "Engine":
    from manifests.files import usable_cores
    from pipeline.beam.engines import Engine, check_options
    from pipeline.choices import choose

    for last, word in itertools.pairwise(["", *options.beam]):
        if not word.startswith("-") and ("=" in last or not last.startswith("--")):
            raise UserError(f"{word!r} after `--` is not an option: give Beam options as --NAME=VALUE")
    engine = Engine(options.workers or usable_cores(), tuple(options.beam), corpus / "runs", options.quiet)
    if options.engine:
        engine = choose(options.engine, engine)
    check_options(engine.arguments)
    return engine


def _plan(options: argparse.Namespace) -> int:
    from pipeline.plan import PlanRequest, parse_unique_tokens, plan

    names = ("corpus", "run", "workers", "utilisation", "peak_tflops", "core_hour_price", "gpu_hour_price")
    request = PlanRequest(
        _parse_inputs(options.input),
        parse_unique_tokens(options.unique),
        rates=tuple(options.rates),
        **{name: value for name in names if (value := getattr(options, name)) is not None},
    )
    planned = plan(_load_recipe(options), request)
    print(json.dumps(planned.as_dict(), indent=2) if options.json else planned.text())
    return 0


def _trace(options: argparse.Namespace) -> int:
    from pipeline.trace import trace

    found = trace(options.corpus, options.shard, options.token, _parse_inputs(options.input))
    print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2) if options.json else found.text())
    return 0 if found.same else 1


def _status(options: argparse.Namespace) -> int:
    from pipeline.beam.progress import read_status, status_text
    from pipeline.folder import is_held, refresh_status

    refresh_status(options.corpus)
    status, held = read_status(options.corpus), is_held(options.corpus)
    if options.json:
        print(json.dumps({**status, "is_held": held}, indent=2))
    else:
        print(status_text(options.corpus, status, held))
    return 0


def _engines(options: argparse.Namespace) -> int:
    from pipeline.choices import list_engines

    print(list_engines())
    return 0


def _filters(options: argparse.Namespace) -> int:
    from pipeline.rules import list_rules, write_markdown

    print(write_markdown() if options.markdown else list_rules(), end="" if options.markdown else "\n")
    return 0


def _download(options: argparse.Namespace) -> int:
    if options.source == "references":
        return _download_references(options)
    from pipeline.download.download import format_results
    from pipeline.download.http import RetryPolicy, State
    from pipeline.download.layouts import DOWNLOADS, Mirror

    policy = RetryPolicy(options.attempts, options.backoff, timeout=options.timeout)
    terminal = None if options.quiet else sys.stderr
    mirror = Mirror(options.base_url, options.output, policy, options.parallel, terminal)
    names = [flag.removeprefix("--") for flag, _ in DUMP_SOURCES[options.source][1] if flag != "--base-url"]
    results = DOWNLOADS[options.source](mirror, **{name: getattr(options, name) for name in names})
    print(format_results(results))
    return 1 if any(result.state is State.FAILED for result in results) else 0


def _download_references(options: argparse.Namespace) -> int:
    from pipeline.download.crawl import CrawlOptions
    from pipeline.download.http import RetryPolicy
    from pipeline.download.page_request import RequestRules
    from pipeline.download.references import download_references, draw_cited_urls, user_agent

    rules = RequestRules(user_agent(options.contact), options.timeout, allow_private=options.allow_private)
    policy = RetryPolicy(options.attempts, options.backoff)
    crawl = CrawlOptions(rules, options.delay, options.parallel, options.max_bytes, policy)
    wanted = draw_cited_urls(options.wiki, options.most, options.seed)
    summary = download_references(wanted, options.output, crawl, None if options.quiet else sys.stderr)
    print(summary.text())
    return 1 if summary.temporary_failures else 0


def _parse_inputs(options: list[str]) -> dict[str, list[str]]:
    """Parse options `SOURCE=GLOB` to a dict from source to globs. Raises UserError for another form."""
    inputs: dict[str, list[str]] = {}
    for option in options:
        source, equals, pattern = option.partition("=")
        if not equals or not pattern:
            raise UserError(f"--input {option!r} is not SOURCE=GLOB: for example --input books='texts/*.txt'")
        inputs.setdefault(source, []).append(pattern)
    return inputs


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m pipeline", description="Build a corpus from raw dumps.", epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        epilog = EPILOG if command.takes_beam_options else None
        own = commands.add_parser(name, **describe(command.help), epilog=epilog)
        _add_arguments(own, command.arguments)
        if name == "download":
            sources = own.add_subparsers(dest="source", required=True)
            for source, (text, arguments) in DUMP_SOURCES.items():
                _add_arguments(sources.add_parser(source, **describe(text)), (*arguments, *TRANSFER))
            summary = describe("download pages that Wikipedia cites, from their own servers")
            _add_arguments(sources.add_parser("references", **summary), REFERENCES)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, arguments: tuple[Argument, ...]) -> None:
    for name, settings in arguments:
        parser.add_argument(name, **settings)


def _argument(name: str, help: str, **settings: Any) -> Argument:
    return name, {"help": help, **settings}


def _corpus(text: str) -> Path:
    """Return the folder of a corpus. For a URL, return its local mirror. Raises UserError."""
    from manifests.mirror import is_url, mirror_folder, open_mirror

    if re.match(r"(s3|gs|gcs|hdfs):/(?!/)", text):
        raise UserError(f"{text} is no URL: write {text.replace(':/', '://', 1)}")
    return open_mirror(mirror_folder(text), text).folder if is_url(text) else Path(text)


def _finished_corpus(text: str) -> Path:
    """Return the folder of a finished corpus. For a URL, return its local mirror. Raises UserError."""
    from manifests.mirror import open_corpus

    return open_corpus(text)


def _tokens(text: str) -> int:
    """Parse a number of tokens, such as 1e12. Raises ArgumentTypeError, which argparse reports."""
    number = ABOVE_ZERO(text)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"must be a whole number such as 1e12, not {text!r}")
    return int(number)


def exit_now(code: int) -> NoReturn:
    """End this process without waiting for its threads.

    After an interrupted job, threads of Beam would wait for the workers forever, and the workers end only after this
    process has ended.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others):
        os._exit(code)
    sys.exit(code)


CORPUS = _argument("corpus", "folder or URL of the corpus", type=_corpus)
READ_CORPUS = _argument("corpus", "folder or URL of a finished corpus", type=_finished_corpus)
WORKERS = _argument("--workers", "number of local processes (default: one per core)", type=POSITIVE, metavar="N")
ENGINE = _argument("--engine", "where jobs run (default: local); `python -m pipeline engines` lists them",
                   choices=ENGINES, metavar="NAME")  # fmt: skip
RATES = _argument("--rates", "runs/<start>.json of a run whose processing rates are used; may be repeated",
                  action="append", default=[], type=Path, metavar="FILE")  # fmt: skip
SKIP_UNREADABLE = _argument("--skip-unreadable", "skip dumps that cannot be opened, and list them", action="store_true")
QUIET = _argument("--quiet", "show no progress", action="store_true")
JSON = _argument("--json", "print JSON", action="store_true")
CHANGES = (  # Options that change the recipe.
    *(_argument(name, help, nargs="+", action="extend", default=[], metavar="SOURCE")
      for name, help in (("--only", "use only these sources of the recipe"),
                         ("--without", "use all sources of the recipe except these"))),
    _argument("--goal-tokens", "tokens to train on, such as 1e12, instead of the recipe's", type=_tokens, metavar="N"),
)  # fmt: skip
FILES = _argument(
    "--files", "slice of the publisher's list of files, as in Python: 0:8, :8, 0:1000:100, or one number",
    required=True, metavar="SLICE",
)  # fmt: skip


def _inputs(help: str, metavar: str = "SOURCE=GLOB", required: bool = False) -> Argument:
    settings = {"action": "append", "default": [], "metavar": metavar, "required": required}
    return _argument("--input", f"{help}; may be repeated", **settings)


def _server(url: str | None) -> Argument:
    help = "server with the publisher's layout, such as a mirror" + (" (default: %(default)s)" if url else "")
    return _argument("--base-url", help, default=url, required=url is None, metavar="URL")


def _requests(at_once: str, parallel: int, of: str, attempts: int, timeout: float) -> tuple[Argument, ...]:
    """Return the options that all downloads have.

    Args:
        at_once: Help text of `--parallel`.
        parallel: Default of `--parallel`.
        of: The unit that is downloaded, for the help text of `--attempts`.
        attempts: Default of `--attempts`.
        timeout: Default of `--timeout`, in seconds.
    """
    return (
        _argument("--parallel", f"{at_once} (default: {parallel})", type=POSITIVE, default=parallel, metavar="N"),
        _argument("--attempts", f"attempts per {of} (default: {attempts})",
                  type=POSITIVE, default=attempts, metavar="N"),
        _argument("--backoff", "seconds before the second attempt, doubled each time (default: 2)",
                  type=SECONDS, default=2.0, metavar="S"),
        _argument("--timeout", f"seconds without data after which a connection is closed (default: {timeout:g})",
                  type=SECONDS, default=timeout, metavar="S"),
        QUIET,
    )  # fmt: skip


COMMANDS = {
    "run": Command("build a corpus, or continue an interrupted build", _run, (
        _argument("recipe", "path of the recipe, such as recipes/demo.yaml", type=Path),
        _argument("--output", "folder or URL of the corpus", type=_corpus, required=True, metavar="CORPUS"),
        _inputs("dumps of a source, instead of those in the recipe"),
        *CHANGES,
        WORKERS,
        ENGINE,
        _argument("--stage", "stop after this stage", choices=STAGES),
        _argument("--keep-dropped", "dropped documents whose text is stored, per reason and split (default: 3)",
                  type=COUNT, default=3, metavar="N"),
        SKIP_UNREADABLE,
        _argument("--dry-run", "build the graph of every job for N splits of each source and print the sizes",
                  type=POSITIVE, metavar="N"),
        _argument("--max-cost", "refuse a run on Dataflow if its estimated price (US dollars, by --rates) is higher",
                  type=ABOVE_ZERO, metavar="DOLLARS"),
        RATES,
        _argument("--quarantine", f"drop the records that the {QUARANTINE} of another corpus lists",
                  type=Path, metavar="FILE"),
        QUIET,
    ), takes_beam_options=True),
    "plan": Command("estimate the tokens and costs of a recipe, and the missing dumps", _plan, (
        _argument("recipe", "path of the recipe, such as recipes/llama.yaml", type=Path),
        _argument("--corpus", "corpus of this recipe, from which tokens, factors and rates are taken", type=Path),
        _inputs("dumps of a source to estimate from"),
        *CHANGES,
        _argument("--unique", "unique tokens of a source, such as c4=198e9; may be repeated",
                  action="append", default=[], metavar="SOURCE=TOKENS"),
        RATES,
        _argument("--run", "folder of a training run whose mixture is printed", type=Path),
        _argument("--workers", "processes, to estimate the elapsed time (default: 64)", type=POSITIVE, metavar="N"),
        _argument("--utilisation", "share of a GPU's peak performance (default: 0.477, as LLaMA 65B)",
                  type=SHARE, metavar="U"),
        _argument("--peak-tflops", "peak performance of a GPU in TFLOPS (default: 312, as an A100)",
                  type=ABOVE_ZERO, metavar="T"),
        _argument("--core-hour-price", "price of a CPU core per hour, in any currency", type=ABOVE_ZERO, metavar="P"),
        _argument("--gpu-hour-price", "price of a GPU per hour, in any currency", type=ABOVE_ZERO, metavar="P"),
        JSON,
    )),
    "append": Command("add new dumps to a finished corpus", _append, (
        CORPUS, _inputs("new dumps of a source", required=True), WORKERS, ENGINE, SKIP_UNREADABLE, QUIET,
    ), takes_beam_options=True),
    "trace": Command("read the bytes of a token's document again and derive the same tokens", _trace, (
        READ_CORPUS,
        _argument("shard", "path below shards/"),
        _argument("token", "index of the token in the shard", type=int),
        _inputs("folder to which the dumps of a source were moved", metavar="SOURCE=DIR"),
        JSON,
    )),
    "status": Command("show the progress of a run, from another terminal", _status, (CORPUS, JSON)),
    "engines": Command("list the engines and what is missing to use them here", _engines, ()),
    "filters": Command("list the filter rules and their settings", _filters, (
        _argument("--markdown", "print the text of docs/filters.md", action="store_true"),
    )),
    "download": Command("download dumps from their publishers", _download, ()),
}  # fmt: skip

# Source -> (help text, arguments). All arguments except --base-url select the files.
DUMP_SOURCES: dict[str, tuple[str, tuple[Argument, ...]]] = {
    "common_crawl": ("download files of one crawl of Common Crawl", (
        _argument("--crawl", "name of the crawl, such as CC-MAIN-2019-30", required=True, metavar="NAME"),
        FILES,
        _argument("--kind", "pages, extracted text or metadata (default: warc)",
                  choices=("warc", "wet", "wat"), default="warc"),
        _server("https://data.commoncrawl.org/"),
    )),
    "stackexchange": ("download posts of Stack Exchange sites from archive.org", (
        _argument("--sites", "sites separated by commas, or all (without meta sites)", required=True, metavar="NAMES"),
        _argument("--item", "item of archive.org (default: %(default)s)", default="stackexchange", metavar="NAME"),
        _server("https://archive.org/download/"),
    )),
    "c4": ("download files of C4", (
        FILES,
        _argument("--config", "en, en.noblocklist or realnewslike (default: en)", default="en", metavar="NAME"),
        _server("https://huggingface.co/datasets/allenai/c4/resolve/main/"),
    )),
    "gutenberg": ("download plain texts of Project Gutenberg, which asks programs to use a mirror", (
        _argument("--books", "ebook numbers and ranges, such as 11,84,1-100", required=True, metavar="NUMBERS"),
        _server("https://www.gutenberg.org/"),
    )),
    "wikipedia": ("download dumps of Wikipedias from Wikimedia", (
        _argument("--language", "codes separated by commas, or all (LLaMA's twenty)", required=True, metavar="CODES"),
        _argument("--date", "date of the dump, such as 20240101", required=True, metavar="DATE"),
        _argument("--files", "multistream can be cut into splits; parts is the same in several files; single cannot "
                  "(default: multistream)", choices=("multistream", "parts", "single"), default="multistream"),
        _server("https://dumps.wikimedia.org/"),
    )),
    "arxiv": ("download monthly tars of arXiv from a mirror, by arXiv's manifest", (
        _argument("--manifest", "path of arXiv_src_manifest.xml", type=Path, required=True, metavar="FILE"),
        _argument("--months", "a month or a range, such as 0303 or 9107:9912", required=True, metavar="YYMM[:YYMM]"),
        _server(None),
    )),
}  # fmt: skip

TRANSFER = (
    _argument("--output", "folder for the files; it is created", type=Path, required=True, metavar="DIR"),
    *_requests("simultaneous downloads", 4, "file", 8, 60.0),
)
REFERENCES = (
    _argument("wiki", "Wikipedia dumps whose articles cite the pages", type=Path, nargs="+", metavar="WIKI_DUMP"),
    _argument("--output", "web archive to write or to continue, such as cited.warc.gz",
              type=Path, required=True, metavar="FILE"),
    _argument("--contact", "URL or e-mail address for the owners of the servers, sent with each request",
              required=True, metavar="TEXT"),
    _argument("--most", "number of pages to select by keyed hash (default: 300000, as RedPajama)",
              type=POSITIVE, default=300_000, metavar="N"),
    _argument("--seed", "seed of the selection (default: 0)", type=COUNT, default=0, metavar="N"),
    _argument("--delay", "seconds between two requests to a host; robots.txt may set more (default: 5)",
              type=SECONDS, default=5.0, metavar="S"),
    _argument("--max-bytes", "largest size of a page as sent; larger pages are skipped (default: 4194304)",
              type=POSITIVE, default=4 << 20, metavar="N"),
    *_requests("hosts contacted at the same time", 8, "page", 3, 30.0),
    _argument("--allow-private", "also send requests to private and loopback addresses", action="store_true"),
)  # fmt: skip


if __name__ == "__main__":
    escape_unencodable_output()
    signal.signal(signal.SIGTERM, _stop)
    threading.excepthook = _print_traceback
    exit_now(end_quietly(lambda: main(sys.argv[1:])))
