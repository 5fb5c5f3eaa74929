"""Measure the computation of MinHash signatures and bands from text, beside rensa, datasketch and datatrove.

All libraries process the same real texts in the same run, with 128 permutations. Only datatrove has its default of 14
bands of 8 rows, 112 permutations.
"""

import json
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xxhash
from datasketch import MinHash as PeerMinHash

from benchmarks.data import ABSENT, ROOT, table
from benchmarks.measure import alternate
from benchmarks.stages import page_texts
from filters.dedup.minhash import MinHash, band_hashes, shingle_hashes, signature

SCHEME = MinHash(ngram=5, bands=16, rows=8)
LEAST = 200  # Texts with fewer characters are left out.
ROUNDS = 5
PEER_TEXTS = 60  # datatrove takes 15 ms and more per text
PEER = ROOT / "build/peers/bin/python"
_WORD = re.compile(r"\w+")


def texts() -> list[str]:
    """Return the main texts of the real pages that have at least `LEAST` characters."""
    return [text for text in page_texts() if len(text) >= LEAST]


def ours(found: list[str]) -> None:
    """Compute our signature of each text, then the bands of all signatures in one call."""
    signatures = [signature(shingle_hashes(text, SCHEME), SCHEME) for text in found]
    band_hashes(np.stack([values for values in signatures if len(values)]), SCHEME)


def string_shingles(text: str) -> set[str]:
    """Return the set of word 5-grams of a text as strings, which is the input of rensa and datasketch."""
    words = _WORD.findall(text.lower())
    return {" ".join(words[n : n + 5]) for n in range(max(1, len(words) - 4))}


def datasketch(found: list[str]) -> None:
    """Run datasketch by its fastest methods: copies of one `MinHash`, `update_batch`, and the hash function xxh32."""
    template = PeerMinHash(num_perm=128, hashfunc=xxhash.xxh32_intdigest)
    for text in found:
        template.copy().update_batch([shingle.encode() for shingle in string_shingles(text)])


def rensa(found: list[str]) -> None:
    """Run rensa's R-MinHash over the string n-grams of each text."""
    from rensa import RMinHash

    for text in found:
        made = RMinHash(num_perm=128, seed=1)
        made.update(list(string_shingles(text)))
        made.digest()


def datatrove(found: list[str]) -> float | None:
    """Return datatrove's documents per CPU second, or None if its environment (`make peers`) is not installed."""
    if not PEER.is_file():
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "texts.json").write_text(json.dumps(found[:PEER_TEXTS]), encoding="utf-8")
        program = (
            "import json, sys, time\n"
            "from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature\n"
            "texts = json.load(open(sys.argv[1] + '/texts.json', encoding='utf-8'))\n"
            "step = MinhashDedupSignature(output_folder=sys.argv[1], config=MinhashConfig())\n"
            "step.get_signature(step.get_shingles(texts[0]))\n"
            "begun = time.process_time()\n"
            "for text in texts:\n"
            "    step.get_signature(step.get_shingles(text))\n"
            "print(len(texts) / (time.process_time() - begun))\n"
        )
        done = subprocess.run([str(PEER), "-c", program, folder], capture_output=True, encoding="utf-8", check=True)
    return float(done.stdout.split()[-1])


def run() -> str:
    """Return a table of the median rates over alternating rounds, and of our rate divided by each rate."""
    found = texts()
    if not found:
        return ABSENT
    sides: dict[str, Callable[[list[str]], None]] = {"ours": ours, "rensa": rensa, "datasketch": datasketch}
    for side in sides.values():
        side(found[:20])  # Load libraries before the measurement.
    seconds, _ = alternate({name: partial(side, found) for name, side in sides.items()}, ROUNDS)
    medians = {name: len(found) / statistics.median(values) for name, values in seconds.items()}
    peer = datatrove(found)
    if peer is not None:
        medians["datatrove"] = peer
    size = sum(len(text.encode()) for text in found) / len(found)
    rows = [[name, f"{rate:,.0f}", f"{rate * size / 1e6:.1f}", f"{medians['ours'] / rate:.1f}"]
            for name, rate in medians.items()]  # fmt: skip
    absent = "" if peer is not None else "\n\ndatatrove is not installed: run `make peers`"
    head = ["", "documents per CPU second", "MB of text per CPU second", "ours relative to it"]
    return f"{len(found)} texts of {size / 1e3:.1f} kB\n\n{table(head, rows)}{absent}"
