"""The command line of the pipeline: `python -m pipeline run | append | plan | trace | download`."""

import argparse
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from filters.errors import UserError
from manifests.cores import usable_cores
from manifests.display import spell_out_what_the_terminal_lacks

STAGES = (
    "index",
    "extract",
    "join",
    "urls",
    "lines",
    "perplexity",
    "references",
    "annotate",
    "neardup",
    "tokenizer",
    "tokenize",
    "lookup",
)
EPILOG = "What follows `--` goes to Beam, e.g. `-- --runner=FlinkRunner --flink_master=host:8081`."


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 1 a finding (a trace that does not match, a ledger that does not
    balance, a worker that died, a file that could not be had), 2 a mistake in what was asked for, 130 stopped from the
    keyboard."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam warns of much that is none of the user's business
    own, beam = _split(arguments)
    options = _parser().parse_args(own)
    try:
        if options.command == "run":
            return _run(options, beam)
        if options.command == "append":
            return _append(options, beam)
        return {"plan": _plan, "trace": _trace, "download": _download}[options.command](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, beam: list[str]) -> int:
    from manifests.recipe import load_recipe
    from manifests.tools.show import summary
    from pipeline.beam.engines import Engine, WorkerDiedError, check_options
    from pipeline.run import run
    from pipeline.stages.manifest import LedgerError
    from pipeline.stages.recall import RecallError

    recipe = load_recipe(options.recipe).with_inputs(_inputs(options.input))
    check_options(beam)
    workers = options.workers or usable_cores()
    started = time.monotonic()
    engine = Engine(workers, tuple(beam), options.output / "runs", options.quiet)
    try:
        done = run(recipe, options.output, engine, options.keep_dropped, options.stage)
    except LedgerError as error:
        print(f"the ledger does not balance: {error}", file=sys.stderr)
        return 1
    except (WorkerDiedError, RecallError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if done.manifest is None:
        print(f"stage {options.stage} is finished: {done.ran} tasks ran, in {options.output}")
        return 0
    print(summary(done.manifest))
    if done.canaries:
        print(f"\n{done.canaries}")
    if done.ran:
        print(f"\n{options.output}: built in {time.monotonic() - started:.0f} s, manifest {done.manifest.manifest_sha}")
    else:
        print(f"\n{options.output}: nothing to do, already finished, manifest {done.manifest.manifest_sha}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from manifests.recipe import load_recipe
    from pipeline.plan import Asked, plan, unique_tokens

    named = ("corpus", "run", "workers", "utilisation", "peak_tflops", "core_hour_price", "gpu_hour_price")
    asked = Asked(
        _inputs(options.input),
        unique_tokens(options.unique),
        rates=tuple(options.rates),
        **{name: value for name in named if (value := getattr(options, name)) is not None},
    )
    planned = plan(load_recipe(options.recipe), asked)
    print(json.dumps(planned.as_dict(), indent=2) if options.json else planned.text())
    return 0


def _append(options: argparse.Namespace, beam: list[str]) -> int:
    from manifests.tools.show import summary
    from pipeline.append import append
    from pipeline.beam.engines import Engine, WorkerDiedError, check_options
    from pipeline.stages.manifest import LedgerError

    check_options(beam)
    engine = Engine(options.workers or usable_cores(), tuple(beam), options.corpus / "runs", options.quiet)
    started = time.monotonic()
    try:
        manifest = append(options.corpus, _inputs(options.input), engine)
    except (LedgerError, WorkerDiedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(manifest))
    number, seconds = len(manifest.generations), time.monotonic() - started
    print(f"\n{options.corpus}: generation {number} appended in {seconds:.0f} s, manifest {manifest.manifest_sha}")
    return 0


def _trace(options: argparse.Namespace) -> int:
    from pipeline.trace import trace

    found = trace(options.corpus, options.shard, options.token, _inputs(options.input))
    if options.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
    else:
        print(found.text())
    return 0 if found.same else 1


def _download(options: argparse.Namespace) -> int:
    from filters.wikitext.names import LANGUAGES
    from pipeline.download.archive_org import Item, download_sites
    from pipeline.download.arxiv_bulk import download_months
    from pipeline.download.crawls import Crawl, download_crawl
    from pipeline.download.download import report
    from pipeline.download.http import State
    from pipeline.download.mirrors import c4_paths, download_paths, gutenberg_paths
    from pipeline.download.request import Patience
    from pipeline.download.wikis import ALL, Dump, download_wikis

    patience = Patience(options.attempts, options.backoff, silence=options.silence)
    terminal = None if options.quiet else sys.stderr
    if options.source == "stackexchange":
        item = Item(options.item, options.base_url)
        outcomes = download_sites(item, options.sites, options.output, patience, options.parallel, terminal)
    elif options.source in ("c4", "gutenberg"):
        paths = c4_paths(options.config, options.files) if options.source == "c4" else gutenberg_paths(options.books)
        outcomes = download_paths(options.base_url, paths, options.output, patience, options.parallel, terminal)
    elif options.source == "wikipedia":
        codes = list(LANGUAGES) if options.language == ALL else options.language.split(",")
        dumps = [Dump(code, options.date, options.base_url) for code in dict.fromkeys(codes)]
        outcomes = download_wikis(dumps, options.files, options.output, patience, options.parallel, terminal)
    elif options.source == "arxiv":
        place = (options.manifest, options.months, options.base_url, options.output)
        outcomes = download_months(*place, patience, options.parallel, terminal)
    else:
        crawl = Crawl(options.crawl, options.kind, options.base_url)
        outcomes = download_crawl(crawl, options.files, options.output, patience, options.parallel, terminal)
    print(report(outcomes))
    return 1 if any(outcome.state is State.FAILED for outcome in outcomes) else 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first `--`."""
    if "--" not in arguments:
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def _inputs(given: list[str]) -> dict[str, list[str]]:
    """`SOURCE=GLOB` options as lists by source."""
    inputs: dict[str, list[str]] = {}
    for option in given:
        source, equals, pattern = option.partition("=")
        if not equals or not pattern:
            raise UserError(f"--input {option!r} is not SOURCE=GLOB: for example --input books='texts/*.txt'")
        inputs.setdefault(source, []).append(pattern)
    return inputs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="Raw dumps in, a corpus out.", epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="build a corpus, or finish one", epilog=EPILOG)
    run.add_argument("recipe", type=Path, help="a recipe, e.g. recipes/demo.yaml")
    run.add_argument("--output", type=Path, required=True, metavar="CORPUS", help="the corpus's folder")
    run.add_argument(
        "--input", action="append", default=[], metavar="SOURCE=GLOB", help="replace a source's inputs; again: add"
    )
    run.add_argument("--workers", type=_positive, help="local processes (default: one a core)")
    run.add_argument("--stage", choices=STAGES, help="stop after it")
    run.add_argument(
        "--keep-dropped",
        type=_count,
        default=3,
        metavar="N",
        help="keep N dropped documents a reason and split (default: 3, which the report shows; 0: none)",
    )
    run.add_argument("--quiet", action="store_true", help="no progress")
    _plan_parser(commands.add_parser("plan", help="what a recipe gives and costs, and what is missing to its goal"))
    more = commands.add_parser("append", help="add new dumps to a finished corpus", epilog=EPILOG)
    more.add_argument("corpus", type=Path, help="the corpus's folder")
    more.add_argument(
        "--input", action="append", required=True, metavar="SOURCE=GLOB", help="the new dumps of a source; again: add"
    )
    more.add_argument("--workers", type=_positive, help="local processes (default: one a core)")
    more.add_argument("--quiet", action="store_true", help="no progress")
    trace = commands.add_parser("trace", help="re-read the bytes behind a token and derive it again")
    trace.add_argument("corpus", type=Path)
    trace.add_argument("shard", help="path below shards/")
    trace.add_argument("token", type=int, help="index in the flat token column")
    trace.add_argument(
        "--input", action="append", default=[], metavar="SOURCE=DIR", help="where a source's dumps lie now"
    )
    trace.add_argument("--json", action="store_true")
    sources = commands.add_parser("download", help="fetch dumps").add_subparsers(dest="source", required=True)
    crawl = sources.add_parser("common_crawl", help="files of one crawl of Common Crawl")
    crawl.add_argument("--crawl", required=True, metavar="NAME", help="e.g. CC-MAIN-2019-30")
    crawl.add_argument("--files", required=True, metavar="SLICE", help="which of its files: 0:8, :8, 0:1000:100, 5")
    crawl.add_argument("--kind", choices=("warc", "wet", "wat"), default="warc")
    _transfer_options(crawl, "https://data.commoncrawl.org/")
    sites = sources.add_parser("stackexchange", help="sites' posts from archive.org")
    sites.add_argument("--sites", required=True, metavar="NAMES", help="joined by commas, or all (but meta sites)")
    sites.add_argument("--item", default="stackexchange", metavar="NAME", help="archive.org's item")
    _transfer_options(sites, "https://archive.org/download/")
    released = sources.add_parser("c4", help="C4's released files")
    released.add_argument("--files", required=True, metavar="SLICE", help="which of them: 0:8, :8, 0:1024:100, 5")
    released.add_argument("--config", default="en", metavar="NAME", help="en, en.noblocklist or realnewslike")
    _transfer_options(released, "https://huggingface.co/datasets/allenai/c4/resolve/main/")
    texts = sources.add_parser("gutenberg", help="plain texts of Project Gutenberg; robots are to use a mirror")
    texts.add_argument("--books", required=True, metavar="NUMBERS", help="ebook numbers and ranges: 11,84,1-100")
    _transfer_options(texts, "https://www.gutenberg.org/")
    wikis = sources.add_parser("wikipedia", help="dumps of Wikipedias from Wikimedia")
    wikis.add_argument("--language", required=True, metavar="CODES", help="joined by commas, or all (LLaMA's twenty)")
    wikis.add_argument("--date", required=True, metavar="DATE", help="a dump's, e.g. 20240101")
    wikis.add_argument(
        "--files", choices=("multistream", "parts", "single"), default="multistream",
        help="multistream can be cut into splits; parts are the same, of large wikis; single cannot be cut",
    )  # fmt: skip
    _transfer_options(wikis, "https://dumps.wikimedia.org/")
    months = sources.add_parser("arxiv", help="monthly tars by arXiv's manifest, from a mirror")
    months.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="arXiv_src_manifest.xml")
    months.add_argument("--months", required=True, metavar="YYMM[:YYMM]", help="e.g. 0303, 9107:9912")
    _transfer_options(months, None)
    return parser


def _plan_parser(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("recipe", type=Path, help="a recipe, e.g. recipes/llama.yaml")
    plan.add_argument("--corpus", type=Path, help="one of this recipe, to measure tokens, factors and rates on")
    plan.add_argument(
        "--input", action="append", default=[], metavar="SOURCE=GLOB", help="files to estimate from; again: add"
    )
    plan.add_argument("--unique", action="append", default=[], metavar="SOURCE=TOKENS", help="unique tokens: c4=198e9")
    plan.add_argument(
        "--rates", action="append", default=[], type=Path, metavar="FILE", help="a runs/<start>.json; again: add"
    )
    plan.add_argument("--run", type=Path, help="folder of a training run, to show its mixture")
    plan.add_argument("--workers", type=_positive, metavar="N", help="for the wall time (default: 64)")
    plan.add_argument("--utilisation", type=_share, metavar="U", help="of a GPU's peak (0.477, LLaMA's at 65B)")
    plan.add_argument("--peak-tflops", type=_above_zero, metavar="T", help="of a GPU (312, an A100's)")
    plan.add_argument("--core-hour-price", type=_above_zero, metavar="P", help="in any currency")
    plan.add_argument("--gpu-hour-price", type=_above_zero, metavar="P", help="in any currency")
    plan.add_argument("--json", action="store_true")


def _count(text: str) -> int:
    return 0 if int(text) == 0 else _positive(text)


def _transfer_options(parser: argparse.ArgumentParser, base_url: str | None) -> None:
    """Where files come from and go to, and how."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="files land below it")
    required = base_url is None
    parser.add_argument("--base-url", default=base_url, required=required, metavar="URL", help="a mirror, say")
    parser.add_argument("--parallel", type=_positive, default=4, metavar="N", help="files at a time (default: 4)")
    parser.add_argument("--attempts", type=_positive, default=8, metavar="N", help="for each file (default: 8)")
    parser.add_argument("--backoff", type=_seconds, default=2.0, metavar="S", help="seconds, doubled each time (2)")
    parser.add_argument("--silence", type=_seconds, default=60.0, metavar="S", help="seconds, then try again (60)")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError("must be above 0 and at most 3600")
    return number


def leave(code: int) -> NoReturn:
    """End this process now. After a job that was broken off, Beam's threads would wait for its workers without end; the
    workers end by themselves when this process is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    spell_out_what_the_terminal_lacks()
    leave(main(sys.argv[1:]))
