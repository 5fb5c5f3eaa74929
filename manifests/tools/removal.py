"""Which documents a removal list names: URLs and ids through the index, domains and repositories by one look at the
URL column of every shard."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.index import Index, Place
from manifests.manifest import Manifest
from manifests.tools.removal_list import Kind, RemovalList, parent_domains

ROWS_AT_ONCE = 1 << 16
HOST = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#\\]*@)?(?P<name>\[[^\]/?#]*\]|[^/?#:\\]*)"
"""RFC 3986, section 3.2; a backslash ends the host as well, as in browsers (WHATWG URL)"""
REPOSITORY = r"(?i)^https?://(?:www\.|raw\.)?github(?:usercontent)?\.com/(?P<name>[a-z0-9][a-z0-9-]*/[a-z0-9._-]+)"

Rows = npt.NDArray[np.int64]


@dataclass(slots=True)
class Removed:
    """What is to go: by shard, its rows, ascending; `tokens` and `documents` by source. `idle`: the numbers of lines
    that match nothing."""

    rows: dict[str, Rows] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    idle: list[int] = field(default_factory=list)


def find(corpus: Path, manifest: Manifest, index: Index, listed: RemovalList) -> Removed:
    """Find everything that the list names. Raises UserError for a shard or index file that cannot be read."""
    found: dict[str, list[Rows]] = {}
    hit: set[tuple[Kind, str]] = set()
    for kind, name, place in _looked_up(index, listed):
        found.setdefault(place.shard, []).append(np.array([place.row], np.int64))
        hit.add((kind, name))
    if listed.entries["domain"] or listed.entries["repository"]:
        for entry in manifest.shards():
            urls = index.shard(entry.path).batch.column("url")
            for start in range(0, len(urls), ROWS_AT_ONCE):
                for kind, mask, names in _scanned(urls.slice(start, ROWS_AT_ONCE), listed):
                    hit.update((kind, name) for name in names)
                    if names:
                        found.setdefault(entry.path, []).append(np.flatnonzero(mask) + start)
    numbered = [(kind, name, line) for kind, names in listed.entries.items() for name, line in names.items()]
    removed = Removed(idle=sorted(line for kind, name, line in numbered if (kind, name) not in hit))
    for path, places in sorted(found.items()):
        rows, source = np.unique(np.concatenate(places)), path.partition("/")[0]
        offsets = index.shard(path).offsets
        removed.rows[path] = rows
        removed.documents[source] = removed.documents.get(source, 0) + len(rows)
        tokens = int((offsets[rows + 1] - offsets[rows]).sum())
        removed.tokens[source] = removed.tokens.get(source, 0) + tokens
    return removed


def _looked_up(index: Index, listed: RemovalList) -> Iterator[tuple[Kind, str, Place]]:
    for url in listed.entries["url"]:
        for place in index.find_url(url):
            yield "url", url, place
    for document in listed.entries["document"]:
        for place in index.find_id(bytes.fromhex(document)):
            yield "document", document, place


def _scanned(urls: pa.Array, listed: RemovalList) -> Iterator[tuple[Kind, npt.NDArray[np.bool_], set[str]]]:
    """Which URLs are of a listed domain or repository, and which of those there were."""
    domains, repositories = listed.entries["domain"], listed.entries["repository"]
    if domains:
        hosts = pc.utf8_rtrim(pc.utf8_lower(pc.extract_regex(urls, HOST).field("name")), ".").dictionary_encode()
        names = hosts.dictionary.to_pylist()
        matched = [[domain for domain in parent_domains(name) if domain in domains] for name in names]
        yield "domain", _mask(hosts, [bool(found) for found in matched]), {d for found in matched for d in found}
    if repositories:
        named = pc.utf8_lower(pc.extract_regex(urls, REPOSITORY).field("name")).dictionary_encode()
        names = [name.removesuffix(".git") for name in named.dictionary.to_pylist()]
        yield "repository", _mask(named, [name in repositories for name in names]), set(names) & set(repositories)


def _mask(coded: pa.DictionaryArray, chosen: list[bool]) -> npt.NDArray[np.bool_]:
    """By row, whether its value is chosen; rows without one are not."""
    taken = pa.array(chosen, pa.bool_()).take(coded.indices)
    return np.asarray(pc.fill_null(taken, False).to_numpy(zero_copy_only=False), np.bool_)
