"""Documents: ids, locators, and the schemas of the files that contain documents.

A document's id is a hash of its source and locator. It does not depend on the order of a run, so it is the same on
every machine and in every rebuild. The text of a document has a separate content hash.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from manifests.files import canonical_json

ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Part:
    """The location of one part of a record that was joined from several; the fields are those of `Locator`."""

    file: str
    offset: int
    length: int
    member: str = ""
    inner_offset: int = 0
    inner_length: int = 0


@dataclass(frozen=True, slots=True)
class Locator:
    """The location of a record in a raw dump. It is sufficient to read the record again.

    Attributes:
        file: the name of the input.
        offset: the start of the stored (compressed) bytes: of the gzip member or bz2 stream that contains the record,
            or 0 for the whole file.
        length: the number of stored bytes.
        member: the path inside nested archives, joined by `!`.
        inner_offset: the start of the record inside the decoded bytes of the stored range.
        inner_length: the number of decoded bytes of the record.
        parts: the locations of the parts, if the record was joined from several.
    """

    file: str
    offset: int
    length: int
    member: str = ""
    inner_offset: int = 0
    inner_length: int = 0
    parts: tuple[Part, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the locator as plain JSON values."""
        return {**asdict(self), "parts": [asdict(part) for part in self.parts]}


def locator_from(row: dict[str, Any]) -> Locator:
    """Return the locator of a row, which is a mapping with the columns of `LOCATOR_FIELDS`."""
    parts = tuple(Part(**part) for part in row["parts"] or ())
    return Locator(**{name: row[name] for name, _ in _PART_FIELDS}, parts=parts)


def document_id(source: str, locator: Locator) -> bytes:
    """Return the 128-bit id of a document: the first 16 bytes of SHA-256 of the canonical JSON of (source, locator)."""
    return hashlib.sha256(canonical_json([source, locator.as_dict()])).digest()[:ID_BYTES]


def content_hash(text: str) -> bytes:
    """Return the 128-bit hash of a text: the first 16 bytes of the SHA-256 of its UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).digest()[:ID_BYTES]


def order_key(seed: int, purpose: str, identity: bytes) -> int:
    """Return a 64-bit hash (BLAKE2b) of `identity`, keyed by `seed` and `purpose`.

    Every pseudo-random order and sample in a corpus is defined by this key, so the result depends neither on the order
    of inputs nor on the number of workers. Different purposes give independent keys.
    """
    key = hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8, key=key).digest(), "big")


_PART_FIELDS: list[tuple[str, pa.DataType]] = [
    ("file", pa.string()),
    ("offset", pa.int64()),
    ("length", pa.int64()),
    ("member", pa.string()),
    ("inner_offset", pa.int64()),
    ("inner_length", pa.int64()),
]
LOCATOR_FIELDS: list[tuple[str, pa.DataType]] = [*_PART_FIELDS, ("parts", pa.list_(pa.struct(_PART_FIELDS)))]


def document_ids(source: str, rows: pa.RecordBatch) -> list[bytes]:
    """Return the id of each row, given the source and the locator columns of the rows.

    The result equals `document_id` for each row, but is computed on columns, which is ten times as fast.
    """
    import pyarrow.compute as pc

    texts = []
    for name in ("file", "member"):
        coded = rows.column(name).dictionary_encode()
        spelled = [json.dumps(text, ensure_ascii=False) for text in coded.dictionary.to_pylist()]
        texts.append(pa.array(spelled, pa.string()).take(coded.indices))
    numbers = {
        name: rows.column(name).cast(pa.string()) for name in ("inner_length", "inner_offset", "length", "offset")
    }
    pieces = [f'[{json.dumps(source)},{{"file":', texts[0]]
    pieces += [',"inner_length":', numbers["inner_length"], ',"inner_offset":', numbers["inner_offset"]]
    pieces += [',"length":', numbers["length"], ',"member":', texts[1], ',"offset":', numbers["offset"]]
    joined = pc.binary_join_element_wise(*pieces, ',"parts":[]}]\n', "").cast(pa.binary())
    ids = [hashlib.sha256(text).digest()[:ID_BYTES] for text in joined.to_pylist()]
    locators = rows.select([name for name, _ in LOCATOR_FIELDS])
    lengths = pc.fill_null(pc.list_value_length(rows.column("parts")), 0)
    for row in pc.indices_nonzero(lengths).to_pylist():
        ids[row] = document_id(source, locator_from(locators.slice(row, 1).to_pylist()[0]))
    return ids


# The schema of `documents/`: documents as extracted, before the filters.
DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.binary(ID_BYTES)),
        ("text", pa.large_string()),
        ("url", pa.string()),
        ("timestamp", pa.string()),  # ISO 8601 in UTC, or empty
        ("licence", pa.string()),
        ("metadata", pa.string()),  # canonical JSON
        *LOCATOR_FIELDS,
    ]
)

# The schema of `clean/`: documents that passed the filters, with their signals. A signal that no rule of the recipe
# computes is null.
CLEAN_SCHEMA = pa.schema(
    [
        *DOCUMENT_SCHEMA,
        ("content_hash", pa.binary(ID_BYTES)),
        ("language", pa.string()),
        ("language_score", pa.float32()),
        ("perplexity", pa.float32()),
        ("bucket", pa.string()),
        ("reference_score", pa.float32()),
        ("signals", pa.map_(pa.string(), pa.float64())),  # signals of rules that have no separate column
        ("flags", pa.list_(pa.string())),  # reasons for which rules with `mode: annotate` would drop the document
    ]
)

# The schema of `clusters/`: one row for each row of `clean/`, in the same order.
CLUSTER_SCHEMA = pa.schema(
    [
        ("id", pa.binary(ID_BYTES)),
        ("cluster", pa.binary(ID_BYTES)),  # id of the kept document of the cluster; equals `id` without duplicates
        ("cluster_size", pa.uint32()),  # number of documents of the run in the cluster, including the kept document
        ("reason", pa.string()),  # the reason why this document was removed; empty if it is kept
    ]
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as its reader returns it.

    Attributes:
        timestamp: ISO 8601 in UTC, or empty.
        metadata: values that JSON can represent.
    """

    source: str
    locator: Locator
    text: str
    url: str = ""
    timestamp: str = ""
    licence: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Return the document as a row of `DOCUMENT_SCHEMA`."""
        return {
            "id": document_id(self.source, self.locator),
            "text": self.text,
            "url": self.url,
            "timestamp": self.timestamp,
            "licence": self.licence,
            "metadata": canonical_json(self.metadata).decode().rstrip("\n") if self.metadata else "",
            **self.locator.as_dict(),
        }
