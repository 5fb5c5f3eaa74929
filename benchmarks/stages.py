"""Measure, on real pages, the documents per CPU second of each stage, the time spent in Beam, and peak memory.

The lower bound is a plain loop that calls the same pure functions for the same records, without Beam, files, ledger or
receipts.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data import ABSENT, PAGES, ROOT, SHARED, archives, table
from filters.dedup.minhash import shingle_hashes, signature
from filters.formats.stored import open_stored
from filters.rule import Found, Page
from filters.rule_list import apply_rules
from manifests.recipe import Recipe, load_recipe
from pipeline.beam.engines import Engine
from pipeline.run import run as build
from pipeline.sources import common_crawl


def recipe() -> Recipe:
    """Return the demo's recipe with the real pages as its only input and without canaries."""
    plain = load_recipe(ROOT / "recipes/demo.yaml")
    source = plain.sources["common_crawl"]
    rules = [rule.map_paths(lambda path: str(ROOT / path)) for rule in source.filters]
    source = source.model_copy(update={"inputs": [str(SHARED / PAGES)], "filters": rules})
    return plain.model_copy(
        update={
            "sources": {"common_crawl": source},
            "deduplication": plain.deduplication.model_copy(update={"source_priority": [], "canaries": 0}),
        }
    )


def page_texts() -> Iterator[str]:
    """Yield the main text of each real page. Yield nothing if the real pages are missing."""
    source = recipe().sources["common_crawl"]
    for path in archives():
        with open_stored(path) as stored:
            for outcome in common_crawl.read(stored, path.name, "common_crawl", source):
                if outcome.document:
                    yield outcome.document.text


def measure_bare_functions(demo: Recipe) -> dict[str, tuple[int, float]]:
    """Call the pure functions of the stages in a plain loop; return {stage: (records, CPU seconds)}."""
    source, minhash = demo.sources["common_crawl"], demo.deduplication.minhash
    assert minhash is not None
    begun = time.process_time()
    texts, read = [], 0
    for path in archives():
        with open_stored(path) as stored:
            for outcome in common_crawl.read(stored, path.name, "common_crawl", source):
                read += 1
                if outcome.document:
                    texts.append(outcome.document.text)
    extracted = time.process_time()
    rules = source.rules_at("filter")
    given = [Found() for _ in rules]
    for text in texts:
        found = apply_rules(Page(text), rules, given)
        if found.reason is None:
            signature(shingle_hashes(found.text, minhash), minhash)
    return {
        "extract": (read, extracted - begun),
        "filter": (len(texts), time.process_time() - extracted),
    }


def run() -> str:
    """Build a corpus in one process and return a table of its times, beside the lower bound."""
    if not archives():
        return ABSENT
    demo = recipe()
    measure_bare_functions(demo)  # This call loads models and libraries, so that neither measured side loads them.
    floor = measure_bare_functions(demo)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        arguments = ("--direct_running_mode=in_memory",)
        begun = time.perf_counter()
        build(demo, corpus, Engine(1, arguments, corpus / "runs", quiet=True))
        wall = time.perf_counter() - begun
        (times,) = (corpus / "runs").glob("*Z.json")
        record = json.loads(times.read_bytes())
        tasks, jobs = record["tasks"], record["jobs"]
    rows = []
    for stage in sorted({task["stage"] for task in tasks}):
        own = [task for task in tasks if task["stage"] == stage]
        records, seconds = sum(t["records"] for t in own), sum(t["cpu_seconds"] for t in own)
        ratio = ""
        if stage in floor:
            ratio = f"{(seconds / records) / (floor[stage][1] / floor[stage][0]):.2f}"
        rate = f"{records / seconds:,.0f}" if records else ""
        rows.append([stage, f"{records:,}" if records else "", f"{seconds:.2f}", rate, ratio])
    inside, beam = sum(task["seconds"] for task in tasks), sum(job["seconds"] for job in jobs)
    peak = max(task["peak_rss_bytes"] for task in tasks) / 2**20
    head = ["stage", "records", "CPU s", "records per CPU s", "CPU time relative to the bare calls"]
    share = f"{wall:.1f} s in all: {inside:.1f} s in tasks, {beam - inside:.1f} s in Beam outside tasks "
    share += f"({len(jobs)} jobs), "
    share += f"{wall - beam:.1f} s in checksums, fingerprints and the manifest"
    return f"{table(head, rows)}\n\n{share}; peak resident memory {peak:,.0f} MiB"
