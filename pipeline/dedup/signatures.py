"""The splits whose documents are compared: signature files of this run and of earlier corpora, and their settings.

The step `filter` writes one signature file per split. It contains the values of each clean document that de-duplication
needs, without its text. A *row reference* identifies a document in all signature files: split number << 32 | row, as
int64. The splits of this run have the lowest numbers, in the order of their names. The splits of earlier corpora
follow.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.books.gutenberg import count_leftovers
from filters.dedup.minhash import MinHash, shingle_hashes, signature
from filters.dedup.settings import Comparison
from filters.errors import UserError
from filters.loaded_files import keep_loaded
from manifests.document import ID_BYTES
from manifests.files import relative_files, sha256_file
from manifests.manifest import load_manifest
from manifests.mirror import is_url
from manifests.recipe import Recipe
from pipeline.beam.exchange import runs
from pipeline.beam.receipts import RECEIPTS, read_receipt
from pipeline.beam.step import Awaited, Keyed, Output, Receipt, Receipts, output_placeholder, source_of
from pipeline.beam.tables import read_ipc, write_ipc
from pipeline.sources.inputs import dump_of

WRITER = "filter"  # the step that writes signatures and clean documents
SIGNATURES = "blocks/signatures"  # folder of the signature files
ROW_BITS, ROW_MASK = 32, (1 << 32) - 1  # the bits of a row reference that contain the row
# For each criterion of `survivor` that compares a column of the signature file, the name of the column.
COMPARED_COLUMNS = {"longest": "characters", "newest": "timestamp", "oldest": "timestamp", "score": "score",
                    "cleanest": "leftovers"}  # fmt: skip

Rows = npt.NDArray[np.int64]  # row references


def verdict_path(split: str) -> str:
    """Return the path, below the corpus, of the verdicts on the documents of a split."""
    return f"verdicts/clusters/{split}.arrow"


def signature_path(split: str) -> str:
    """Return the path, below the corpus, of the signature file of a split."""
    return f"{SIGNATURES}/{split}.arrow"


def signature_settings(recipe: Recipe, source: str) -> Keyed:
    """Return the MinHash settings for the signatures of a source.

    Only the scheme is part of the cache key, because the other settings do not change signatures.
    """
    compared = recipe.comparison_of(source)
    return Keyed(compared.minhash, compared.scheme)


class SignatureRows:
    """Collects and writes the rows of a signature file, in the order of the clean documents.

    Columns: `id`, `content_hash` (16 bytes each), `characters`, `bytes` (UTF-8), `timestamp`, `score` (similarity to
        Wikipedia's references, null if it was not computed), `leftovers` (how often a book names the makers of its
        file), `signature` (uint32 x permutations), `has_signature` (False for a document without words).
    """

    def __init__(self, minhash: MinHash | None) -> None:
        """Start with no rows. `minhash`: the settings of the signatures; None for a file without signatures."""
        self.scheme = minhash
        self.rows: list[tuple[bytes, bytes, int, int, str, float | None, int]] = []
        self.signatures: list[npt.NDArray[np.uint32]] = []

    def append(self, identity: bytes, digest: bytes, text: str, timestamp: str, score: float | None = None) -> None:
        """Add a row for one document. `digest`: its content hash; `score`: its similarity to Wikipedia's references."""
        size = len(text.encode("utf-8"))
        self.rows.append((identity, digest, len(text), size, timestamp, score, count_leftovers(text)))
        if self.scheme is not None:
            self.signatures.append(signature(shingle_hashes(text, self.scheme), self.scheme))

    def write(self, path: Path) -> None:
        """Write the rows as an uncompressed Arrow file, so that single signatures can be memory-mapped."""
        fields = [
            ("id", pa.binary(ID_BYTES)),
            ("content_hash", pa.binary(ID_BYTES)),
            ("characters", pa.int64()),
            ("bytes", pa.int64()),
            ("timestamp", pa.string()),
            ("score", pa.float32()),
            ("leftovers", pa.int64()),
        ]
        columns = [pa.array([row[at] for row in self.rows], kind) for at, (_, kind) in enumerate(fields)]
        if self.scheme is not None:
            width = self.scheme.permutations
            filled = (values if len(values) else np.zeros(width, np.uint32) for values in self.signatures)
            values = pa.array(np.concatenate([np.empty(0, np.uint32), *filled]))
            columns += [
                pa.array(np.array([len(values) == width for values in self.signatures], bool)),
                pa.FixedSizeListArray.from_arrays(values, width),
            ]
            fields += [("has_signature", pa.bool_()), ("signature", pa.list_(pa.uint32(), width))]
        write_ipc(path, pa.schema(fields), columns)


