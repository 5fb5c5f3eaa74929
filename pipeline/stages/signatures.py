"""Signature files: what `neardup` needs of each clean document, and nothing of its text.

`annotate` writes one a split, in the order of the clean file, as an uncompressed Arrow IPC file, so that single rows
can be memory-mapped. A *row reference* is a document's place in all of them: split number << 32 | row, as int64.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.dedup.minhash import MinHash, shingle_hashes, signature
from manifests.document import ID_BYTES
from manifests.files import atomic_path

ROW_BITS = 32
Rows = npt.NDArray[np.int64]


def signature_path(split: str) -> str:
    """Where a split's signatures lie, below the corpus."""
    return f"blocks/signatures/{split}.arrow"


class SignatureRows:
    """What `neardup` needs of each clean document, in the order of the clean file: never its text.

    Columns: `id`, `content_hash` (16 bytes each), `characters`, `bytes` (UTF-8), `timestamp`, `score` (how like a
    reference, null where it was not taken), `signature` (uint32 x permutations), `has_signature` (not for a document
    without a word).
    """

    def __init__(self, minhash: MinHash | None) -> None:
        self.scheme = minhash
        self.ids: list[bytes] = []
        self.hashes: list[bytes] = []
        self.characters: list[int] = []
        self.bytes: list[int] = []
        self.timestamps: list[str] = []
        self.scores: list[float | None] = []
        self.signatures: list[npt.NDArray[np.uint32]] = []

    def append(self, identity: bytes, digest: bytes, text: str, timestamp: str, score: float | None = None) -> None:
        """Add one document."""
        self.ids.append(identity)
        self.hashes.append(digest)
        self.characters.append(len(text))
        self.bytes.append(len(text.encode("utf-8")))
        self.timestamps.append(timestamp)
        self.scores.append(score)
        if self.scheme is not None:
            self.signatures.append(signature(shingle_hashes(text, self.scheme), self.scheme))

    def write(self, path: Path) -> None:
        """Write the rows as an uncompressed Arrow IPC file, so that single signatures can be memory-mapped."""
        width = self.scheme.permutations if self.scheme else 0
        present = np.array([len(values) == width for values in self.signatures], dtype=bool)
        filled: Iterable[npt.NDArray[np.uint32]] = (
            v if len(v) else np.zeros(width, np.uint32) for v in self.signatures
        )
        values = np.concatenate([np.empty(0, np.uint32), *filled])
        columns: dict[str, pa.Array] = {
            "id": pa.array(self.ids, pa.binary(ID_BYTES)),
            "content_hash": pa.array(self.hashes, pa.binary(ID_BYTES)),
            "characters": pa.array(self.characters, pa.int64()),
            "bytes": pa.array(self.bytes, pa.int64()),
            "timestamp": pa.array(self.timestamps, pa.string()),
            "score": pa.array(self.scores, pa.float32()),
        }
        if self.scheme is not None:
            columns["has_signature"] = pa.array(present)
            columns["signature"] = pa.FixedSizeListArray.from_arrays(pa.array(values), width)
        batch = pa.RecordBatch.from_pydict(columns)
        with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
            writer.write_batch(batch)


@lru_cache(maxsize=256)
def open_signatures(path: Path, size: int) -> pa.RecordBatch:
    """A signature file, memory-mapped. `size`, its bytes, tells a rewritten file from the one opened before."""
    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).get_batch(0)


def signatures_of(batch: pa.RecordBatch) -> npt.NDArray[np.uint32]:
    """The signatures of a file, (rows, permutations) uint32, as a view of it; rows without one are zeros."""
    column = batch.column("signature")
    width = column.type.list_size
    return np.asarray(column.values.to_numpy(zero_copy_only=True)).reshape(-1, width)


class Lookup:
    """Columns of documents by row reference, over all splits. `paths`: every split's signature file, in order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def batch(self, split: int) -> pa.RecordBatch:
        """The signature file of a split."""
        return open_signatures(self.paths[split], self.paths[split].stat().st_size)

    def signatures(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """(n, permutations) uint32 signatures of the documents."""
        parts = [signatures_of(self.batch(split))[inner] for split, inner in self._by_split(rows)]
        return _in_order(rows, np.concatenate(parts))

    def column(self, name: str, rows: Rows) -> pa.Array:
        """One column of the documents, in the order of `rows`."""
        parts = [self.batch(split).column(name).take(pa.array(inner)) for split, inner in self._by_split(rows)]
        joined = pa.concat_arrays(parts)
        return joined.take(pa.array(np.argsort(np.argsort(rows >> ROW_BITS, kind="stable"), kind="stable")))

    def _by_split(self, rows: Rows) -> Iterable[tuple[int, Rows]]:
        splits = rows >> ROW_BITS
        for split in np.unique(splits):
            yield int(split), rows[splits == split] & ((1 << ROW_BITS) - 1)


def _in_order(rows: Rows, grouped: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Undo the grouping by split."""
    return grouped[np.argsort(np.argsort(rows >> ROW_BITS, kind="stable"), kind="stable")]


def halves(column: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """A column of 16-byte ids or hashes as two arrays of 64-bit numbers, which sort as the bytes do."""
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), column.offset * ID_BYTES).reshape(-1, 2)
    return raw[:, 0].astype(np.uint64), raw[:, 1].astype(np.uint64)
