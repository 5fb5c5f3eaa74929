"""Measure mosaicml-streaming for the benchmark `loader`. Run it with the Python interpreter of `make peers-trainer`.

The script reads the windows that our loader reads from an .npy file, (n, L + 1) uint16, and writes them in the MDS
format to the given folder. It prints a JSON list with one object per round: CPU and wall seconds per sample for
iterating and for indexing, and anonymous memory in bytes.
"""

import importlib.util
import json
import sys
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

warnings.filterwarnings("ignore", "The given NumPy array is not writable")

# The module `streaming` imports torchvision, which only its image formats need. An empty module of the same name and
# path takes its place, so that its submodules can be imported without torchvision.
found = importlib.util.find_spec("streaming")
package = types.ModuleType("streaming")
package.__path__ = list(found.submodule_search_locations)
sys.modules["streaming"] = package

from streaming.base import MDSWriter, StreamingDataset  # noqa: E402


def tensor(sample: dict[str, Any]) -> torch.Tensor:
    """Return the tokens of a sample as uint16. llm-foundry then converts them to int64, but our loader does not."""
    return torch.from_numpy(np.frombuffer(sample["tokens"], np.uint16))


def measure(samples: Iterator[torch.Tensor]) -> tuple[float, float]:
    """Iterate over samples; return CPU and wall seconds per sample. The first 500 samples are not counted."""
    count = 0
    for count, _ in enumerate(samples, start=1):
        if count == 500:
            cpu, wall = time.process_time(), time.perf_counter()
    return (time.process_time() - cpu) / (count - 500), (time.perf_counter() - wall) / (count - 500)


def main(windows: Path, folder: Path, rounds: int) -> None:
    """Convert the windows to MDS, measure for some rounds, and print the JSON list."""
    table = np.load(windows, mmap_mode="r")
    with MDSWriter(out=str(folder), columns={"tokens": "bytes"}, size_limit=1 << 26) as writer:
        for row in table:
            writer.write({"tokens": row.tobytes()})
    results = []
    order = np.random.default_rng(0).permutation(len(table))
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=64)
    for _ in range(rounds):
        iterating = measure(tensor(sample) for sample in dataset)
        indexing = measure(tensor(dataset[int(number)]) for number in order)
        results.append({"iterating": iterating, "indexing": indexing, "anonymous": anonymous()})
    assert np.array_equal(tensor(dataset[7]).numpy(), table[7])
    print(json.dumps(results))


def anonymous() -> int:
    """Return the anonymous resident memory in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
