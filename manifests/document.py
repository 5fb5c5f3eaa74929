"""Documents: their ids, the places of their bytes, and the columns of the files that hold them.

A document's id comes from its source and locator, never from its position in a run, so that it is the same on every
machine and in every rebuild; its text has a content hash of its own.
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
    """A range of stored bytes, and inside its decoded bytes the range that holds one part of a joined record."""

    file: str
    offset: int
    length: int
    member: str = ""
    inner_offset: int = 0
    inner_length: int = 0


@dataclass(frozen=True, slots=True)
class Locator:
    """The place of a record in the raw dump, enough to read it again."""

    file: str  # the input's name
    offset: int  # of its stored bytes: the gzip member, the bz2 stream, else the whole file
    length: int
    member: str = ""  # path inside nested archives, joined by `!`
    inner_offset: int = 0  # of the record inside the decoded bytes of that range
    inner_length: int = 0
    parts: tuple[Part, ...] = ()  # of a record joined from several

    def as_dict(self) -> dict[str, Any]:
        """Return the locator as plain JSON values."""
        return {**asdict(self), "parts": [asdict(part) for part in self.parts]}


def locator_from(row: dict[str, Any]) -> Locator:
    """Return the locator in a row of any file of the corpus, a mapping with the columns of `LOCATOR_FIELDS`."""
    parts = tuple(Part(**part) for part in row["parts"] or ())
    return Locator(**{name: row[name] for name, _ in _PART_FIELDS}, parts=parts)


def document_id(source: str, locator: Locator) -> bytes:
    """Return the 128-bit id: the first 16 bytes of SHA-256 over the canonical JSON of (source, locator)."""
    return hashlib.sha256(canonical_json([source, locator.as_dict()])).digest()[:ID_BYTES]


def content_hash(text: str) -> bytes:
    """Return the 128-bit hash of a document's text: the first 16 bytes of SHA-256 over its UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).digest()[:ID_BYTES]


def order_key(seed: int, purpose: str, identity: bytes) -> int:
    """Return a keyed 64-bit hash (BLAKE2b) of `identity`.

    Every order and every sample in the corpus follows such a key, so that the result depends neither on the order of
    inputs nor on the number of workers. `purpose` makes the keys of two uses independent.
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
    """Return the ids that a source and its rows' locators give: `document_id` on columns, ten times as fast."""
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


# `documents/`: as extracted.
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

# `clean/`: documents that passed the filters, with their signals; null where the recipe does not ask for them.
CLEAN_SCHEMA = pa.schema(
    [
        *DOCUMENT_SCHEMA,
        ("content_hash", pa.binary(ID_BYTES)),
        ("language", pa.string()),
        ("language_score", pa.float32()),
        ("perplexity", pa.float32()),
        ("bucket", pa.string()),
        ("reference_score", pa.float32()),
        ("signals", pa.map_(pa.string(), pa.float64())),  # of rules without a column of their own
        ("flags", pa.list_(pa.string())),  # reasons that rules with `mode: annotate` would have had
    ]
)

# `clusters/`: a row for each row of `clean/`, in its order.
CLUSTER_SCHEMA = pa.schema(
    [
        ("id", pa.binary(ID_BYTES)),
        ("cluster", pa.binary(ID_BYTES)),  # id of the document that stays, which is this one if it has no duplicate
        ("cluster_size", pa.uint32()),  # documents of the run that the one that stays stands for, itself among them
        ("reason", pa.string()),  # why this one was removed, empty if it stays
    ]
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as its reader returns it. `timestamp`: ISO 8601 in UTC, or empty; `metadata`: plain values."""

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
