"""Download dump files of each publisher: construct their paths on the server, and parse lists of files and checksums.

Each `download_…` function takes a `Mirror` and the options of its command. Lists from a server are not trusted: their
size is limited, and paths that lead outside the output folder are refused.
"""

import gzip
import hashlib
import html
import io
import re
import urllib.parse
import zlib
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar
from xml.etree import ElementTree

from filters.errors import UserError
from filters.wikitext.names import LANGUAGES, OTHER_LANGUAGES
from pipeline.download.download import PARALLEL, check_target, download
from pipeline.download.http import DownloadResult, RemoteFile, RetryPolicy, State

# Largest size of a list, both compressed and decompressed. The largest real lists have about 15 MB.
MAX_LIST_BYTES = 64 << 20
MAX_LIST_LINES = 1_000_000  # most lines in the list of a crawl; real lists have up to 100,000
MAX_BOOKS = 100_000
ALL = "all"
C4_FILES = {"en": 1024, "en.noblocklist": 1024, "realnewslike": 512}  # number of training files by configuration
WIKI_FILES = {
    "multistream": r"pages-articles-multistream\.xml\.bz2",  # can be split
    "parts": r"pages-articles-multistream\d{1,4}\.xml-p\d{1,12}p\d{1,12}\.bz2",  # large wikis: several files
    "single": r"pages-articles\.xml\.bz2",  # cannot be split
}
CHECKSUMS = ("sha1", "md5")  # checksums of a dump's files, in the order in which their lists are requested
ARXIV_MANIFEST = "arXiv_src_manifest.xml"
_CRAWL = re.compile(r"CC-MAIN-[0-9]{4}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_ITEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ITEM_FILE = re.compile(rb"<file\s[^<>]{0,99}?name=\"([^\"<>]{1,400})\"")
_SITE_ARCHIVE = re.compile(r"([a-z0-9.-]{1,100}?)(-Posts)?\.7z")
_BOOKS = re.compile(r"([1-9][0-9]{0,6})(?:-([1-9][0-9]{0,6}))?")
_CHECKSUM = re.compile(r"([0-9a-f]{32}|[0-9a-f]{40}) [ *]([^/\s]{1,200})")
_DATE = re.compile(r"[0-9]{8}")
_MONTHS = re.compile(r"([0-9]{4})(?::([0-9]{4}))?")
_NOT_FOUND = (404, 410)

_T = TypeVar("_T", bound=Sized)


@dataclass(frozen=True)
class Mirror:
    """A server and the settings for downloads from it.

    Attributes:
        base_url: URL of the server.
        folder: the output folder.
        policy: number of attempts, and the waits between them; None for the defaults.
        parallel: number of simultaneous transfers.
        terminal: receives progress; None for no output.

    Raises:
        UserError: `base_url` is not an http or https URL.
    """

    base_url: str
    folder: Path
    policy: RetryPolicy | None = None
    parallel: int = PARALLEL
    terminal: TextIO | None = None

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"--base-url {self.base_url!r} is not an http or https URL: give the server's address")

    def file(self, path: str, max_bytes: int | None = None) -> RemoteFile:
        """Return the file with a path that is the same on the server and below the folder."""
        return RemoteFile(f"{self.base_url.rstrip('/')}/{urllib.parse.quote(path)}", path, max_bytes)

    def download(self, files: Sequence[RemoteFile]) -> list[DownloadResult]:
        """Download files and return the results in the same order (`pipeline.download.download.download`)."""
        return download(files, self.folder, self.policy, self.parallel, self.terminal)

    def download_list(self, path: str, parse: Callable[[bytes], _T], kind: str) -> _T | DownloadResult:
        """Download a list and parse it with `read_list`. If the list is invalid, its file is removed.

        Args:
            path: path of the list on the server and below the folder.
            parse: parses the bytes of the list.
            kind: name of the list in messages.

        Returns:
            The parsed list, or the result of the download if it failed.
        """
        (result,) = self.download([self.file(path, MAX_LIST_BYTES)])
        if result.state is State.FAILED:
            return result
        try:
            return read_list(self.folder / path, parse, kind)
        except UserError:
            (self.folder / path).unlink()  # otherwise the next run would read the invalid list again
            raise


