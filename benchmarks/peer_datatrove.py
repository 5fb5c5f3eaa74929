"""Run datatrove for the benchmark `crawl`: a pipeline like FineWeb's, with datatrove's defaults.

The script runs in the environment that `make peers` creates, and imports nothing of this project. `peer_datatrove.py
LANGUAGE_MODEL OUTPUT ARCHIVE...` prints a JSON list at the end. For each archive it has the CPU seconds of the run,
including child processes, the number of documents kept, and the wall seconds of each step.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

# The file name under which datatrove stores fastText's model after its download
# (datatrove.io.cached_asset_path_or_download).
LANGUAGE_MODEL_NAME = "https:__dl.fbaipublicfiles.com_fasttext_supervised-models_lid.176.bin"
# Wall seconds per page. With datatrove's default of one second, the result would depend on the load of the machine.
EXTRACTION_SECONDS = 60
BANDS, ROWS, NGRAM = 14, 8, 5


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its child processes that have ended.

    datatrove's extractor runs in a child process.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def prepare_offline_model(assets: Path, language_model: Path) -> None:
    """Link the language model at the path of datatrove's download, so that datatrove does not use the network.

    Call this before datatrove is imported.
    """
    os.environ.update(HF_ASSETS_CACHE=str(assets), HF_HUB_OFFLINE="1")
    place = assets / "datatrove/lid/ft176" / LANGUAGE_MODEL_NAME
    place.parent.mkdir(parents=True)
    place.symlink_to(language_model.resolve())
    place.with_name(place.name + ".completed").touch()


def filter_pages(archive: Path, output: Path) -> list[Any]:
    """Return FineWeb's steps from a WARC file to filtered documents (datatrove, examples/fineweb.py)."""
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
    """Return FineWeb's four pipelines that de-duplicate the filtered documents by MinHash, with 14 bands of 8 rows."""
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
    """Return the name of a step without its kind and its emoji: "X - FILTER: X Url-filter" becomes "Url-filter"."""
    return name.rpartition(": ")[2].partition(" ")[2]


def run(archive: Path, output: Path) -> dict[str, Any]:
    """Run all steps over one archive with one worker.

    Returns:
        A dict of the CPU seconds, the number of documents kept, and the wall seconds by step.
    """
    from datatrove.executor.local import LocalPipelineExecutor

    begun, steps = cpu_seconds(), {}
    for number, pipeline in enumerate([filter_pages(archive, output), *deduplicate(output)]):
        tasks = BANDS if number == 2 else 1  # datatrove compares each band in a separate task.
        executor = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(output / f"logs/{number}"))
        for step in executor.run().stats:
            steps[f"{number} {step_name(step.name)}"] = step.time_stats.total
    kept = sum(path.read_bytes().count(b"\n") for path in (output / "kept").glob("*.jsonl"))
    return {"cpu_seconds": cpu_seconds() - begun, "kept": kept, "steps": steps}


def main(arguments: list[str]) -> None:
    """Run all archives one after the other in this process, and print the JSON list."""
    model, output, *archives = map(Path, arguments)
    prepare_offline_model(output / "assets", model)
    print(json.dumps([run(archive, output / str(number)) for number, archive in enumerate(archives)]))


if __name__ == "__main__":
    main(sys.argv[1:])
