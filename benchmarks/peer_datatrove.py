"""datatrove's side of `crawl`: a pipeline like FineWeb's, with the peer's own defaults.

It runs in the environment that `make peers` makes, and imports nothing of this project. `peer_datatrove.py
LANGUAGE_MODEL OUTPUT ARCHIVE...` prints one JSON list at the end: for each archive the CPU seconds of the run, children
included, the number of documents kept, and the wall seconds of each step.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

# datatrove's name for its download of fastText's model (datatrove.io.cached_asset_path_or_download).
LANGUAGE_MODEL_NAME = "https:__dl.fbaipublicfiles.com_fasttext_supervised-models_lid.176.bin"
# Seconds of wall time per page. With datatrove's default of one second the load of a busy machine decides the result.
EXTRACTION_SECONDS = 60
BANDS, ROWS, NGRAM = 14, 8, 5


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its ended children: the extractor runs in a child."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def without_network(assets: Path, language_model: Path) -> None:
    """Put the language model where datatrove looks for its download; call it before datatrove is imported."""
    os.environ.update(HF_ASSETS_CACHE=str(assets), HF_HUB_OFFLINE="1")
    place = assets / "datatrove/lid/ft176" / LANGUAGE_MODEL_NAME
    place.parent.mkdir(parents=True)
    place.symlink_to(language_model.resolve())
    place.with_name(place.name + ".completed").touch()


def filter_pages(archive: Path, output: Path) -> list[Any]:
    """Return FineWeb's steps from WARC to filtered documents (datatrove, examples/fineweb.py)."""
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
        URLFilter,
    )
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    return [
        WarcReader(str(archive.parent), glob_pattern=archive.name),
        URLFilter(),
        Trafilatura(favour_precision=True, timeout=EXTRACTION_SECONDS),
        LanguageFilter("en", language_threshold=0.65),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        JsonlWriter(str(output / "filtered")),
    ]


def deduplicate(output: Path) -> list[list[Any]]:
    """Return FineWeb's four steps of MinHash over filtered documents, 14 bands of 8 rows."""
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=BANDS, hashes_per_bucket=ROWS, n_grams=NGRAM
    )
    signatures, buckets, removed = (str(output / name) for name in ("signatures", "buckets", "removed"))
    return [
        [JsonlReader(str(output / "filtered")), MinhashDedupSignature(signatures, config=config)],
        [MinhashDedupBuckets(signatures, buckets, config=config)],
        [MinhashDedupCluster(buckets, removed, config=config)],
        [
            JsonlReader(str(output / "filtered")),
            MinhashDedupFilter(removed),
            JsonlWriter(str(output / "kept"), compression=None),
        ],
    ]


def step_name(name: str) -> str:
    """Return a step's name without its kind and its symbol."""
    return name.rpartition(": ")[2].partition(" ")[2]


def run(archive: Path, output: Path) -> dict[str, Any]:
    """Run all steps over one archive, with one worker."""
    from datatrove.executor.local import LocalPipelineExecutor

    begun, steps = cpu_seconds(), {}
    for number, pipeline in enumerate([filter_pages(archive, output), *deduplicate(output)]):
        tasks = BANDS if number == 2 else 1  # datatrove compares each band in a task of its own
        executor = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(output / f"logs/{number}"))
        for step in executor.run().stats:
            steps[f"{number} {step_name(step.name)}"] = step.time_stats.total
    kept = sum(path.read_bytes().count(b"\n") for path in (output / "kept").glob("*.jsonl"))
    return {"cpu_seconds": cpu_seconds() - begun, "kept": kept, "steps": steps}


def main(arguments: list[str]) -> None:
    """Run every archive in turn, in this process."""
    model, output, *archives = map(Path, arguments)
    without_network(output / "assets", model)
    print(json.dumps([run(archive, output / str(number)) for number, archive in enumerate(archives)]))


if __name__ == "__main__":
    main(sys.argv[1:])