def download_common_crawl(mirror: Mirror, crawl: str, kind: str, files: str) -> list[DownloadResult]:
    """Download files of a crawl.

    `crawl-data/NAME/KIND.paths.gz` lists the files of a kind (https://commoncrawl.org/get-started).

    Args:
        mirror: the server.
        crawl: name of the crawl.
        kind: `warc`, `wet` or `wat`.
        files: a slice of the list of files, such as `0:8`.

    Returns:
        The results of the files, or the result of the list if its download failed.

    Raises:
        UserError: the crawl does not exist, its list is invalid, or the slice is invalid or empty.
    """
    if not _CRAWL.fullmatch(crawl):
        raise UserError(f"--crawl {crawl!r} is not the name of a crawl: give year and week, such as CC-MAIN-2019-30")
    selected = parse_slice(files)
    paths = mirror.download_list(f"crawl-data/{crawl}/{kind}.paths.gz", parse_paths, "the list of a crawl's files")
    if isinstance(paths, DownloadResult):
        return _list_failure(paths, "crawl")
    if not paths[selected]:
        raise UserError(f"--files {files} selects nothing: {crawl} has {len(paths):,} {kind} files")
    return mirror.download([mirror.file(path) for path in dict.fromkeys(paths[selected])])


def download_stackexchange(mirror: Mirror, item: str, sites: str) -> list[DownloadResult]:
    """Download the posts of Stack Exchange sites from an item of archive.org.

    `ITEM/ITEM_files.xml` lists the item's files. A site is the file `SITE.7z`. The posts of a large site are the file
    `SITE-Posts.7z`, and its other tables are other files (https://archive.org/details/stackexchange).

    Args:
        mirror: the server.
        item: name of the item.
        sites: names of sites, joined by commas; or `all` for all sites except meta sites.

    Raises:
        UserError: the item does not exist, its list is invalid, or a site is not on it.
    """
    if not _ITEM.fullmatch(item):
        raise UserError(f"--item {item!r} is not the name of an item: give one such as stackexchange")
    archives = mirror.download_list(f"{item}/{item}_files.xml", parse_site_archives, "the list of an item's files")
    if isinstance(archives, DownloadResult):
        return _list_failure(archives, "item")
    selected = [name for name in sites.split(",") if name]
    if sites == ALL:
        selected = [site for site in archives if "meta" not in site.split(".")]
    missing = [site for site in selected if site not in archives]
    if missing or not selected:
        raise UserError(
            f"--sites {sites}: {item} has no archive of {missing[0] if missing else 'nothing'!r}: give names such as "
            f"{', '.join(list(archives)[:2])}, or {ALL}"
        )
    return mirror.download([mirror.file(f"{item}/{archives[site]}") for site in dict.fromkeys(selected)])


def download_c4(mirror: Mirror, config: str, files: str) -> list[DownloadResult]:
    """Download training files of a configuration of C4. `files` is a slice of their numbers, such as `0:8`.

    The files are `CONFIG/c4-train.NNNNN-of-01024.json.gz` (https://huggingface.co/datasets/allenai/c4).
    """
    return mirror.download([mirror.file(path) for path in c4_paths(config, files)])


def c4_paths(config: str, files: str) -> list[str]:
    """Return the paths that `download_c4` downloads.

    Raises:
        UserError: the configuration is unknown, or the slice is invalid or empty.
    """
    if config not in C4_FILES:
        raise UserError(f"--config {config!r} cannot be read: give {', '.join(C4_FILES)}")
    count = C4_FILES[config]
    numbers = range(count)[parse_slice(files)]
    if not numbers:
        raise UserError(f"--files {files} selects nothing: C4's {config} has {count:,} files")
    return [f"{config}/c4-train.{number:05d}-of-{count:05d}.json.gz" for number in numbers]


