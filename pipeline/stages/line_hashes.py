"""Files of line hashes: what `lines` needs of each extracted document, and nothing of its text.

`extract` writes one a split, in the order of the documents, so that no text is read again only to be hashed.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.dedup.paragraphs import NO_PARAGRAPH, paragraph_hashes
from filters.quality.c4 import C4, clean, line_keys
from manifests.document import ID_BYTES
from manifests.files import atomic_path
from manifests.source import Source

SCHEMA = pa.schema([("id", pa.binary(ID_BYTES)), ("hashes", pa.large_list(pa.uint64()))])


def line_hash_path(split: str) -> str:
    """Where a split's line hashes lie, below the corpus."""
    return f"blocks/line-hashes/{split}.arrow"


class LineHashes:
    """Collects the hashes of a split's documents, by the rules of their source."""

    def __init__(self, source: Source | None = None) -> None:
        self.rules = page_rules(source) if source is not None else None
        self.ids: list[bytes] = []
        self.hashes: list[npt.NDArray[np.uint64]] = []

    def append(self, identity: bytes, text: str) -> None:
        """Add one document."""
        self.ids.append(identity)
        self.hashes.append(paragraph_hashes(text) if self.rules is None else _page_hashes(text, self.rules))

    def write(self, path: Path) -> int:
        """Write the file; gives how many lines it holds."""
        offsets = np.cumsum([0, *(len(hashes) for hashes in self.hashes)], dtype=np.int64)
        values = np.concatenate([np.empty(0, np.uint64), *self.hashes])
        column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
        batch = pa.RecordBatch.from_arrays([pa.array(self.ids, pa.binary(ID_BYTES)), column], schema=SCHEMA)
        with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), SCHEMA) as writer:
            writer.write_batch(batch)
        return len(values)


def page_rules(source: Source) -> C4 | None:
    """The page rules of C4 without bad words, where a source compares the lines that these leave; None elsewhere."""
    if source.lines is None or source.lines.normalise != "c4":
        return None
    assert source.c4 is not None, "the recipe was checked"
    return source.c4


def _page_hashes(text: str, rules: C4) -> npt.NDArray[np.uint64]:
    """The keys of the lines that the page rules leave; one that stands for none of a page that they drop."""
    cleaned = clean(text, rules)
    return line_keys(cleaned.text.split("\n")) if cleaned.reason is None else np.array([NO_PARAGRAPH])


def read_line_hashes(path: Path) -> tuple[pa.Array, npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """A split's document ids, (lines,) uint64 hashes and (documents + 1,) int64 offsets, memory-mapped."""
    with pa.memory_map(str(path)) as mapped:
        batch = pa.ipc.open_file(mapped).get_batch(0)
    column = batch.column("hashes")
    return batch.column("id"), np.asarray(column.values.to_numpy()), np.asarray(column.offsets.to_numpy())
