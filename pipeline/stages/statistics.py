"""statistics: write `statistics.json`, which describes the corpus for its report.

It contains lengths, languages, scores, domains, years, licences and examples of dropped records for each source, and
the sizes of clusters. A small summary per split and per shard is written first, then all summaries are merged. No hash
covers `statistics.json` and no other step reads it, but the same corpus gives the same bytes. The step reads only the
columns that it needs.
"""

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.dedup.recall import Level, candidate_probability, confidence_interval
from filters.histograms import (
    COUNT_EDGES,
    LOG_EDGES,
    SHARE_EDGES,
    FrequentNames,
    count_bins,
    describe_bins,
)
from filters.quality.urls import domain
from manifests.document import order_key
from manifests.files import canonical_json, write_atomic
from manifests.recipe import Recipe
from manifests.shard import open_shard
from pipeline.beam.step import Awaited, Files, Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import read_rows
from pipeline.dedup import recall
from pipeline.dedup.survivors import read_verdicts, verdicts_of

STAGE = "statistics"
SPLITS, SHARDS, MERGE = (f"{STAGE}/{step}" for step in ("splits", "shards", "merge"))
FILE = "statistics.json"

# Number of names that a summary counts, by kind. If there are more, the counts are approximate (`FrequentNames`).
NAMES = {"domains": 2_000, "language": 300, "year": 300, "licence": 300}
SHOWN_NAMES = 50
EXAMPLES = 3  # Examples of dropped records per source and reason.
EXAMPLE_CHARACTERS = 300
BATCH_ROWS = 1_024
PERPLEXITY = "perplexity/"  # Prefix of the name of a histogram; the bucket follows (head, middle or tail).
# Similarities at which the probability that MinHash finds a pair is computed for the report.
CURVE_AT = tuple(step / 100 for step in range(30, 101, 2))

Plain = dict[str, Any]


def split_step(recipe: Recipe, extracted: Receipts, filtered: Receipts, clusters: Receipt) -> Step:
    """Return the step that summarizes documents, with a unit per split. `clusters` is the receipt of the survivors."""
    verdicts, units = verdicts_of(clusters), []
    for split in sorted(filtered):
        receipt, on_clean = filtered[split], verdicts.get(split)
        arguments = {
            "letters": Files(extracted, split, ("deadletters/", "skipped/")),
            "dropped": "".join(path for path, _ in receipt.files(("dropped/",))),
            "verdicts": on_clean.path if on_clean is not None else "",
        }
        reads = [Files(filtered, split, ("clean/", "dropped/")), on_clean]
        units.append(Unit(split, arguments, reads, receipt.outputs_below("clean")[0].bytes))
    return Step(SPLITS, summarize_split, units, {"seed": recipe.seed})


def shard_step(shards: Step) -> Step:
    """Return the step that summarizes shards, with a unit per shard."""
    units = [Unit(unit.name, awaits=(Awaited(shards.name, unit.name),)) for unit in shards.units]
    return Step(SHARDS, summarize_shard, units)


def merge_step(
    recipe: Recipe, manifest_sha: str, splits: Receipts, shards: Receipts, clusters: Receipt, measured: Receipt | None
) -> Step:
    """Return the step with one unit that merges all summaries.

    Args:
        recipe: Recipe of the run.
        manifest_sha: Hash of the manifest, which names the corpus.
        splits: Receipts of the summaries of splits.
        shards: Receipts of the summaries of shards.
        clusters: Receipt of the survivors.
        measured: Receipt of the measurement with canaries; None if recall was not measured.
    """
    searched = recall.sources_by_minhash(recipe, {source_of(split) for split in splits})
    settings: Plain = {
        "manifest_sha": manifest_sha,
        "bands": [
            {"sources": sources, **minhash.model_dump(include={"bands", "rows", "threshold"})}
            for minhash, sources in searched.items()
        ],
        "measured": measured is not None,
        "splits": sorted(splits),
        "shards": sorted(shards),
        "clusters": [output.path for output in clusters.outputs_below("duplicates")],
    }
    reads = [[[name, Files(part, name)] for name in sorted(part)] for part in (splits, shards)]
    return Step(
        MERGE, merge, [Unit("all", {}, [*reads, clusters.outputs_below("duplicates"), measured])], settings, owns=()
    )