def download_gutenberg(mirror: Mirror, books: str) -> list[DownloadResult]:
    """Download plain texts of Project Gutenberg: the files `cache/epub/N/pgN.txt`.

    Programs must download from its mirrors (https://www.gutenberg.org/policy/robot_access.html).

    Args:
        mirror: the server.
        books: ebook numbers and ranges, such as `1342,1-100`.
    """
    return mirror.download([mirror.file(path) for path in gutenberg_paths(books)])


def gutenberg_paths(books: str) -> list[str]:
    """Return the paths of ebooks. Raises UserError.

    Args:
        books: ebook numbers and inclusive ranges, joined by commas, such as `1342,1-100`.
    """
    numbers = dict[int, None]()
    for part in books.split(","):
        match = _BOOKS.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UserError(
                f"--books {books!r}: {part!r} is not an ebook number: give numbers and ranges, such as 11,84,1-100"
            )
        if last - first + len(numbers) >= MAX_BOOKS:
            raise UserError(f"--books {books!r} asks for more than {MAX_BOOKS:,} books: give fewer at a time")
        numbers |= dict.fromkeys(range(first, last + 1))
    return [f"cache/epub/{number}/pg{number}.txt" for number in numbers]


def download_wikipedia(mirror: Mirror, language: str, date: str, files: str) -> list[DownloadResult]:
    """Download the articles of Wikipedia dumps, and verify their checksums. A corrupt file is removed.

    Wikimedia's layout is `xxwiki/DATE/xxwiki-DATE-FILE`. The checksums of all files of a dump are in
    `xxwiki-DATE-sha1sums.txt` and `-md5sums.txt` (https://meta.wikimedia.org/wiki/Data_dumps). If a mirror has neither
    list, nothing is verified. If the lists cannot be downloaded for another reason, the dump is not downloaded, and the
    failed download of the list is returned instead.

    Args:
        mirror: the server.
        language: codes of Wikipedias, joined by commas, or `all`.
        date: date of the dump, YYYYMMDD.
        files: a key of `WIKI_FILES`.

    Raises:
        UserError: an unknown language, an invalid date or list, or a dump without such files.
    """
    if not _DATE.fullmatch(date):
        raise UserError(f"--date {date!r} is not the date of a dump: give eight digits, such as 20240101")
    codes = list(LANGUAGES) if language == ALL else list(dict.fromkeys(language.split(",")))
    for code in codes:
        if code not in LANGUAGES and code not in OTHER_LANGUAGES:
            raise UserError(f"--language {code!r} is not the code of a Wikipedia: give such as en,de, or {ALL}")
    failed = list[DownloadResult]()
    checksums = dict[str, str]()  # by path; empty: unknown
    for code in codes:
        wiki = f"{code.replace('-', '_')}wiki"
        prefix = f"{wiki}/{date}/{wiki}-{date}-"
        listed = _wiki_checksums(mirror, prefix)
        if isinstance(listed, DownloadResult):
            failed.append(listed)
            continue
        pattern = re.compile(re.escape(f"{wiki}-{date}-") + WIKI_FILES[files])
        names = [name for name in listed if pattern.fullmatch(name)]
        if listed and not names:
            for kind in CHECKSUMS:  # the next run gets a longer list if the dump is being written
                (mirror.folder / f"{prefix}{kind}sums.txt").unlink(missing_ok=True)
            raise UserError(
                f"{wiki}/{date} lists no {files} files: give another --files, one of {', '.join(WIKI_FILES)}, or run "
                "again when the dump is complete"
            )
        if not listed and files == "parts":
            raise UserError(f"{wiki}/{date} has no list of its files here: give --files multistream")
        checksums |= {f"{wiki}/{date}/{name}": listed[name] for name in names}
        if not names:
            checksums[prefix + WIKI_FILES[files].replace("\\", "")] = ""
    results = mirror.download([mirror.file(path) for path in checksums])
    return failed + [_verify(mirror.folder, result, checksums[result.file.target], True) for result in results]


