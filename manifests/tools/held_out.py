"""`freeze`: write a file of held-out text on which models trained on several corpora are compared.

The documents are decoded from the validation side of one corpus. A document is dropped if a compared corpus contains
its id on the training side, or if more than half of its word 13-grams occur in training texts of the compared corpora.
13-grams are the measure of contamination of GPT-3 (Brown et al. 2020, appendix C). Decoded texts are compared, so the
result does not depend on the filters, deduplication and tokenizers of the corpora.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.dedup.minhash import wide_shingle_hashes, word_hashes
from filters.errors import UserError
from manifests.files import sha256_bytes, write_atomic
from manifests.manifest import ShardEntry
from manifests.shard import check_rows
from manifests.tools.corpus import CorpusReader

NGRAM = 13  # Words per n-gram.
SHARED = 0.5  # A document is dropped if more than this share of its distinct n-grams are in training texts.
MIN_WORDS = 50  # Minimum number of words of a document. Shorter documents have too few n-grams.
DOCUMENTS = 500  # Default for the maximum number of documents per source.
SPARE = 4  # Number of candidates that are read per requested document, because some are dropped.

Candidate = tuple[dict[str, str], npt.NDArray[np.uint64]]  # A row of the output, and the hashes of its n-grams.


@dataclass(slots=True)
class SourceCount:
    """Counts for one source.

    Attributes:
        documents: documents written.
        bytes: UTF-8 bytes of their texts.
        short: documents dropped because they have fewer than `MIN_WORDS` words.
        trained: documents dropped because a compared corpus contains their id on the training side.
        shared: documents dropped because their n-grams are in training texts.
    """

    documents: int = 0
    bytes: int = 0
    short: int = 0
    trained: int = 0
    shared: int = 0


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """The result: counts by source, and the SHA-256 of the file."""

    sources: dict[str, SourceCount]
    sha256: str

    def lines(self) -> Iterator[str]:
        """Yield lines for display."""
        yield f"{'source':<18}{'documents':>10}{'bytes':>12}  dropped:{'short':>7}{'trained on':>12}{'text shared':>13}"
        for name, one in sorted(self.sources.items()):
            kept = f"{name:<18}{one.documents:>10,}{one.bytes:>12,}"
            yield f"{kept}{one.short:>17,}{one.trained:>12,}{one.shared:>13,}"
        yield f"sha256 {self.sha256}"


def freeze_held_out(reference: Path, compared: Sequence[Path], output: Path, documents: int = DOCUMENTS) -> HeldOutText:
    """Write held-out documents to a JSON lines file.

    The first line has the keys `reference` and `compared`, with the manifest_sha of the corpora. Each further line is a
    document with `source`, `document` (its id), `url` and `text`.

    Args:
        reference: The corpus from whose validation side the documents are taken, in the order of its shards.
        compared: The corpora on which models are trained.
        output: The file to write.
        documents: The maximum number of documents per source.

    Raises:
        UserError: No document remains, or a corpus cannot be read.
    """
    reader, others = CorpusReader(reference), [CorpusReader(corpus) for corpus in compared]
    counts = {name: SourceCount() for name in reader.manifest.sources}
    candidates = list(_choose_candidates(reader, documents, counts))
    trained, shares = _compare(candidates, others)
    kept = []
    for (row, _), share in zip(candidates, shares, strict=True):
        count = counts[row["source"]]
        if row["document"] in trained:
            count.trained += 1
        elif share > SHARED:
            count.shared += 1
        elif count.documents < documents:
            count.documents += 1
            count.bytes += len(row["text"].encode())
            kept.append(row)
    if not kept:
        raise UserError(
            f"no document of the validation side of {reference} is left: give all recipes the same seed and inputs, "
            "and the reference no larger share `validation` than the others"
        )
    shas = sorted({other.manifest.manifest_sha for other in others})
    head = {"reference": reader.manifest.manifest_sha, "compared": shas}
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (head, *kept)).encode("utf-8", "replace")
    write_atomic(output, data)
    return HeldOutText(counts, sha256_bytes(data))


def _choose_candidates(reader: CorpusReader, documents: int, counts: dict[str, SourceCount]) -> Iterator[Candidate]:
    """Yield candidates: the first documents of each source that are long enough, with the hashes of their n-grams.

    Args:
        reader: the reference corpus.
        documents: number of requested documents per source. At most `SPARE` times as many are read.
        counts: counts by source, to which too short documents are added.
    """
    for name, source in sorted(reader.manifest.sources.items()):
        for identity, url, text in itertools.islice(_read_documents(reader, source.validation), SPARE * documents):
            if len(word_hashes(text)) < MIN_WORDS:
                counts[name].short += 1
                continue
            row = {"source": name, "document": identity.hex(), "url": url, "text": text}
            yield row, wide_shingle_hashes(text, NGRAM)


def _compare(candidates: Sequence[Candidate], others: Sequence[CorpusReader]) -> tuple[set[str], list[float]]:
    """Compare candidates with the training documents of corpora.

    Returns:
        The ids of candidates that are training documents; and for each candidate the share of its n-grams that occur in
        training texts.
    """
    # The additional zero ensures that the array is never empty.
    known = np.unique(np.concatenate([*(hashes for _, hashes in candidates), np.zeros(1, np.uint64)]))
    seen, trained = np.zeros(len(known), bool), set[str]()
    wanted = {row["document"] for row, _ in candidates}
    for other in others:
        for _, source in sorted(other.manifest.sources.items()):
            for identity, _, text in _read_documents(other, source.train):
                trained |= {identity.hex()} & wanted
                hashes = wide_shingle_hashes(text, NGRAM)
                places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
                seen[places[known[places] == hashes]] = True
    return trained, [float(seen[np.searchsorted(known, hashes)].mean()) for _, hashes in candidates]


def _read_documents(reader: CorpusReader, entries: Sequence[ShardEntry]) -> Iterator[tuple[bytes, str, str]]:
    """Yield (id, URL, decoded text) of each document in shards."""
    for entry in entries:
        shard = reader.shard(entry.path)
        rows = check_rows(shard.batch.select(["document", "url"]), shard.path)
        ids, urls = (column.to_pylist() for column in rows.columns)
        for identity, url, span in zip(ids, urls, itertools.pairwise(shard.offsets.tolist()), strict=True):
            yield identity, url or "", *reader.decode(shard, [span])
