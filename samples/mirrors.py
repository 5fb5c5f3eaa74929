"""Write pages of sites that mirror pages of the sample: `python samples/mirrors.py SAMPLES OUT`.

About one in four pages of the WET files, and one in four rows of C4, is on four mirror sites. Each mirrored page begins
with a menu of the titles of many pages. This is the planted fault of docs/ablation.md: if a recipe removes neither
duplicate lines nor duplicate pages, most of the training text is menus.
"""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from deflate import gzipped
from wet import CRAWLS, Text, conversion, warcinfo

HOSTS = tuple(f"mirror-{number}.example" for number in range(4))
MIRRORED = 4  # one page in four is mirrored
MENU_TITLES, TITLE_CHARACTERS = 400, 60
RECORD = re.compile(rb"WARC-Target-URI: ([^\r]+)\r\n.*?Content-Length: (\d+)\r\n\r\n", re.DOTALL)

Pages = dict[str, str]  # texts by URL


def main(samples: Path, out: Path) -> None:
    """Write the mirrors of the WET files and of C4."""
    crawled = mirror_pages(dict(page for path in sorted((samples / "wet").rglob("*.gz")) for page in read_wet(path)))
    records = [conversion(Text(url, text, "eng", (0,)), CRAWLS[0]) for url, text in crawled.items()]
    write(out / "wet/mirrors.warc.wet.gz", [warcinfo(CRAWLS[0], 0), *records])
    rows = mirror_pages(dict(row for path in sorted((samples / "c4").glob("*.gz")) for row in read_rows(path)))
    lines = [json.dumps({"text": text, "timestamp": "2019-04-01T00:00:00Z", "url": url}) for url, text in rows.items()]
    write(out / "c4/c4-mirrors.json.gz", ["".join(f"{line}\n" for line in lines).encode()])


def mirror_pages(pages: Pages) -> Pages:
    """Return the pages of the mirror sites. About one in four pages is mirrored, chosen by a hash of the URL."""
    titles = [text.split("\n")[0][:TITLE_CHARACTERS].strip() for _, text in sorted(pages.items())]
    menu = "\n".join(titles[:: -(-len(titles) // MENU_TITLES)])
    chosen = {url: text for url, text in sorted(pages.items()) if zlib.crc32(url.encode()) % MIRRORED == 0}
    return {
        f"https://{host}/{urlsplit(url).netloc}{urlsplit(url).path}": f"{menu}\n{text}"
        for host in HOSTS
        for url, text in chosen.items()
    }


def read_wet(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (URL, text) of the records of a WET file of the sample."""
    data, place = gzip.decompress(path.read_bytes()), 0
    while found := RECORD.search(data, place):
        place = found.end() + int(found[2])
        yield found[1].decode(), data[found.end() : place].decode().strip()


def read_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (URL, text) of the valid rows of a C4 file of the sample."""
    for line in gzip.decompress(path.read_bytes()).splitlines():
        try:
            row = json.loads(line)
            yield row["url"], row["text"].strip()
        except (ValueError, TypeError, KeyError, AttributeError):
            continue


def write(path: Path, members: list[bytes]) -> None:
    """Compress each part as a gzip member and write all members to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(gzipped, members)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python samples/mirrors.py SAMPLES OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
