"""`duplicates`: the cluster a document is in, who stayed, who went and why, and how their texts differ.

Reads `duplicates/` for the cluster, of `clean/` the columns `id` and `url` alone to find documents, and texts only from
the row groups that hold them.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.text import Text

from filters.errors import UserError
from manifests.document import ID_BYTES

SHOWN = 10
"""removed documents of a cluster that are shown: a boilerplate page may have millions of copies"""
COMPARED_LINES = 1_000
"""of each text, from its start: difflib's time grows with the square"""
DIFF_LINES = 60
"""of a diff that are shown"""
LINE_CHARACTERS = 300
"""of a line that are shown"""
_BREAK = re.compile(r"\n|(?<=[.!?]) ")
"""where a text is cut for comparing: web text has whole paragraphs a line, of which one word may differ"""
_CONTROL = dict.fromkeys(
    [*range(9), *range(10, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)
"""what may not reach a terminal: control characters but the tab, and overrides of the text's direction"""
_STYLES = {"+": "green", "-": "red", "@": "cyan"}

_ID = re.compile(f"[0-9a-f]{{1,{2 * ID_BYTES}}}")
_IDENTITY = pa.binary(ID_BYTES)
_ORDER = [("similarity", "ascending"), ("removed", "ascending")]
Chosen = Callable[[pa.Table], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Member:
    """A document of a cluster. `characters`: the length of its text. The one that stayed has no `reason`, and its
    similarity is 1."""

    id: str
    source: str
    url: str
    characters: int
    similarity: float
    reason: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the text."""
        return {name: getattr(self, name) for name in ("id", "source", "url", "characters", "similarity", "reason")}

    def __str__(self) -> str:
        return _shown(f"{self.id}  {self.source}, {self.characters:,} characters, {self.url or 'no URL'}")


@dataclass(frozen=True, slots=True)
class Removed:
    """A document that was removed as a duplicate: its id, that of the one that stayed for it, and the reason."""

    document: str
    kept: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of `document`: who stayed, and of the `removed_count` documents that went the least similar ones,
    in that order; the document asked for is always among them."""

    document: str
    kept: Member
    removed: list[Member]
    removed_count: int

    def compared(self) -> list[Member]:
        """Whom to compare with the one that stayed: the document asked for; if that stayed, all that are shown."""
        return [one for one in self.removed if one.id == self.document] or self.removed

    def as_dict(self, diffs: bool) -> dict[str, Any]:
        """Plain values; with `diffs` those compared have their whole diff, as a list of lines."""
        removed = [one.as_dict() for one in self.removed]
        for plain, one in zip(removed, self.removed, strict=True):
            if diffs and one in self.compared():
                plain["diff"] = diff(self.kept, one)
        return {
            "document": self.document,
            "kept": self.kept.as_dict(),
            "removed": removed,
            "removed_count": self.removed_count,
        }

    def lines(self, diffs: bool) -> Iterator[Text]:
        """The cluster for people, styled."""
        yield Text(f"document  {self.document}")
        yield Text.assemble("kept      ", (str(self.kept), "green"))
        for one in self.removed:
            yield Text.assemble("removed   ", (str(one), "red"))
            yield Text(f"          {one.reason}, similarity {one.similarity:.3f}")
        if len(self.removed) < self.removed_count:
            yield Text(f"          and {self.removed_count - len(self.removed):,} more")
        for one in self.compared() if diffs else ():
            yield Text("")
            found = diff(self.kept, one)
            for line in found[:DIFF_LINES]:
                yield Text(_shown(line), _STYLES.get(line[:1], ""))
            if len(found) > DIFF_LINES:
                yield Text(f"… and {len(found) - DIFF_LINES:,} more lines of this diff")
            if not found:
                same = "the texts are" if one.text == self.kept.text else f"the first {COMPARED_LINES:,} lines are"
                yield Text(f"{same} the same in {self.kept.id} and {one.id}")


def duplicates(corpus: Path, document: str, shown: int = SHOWN) -> Cluster:
    """The cluster of a document, named by its hexadecimal id, the beginning of one that no other has, or its URL.
    Raises UserError if there is no such document, more than one, or one without duplicates."""
    clean = _files(corpus, "clean")
    identity = _identity(corpus, clean, document)
    rows = _cluster(corpus, identity)
    if not len(rows):
        raise UserError(f"document {identity.hex()} is in {corpus} but in no cluster: it has no duplicate there")
    rows = rows.sort_by(_ORDER)
    own = pa.array(_equals(rows["removed"], identity))
    chosen = pa.concat_tables([rows.filter(own), rows.filter(pc.invert(own))]).slice(0, max(1, shown)).sort_by(_ORDER)
    removed = chosen.to_pylist()
    found = _read(corpus, clean, [removed[0]["kept"], *(row["removed"] for row in removed)])
    kept = Member(**found[removed[0]["kept"]], similarity=1.0, reason="")
    went = [Member(**found[row["removed"]], similarity=row["similarity"], reason=row["reason"]) for row in removed]
    return Cluster(identity.hex(), kept, went, len(rows))


def diff(kept: Member, removed: Member) -> list[str]:
    """A unified diff from the removed text to the kept one, cut into lines and sentences, of which the first 1,000 of
    each are compared: what begins with "-" is in the removed one alone."""
    a, b = (_BREAK.split(one.text, COMPARED_LINES)[:COMPARED_LINES] for one in (removed, kept))
    return list(difflib.unified_diff(a, b, removed.id, kept.id, "removed", "kept", lineterm=""))


def removals(corpus: Path, document: str, most: int) -> list[Removed]:
    """What became of the clean documents that are meant, at most `most` of those that were removed as duplicates.
    `corpus`: the folder that one run wrote. Raises UserError where it has no clean documents."""
    identities = _identities(_files(corpus, "clean"), document)[:most]
    found = []
    for identity in identities:
        rows = _cluster(corpus, identity)
        own = rows.filter(pa.array(_equals(rows["removed"], identity))) if len(rows) else rows
        found += [Removed(row["removed"].hex(), row["kept"].hex(), row["reason"]) for row in own.to_pylist()]
    return found


def _identity(corpus: Path, clean: list[Path], document: str) -> bytes:
    """The id of the one document that is meant."""
    found = _identities(clean, document)
    by_id = _ID.fullmatch(document.lower())
    named = f"an id that begins with {document.lower()}" if by_id else f"the URL {_shown(document)}"
    if not found:
        raise UserError(f"no clean document of {corpus} has {named}: give an id, the beginning of one, or a whole URL")
    if len(found) > 1:
        some = ", ".join(identity.hex() for identity in found[:4]) + (", …" if len(found) > 4 else "")
        hint = "give more digits of one" if by_id else "give the id of one"
        raise UserError(f"{len(found):,} documents have {named}: {hint} of {some}")
    return found[0]


def _identities(clean: list[Path], document: str) -> list[bytes]:
    """The ids of the clean documents that are meant."""
    prefix = document.lower()
    by_id = _ID.fullmatch(prefix) is not None

    def meant(table: pa.Table) -> npt.NDArray[np.bool_]:
        if by_id:
            return _begins(table["id"], prefix)
        return np.asarray(pc.fill_null(pc.equal(table["url"], document), False).to_numpy())

    columns = ["id"] if by_id else ["id", "url"]
    return [identity for _, _, table in _groups(clean, columns, meant) for identity in table["id"].to_pylist()]


def _cluster(corpus: Path, identity: bytes) -> pa.Table:
    """The rows of `duplicates/` that make up a document's cluster; none if it is in no cluster."""
    files = _files(corpus, "duplicates")
    columns = ["removed", "kept", "similarity", "reason"]

    def of_document(table: pa.Table) -> npt.NDArray[np.bool_]:
        return _equals(table["removed"], identity) | _equals(table["kept"], identity)

    kept = [table["kept"][0].as_py() for _, _, table in _groups(files, columns, of_document)]
    if not kept:
        return pa.table({name: [] for name in columns})
    return pa.concat_tables(table for _, _, table in _groups(files, columns, lambda t: _equals(t["kept"], kept[0])))


def _read(corpus: Path, clean: list[Path], identities: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    """What a `Member` needs of these documents."""
    wanted = pa.array(identities, _IDENTITY)

    def chosen(table: pa.Table) -> npt.NDArray[np.bool_]:
        return np.asarray(pc.is_in(table["id"], value_set=wanted).to_numpy())

    found = {}
    for path, number, _ in _groups(clean, ["id"], chosen):
        with _opened(path) as file:
            table = file.read_row_group(number, ["id", "url", "text"])
        for row in table.filter(pa.array(chosen(table))).to_pylist():
            source = path.relative_to(corpus / "clean").parts[0]
            text = row["text"]
            plain = {"source": source, "url": row["url"] or "", "characters": len(text), "text": text}
            found[row["id"]] = {"id": row["id"].hex(), **plain}
    if missing := [identity.hex() for identity in identities if identity not in found]:
        raise UserError(
            f"{corpus}/clean lacks {missing[0]}: finish the run by giving the same `python -m pipeline run` again"
        )
    return found


def _groups(paths: list[Path], columns: list[str], chosen: Chosen) -> Iterator[tuple[Path, int, pa.Table]]:
    """(file, row group, its chosen rows) of every row group that has some, reading these columns alone."""
    for path in paths:
        with _opened(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns)
                if (mask := chosen(table)).any():
                    yield path, number, table.filter(pa.array(mask))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file. Raises UserError if it cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({why}): remove it and give the run again") from error


def _files(corpus: Path, folder: str) -> list[Path]:
    """The Parquet files below a folder of the corpus, by name."""
    found = sorted((corpus / folder).rglob("*.parquet"))
    if not found:
        raise UserError(f"{corpus} has no {folder}/: give the output folder of a finished `python -m pipeline run`")
    return found


def _equals(column: pa.ChunkedArray, identity: bytes) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(column, pa.scalar(identity, _IDENTITY)).to_numpy())


def _begins(column: pa.ChunkedArray, prefix: str) -> npt.NDArray[np.bool_]:
    """Which ids begin with these hexadecimal digits."""
    joined = column.combine_chunks()
    raw = np.frombuffer(joined.buffers()[1], np.uint8, len(joined) * ID_BYTES, joined.offset * ID_BYTES)
    ids = raw.reshape(-1, ID_BYTES)
    whole = np.frombuffer(bytes.fromhex(prefix[: len(prefix) // 2 * 2]), np.uint8)
    mask = (ids[:, : len(whole)] == whole).all(axis=1)
    if len(prefix) % 2:
        mask = mask & (ids[:, len(whole)] >> 4 == int(prefix[-1], 16))
    return np.asarray(mask, np.bool_)


def _shown(text: str) -> str:
    """A line fit for a terminal."""
    line = text[:LINE_CHARACTERS] + ("…" if len(text) > LINE_CHARACTERS else "")
    return line.translate(_CONTROL)
