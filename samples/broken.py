"""Write WARC files with damaged records. A reader must find the good records before and after the damage."""

from pathlib import Path

from deflate import gzipped
from oddities import ODD
from warc import Record, http_block, info, member, raw, response
from web_pages import Article, Planted, almanac, notebook


def broken(path: Path, articles: list[Article]) -> list[Planted]:
    """Write a .warc.gz file with truncated and changed members and with wrong headers. Return the planted records.

    Args:
        path: The file to write.
        articles: At least seven articles. The first seven are also written undamaged, between the damaged members.
    """
    good = [Planted(response(f"https://whole.example/{a.slug}.html", notebook(a)), "whole", "kept") for a in articles]
    victims = [response(f"https://damaged.example/{a.slug}.html", almanac(a)) for a in articles]
    flipped = bytearray(member(victims[0]))
    flipped[len(flipped) // 2] ^= 0xFF
    block = http_block(victims[2])
    planted, out = list[Planted](), bytearray(member(info(path.name)))

    def add(data: bytes, record: Record, what: str, expect: str) -> None:
        out.extend(data)
        planted.append(Planted(record, what, expect))

    def whole(number: int) -> None:
        out.extend(member(good[number].record))
        planted.append(good[number])

    whole(0)
    add(bytes(flipped), victims[0], "a member with a flipped byte", "corrupt-gzip")
    whole(1)
    cut = member(victims[1])
    add(cut[: len(cut) * 6 // 10], victims[1], "a member cut in the middle, good ones after it", "corrupt-gzip")
    whole(2)
    noise = bytes(number * 89 % 251 for number in range(300))
    add(noise, Record(f"{ODD}/noise", b""), "300 bytes of noise between members", "corrupt-gzip")
    whole(3)
    add(gzipped(raw(victims[2], block, len(block) + 500)), victims[2], "a length 500 too large", "truncated-record")
    whole(4)
    long = victims[3]
    add(gzipped(raw(long, http_block(long), 400)), long, "a length far too small: rest is noise", "corrupt-record")
    nothing = gzipped(b"This member holds no record at all.\n")
    add(nothing, Record(f"{ODD}/no-record", b""), "no record", "corrupt-record")
    no_http = Record(f"{ODD}/no-http", b"")
    stored = gzipped(raw(no_http, b"\x00\x01\x02 no HTTP here\r\n\r\n"))
    add(stored, no_http, "a response without an HTTP header", "corrupt-http")
    whole(5)
    add(
        gzipped(b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: many\r\n\r\n\r\n\r\n"), Record(f"{ODD}/many", b""),
        "a length that is no number", "corrupt-record",
    )  # fmt: skip
    whole(6)
    last = member(victims[4])
    add(last[: len(last) // 2], victims[4], "the last member, truncated", "truncated-record")
    path.write_bytes(out)
    return planted


def plain(path: Path, articles: list[Article]) -> list[Planted]:
    """Write an uncompressed WARC file and return the planted records.

    The file has good pages, and one record whose stated length extends into the next record.
    """
    pages = [response(f"https://plain.example/{article.slug}.html", almanac(article)) for article in articles]
    liar = response("https://damaged.example/liar.html", notebook(articles[0]))
    block = http_block(liar)
    middle = len(pages) // 2
    parts = [member(info(path.name), gzip=False)]
    parts += [member(record, gzip=False) for record in pages[:middle]]
    parts.append(raw(liar, block, len(block) + 150))
    parts += [member(record, gzip=False) for record in pages[middle:]]
    path.write_bytes(b"".join(parts))
    planted = [Planted(record, "whole", "kept") for record in pages]
    planted[middle] = Planted(pages[middle], "swallowed in part by the record before it", "any")
    planted.insert(middle, Planted(liar, "a length 150 too large", "any"))
    return planted
