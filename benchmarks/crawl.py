"""Measure the path from WARC files to de-duplicated documents on one core, beside datatrove on the same file.

Each side runs in its own process and reads three archives: a small archive of few pages, the small archive again, and
the full archive of all pages. The result is the CPU time for the full archive minus the CPU time for the second reading
of the small archive. So the time for imports, for loading models and the fixed cost of a run are not counted.

The two sides apply different filters, so the numbers of kept documents differ. Ours: main text, language, C4's rules,
MinHash. datatrove's: blocked URLs, trafilatura, language, Gopher's two sets of rules, C4's and FineWeb's rules,
MinHash.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import stages
from benchmarks.data import ABSENT, ROOT, archives, table
from benchmarks.measure import anonymous_bytes, format_spread
from filters.formats.http import HttpError, is_html, parse_response
from filters.formats.stored import open_stored
from filters.formats.warc import Limits, read_frames
from filters.quality.language import bundled_model_path
from filters.quality.perplexity import Perplexity
from manifests.recipe import Recipe
from pipeline.beam.engines import Engine
from pipeline.beam.receipts import read_receipt
from pipeline.dedup import clusters, survivors
from pipeline.run import run as build

PEER = ROOT / "build/peers/bin/python"
PEER_NAME = "datatrove 0.10.1"
MODELS = "TERATOKEN_LM"  # environment variable: a folder with LANGUAGE.sp.model and LANGUAGE.arpa.bin
ROUNDS = int(os.environ.get("ROUNDS", "3"))
FEW = 20  # One page in twenty is in the small archive, which warms up a process and whose time is subtracted.
TARGET, TARGET_LM = 38, 30  # MB of HTML per CPU second, without and with the language model
TARGET_RATIO, TARGET_FLOOR = 12, 1.3  # times the speed of the peer; times the CPU time of the bare calls
RECORD_BYTES = 32 << 20


@dataclass(frozen=True)
class Archive:
    """A WARC file, the number of its pages, and the bytes of their HTML."""

    path: Path
    pages: int
    html: int


@dataclass(frozen=True)
class Measured:
    """The measurements of one side in one round.

    Attributes:
        seconds: CPU seconds for the full archive minus `fixed`.
        fixed: CPU seconds for the second reading of the small archive.
        start: CPU seconds for the first reading of the small archive, including imports and loading models.
        kept: The number of documents kept from the full archive.
        peak: The peak of anonymous memory, in bytes.
        steps: Seconds for the full archive, by stage.
    """

    seconds: float
    fixed: float
    start: float
    kept: int
    peak: int
    steps: dict[str, float]


def write_archive(paths: list[Path], target: Path, every: int = 1) -> Archive:
    """Write an archive of the HTML responses of other archives, byte for byte as they are stored.

    Args:
        paths: The archives to read.
        target: The archive to write.
        every: Write only one in `every` responses.
    """
    seen = pages = html = 0
    with target.open("wb") as file:
        for path in paths:
            with open_stored(path) as stored:
                for frame in read_frames(stored, Limits(RECORD_BYTES)):
                    size = _html_bytes(frame.headers.get("WARC-Type"), frame.block)
                    if size is None:
                        continue
                    if seen % every == 0:
                        file.write(stored[frame.offset : frame.offset + frame.length])
                        pages, html = pages + 1, html + size
                    seen += 1
    return Archive(target, pages, html)


def _html_bytes(kind: str | None, block: bytes) -> int | None:
    """Return the number of decoded bytes of a record's HTML page, or None if the record has no HTML page."""
    if kind != "response":
        return None
    try:
        response = parse_response(block, RECORD_BYTES)
    except HttpError:
        return None
    return len(response.body) if response.status == 200 and is_html(response) else None


def recipe(archive: Path, models: str | None) -> Recipe:
    """Return the demo's recipe for an archive, with perplexity if a folder of language models is given."""
    made = stages.recipe().with_inputs({"common_crawl": [str(archive)]})
    if models is None:
        return made
    source = made.sources["common_crawl"]
    rules = [*source.filters, Perplexity(models=models)]
    return made.model_copy(update={"sources": {"common_crawl": source.model_copy(update={"filters": rules})}})


def ours(archive: Path, corpus: Path, models: str | None) -> dict[str, Any]:
    """Run our pipeline over one archive up to the stage `clusters`, in this process.

    Returns:
        A dict of CPU seconds, the number of documents kept, and CPU seconds by stage.
    """
    begun = time.process_time()
    engine = Engine(1, ("--direct_running_mode=in_memory",), corpus / "runs", quiet=True)
    build(recipe(archive, models), corpus, engine, only=clusters.STAGE)
    seconds = time.process_time() - begun
    steps: dict[str, float] = {}
    for path in (corpus / "runs").glob("*.json"):
        for task in json.loads(path.read_bytes()).get("tasks", []):
            steps[task["stage"]] = steps.get(task["stage"], 0.0) + task["cpu_seconds"]
    receipt = read_receipt(corpus, survivors.SURVIVORS, "all")
    assert receipt is not None, "the run succeeded"
    kept = sum(tally.out["records"] for tally in receipt.tallies.values())
    return {"cpu_seconds": seconds, "kept": kept, "steps": steps}


