"""`remove`: write a copy of a corpus without the documents on a removal list.

Only the shards and index files that contain a removed document are rewritten, under the same names. All other files are
hard links to the files of the parent corpus, or copies if links are not possible. The folders with text outside the
shards (`documents/`, `clean/`, `dropped/`) are left out, because they contain removed documents.

A line of the list is a complete URL (with `://`), a document id (32 hexadecimal digits), a repository on GitHub
(`owner/name`, or `github.com/owner/name`), or a domain (`domain:example.org`, or the host alone). A domain includes its
subdomains. Empty lines and lines that begin with `#` are ignored.
"""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import UserError
from filters.reasons import Reason
from manifests.display import format_quantity, safe_line, shorten
from manifests.files import canonical_json, link_or_copy, new_folder, sha256_bytes, sha256_file, write_atomic
from manifests.index import FOLDER, Entries, Part, Place, pack_entries, parse_name, write_part
from manifests.ledger import tally_from
from manifests.manifest import (
    FILE,
    HISTORY,
    SHA_FILE,
    IndexEntry,
    Manifest,
    Removal,
    ShardEntry,
    archive_manifest,
    generation_folder,
    write_manifest,
)
from manifests.mirror import fetch, list_folder, place_of
from manifests.shard import check_rows, write_shard
from manifests.tools.corpus import CorpusReader
from manifests.tools.find import vary_port

# Files and folders that are linked in addition to shards and index: first those that `pipeline trace` reads, then those
# with which `pipeline append` compares new dumps. Only `inputs`, the dumps that the run downloaded, contains text.
CARRIED = (
    "recipe.yaml code quarantine.jsonl models verdicts duplicates deadletters inputs inherited canaries.json "
    "receipts/extract receipts/filter receipts/clusters/survivors blocks/signatures"
).split()
DECODED_AT_ONCE = 1_000  # Number of documents that are decoded at a time.
ROWS_AT_ONCE = 1 << 16  # Number of URLs that are scanned at a time.

Kind = Literal["url", "document", "domain", "repository"]
Entry = tuple[Kind, str]  # The kind and the value of a line of the list.
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# The host of a URL by RFC 3986, section 3.2. A backslash also ends the host, as in browsers (WHATWG URL).
HOST = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#\\]*@)?(?P<name>\[[^\]/?#]*\]|[^/?#:\\]*)"
REPOSITORY = r"(?i)^https?://(?:www\.|raw\.)?github(?:usercontent)?\.com/(?P<name>[a-z0-9][a-z0-9-]*/[a-z0-9._-]+)"
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S+")
_ID = re.compile(r"[0-9a-f]{32}")
# GitHub's rules for the names of owners and repositories.
_REPOSITORY = re.compile(r"(?:github\.com/)?([a-z0-9][a-z0-9-]{0,38}/[a-z0-9._-]{1,100})/?")
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{1,62}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class RemovalList:
    """A parsed removal list.

    Attributes:
        sha256: the hash of the file.
        entries: dict from entry to the number of the first line that contains it.
    """

    sha256: str
    entries: dict[Entry, int] = field(default_factory=dict)

    def values_of(self, kind: Kind) -> set[str]:
        """Return the values of all entries of a kind."""
        return {value for of_kind, value in self.entries if of_kind == kind}


