"""How archive.org lays out Stack Exchange's dumps: `ITEM/ITEM_files.xml` lists an item's files; a site is `SITE.7z`, or
`SITE-Posts.7z` beside its other tables where it is large (https://archive.org/details/stackexchange)."""

import html
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filters.errors import UserError
from pipeline.download.download import PARALLEL, check_target, download
from pipeline.download.http import Outcome, State, Wanted
from pipeline.download.request import Patience

BASE_URL = "https://archive.org/download/"
ITEM = "stackexchange"
ALL = "all"
MAX_LIST_BYTES = 16 << 20
"""of an item's list; the real one has some 200 kB"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FILE = re.compile(rb"<file\s[^<>]{0,99}?name=\"([^\"<>]{1,400})\"")
_TABLE = re.compile(r"([a-z0-9.-]{1,100}?)(-Posts)?\.7z")
_GONE = (404, 410)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of archive.org. Raises UserError for a name or an address of another form."""

    name: str = ITEM
    base_url: str = BASE_URL

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(f"--item {self.name!r} is no item's name: give one such as {ITEM}")
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"--base-url {self.base_url!r} is no http or https address: give one such as {BASE_URL}")

    def wanted(self, file: str, most: int | None = None) -> Wanted:
        """One of its files, to be taken up to `most` bytes."""
        return Wanted(
            f"{self.base_url.rstrip('/')}/{self.name}/{urllib.parse.quote(file)}", f"{self.name}/{file}", most
        )


def download_sites(
    item: Item,
    sites: str,
    folder: Path,
    patience: Patience | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[Outcome]:
    """Download an item's list, then the archives with the posts of `sites` (names joined by commas, or `all` but meta
    sites), to ITEM/ below `folder`. Where the list cannot be had, its outcome is the only one. Raises UserError for an
    item that does not exist, a list that cannot be read, a site that is not on it, and a folder that cannot be
    written."""
    listing = f"{item.name}_files.xml"
    (listed,) = download([item.wanted(listing, MAX_LIST_BYTES)], folder, patience, terminal=terminal)
    if listed.status in _GONE:
        raise UserError(f"no such item: {listed.wanted.url} is not there ({listed.reason})")
    if listed.state is State.FAILED:
        return [listed]
    path = folder / item.name / listing
    try:
        tables = tables_of(path)
    except UserError:
        path.unlink()  # or the next run would take it for the list again
        raise
    chosen = [name for name in sites.split(",") if name]
    if sites == ALL:
        chosen = [site for site in tables if "meta" not in site.split(".")]
    missing = [site for site in chosen if site not in tables]
    if missing or not chosen:
        raise UserError(
            f"--sites {sites}: {item.name} has no archive of {missing[0] if missing else 'nothing'!r}: give names such "
            f"as {', '.join(list(tables)[:2])}, or {ALL}"
        )
    return download([item.wanted(tables[site]) for site in dict.fromkeys(chosen)], folder, patience, parallel, terminal)


def tables_of(path: Path) -> dict[str, str]:
    """The archive with each site's posts, by site, in the order of their names. Raises UserError for a list that is too
    large, names no archive of a site, or a file outside its folder."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_LIST_BYTES else b""
        names = [html.unescape(name.decode()) for name in _FILE.findall(data)]
        for name in names:
            check_target(name)
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path} is no list of an item's files ({error}): check --base-url") from error
    found: dict[str, str] = {}
    for name in sorted(names):  # "-Posts.7z" comes before ".7z", and is smaller where there are both
        table = _TABLE.fullmatch(name)
        if table:
            found.setdefault(table[1], name)
    if not found:
        raise UserError(f"{path} is no list of an item's files (it names no site's archive): check --base-url")
    return found
