"""`freeze`: the text on which runs on several corpora are compared, frozen in a file that none of them trains on.

The documents are those of the validation side of one corpus, decoded. One is left out if a compared corpus trains on
it, by its id, or on its text: more than half of its word 13-grams are in the training texts. 13-grams are GPT-3's
measure of contamination (Brown et al. 2020, appendix C). Decoded texts are compared, so that filters, rules on
duplicates and tokenizers of the corpora do not matter.
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

NGRAM = 13  # words in an n-gram
SHARED = 0.5  # share of a document's distinct n-grams, above which it is left out
MIN_WORDS = 50  # least words of a document, as n-grams have them; a shorter one has too few n-grams
DOCUMENTS = 500  # most documents of each source, by default
SPARE = 4  # candidates that are read for each document wanted

Candidate = tuple[dict[str, str], npt.NDArray[np.uint64]]  # a row of the file, and the hashes of its n-grams


@dataclass(slots=True)
class SourceCount:
    """Counts of a source's candidates: frozen documents with their bytes, and those left out by reason."""

    documents: int = 0
    bytes: int = 0
    short: int = 0  # below MIN_WORDS
    trained: int = 0  # a compared corpus trains on the document
    shared: int = 0  # a compared corpus trains on its text


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """The result: counts by source, and the hash of the file."""

    sources: dict[str, SourceCount]
    sha256: str

    def lines(self) -> Iterator[str]:
        """Yield lines for people."""
        yield f"{'source':<18}{'documents':>10}{'bytes':>12}  dropped:{'short':>7}{'trained on':>12}{'text shared':>13}"
        for name, one in sorted(self.sources.items()):
            kept = f"{name:<18}{one.documents:>10,}{one.bytes:>12,}"
            yield f"{kept}{one.short:>17,}{one.trained:>12,}{one.shared:>13,}"
        yield f"sha256 {self.sha256}"


def freeze_held_out(reference: Path, compared: Sequence[Path], output: Path, documents: int = DOCUMENTS) -> HeldOutText:
    """Write the held-out documents as JSON lines: a head with `reference` and `compared`, then a document a line.

    The head names the corpora by manifest_sha. A document has `source`, `document` (its id), `url` and `text`.

    Args:
        reference: Corpus whose validation side is taken, in the order of its shards.
        compared: Corpora that are to be compared.
        output: File to write.
        documents: The largest number of documents of a source.

    Raises:
        UserError: Nothing is left, or a corpus cannot be read.
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
    """Yield the first documents of each source that are long enough, with the hashes of their n-grams."""
    for name, source in sorted(reader.manifest.sources.items()):
        for identity, url, text in itertools.islice(_read_documents(reader, source.validation), SPARE * documents):
            if len(word_hashes(text)) < MIN_WORDS:
                counts[name].short += 1
                continue
            row = {"source": name, "document": identity.hex(), "url": url, "text": text}
            yield row, wide_shingle_hashes(text, NGRAM)


def _compare(candidates: Sequence[Candidate], others: Sequence[CorpusReader]) -> tuple[set[str], list[float]]:
    """Return the ids that a corpus trains on, and each candidate's share of n-grams that are in training texts."""
    known = np.unique(np.concatenate([*(hashes for _, hashes in candidates), np.zeros(1, np.uint64)]))  # never empty
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
    """Yield (id, URL, decoded text) of the documents of shards."""
    for entry in entries:
        shard = reader.shard(entry.path)
        rows = check_rows(shard.batch.select(["document", "url"]), shard.path)
        ids, urls = (column.to_pylist() for column in rows.columns)
        for identity, url, span in zip(ids, urls, itertools.pairwise(shard.offsets.tolist()), strict=True):
            yield identity, url or "", *reader.decode(shard, [span])