def _wiki_checksums(mirror: Mirror, prefix: str) -> dict[str, str] | DownloadResult:
    """Download the list of a dump's checksums.

    Returns:
        A dict from file name to checksum, which is empty if the mirror has no list; or the result of the download if
        it failed for another reason.
    """
    for kind in CHECKSUMS:
        listed = mirror.download_list(f"{prefix}{kind}sums.txt", parse_checksums, "a list of checksums")
        if not isinstance(listed, DownloadResult) or listed.status not in _NOT_FOUND:
            return listed
    return {}


class ArxivFile(NamedTuple):
    """A file in arXiv's manifest: path, year and month (YYMM), size in bytes, and MD5 in hexadecimal."""

    path: str
    month: str
    size: int
    md5: str


def download_arxiv(mirror: Mirror, manifest: Path, months: str) -> list[DownloadResult]:
    """Download the monthly tar files of arXiv that a manifest lists, and verify their MD5. A corrupt file is kept.

    The archive itself is in a requester-pays bucket, which requires requests that are signed with the requester's own
    key (https://info.arxiv.org/help/bulk_data_s3.html). This function does not sign requests. It downloads from a
    mirror. Files that another program has already put into the folder are only verified.

    Args:
        mirror: the server with the folder `src`.
        manifest: path of `arXiv_src_manifest.xml`.
        months: YYMM, or YYMM:YYMM for a range that includes both months.

    Raises:
        UserError: the manifest is invalid or lists no file of these months.
    """
    files = select_months(read_arxiv_manifest(manifest), months)
    results = mirror.download([mirror.file(file.path, file.size) for file in files])
    return [_verify(mirror.folder, result, file.md5, False) for result, file in zip(results, files, strict=True)]


def select_months(files: list[ArxivFile], months: str) -> list[ArxivFile]:
    """Return the files of a month or a range of months.

    Raises:
        UserError: `months` is invalid, or the manifest lists no file of these months.
    """
    match = _MONTHS.fullmatch(months)
    if match is None:
        raise UserError(f"--months {months!r} is neither YYMM nor YYMM:YYMM: give such as 0303 or 9107:9912")
    first, last = _with_century(match[1]), _with_century(match[2] or match[1])
    selected = [file for file in files if first <= _with_century(file.month) <= last]
    if not selected:
        raise UserError(f"--months {months}: the manifest lists no file of these months")
    return selected


def _with_century(month: str) -> str:
    return f"{'19' if month >= '9100' else '20'}{month}"  # arXiv began in 1991


def parse_slice(text: str) -> slice:
    """Parse `START:STOP`, `START:STOP:STEP` or one index, and return a slice as in Python. Raises UserError."""
    parts = text.split(":")
    bad = UserError(f"--files {text!r} is not a slice: give START:STOP, such as 0:8, or one number")
    if len(parts) > 3 or any(part and not _INTEGER.fullmatch(part) for part in parts) or text == "":
        raise bad
    numbers = [int(part) if part else None for part in parts]
    if len(numbers) == 1:
        (index,) = numbers
        assert index is not None
        return slice(index, index + 1 if index != -1 else None)
    if len(numbers) == 3 and numbers[2] == 0:
        raise bad
    return slice(*numbers)


