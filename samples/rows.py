"""Write rows in the format of C4's released files, and books in the formats of Project Gutenberg and EPUB.

planted-rows.json describes the planted rows and the expected results.
"""

import json
from pathlib import Path
from typing import Any

from archives import zipped
from deflate import gzipped
from gazetteer import Entry

NAME = "c4-sample.00000-of-00001.json.gz"
HEADER = """The Project Gutenberg eBook of {title}

This eBook is for the use of anyone anywhere at no cost and with almost
no restrictions whatsoever.

Title: {title}

Author: The Samples

Release date: January 1, 2024 [eBook #{number}]

Language: English

Credits: Produced by nobody in particular

*** START OF THE PROJECT GUTENBERG EBOOK {capitals} ***

Produced by nobody in particular

[Transcriber's note: every place in this book is invented.]


"""
FOOTER = """

End of Project Gutenberg's {title}, by The Samples

*** END OF THE PROJECT GUTENBERG EBOOK {capitals} ***

This is where the licence would stand, if this were a book of Project
Gutenberg's and not one that only looks like theirs.
"""
CONTAINER = (
    '<?xml version="1.0"?>\n<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">{title}</dc:identifier>
<dc:title>{title}</dc:title><dc:creator>The Samples</dc:creator><dc:language>en</dc:language></metadata>
<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>{items}</manifest>
<spine><itemref idref="nav"/>{spine}</spine></package>
"""
PAGE = (
    '<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}'
    "</body></html>\n"
)


def make(out: Path, entries: list[Entry]) -> list[dict[str, Any]]:
    """Write the rows below `out` and return the entries of planted-rows.json."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row(number, entry), ensure_ascii=number % 2 == 0) for number, entry in enumerate(entries)]
    odd = [
        ('{"text": "a row that was cut', "corrupt-record", "a row that was cut"),
        ('{"url": "https://gazetteer.example/none"}', "no-text", "a row without text"),
        ('{"text": 12, "url": "https://gazetteer.example/number"}', "corrupt-record", "a text that is a number"),
        ('["text"]', "corrupt-record", "a list"),
        (json.dumps({"text": "Lone half: \ud800. " + text_of(entries[0])[:300]}), "kept", "half of a surrogate pair"),
    ]  # fmt: skip
    for place, (line, _, _) in enumerate(odd):
        lines.insert(3 + 2 * place, line)
    data = "".join(f"{line}\n" for line in lines).encode()
    (out / NAME).write_bytes(gzipped(data))
    return [
        {"file": f"c4/{NAME}", "line": 3 + 2 * n, "what": what, "expect": expect}
        for n, (_, expect, what) in enumerate(odd)
    ]


def row(number: int, entry: Entry) -> dict[str, str]:
    """Return an article of the gazetteer as a row of C4."""
    date = f"2019-04-{1 + number % 28:02}T{number % 24:02}:00:00Z"
    return {"text": text_of(entry), "timestamp": date, "url": f"https://gazetteer.example/{number}"}


def text_of(entry: Entry) -> str:
    """Return the paragraphs of an article, one per line."""
    return "\n".join(text for _, texts in entry.sections for text in texts)


def gutenberg(entries: list[Entry], title: str, number: int) -> bytes:
    """Return a book with one chapter per article, and with a header and a footer like those of Project Gutenberg."""
    chapters = []
    for chapter, entry in enumerate(entries, 1):
        text = text_of(entry).replace("\n", "\n\n")
        chapters.append(f"CHAPTER {chapter}. {entry.title.upper()}\n\n{text}")
    told = {"title": title, "capitals": title.upper(), "number": number}
    text = HEADER.format(**told) + f"{title.upper()}\n\n\n" + "\n\n\n".join(chapters) + FOOTER.format(**told)
    return b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()


def epub(entries: list[Entry], title: str) -> bytes:
    """Return a book in the EPUB format with one chapter per article."""
    numbers = range(1, len(entries) + 1)
    items = "".join(f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in numbers)
    spine = "".join(f'<itemref idref="c{n}"/>' for n in numbers)
    files = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    files |= {"content.opf": PACKAGE.format(title=title, items=items, spine=spine)}
    files |= {
        "nav.xhtml": PAGE.format("<nav><ol>" + "".join(f"<li>{entry.title}</li>" for entry in entries) + "</ol></nav>")
    }
    for n, entry in enumerate(entries, 1):
        body = "".join(
            f"<p>{text}</p>" for text in text_of(entry).replace("&", "&amp;").replace("<", "&lt;").split("\n")
        )
        files[f"c{n}.xhtml"] = PAGE.format(f"<h1>{entry.title}</h1>{body}")
    return zipped({name: data.encode() for name, data in files.items()})