def summarize_split(corpus: Path, split: str, *, seed: int, letters: list[str], dropped: str, verdicts: str) -> Result:
    """Write the summary of the documents of one split that are in the corpus, with examples of dropped records.

    Args:
        corpus: Folder of the corpus.
        split: Name of the split.
        seed: Seed for the selection of examples.
        letters: Paths of the split's files in `deadletters/` and `skipped/`.
        dropped: Path of the documents that filters dropped; empty if there is no such file.
        verdicts: Path of the verdicts on duplicates; empty if there is no such file.
    """
    removed = {row: verdict.reason for row, verdict in read_verdicts(corpus, verdicts).items() if verdict.reason}
    histograms = defaultdict[str, Counter[int]](Counter)
    names = {kind: FrequentNames(capacity) for kind, capacity in NAMES.items()}
    documents = 0
    for batch in _read_batches(corpus / f"clean/{split}.parquet", removed):
        documents += batch.num_rows
        histograms["characters"].update(count_bins(pc.utf8_length(batch["text"]), COUNT_EDGES))
        histograms["score"].update(count_bins(_to_floats(batch["reference_score"]), SHARE_EDGES))
        values, buckets = _to_floats(batch["perplexity"]), np.array(batch["bucket"].to_pylist(), object)
        for bucket in {name for name in buckets.tolist() if name is not None}:
            histograms[PERPLEXITY + bucket].update(count_bins(values[buckets == bucket], LOG_EDGES))
        names["domains"].add(Counter(filter(None, map(domain, filter(None, batch["url"].to_pylist())))))
        names["language"].add(_count_values(batch["language"]))
        names["licence"].add(_count_values(batch["licence"]))
        names["year"].add(_count_values(pc.utf8_slice_codeunits(batch["timestamp"], 0, 4)))
    plain = {
        "documents": documents,
        "histograms": histograms,
        "names": {kind: found.as_dict() for kind, found in names.items()},
        "examples": _choose_examples(_read_dropped(corpus, split, letters, dropped, removed, seed)),
    }
    return _write_summary(corpus, f"blocks/{SPLITS}/{split}.json", plain)


def summarize_shard(corpus: Path, shard: str) -> Result:
    """Write the histogram of tokens per document of one shard."""
    lengths = np.diff(open_shard(corpus / f"shards/{shard}.arrow").offsets)
    plain = {"histograms": {"tokens": count_bins(lengths, COUNT_EDGES)}}
    return _write_summary(corpus, f"blocks/{SHARDS}/{shard}.json", plain)


def merge(
    corpus: Path,
    unit: str,
    *,
    manifest_sha: str,
    bands: list[Plain],
    measured: bool,
    splits: list[str],
    shards: list[str],
    clusters: list[str],
) -> Result:
    """Merge all summaries in the order of their names, and write `statistics.json`."""
    sources: dict[str, _Merged] = {}
    for step, names in ((SPLITS, splits), (SHARDS, shards)):
        for name in names:
            part = json.loads((corpus / f"blocks/{step}/{name}.json").read_bytes())
            sources.setdefault(source_of(name), _Merged()).add(part)
    plain = {
        "manifest_sha": manifest_sha,
        "sources": {name: merged.as_dict() for name, merged in sorted(sources.items())},
        "clusters": describe_bins(_count_cluster_sizes(corpus, clusters), COUNT_EDGES),
        "bands": _describe_bands(corpus, bands, measured),
    }
    return _write_summary(corpus, FILE, plain)


class _Merged:
    """The sum of the summaries of one source."""

    def __init__(self) -> None:
        self.documents = 0
        self.histograms = defaultdict[str, Counter[int]](Counter)
        self.names = {kind: FrequentNames(capacity) for kind, capacity in NAMES.items()}
        self.examples: dict[str, list[Plain]] = {}

    def add(self, part: Plain) -> None:
        """Add the summary of one split or shard."""
        self.documents += part.get("documents", 0)
        for name, plain in part["histograms"].items():
            self.histograms[name].update({int(place): count for place, count in plain.items()})
        for kind, plain in part.get("names", {}).items():
            self.names[kind].merge(FrequentNames.from_dict(plain, NAMES[kind]))
        for reason, examples in part.get("examples", {}).items():
            both = [*self.examples.get(reason, []), *examples]
            self.examples[reason] = sorted(both, key=lambda one: one["key"])[:EXAMPLES]

    def as_dict(self) -> Plain:
        """Return JSON values for `statistics.json`."""
        edges = {"characters": COUNT_EDGES, "tokens": COUNT_EDGES, "score": SHARE_EDGES}
        perplexity = {
            name.removeprefix(PERPLEXITY): found
            for name, found in sorted(self.histograms.items())
            if name.startswith(PERPLEXITY)
        }
        scored = sum(perplexity.values(), Counter[int]())
        return {
            "documents": self.documents,
            **{name: describe_bins(self.histograms[name], edges[name]) for name in edges},
            "perplexity": {bucket: describe_bins(found, LOG_EDGES, scored) for bucket, found in perplexity.items()},
            "names": {
                kind: {"top": found.top(SHOWN_NAMES), "total": found.total, "error": found.error}
                for kind, found in self.names.items()
            },
            "examples": dict(sorted(self.examples.items())),
        }


def _read_batches(path: Path, removed: Iterable[int]) -> Iterator[pa.RecordBatch]:
    """Yield the columns that a summary needs, without the removed documents. `removed` has their row numbers."""
    columns = ["text", "url", "timestamp", "licence", "language", "perplexity", "bucket", "reference_score"]
    start = 0
    with pq.ParquetFile(path) as file:
        stays = np.ones(file.metadata.num_rows, bool)
        stays[list(removed)] = False
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield batch.filter(pa.array(stays[start : start + batch.num_rows]))
            start += batch.num_rows


