"""`duplicates`: the duplicate cluster of a document: its kept and removed members, reasons, and differences of texts.

The cluster is read from `duplicates/`. Documents are found by the columns `id` and `url` of `clean/`. Texts are read
only from the row groups of `clean/` that contain members of the cluster.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import UserError
from manifests.display import MOST_SHOWN, safe_line
from manifests.document import ID_BYTES
from manifests.manifest import GENERATIONS, generation_folder
from manifests.mirror import list_folder, place_of
from manifests.tools.corpus import open_parquet, parquet_files, parse_id_prefix, scan_parquet

if TYPE_CHECKING:
    from rich.text import Text

COMPARED_LINES = 1_000  # Lines that are compared, from the start of each text. The time of difflib is quadratic.
DIFF_LINES = 60  # Maximum number of lines of a diff that are printed.
LINE_CHARACTERS = 300  # Maximum number of characters of a line that are printed.
_BREAK = re.compile(r"\n|(?<=[.!?]) ")  # Texts are compared by sentence, because a line may be a whole paragraph.
_STYLES = {"+": "green", "-": "red", "@": "cyan"}

_IDENTITY = pa.binary(ID_BYTES)
_ORDER = [("similarity", "ascending"), ("removed", "ascending")]


@dataclass(frozen=True, slots=True)
class Member:
    """A document of a cluster.

    Attributes:
        similarity: similarity to the kept document, which itself has 1; None if it is unknown.
        reason: why it was removed; empty for the kept document.
    """

    id: str
    source: str
    url: str
    characters: int
    similarity: float | None
    reason: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, without the text."""
        return {name: value for name, value in asdict(self).items() if name != "text"}

    def __str__(self) -> str:
        return _printable(f"{self.id}  {self.source}, {self.characters:,} characters, {self.url or 'no URL'}")


