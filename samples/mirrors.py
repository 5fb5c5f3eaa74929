"""Write a crawl of sites that mirror pages of the sample: `python samples/mirrors.py SAMPLES OUT`.

Every fourth page of the WET files is on three mirrors, between a menu and a footer of the mirror's own. It is the
planted fault of the ablation of docs/ablation.md: a recipe that removes no duplicates reads these pages four times.
"""

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from deflate import gzipped
from wet import CRAWLS, Text, conversion, warcinfo

MIRRORS = ("mirror-one.example", "mirror-two.example", "mirror-three.example")
MIRRORED = 4  # one page in so many
MENU = "Front page of the mirror\nList of all mirrored sites\nReport a broken page"
FOOTER = (
    "This page is a copy. The original may be newer than the copy you are reading.\nAll mirrors are run by volunteers."
)
RECORD = re.compile(rb"WARC-Target-URI: ([^\r]+)\r\n.*?Content-Length: (\d+)\r\n\r\n", re.DOTALL)


def main(samples: Path, out: Path) -> None:
    """Write one WET file with the mirrored pages of the sample."""
    pages = (page for path in sorted((samples / "wet").rglob("*.gz")) for page in read(path))
    chosen = {url: text for url, text in pages if zlib.crc32(url.encode()) % MIRRORED == 0}
    records = [warcinfo(CRAWLS[0], 0)]
    for host in MIRRORS:
        for url, text in sorted(chosen.items()):
            copy = f"https://{host}/{urlsplit(url).netloc}{urlsplit(url).path}"
            records.append(conversion(Text(copy, f"{MENU}\n{text}\n{FOOTER}", "eng", (0,)), CRAWLS[0]))
    out.mkdir(parents=True, exist_ok=True)
    (out / "mirrors.warc.wet.gz").write_bytes(b"".join(gzipped(record) for record in records))


def read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (URL, text) of the records of one of our own WET files."""
    data, place = gzip.decompress(path.read_bytes()), 0
    while found := RECORD.search(data, place):
        place = found.end() + int(found[2])
        yield found[1].decode(), data[found.end() : place].decode().strip()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python samples/mirrors.py SAMPLES OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