def measure(command: list[str], few: Archive, full: Archive) -> Measured:
    """Run one side in a new process over the small archive twice and the full archive once.

    Raises:
        RuntimeError: If the process failed. The message contains the end of its standard error.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        begun = [*command, f"{folder}/output", *(str(one.path) for one in (few, few, full))]
        child = subprocess.Popen(begun, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
        peak = 0
        while child.poll() is None:
            peak = max(peak, largest_anonymous(child.pid))
            time.sleep(0.02)
        output = child.stdout.read() if child.stdout else b""
        if child.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"{' '.join(begun)}\n{log.read().decode('utf-8', 'replace')[-4000:]}")
    first, second, third = json.loads(output.splitlines()[-1])
    fixed, whole = second["cpu_seconds"], third["cpu_seconds"]
    return Measured(whole - fixed, fixed, first["cpu_seconds"], third["kept"], peak, third["steps"])


def largest_anonymous(process: int) -> int:
    """Return the largest anonymous memory among a process and its descendants, in bytes; 0 if the process has ended.

    The maximum is taken and not the sum, because forked processes share most of their memory.
    """
    try:
        own = anonymous_bytes(process)
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0
    return max([own, *(largest_anonymous(int(child)) for child in children)])


def floor(archive: Path) -> float:
    """Return the CPU seconds of the bare functions over the same pages, without Beam, files, ledger or receipts."""
    return sum(seconds for _, seconds in stages.measure_bare_functions(recipe(archive, None)).values())


def run() -> str:
    """Measure all sides in alternation for `ROUNDS` rounds and return a report. A missing peer is only named in it."""
    if not archives():
        return ABSENT
    sides = {"ours": [sys.executable, "-m", "benchmarks.crawl", "-"]}
    if models := os.environ.get(MODELS):
        sides["ours, perplexity"] = [sys.executable, "-m", "benchmarks.crawl", models]
    if PEER.exists():
        script = str(ROOT / "benchmarks/peer_datatrove.py")
        sides[PEER_NAME] = [str(PEER), script, str(bundled_model_path())]
    rounds: dict[str, list[Measured]] = {name: [] for name in sides}
    floors = []
    with tempfile.TemporaryDirectory() as folder:
        few = write_archive(archives(), Path(folder) / "few.warc.gz", FEW)
        full = write_archive(archives(), Path(folder) / "full.warc.gz")
        for _ in range(ROUNDS):
            floors.append(floor(full.path))
            for name, command in sides.items():
                rounds[name].append(measure(command, few, full))
    return report(few, full, rounds, floors)


def report(few: Archive, full: Archive, rounds: dict[str, list[Measured]], floors: list[float]) -> str:
    """Return a table of medians over the rounds, the spread of the ratios of each round, and the targets."""
    pages, megabytes = full.pages - few.pages, (full.html - few.html) / 1e6
    rows = []
    for name, found in rounds.items():
        seconds = [one.seconds for one in found]
        middle = statistics.median(seconds)
        rows.append(
            [
                name,
                f"{middle:.2f}",
                f"{pages / middle:,.0f}",
                format_spread([megabytes / one for one in seconds], 1),
                f"{found[0].kept:,}",
                f"{statistics.median(one.fixed for one in found):.2f}",
                f"{statistics.median(one.start for one in found):.2f}",
                f"{max(one.peak for one in found) / 2**20:,.0f}",
            ]
        )
    head = ["", "CPU s", "pages per CPU s", "MB HTML per CPU s", "kept", "fixed, s", "start, s", "peak RssAnon, MiB"]
    parts = [
        f"{full.pages:,} pages, {full.html / 1e6:.1f} MB of HTML; measured: the {pages:,} pages and {megabytes:.1f} "
        f"MB that are not in the small archive; {len(floors)} rounds",
        table(head, rows),
        f"targets: {TARGET} MB of HTML per CPU second, {TARGET_LM} with perplexity",
    ]
    for name, found in rounds.items():
        if name != "ours":
            ratios = [b.seconds / a.seconds for a, b in zip(rounds["ours"], found, strict=True)]
            parts.append(
                f"{name} relative to ours: {format_spread(ratios)}" + f" (target {TARGET_RATIO})" * (name == PEER_NAME)
            )
    if PEER_NAME not in rounds:
        parts.append(f"{PEER_NAME} is not installed: run `make peers`")
    share = megabytes * 1e6 / full.html
    ratios = [one.seconds / (bare * share) for one, bare in zip(rounds["ours"], floors, strict=True)]
    parts.append(
        f"ours relative to the bare calls, {statistics.median(floors):.2f} s: {format_spread(ratios)} "
        f"(target {TARGET_FLOOR})"
    )
    for name, found in rounds.items():
        steps = sorted({step for one in found for step in one.steps})
        middles = {step: statistics.median(one.steps.get(step, 0.0) for one in found) for step in steps}
        parts.append(
            f"{name}, all pages, {'wall' if name == PEER_NAME else 'CPU'} time by stage: "
            + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in middles.items())
        )
    return "\n\n".join(parts)


def main(arguments: list[str]) -> None:
    """Run our pipeline over each archive and print a JSON list. The arguments are MODELS (or -), OUTPUT, ARCHIVE..."""
    models, output, *paths = arguments
    given = None if models == "-" else models
    found = [ours(Path(path), Path(output) / str(number), given) for number, path in enumerate(paths)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