def read_list(path: Path, parse: Callable[[bytes], _T], kind: str, advice: str = "check --base-url") -> _T:
    """Read and parse a list of files.

    Args:
        path: path of the list.
        parse: parses the bytes of the list.
        kind: name of the list in messages.
        advice: end of a message.

    Raises:
        UserError: the list is too large, invalid or empty.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise ValueError("too large")
        found = parse(path.read_bytes())
    except (OSError, ValueError, KeyError, ElementTree.ParseError, UserError) as error:
        raise UserError(f"{path} is not {kind} ({getattr(error, 'strerror', None) or error}): {advice}") from error
    if not found:
        raise UserError(f"{path} is not {kind} (it lists no files): {advice}")
    return found


def parse_paths(stored: bytes) -> list[str]:
    """Parse the gzipped list of a crawl, and return the relative paths. Blank lines are skipped. Raises ValueError."""
    try:
        data = gzip.GzipFile(fileobj=io.BytesIO(stored)).read(MAX_LIST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError("not a complete gzip file") from error
    if len(data) > MAX_LIST_BYTES or data.count(b"\n") > MAX_LIST_LINES:
        raise ValueError("too large")
    paths = list[str]()
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode("utf-8").removesuffix("\r")
            if text:
                check_target(text)
                paths.append(text)
        except (UnicodeDecodeError, UserError) as error:
            raise ValueError(f"line {number}, {line[:60]!a}, is not a path below a folder") from error
    return paths


def parse_site_archives(data: bytes) -> dict[str, str]:
    """Parse the list of an item of archive.org. Return a dict from site to the name of the archive with its posts."""
    names = [html.unescape(name.decode()) for name in _ITEM_FILE.findall(data)]
    for name in names:
        check_target(name)
    found = dict[str, str]()
    for name in sorted(names):  # "-Posts.7z" comes before ".7z", and is smaller if there are both
        if match := _SITE_ARCHIVE.fullmatch(name):
            found.setdefault(match[1], name)
    return found


def parse_checksums(data: bytes) -> dict[str, str]:
    """Parse a list of checksums. Return a dict from file name to SHA-1 or MD5 in hexadecimal.

    Raises:
        ValueError: a line is not a checksum with a file name.
    """
    found = dict[str, str]()
    for line in data.decode("utf-8").splitlines():
        match = _CHECKSUM.fullmatch(line)
        if match is None:
            raise ValueError(f"{line[:60]!a} is not a checksum with a name")
        check_target(match[2])
        found[match[2]] = match[1]
    return found


def read_arxiv_manifest(path: Path) -> list[ArxivFile]:
    """Read arXiv's manifest and return its files.

    Raises:
        UserError: the manifest is invalid, or it defines XML entities.
    """

    def parse(data: bytes) -> list[ArxivFile]:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_TreeBuilder()))
        return [_arxiv_file({field.tag: field.text or "" for field in file}) for file in root.iter("file")]

    return read_list(path, parse, ARXIV_MANIFEST, "get it from the archive or a mirror")


class _TreeBuilder(ElementTree.TreeBuilder):
    def doctype(self, *declaration: object) -> None:
        raise ValueError("it defines entities")


def _arxiv_file(fields: dict[str, str]) -> ArxivFile:
    path, month, md5 = (fields[name].strip() for name in ("filename", "yymm", "md5sum"))
    check_target(path)
    if not _MONTHS.fullmatch(month) or not re.fullmatch(r"[0-9a-f]{32}", md5):
        raise ValueError(f"{path} has no month or MD5")
    return ArxivFile(path, month, int(fields["size"]), md5)


def _list_failure(result: DownloadResult, kind: str) -> list[DownloadResult]:
    """Return the result of a list whose download failed. Raises UserError if the server has no such list."""
    if result.status in _NOT_FOUND:
        raise UserError(f"no such {kind}: {result.file.url} does not exist ({result.reason})")
    return [result]


def _verify(folder: Path, result: DownloadResult, checksum: str, remove: bool) -> DownloadResult:
    """Verify a downloaded file.

    Args:
        folder: the output folder.
        result: the result of the download.
        checksum: SHA-1 or MD5 in hexadecimal; if empty, the file is not verified.
        remove: remove the file if its checksum is wrong.

    Returns:
        The same result, or a failure if the checksum is wrong.
    """
    if result.state is State.FAILED or not checksum:
        return result
    path, kind = folder / result.file.target, "sha1" if len(checksum) == 40 else "md5"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    except OSError as error:
        return replace(result, state=State.FAILED, reason=f"it cannot be read ({error.strerror})")
    if digest.hexdigest() == checksum:
        return result
    if remove:
        path.unlink()
    advice = "removed, run again" if remove else "delete it, and run again"
    return replace(result, state=State.FAILED, reason=f"its {kind.upper()} differs from the listed one: {advice}")


DOWNLOADS: dict[str, Callable[..., list[DownloadResult]]] = {
    "arxiv": download_arxiv,
    "c4": download_c4,
    "common_crawl": download_common_crawl,
    "gutenberg": download_gutenberg,
    "stackexchange": download_stackexchange,
    "wikipedia": download_wikipedia,
}