@keep_loaded(256, lambda path: [path])
def open_signatures(path: Path) -> pa.RecordBatch:
    """Open a signature file, memory-mapped. The result is cached."""
    return read_ipc(path)


def signatures_of(batch: pa.RecordBatch) -> npt.NDArray[np.uint32]:
    """Return the signatures of a file, (rows, permutations) uint32, without a copy.

    A document without a signature has a row of zeros.
    """
    column = batch.column("signature")
    return np.asarray(column.values.to_numpy(zero_copy_only=True)).reshape(-1, column.type.list_size)


class Lookup:
    """Returns columns of the signature files of all splits for given row references."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Set the paths of the signature files of all splits, in the order of the splits' numbers."""
        self.paths = paths

    def batch(self, split: int) -> pa.RecordBatch:
        """Return the signature file of a split."""
        return open_signatures(self.paths[split])

    def signatures(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """Return the signatures of documents, (n, permutations) uint32, in the order of `rows`."""
        parts, places = self._parts(rows)
        return np.asarray(np.concatenate([signatures_of(batch)[inner] for batch, inner in parts])[places])

    def column(self, name: str, rows: Rows) -> pa.Array:
        """Return the values of a column for documents, in the order of `rows`."""
        parts, places = self._parts(rows)
        return pa.concat_arrays([batch.column(name).take(pa.array(inner)) for batch, inner in parts]).take(places)

    def _parts(self, rows: Rows) -> tuple[list[tuple[pa.RecordBatch, Rows]], Rows]:
        """Group row references by file.

        Returns:
            Each file with the numbers of the rows to read from it, and for each element of `rows` its index in the
            concatenation of these row numbers.
        """
        found = list(places_by_split(rows))
        parts = [(self.batch(split), rows[places] & ROW_MASK) for split, places in found]
        return parts, np.argsort(np.concatenate([places for _, places in found]))


def places_by_split(rows: Rows) -> Iterator[tuple[int, Rows]]:
    """Yield the number of each split that occurs in row references, and the indices of its rows, sorted by row."""
    order = np.argsort(rows, kind="stable")
    for split, start, end in runs(rows[order] >> ROW_BITS):
        yield split, order[start:end]


@dataclass(frozen=True, slots=True)
class Split:
    """A split whose documents are compared, with its files.

    Attributes:
        name: name of the split.
        corpus: folder of its corpus.
        earlier: True for a split of an earlier corpus, False for a split of this run.
        source: source of its documents.
        dump: crawl of its documents.
        documents: number of its documents.
        compared: settings of the comparison of its documents.
        signatures: the signature file.
        clean: the file of the clean documents.
        verdicts: the file of the verdicts on its documents, for a split of an earlier corpus; None if there is none.
    """

    name: str
    corpus: str
    earlier: bool
    source: str
    dump: str
    documents: int
    compared: Comparison
    signatures: Output
    clean: Output
    verdicts: Output | None = None

    @property
    def path(self) -> Path:
        """The path of the signature file."""
        return Path(self.corpus) / self.signatures.path

    def file_argument(self, output: Output) -> Keyed:
        """Return the argument for a step's function that reads a file of this split.

        Its value is the path of the file. Its cache key is the output, or only the hash for a file of an earlier
        corpus, because no task fetches files of earlier corpora.
        """
        return Keyed(f"{self.corpus}/{output.path}", output.sha256 if self.earlier else output)

    @property
    def scope(self) -> str:
        """The name of the scope. Documents are compared only if the names of their scopes are equal."""
        return {"dump": f"{self.source} {self.dump}", "source": self.source, "all": ""}[self.compared.scope]


def splits_of(recipe: Recipe, corpus: Path, extracted: Receipts, filtered: Receipts | None = None) -> list[Split]:
    """Return the splits of this run, sorted by name.

    Args:
        recipe: the recipe.
        corpus: folder of the corpus.
        extracted: the receipts of `extract`.
        filtered: the receipts of `filter`; None before `filter` has run. Then the number of documents is an upper
            bound.
    """
    done = filtered or {}
    compared = {source: recipe.comparison_of(source) for source in set(map(source_of, extracted))}
    return [
        _make_split(compared[source_of(name)], corpus, name, False, extracted[name], done.get(name))
        for name in sorted(extracted)
    ]


def tasks_to_await(split: Split, output: Output) -> tuple[Awaited, ...]:
    """Return the task that writes a file of a split, for units that read the file; empty if the file exists already."""
    return () if output.sha256 else (Awaited(WRITER, split.name, output.path),)


def earlier_splits(recipe: Recipe) -> list[Split]:
    """Return the splits of the earlier corpora in `deduplication.against`. Check each file against its receipt.

    Documents of a source that is not in the recipe are compared with the settings of the recipe's block. If they have
    no signatures, only their content hashes are compared.

    Raises:
        UserError: a corpus is in an object store, a source has another MinHash scheme there, a file is not as its run
            wrote it, or a file has no column that `survivor` compares.
    """
    for place in filter(is_url, recipe.deduplication.against):
        raise UserError(
            f"deduplication.against: {place} is in an object store: copy that corpus to a disk which all workers "
            "see, and give its folder"
        )
    for path in map(Path, recipe.deduplication.against):
        for source, scheme in load_manifest(path).signatures.items():
            wanted = recipe.comparison_of(source).scheme
            compared = recipe.deduplication.scope == "all" and scheme != ""
            if scheme != wanted and (source in recipe.sources or compared):
                raise UserError(
                    f"deduplication.against: {path} has signatures of the scheme {scheme or 'none'!r} for {source}, "
                    f"this recipe's is {wanted or 'none'!r}: give minhash the same settings"
                )
    return [split for path in recipe.deduplication.against for split in _read_earlier_splits(recipe, Path(path))]


def _read_earlier_splits(recipe: Recipe, corpus: Path) -> Iterator[Split]:
    """Yield the splits of one earlier corpus, in the order of their names."""
    survivors, schemes = read_receipt(corpus, "clusters/survivors", "all"), load_manifest(corpus).signatures
    if survivors is None:
        raise UserError(f"deduplication.against: {corpus} is not finished: run it to its end")
    verdicts = {output.path: output for output in survivors.outputs}
    for file in relative_files(corpus / RECEIPTS / "filter"):
        name = file.removesuffix(".json")
        receipt, extracted = (read_receipt(corpus, step, name) for step in ("filter", "extract"))
        outputs = {output.path: output for output in receipt.outputs} if receipt else {}
        output = outputs.get(signature_path(name))
        if receipt is None or extracted is None or output is None:
            raise UserError(
                f"deduplication.against: {corpus}/{RECEIPTS}/filter/{file} cannot be read: rebuild {corpus}"
            )
        removed = verdicts.get(verdict_path(name))
        for stored in filter(None, (output, removed)):
            path = corpus / stored.path
            if not path.is_file() or sha256_file(path) != stored.sha256:
                raise UserError(f"deduplication.against: {path} is not what its run wrote: rebuild {corpus}")
        columns = read_ipc(corpus / output.path).schema.names
        for rule in recipe.deduplication.survivor:
            if COMPARED_COLUMNS.get(rule, "id") not in columns:
                raise UserError(
                    f"deduplication.survivor: {rule} compares what {corpus} was built without: rebuild that corpus, or "
                    f"leave {rule} out"
                )
        split = _make_split(recipe.comparison_of(source_of(name)), corpus, name, True, extracted, receipt)
        if schemes.get(split.source, "") != split.compared.scheme:
            split = replace(split, compared=split.compared.model_copy(update={"minhash": None}))
        yield replace(split, verdicts=removed)


def _make_split(
    compared: Comparison, corpus: Path, name: str, earlier: bool, extracted: Receipt, filtered: Receipt | None
) -> Split:
    """Return a split from its receipts of `extract` and `filter`. `filtered` is None before `filter` has run."""
    source = source_of(name)
    paths = signature_path(name), f"clean/{name}.parquet"
    if filtered is not None:
        written = {output.path: output for output in filtered.outputs}
        signatures, clean = (written[path] for path in paths)
    else:
        signatures, clean = (output_placeholder(path, extracted.bytes) for path in paths)
    documents = (filtered or extracted).output_counts(source)["records"]
    place, dump = sys.intern(str(corpus)), sys.intern(dump_of(extracted.facts["file"]))
    return Split(name, place, earlier, source, dump, documents, compared, signatures, clean)