@dataclass(slots=True)
class Matches:
    """The documents of a corpus that match a removal list.

    Attributes:
        rows: dict from shard path to the sorted rows of matching documents.
        documents: number of matching documents by source.
        tokens: number of their tokens by source.
        idle: numbers of the lines of the list that match no document.
    """

    rows: dict[str, Rows] = field(default_factory=dict)
    documents: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    idle: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a removal or of a dry run.

    Attributes:
        removed: the matching documents.
        listed: number of entries of the list.
        list_sha256: the hash of the list.
        shards: (number of rewritten shards, number of all shards).
        manifest_sha: the hash of the new corpus; empty for a dry run.
    """

    removed: Matches
    listed: int
    list_sha256: str
    shards: tuple[int, int]
    manifest_sha: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        documents, tokens = self.removed.documents, self.removed.tokens
        return {
            "documents": documents.total(),
            "tokens": tokens.total(),
            "shards": self.shards[0],
            "sources": {name: {"documents": documents[name], "tokens": tokens[name]} for name in documents},
            "lines": self.listed,
            "lines_without_a_match": self.removed.idle,
            "list_sha256": self.list_sha256,
            "manifest_sha": self.manifest_sha,
        }

    def lines(self) -> Iterator[str]:
        """Yield lines for display."""
        documents, tokens = self.removed.documents, self.removed.tokens
        for source in sorted(documents):
            yield f"{source}: {_quantities(documents[source], tokens[source])}"
        total = _quantities(documents.total(), tokens.total())
        yield f"in all: {total}, in {self.shards[0]:,} of {self.shards[1]:,} shards"
        if idle := self.removed.idle:
            some = ", ".join(map(str, idle[:10])) + (", …" if len(idle) > 10 else "")
            lines = "line" if len(idle) == 1 else "lines"
            yield f"{len(idle):,} of {self.listed:,} entries match nothing ({lines} {some})"
            yield "a page whose text stands under another URL is no match: `python -m manifests find` names that URL"


def _quantities(documents: int, tokens: int) -> str:
    return f"{format_quantity(documents, 'documents')}, {format_quantity(tokens, 'tokens')}"


def remove(corpus: Path, list_path: Path, output: Path | None) -> Outcome:
    """Write a copy of a corpus without the documents on a removal list.

    Args:
        corpus: the folder of the corpus.
        list_path: the removal list.
        output: the folder of the new corpus; if it is None, the documents are only counted.

    Raises:
        UserError: the list is malformed or matches no document, or the output folder is not empty.
    """
    reader, listed = CorpusReader(corpus), read_removal_list(list_path)
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} already exists: give a new or empty folder")
    removed = match_documents(reader, listed)
    if not removed.rows:
        raise UserError(
            f"none of the {len(listed.entries):,} entries of {list_path} is in {place_of(corpus)}: nothing to remove"
        )
    shards = len(removed.rows), len(reader.manifest.shards())
    manifest_sha = ""
    if output is not None:
        with new_folder(output) as new:
            manifest_sha = _Writer(reader, new, removed).write(listed).manifest_sha
    return Outcome(removed, len(listed.entries), listed.sha256, shards, manifest_sha)


def read_removal_list(path: Path) -> RemovalList:
    """Read a removal list.

    Raises:
        UserError: the list cannot be read, or a line is malformed. The message contains the line number.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--list {path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        number = data.count(10, 0, error.start) + 1
        raise UserError(f"--list {path}, line {number}: not UTF-8: save the file as UTF-8") from error
    found = RemovalList(sha256_bytes(data))
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            parsed = parse_line(entry)
            if parsed is None:
                given = safe_line(shorten(entry, 60))
                raise UserError(
                    f"--list {path}, line {number}: {given!r} is not a URL (with ://), domain, owner/name or id"
                )
            found.entries.setdefault(parsed, number)
    return found


def parse_line(entry: str) -> Entry | None:
    """Return the kind and the value of a line; None for a malformed line.

    URLs are unchanged, all other values are in lower case.
    """
    if _URL.fullmatch(entry):
        return "url", entry
    lower = entry.lower()
    if _ID.fullmatch(lower):
        return "document", lower
    if repository := _REPOSITORY.fullmatch(lower):
        return "repository", repository[1].removesuffix(".git")
    host = ascii_host(lower.removeprefix("domain:").strip())
    return ("domain", host) if _HOST.fullmatch(host) else None


def ascii_host(host: str) -> str:
    """Normalize a host to its form in DNS, so that all spellings in URLs become equal (WHATWG URL, 3.5).

    Percent escapes are decoded, and a dot at the end is removed. Non-ASCII labels are converted to Punycode (RFC 5891).
    Unlike Python's codec "idna", this conversion does not replace ß by ss.
    """
    if not host.isascii() or "%" in host:
        # Characters are lowered one by one, because `str.lower` maps a capital sigma at the end of a word to ς.
        lower = "".join(map(str.lower, unquote(host)))
        labels = unicodedata.normalize("NFKC", lower).replace("。", ".").split(".")
        host = ".".join(one if one.isascii() else f"xn--{one.encode('punycode').decode()}" for one in labels)
    return host.lower().rstrip(".")


def match_documents(reader: CorpusReader, listed: RemovalList) -> Matches:
    """Find the documents of a corpus that match a removal list.

    URLs and ids are looked up in the index. If the list contains domains or repositories, the URL column of every shard
    is scanned.

    Raises:
        UserError: a shard or index file cannot be read.
    """
    found: dict[str, list[Rows]] = {}
    hit: set[Entry] = set()
    index = reader.index
    domains, repositories = listed.values_of("domain"), listed.values_of("repository")
    for kind, value in listed.entries:
        places: Iterable[Place] = ()
        if kind == "url":
            places = itertools.chain.from_iterable(map(index.find_url, vary_port(value)))
        elif kind == "document":
            places = index.find_id(bytes.fromhex(value))
        for place in places:
            found.setdefault(place.shard, []).append(np.array([place.row], np.int64))
            hit.add((kind, value))
    for entry in reader.manifest.shards() if domains or repositories else ():
        shard = index.shard(entry.path)
        urls = check_rows(shard.batch.select(["url"]), shard.path).column(0)
        for start in range(0, len(urls), ROWS_AT_ONCE):
            for mask, listed_here in _scan_urls(urls.slice(start, ROWS_AT_ONCE), domains, repositories):
                hit |= listed_here
                found.setdefault(entry.path, []).append(np.flatnonzero(mask) + start)
    removed = Matches(idle=sorted(line for entry, line in listed.entries.items() if entry not in hit))
    for path, chosen in sorted(found.items()):
        rows, source = np.unique(np.concatenate(chosen)), path.partition("/")[0]
        removed.rows[path] = rows
        removed.documents[source] += len(rows)
        removed.tokens[source] += index.shard(path).count_tokens(rows)
    return removed


def _scan_urls(urls: pa.Array, domains: set[str], repositories: set[str]) -> Iterator[tuple[Mask, set[Entry]]]:
    """Find the URLs of listed domains and repositories.

    Yields:
        For each of the two kinds with a match: (boolean mask of the matching URLs, set of the matching entries).
    """

    def match(kind: Kind, pattern: str, names_of: Callable[[str], set[str]]) -> Iterator[tuple[Mask, set[Entry]]]:
        named = pc.utf8_lower(pc.extract_regex(urls, pattern).field("name")).dictionary_encode()
        matched = [names_of(name) for name in named.dictionary.to_pylist()]
        if any(matched):
            mask = pc.fill_null(pa.array([bool(names) for names in matched], pa.bool_()).take(named.indices), False)
            mask = np.asarray(mask.to_numpy(zero_copy_only=False), np.bool_)
            yield mask, {(kind, name) for names in matched for name in names}

    if domains:
        yield from match("domain", HOST, lambda name: domains & set(_parent_domains(ascii_host(name))))
    if repositories:
        yield from match("repository", REPOSITORY, lambda name: repositories & {name.removesuffix(".git")})


def _parent_domains(host: str) -> Iterable[str]:
    """Yield a host and its parent domains, the longest first."""
    while host:
        yield host
        host = host.partition(".")[2]


class _Writer:
    """Writes the new corpus.

    Args:
        reader: the parent corpus.
        new: the folder of the new corpus.
        removed: the documents to remove.
    """

    def __init__(self, reader: CorpusReader, new: Path, removed: Matches) -> None:
        self.reader, self.corpus, self.new, self.removed = reader, reader.folder, new, removed

    def write(self, listed: RemovalList) -> Manifest:
        """Write all files of the new corpus, and return its manifest."""
        manifest, removed = self.reader.manifest, self.removed
        for folder in (generation_folder(Path(), number) for number in range(len(manifest.generations) + 1)):
            for name in (*CARRIED, *((FILE, SHA_FILE) if folder.parts else ())):
                self._link_all(folder / name)
        self._link_all(Path(HISTORY))
        archive_manifest(self.new, manifest)
        (self.new / "runs").mkdir()
        sources = {}
        for name, source in manifest.sources.items():
            train, validation = (
                [self._write_shard(entry) for entry in side] for side in (source.train, source.validation)
            )
            update = {
                "train": train,
                "validation": validation,
                "documents": sum(shard.documents for shard in (*train, *validation)),
                "unique_tokens": sum(shard.tokens for shard in train),
            }
            sources[name] = source.model_copy(update=update)
        ledger = {**manifest.ledger, "tokenize": self._update_ledger()}
        write_atomic(self.new / "ledger.json", canonical_json(ledger))
        removal = Removal(list_sha256=listed.sha256, documents=removed.documents.total(), tokens=removed.tokens.total())
        changed = {
            "parent": manifest.manifest_sha,
            "removal": removal,
            "sources": sources,
            "ledger": ledger,
            "index": [self._write_index_file(entry) for entry in manifest.index],
        }
        return write_manifest(self.new, manifest.model_copy(update=changed))

    def _write_shard(self, entry: ShardEntry) -> ShardEntry:
        """Write a shard without its removed rows, or link the parent's shard if no row is removed."""
        name, rows = Path("shards", entry.path), self.removed.rows.get(entry.path)
        if rows is None:
            self._link(name)
            return entry
        shard = self.reader.shard(entry.path)
        stays = np.ones(shard.batch.num_rows, bool)
        stays[rows] = False
        write_shard(self.new / name, shard.batch.filter(pa.array(stays)), shard.metadata)
        return ShardEntry(
            path=entry.path,
            sha256=sha256_file(self.new / name),
            bytes=(self.new / name).stat().st_size,
            tokens=entry.tokens - shard.count_tokens(rows),
            documents=entry.documents - len(rows),
        )

    def _update_ledger(self) -> dict[str, Any]:
        """Return the tallies of `tokenize` by source, with the removed documents as dropped records."""
        characters, removed = Counter[str](), self.removed
        for path, rows in removed.rows.items():
            characters[path.partition("/")[0]] += self._count_characters(path, rows)
        tokenize = {}
        for source, plain in self.reader.manifest.ledger["tokenize"].items():
            tally = tally_from(plain)
            if source in removed.documents:
                units = {"records": removed.documents[source], "characters": characters[source]}
                units["tokens"] = removed.tokens[source]
                tally.drop(Reason.ON_REMOVAL_LIST, **units)
                tally.out.subtract(units)
            tokenize[source] = tally.as_dict()
        return tokenize

    def _count_characters(self, path: str, rows: Rows) -> int:
        """Decode removed documents of a shard and return their number of characters."""
        shard, total = self.reader.shard(path), 0
        for start in range(0, len(rows), DECODED_AT_ONCE):
            spans = [tuple(shard.offsets[row : row + 2]) for row in rows[start : start + DECODED_AT_ONCE]]
            total += sum(map(len, self.reader.decode(shard, spans)))
        return total

    def _write_index_file(self, entry: IndexEntry) -> IndexEntry:
        """Write an index file without the entries of removed rows, and with later rows of these shards renumbered.

        If the file has no entry of a rewritten shard, the parent's file is linked.
        """
        name = parse_name(entry.path)
        assert name is not None, "opening the index has parsed the names of its files"
        part = self.reader.index.part(name)
        kept = self._keep_entries(part)
        if kept is None:
            self._link(Path(FOLDER, entry.path))
            return entry
        path = write_part(self.new / FOLDER, name, kept, part.paths)
        return IndexEntry(path=entry.path, sha256=sha256_file(path), bytes=path.stat().st_size, rows=len(kept))

    def _keep_entries(self, part: Part) -> Entries | None:
        """Return the remaining entries of an index file, or None if it has no entry of a rewritten shard."""
        touched = [number for number, path in enumerate(part.paths) if path in self.removed.rows]
        if not np.isin(part.shards, touched).any():
            return None
        gone = [(number << 32) + self.removed.rows[part.paths[number]] for number in touched]
        places = np.concatenate(gone).astype(np.uint64)
        shards = part.shards.astype(np.uint64) << np.uint64(32)
        above = np.searchsorted(places, shards + part.rows)
        stays = places[np.minimum(above, len(places) - 1)] != shards + part.rows
        earlier = above - np.searchsorted(places, shards)
        return pack_entries(part.keys[stays], part.shards[stays], (part.rows - earlier)[stays].astype(np.uint32))

    def _link_all(self, name: Path) -> None:
        """Link a file, or all files of a folder, if they exist."""
        if fetch(self.corpus, str(name)).is_file():
            self._link(name)
        for file in list_folder(self.corpus, str(name)):
            self._link(name / file)

    def _link(self, name: Path) -> None:
        """Link or copy a file of the parent to the same path in the new corpus."""
        link_or_copy(fetch(self.corpus, str(name)), self.new / name)
