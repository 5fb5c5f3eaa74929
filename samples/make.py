"""Write the sample dumps: `python samples/make.py OUT [--small]`.

OUT/web contains WARC files, and OUT/books contains text files. OUT/planted.json lists their planted records. A planted
record has a description and an expected result, which tests compare with the result of the pipeline. Other files
OUT/planted-*.json list the planted records of OUT/wet, OUT/wiki, OUT/wikipedia, OUT/stackexchange, OUT/c4, OUT/github,
OUT/arxiv and OUT/odd. The same Python version always writes the same bytes.
"""

import argparse
import json
from pathlib import Path

import ccnet
import gazetteer
import manual_pages
import papers
import posts
import pydoc_pages
import repositories
import rows as own_rows
import wiki
import wikipedia
from broken import broken, plain
from deflate import gzipped
from odd import odd
from oddities import hostile, other_answers, other_records
from warc import response, write
from web_pages import Planted, duplicates, english, foreign, handwritten, read

BOOKS = Path(__file__).parent / "books"
STORY, ESSAY, FRENCH = "the-keeper-of-the-lower-light", "marks-that-remember", "le-pain-du-village"
ERROR_PAGE = """<!DOCTYPE html>
<html><head><title>503 Service Unavailable</title></head>
<body><h1>Service Unavailable</h1><p>The book you asked for cannot be sent at the moment. Please try again later.</p>
</body></html>
"""


def make(out: Path, small: bool = False) -> None:
    """Write the whole sample below `out`.

    Args:
        out: The folder to write.
        small: False writes about 1,100 pages of documentation in eight files. True writes 40 pages in two files.
    """
    web = out / "web"
    web.mkdir(parents=True, exist_ok=True)
    documentation = manual_pages.pages() if small else pydoc_pages.pages()
    in_manual = manual_pages.choose_evenly(documentation, 40) if small else documentation
    files = 2 if small else 8
    for number in range(files):
        records = (response(url, text) for url, text in in_manual[number::files])
        write(web / f"manual-{number:05}.warc.gz", records)
    articles = read("en")
    ours, for_broken, for_plain = articles[:-11], articles[-11:-4], articles[-4:]
    planted = {"web/pages.warc.gz": [
        *english(ours), *foreign(read("other")), *duplicates(ours), *handwritten(), *other_records(ours),
        *other_answers(), *hostile(ours),
    ]}  # fmt: skip
    write(web / "pages.warc.gz", (item.record for item in planted["web/pages.warc.gz"]))
    planted["web/broken.warc.gz"] = broken(web / "broken.warc.gz", for_broken)
    planted["web/plain.warc"] = plain(web / "plain.warc", for_plain)
    more = gazetteer.entries(300 if small else 500)[200 if small else 300 :]
    rows = [row(file, item) for file, items in planted.items() for item in items]
    rows += [{"file": f"books/{name}", **about} for name, about in books(out / "books", more[:20]).items()]
    entries = gazetteer.entries(200 if small else 300)
    whole = {item["url"] for item in rows if item["expect"] == "kept" or item["expect"].startswith("c4-")}
    in_web = {url for url, _ in in_manual} | whole - {""}
    lists = {"planted.json": rows, **ccnet.make(out, documentation, entries[20:], in_web, small)}
    lists["planted-odd.json"] = [row(file, item) for file, items in odd(out, entries[:20]).items() for item in items]
    lists["planted-posts.json"] = posts.make(out / "stackexchange", entries[: 12 if small else 60])
    lists["planted-rows.json"] = own_rows.make(out / "c4", more[20:])
    lists["planted-wikipedia.json"] = wikipedia.make(out / "wikipedia", encyclopaedia(entries))
    lists["planted-repositories.json"] = repositories.make(out / "github", out / "github-tables")
    lists["planted-papers.json"] = papers.make(out / "arxiv")
    for name, content in lists.items():
        (out / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8", newline="\n")


def encyclopaedia(entries: list[gazetteer.Entry]) -> list[wiki.Page]:
    """Return wiki articles without citations from a third of the entries. The posts use other entries."""
    return list(wiki.articles(entries[60::3], []))


def row(file: str, item: Planted) -> dict[str, str]:
    """Return a planted record as an entry of planted.json."""
    return {
        "file": file, "url": item.record.url, "record": item.record.kind, "what": item.what, "expect": item.expect,
    }  # fmt: skip


def books(folder: Path, entries: list[gazetteer.Entry]) -> dict[str, dict[str, str]]:
    """Write the books. Return their entries for planted.json by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {name: (BOOKS / f"{name}.txt").read_text("utf-8") for name in (STORY, ESSAY, FRENCH)}
    edition = second_edition(text[ESSAY])
    made = {
        f"{STORY}.txt": (b"\xef\xbb\xbf" + text[STORY].replace("\n", "\r\n").encode(), "UTF-8 BOM and CRLF", "kept"),
        f"{ESSAY}.txt": (text[ESSAY].encode(), "a book", "kept"),
        f"{ESSAY}-second-edition.txt": (edition.encode(), "nine sentences changed", "near-duplicate"),
        f"{FRENCH}.txt": (text[FRENCH].encode("latin-1"), "French, latin-1", "kept"),
        "a-page-a-day.txt.gz": (
            gzipped(anthology().encode()),
            "gzip; texts that are also pages",
            "kept",
        ),
        "pg999999.txt": (
            own_rows.gutenberg(entries[:10], "The Book of Ten Places", 999_999),
            "as Project Gutenberg has it",
            "kept",
        ),
        "ten-more-places.epub": (own_rows.epub(entries[10:20], "Ten More Places"), "EPUB", "kept"),
        "not-found.txt": (ERROR_PAGE.encode(), "an HTML error page", "not-plain-text"),
    }
    for name, (data, _, _) in made.items():
        (folder / name).write_bytes(data)
    return {
        name: {"url": "", "record": "file", "what": what, "expect": expect} for name, (_, what, expect) in made.items()
    }


def second_edition(text: str) -> str:
    """Return a second edition of the essay, in which nine sentences differ."""
    changes = {
        "It would be pleasant to believe": "One would like to believe", 
        "They had not been made to record speech.": "Nobody had made them to record speech.",
        "It was rich and beautiful": "It was splendid", "A clever boy could learn it": "Any child could learn it",
        "Nobody in the palaces": "No one in the palaces", "It is not surprising": "It is no wonder",
        "These look like small matters.": "All of this looks like a small matter.",
        "It was cheap and a little despised.": "It was cheap, and for that reason it was looked down upon.",
        "The king refused the gift.": "The king would have none of it.",
    }  # fmt: skip
    for old, new in changes.items():
        text = text.replace(old, new)
    return text.replace("A short history of writing", "Second edition\n\nA short history of writing")


def anthology() -> str:
    """Return a book with one chapter for every ninth English article."""
    chapters = [f"{a.title.upper()}\n\n" + "\n\n".join(a.paragraphs) for a in read("en")[::9]]
    return "A PAGE A DAY\n\nShort pieces for every season\n\n" + "\n\n\n".join(chapters) + "\n"


def main() -> None:
    """Read the command line and write the sample."""
    parser = argparse.ArgumentParser(description="Make the sample dumps of all sources.")
    parser.add_argument("out", type=Path, help="folder to write; made if missing")
    parser.add_argument("--small", action="store_true", help="40 documentation pages instead of about 1,100")
    options = parser.parse_args()
    make(options.out, options.small)


if __name__ == "__main__":
    main()