def _read_dropped(
    corpus: Path, split: str, letters: list[str], dropped: str, removed: dict[int, str], seed: int
) -> Iterator[Plain]:
    """Yield the dropped records of a split that can be examples, each with its selection key.

    These are dead letters, skipped records, dropped documents whose text was stored, and duplicates.
    """
    for path in letters:
        with (corpus / path).open("rb") as lines:
            for line in lines:
                letter = json.loads(line)
                place = {name: letter[name] for name in ("file", "offset", "length")}
                yield _make_example(letter["reason"], line, seed, text=letter["detail"], **place)
    for row in read_rows(corpus / dropped, ["reason", "id", "url", "text"]) if dropped else ():
        if row["text"] is not None:
            yield _make_document_example(row["reason"], row, seed)
    yield from _read_duplicates(corpus / f"clean/{split}.parquet", removed, seed)


def _read_duplicates(path: Path, removed: dict[int, str], seed: int) -> Iterator[Plain]:
    """Yield the duplicates with the smallest keys as examples. Text is read only from row groups that contain them."""
    with pq.ParquetFile(path) as file:
        keyed: dict[str, list[tuple[int, int]]] = {}
        rows = itertools.chain.from_iterable(batch["id"].to_pylist() for batch in file.iter_batches(columns=["id"]))
        for row, identity in enumerate(rows if removed else ()):
            if row in removed:
                keyed.setdefault(removed[row], []).append((order_key(seed, "statistics", identity), row))
        chosen = {row for found in keyed.values() for _, row in heapq.nsmallest(EXAMPLES, found)}
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if here := sorted(row for row in chosen if start <= row < end):
                table = file.read_row_group(group, ["id", "url", "text"]).take([row - start for row in here])
                for row, found in zip(here, table.to_pylist(), strict=True):
                    yield _make_document_example(removed[row], found, seed)
            start = end


def _make_document_example(reason: str, row: Plain, seed: int) -> Plain:
    return _make_example(reason, row["id"], seed, text=row["text"], url=row["url"] or "", id=row["id"].hex())


def _make_example(reason: str, identity: bytes, seed: int, text: str, **place: Any) -> Plain:
    cut = {name: value[:EXAMPLE_CHARACTERS] if isinstance(value, str) else value for name, value in place.items()}
    return {"reason": reason, "key": order_key(seed, "statistics", identity), "text": text[:EXAMPLE_CHARACTERS], **cut}


def _choose_examples(offered: Iterator[Plain]) -> dict[str, list[Plain]]:
    """Return the examples with the smallest keys for each reason. The result does not depend on the input order."""
    held: dict[str, list[tuple[int, int, Plain]]] = {}
    for number, example in enumerate(offered):
        heap = held.setdefault(example.pop("reason"), [])
        heapq.heappush(heap, (-example["key"], -number, example))
        if len(heap) > EXAMPLES:
            heapq.heappop(heap)
    return {reason: [example for *_, example in sorted(heap, reverse=True)] for reason, heap in sorted(held.items())}


def _count_cluster_sizes(corpus: Path, paths: list[str]) -> Counter[int]:
    """Return a histogram of documents per cluster, including the document that is kept.

    The files have a row for each removed document. The rows of a cluster are consecutive.
    """
    rows = itertools.chain.from_iterable(read_rows(corpus / path, ["cluster"]) for path in paths)
    clusters = itertools.groupby(rows, key=lambda row: row["cluster"])
    sizes = Counter(1 + sum(1 for _ in removed) for _, removed in clusters)
    binned: Counter[int] = Counter()
    for size, times in sizes.items():
        binned.update({place: times * one for place, one in count_bins([size], COUNT_EDGES).items()})
    return binned


def _describe_bands(corpus: Path, searched: list[Plain], measured: bool) -> list[Plain]:
    """Describe each MinHash setting by the probability curve of its bands and the measured recall.

    The recall is the share of canaries that was found at each similarity, with its confidence interval.
    """
    results = json.loads((corpus / recall.FILE).read_bytes())["settings"] if measured else []
    found = []
    for number, bands in enumerate(searched):
        levels = [Level(**one) for one in results[number]["levels"]] if measured else []
        planted = [
            {**asdict(one), "interval": list(confidence_interval(one.found, one.planted))}
            for one in levels
            if one.planted
        ]
        curve = [[at, candidate_probability(at, bands["bands"], bands["rows"])] for at in CURVE_AT]
        found.append({**bands, "curve": curve, "planted": planted})
    return found


def _count_values(column: pa.Array) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist() if one["values"]}


def _to_floats(column: pa.Array) -> Any:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)


def _write_summary(corpus: Path, path: str, plain: Plain) -> Result:
    write_atomic(corpus / path, canonical_json(plain))
    return Result([path])