@dataclass(frozen=True, slots=True)
class Removed:
    """A document removed as a duplicate: its id, the id of the kept document, and the reason."""

    document: str
    kept: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of duplicates.

    Attributes:
        document: id of the document of the query.
        kept: the member that is in the corpus.
        removed: some of the removed members, by ascending similarity. The document of the query is always included,
            unless it is the kept one.
        removed_count: number of all removed members.
    """

    document: str
    kept: Member
    removed: list[Member]
    removed_count: int

    def compared(self) -> list[Member]:
        """Return the members whose texts are compared with the kept member.

        It is the document of the query if it was removed, or else all members in `removed`.
        """
        return [one for one in self.removed if one.id == self.document] or self.removed

    def as_dict(self, diffs: bool) -> dict[str, Any]:
        """Return plain values. With `diffs`, each compared member has its complete diff as a list of lines."""
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

    def lines(self, diffs: bool) -> "Iterator[Text]":
        """Yield styled lines for display, with the differences of texts if `diffs` is True."""
        from rich.text import Text

        yield Text(f"document  {self.document}")
        yield Text.assemble("kept      ", (str(self.kept), "green"))
        for one in self.removed:
            yield Text.assemble("removed   ", (str(one), "red"))
            known = "unknown" if one.similarity is None else f"{one.similarity:.3f}"
            yield Text(f"          {one.reason}, similarity {known}")
        if len(self.removed) < self.removed_count:
            yield Text(f"          and {self.removed_count - len(self.removed):,} more")
        for one in self.compared() if diffs else ():
            yield Text("")
            found = diff(self.kept, one)
            for line in found[:DIFF_LINES]:
                yield Text(_printable(line), _STYLES.get(line[:1], ""))
            if len(found) > DIFF_LINES:
                yield Text(f"… and {len(found) - DIFF_LINES:,} more lines of this diff")
            if not found:
                same = "the texts are" if one.text == self.kept.text else f"the first {COMPARED_LINES:,} lines are"
                yield Text(f"{same} the same in {self.kept.id} and {one.id}")


def duplicates(folder: Path, document: str, shown: int = MOST_SHOWN) -> Cluster:
    """Return the cluster of a document.

    Args:
        folder: the folder of a corpus, or of one of its appended generations.
        document: a hexadecimal id, a unique prefix of an id, or a URL.
        shown: maximum number of removed members to return, at least one.

    Raises:
        UserError: no document or more than one document matches, or it has no duplicates.
    """
    clean = parquet_files(folder, "clean")
    identity = _find_one(folder, clean, document)
    rows = _read_cluster(folder, identity)
    if rows is None:
        raise UserError(
            f"document {identity.hex()} is in {place_of(folder)} but in no cluster: it has no duplicate there"
        )
    rows, own = rows.sort_by(_ORDER), _is("removed", identity)
    chosen = pa.concat_tables([rows.filter(own), rows.filter(~own)]).slice(0, max(1, shown)).sort_by(_ORDER)
    removed = chosen.to_pylist()
    kept = removed[0]["kept"]
    found = _read_members(folder, [kept, *(row["removed"] for row in removed)])
    return Cluster(
        identity.hex(),
        Member(**found[kept], similarity=1.0, reason=""),
        [Member(**found[row["removed"]], similarity=row["similarity"], reason=row["reason"]) for row in removed],
        len(rows),
    )


def diff(kept: Member, removed: Member) -> list[str]:
    """Return the unified diff from the removed text to the kept text.

    Only the first `COMPARED_LINES` lines or sentences of each text are compared.
    """
    a, b = (_BREAK.split(one.text, COMPARED_LINES)[:COMPARED_LINES] for one in (removed, kept))
    return list(difflib.unified_diff(a, b, removed.id, kept.id, "removed", "kept", lineterm=""))


def find_removed(folder: Path, document: str, most: int) -> list[Removed]:
    """Return up to `most` matching documents that a run removed as duplicates.

    Args:
        folder: the folder of the run.
        document: a hexadecimal id, a prefix of an id, or a URL.
        most: maximum number of documents.

    Raises:
        UserError: the run has no clean documents.
    """
    found = []
    for identity in _find_ids(parquet_files(folder, "clean"), document)[:most]:
        rows = _read_cluster(folder, identity)
        own = rows.filter(_is("removed", identity)).to_pylist() if rows is not None else []
        found += [Removed(row["removed"].hex(), row["kept"].hex(), row["reason"]) for row in own]
    return found


def _find_one(folder: Path, clean: list[Path], document: str) -> bytes:
    """Return the id of the only clean document that matches. Raises UserError if none or several match."""
    found = _find_ids(clean, document)
    digits = parse_id_prefix(document)
    named = f"an id that begins with {digits}" if digits else f"the URL {_printable(document)}"
    if not found:
        raise UserError(
            f"no clean document of {place_of(folder)} has {named}: give an id, the beginning of one, or a whole URL"
        )
    if len(found) > 1:
        some = ", ".join(identity.hex() for identity in found[:4]) + (", …" if len(found) > 4 else "")
        hint = "give more digits of one" if digits else "give the id of one"
        raise UserError(f"{len(found):,} documents have {named}: {hint} of {some}")
    return found[0]


def match_document(document: str) -> pc.Expression:
    """Return the condition that the columns `id` and `url` of a row match an id, a prefix of an id, or a URL."""
    prefix = parse_id_prefix(document)
    if not prefix:
        return pc.field("url") == document
    low, high = (pa.scalar(bytes.fromhex(prefix.ljust(2 * ID_BYTES, fill)), _IDENTITY) for fill in "0f")
    return (pc.field("id") >= low) & (pc.field("id") <= high)


def _find_ids(clean: list[Path], document: str) -> list[bytes]:
    """Return the ids of the clean documents that match an id, a prefix of an id, or a URL."""
    columns = ["id"] if parse_id_prefix(document) else ["id", "url"]
    found = scan_parquet(clean, columns, match_document(document))
    return [identity for _, _, table in found for identity in table["id"].to_pylist()]


def _read_cluster(folder: Path, identity: bytes) -> pa.Table | None:
    """Return the rows of `duplicates/` for the cluster of a document; None if it is in no cluster."""
    files, columns = parquet_files(folder, "duplicates"), ["removed", "kept", "similarity", "reason"]

    of_document = _is("removed", identity) | _is("kept", identity)
    kept = [table["kept"][0].as_py() for _, _, table in scan_parquet(files, columns, of_document)]
    if not kept:
        return None
    return pa.concat_tables(table for _, _, table in scan_parquet(files, columns, _is("kept", kept[0])))


def _read_members(folder: Path, identities: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return the members of a cluster by id, as dicts for `Member`.

    The kept document of a cluster in a generation may belong to an earlier generation, so earlier runs are also read.
    """
    found: dict[bytes, dict[str, Any]] = {}
    for run in [folder, *_earlier_runs(folder)]:
        missing = [identity for identity in identities if identity not in found]
        if missing and list_folder(run, "clean"):
            found |= _read_clean(run, missing)
    lacking = [identity.hex() for identity in identities if identity not in found]
    if lacking:
        raise UserError(
            f"{folder}/clean lacks {lacking[0]}: look for it in the corpora that deduplication.against of "
            f"{folder}/recipe.yaml names, or finish the run by giving the same `python -m pipeline run` again"
        )
    return found


def _earlier_runs(folder: Path) -> list[Path]:
    """Return the folders of the runs before a generation, latest first; an empty list if it is no generation."""
    if folder.parent.name != GENERATIONS or not folder.name.isdecimal():
        return []
    return [generation_folder(folder.parents[1], number) for number in reversed(range(int(folder.name)))]


def _read_clean(folder: Path, identities: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    chosen = pc.field("id").isin(pa.array(identities, _IDENTITY))
    found = {}
    for path, number, _ in scan_parquet(parquet_files(folder, "clean"), ["id"], chosen):
        with open_parquet(path) as file:
            table = file.read_row_group(number, ["id", "url", "text"])
        source = path.relative_to(folder / "clean").parts[0]
        for row in table.filter(chosen).to_pylist():
            text, url = row["text"], row["url"] or ""
            plain = {"id": row["id"].hex(), "source": source, "url": url, "characters": len(text), "text": text}
            found[row["id"]] = plain
    return found


def _is(column: str, identity: bytes) -> pc.Expression:
    return pc.field(column) == pa.scalar(identity, _IDENTITY)


def _printable(text: str) -> str:
    """Return the first `LINE_CHARACTERS` characters of a line, escaped for the terminal."""
    return safe_line(text[:LINE_CHARACTERS] + ("…" if len(text) > LINE_CHARACTERS else ""))
