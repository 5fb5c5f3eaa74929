"""Write small Wikipedia dumps in twenty languages, each with an article of samples/wikipedia/, a redirect, a category.

The dumps have different forms: several bzip2 streams, one bzip2 stream, gzip, uncompressed, UTF-16, truncated. Some
pages are broken. planted-wikipedia.json lists the pages and the expected results.
"""

import bz2
from pathlib import Path
from typing import NamedTuple

import wiki
from deflate import gzipped

TEXTS = Path(__file__).parent / "wikipedia"
REDIRECTS = {
    "bg": "#ВИЖ", "ca": "#REDIRECCIÓ", "cs": "#PŘESMĚRUJ", "da": "#OMDIRIGERING", "de": "#WEITERLEITUNG",
    "en": "#REDIRECT", "es": "#REDIRECCIÓN", "fr": "#REDIRECTION", "hr": "#PREUSMJERI", "hu": "#ÁTIRÁNYÍTÁS",
    "it": "#RINVIA", "nl": "#DOORVERWIJZING", "pl": "#PATRZ", "pt": "#REDIRECIONAMENTO", "ro": "#REDIRECTEAZA",
    "ru": "#ПЕРЕНАПРАВЛЕНИЕ", "sl": "#PREUSMERITEV", "sr": "#Преусмери", "sv": "#OMDIRIGERING",
    "uk": "#ПЕРЕНАПРАВЛЕННЯ",
}  # fmt: skip
MULTISTREAM, PLAIN, GZIPPED, UTF_16, CUT = "en", "de", "fr", "bg", "nl"  # languages whose dumps have a special form
# Broken pages by language: (description, expected result, markup before the text, markup after the text).
BROKEN = {
    "cs": ("mark-up that was not escaped", "corrupt-record", "<b>", "</i>"),
    "hu": ("an entity that XML does not have", "entity-expansion", "&laugh;", ""),
}


class Item(NamedTuple):
    """A page of a dump: its title, its XML, its description, and the expected result."""

    title: str
    xml: str
    what: str
    expect: str


def make(out: Path, encyclopaedia: list[wiki.Page]) -> list[dict[str, str]]:
    """Write the dumps below `out`; the English dump also has the pages of `encyclopaedia`.

    Returns:
        The entries of planted-wikipedia.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    planted = []
    for language in REDIRECTS:
        items = list(pages(language))
        more = [wiki.page_xml(page, 100 + number) for number, page in enumerate(encyclopaedia)]
        name, data = dump(language, [item.xml for item in items], more if language == MULTISTREAM else [])
        (out / name).write_bytes(data)
        planted += [{"file": name, "title": item.title, "what": item.what, "expect": item.expect} for item in items]
    return planted


def pages(language: str) -> list[Item]:
    """Return the planted pages of one dump.

    In every second dump the redirect has no element <redirect>, only the keyword in its text, as in dumps before 2010.
    """
    article = (TEXTS / f"{language}.wiki").read_text("utf-8")
    title = (TEXTS / f"{language}.txt").read_text("utf-8").partition("\n")[0]
    number = sorted(REDIRECTS).index(language)
    redirect = wiki.Page(f"{title} (2)", f"{REDIRECTS[language]} [[{title}]]", redirect=title if number % 2 else "")
    category = wiki.Page(f"Category:{title}", f"'''{title}'''", 14)
    made = [
        Item(redirect.title, wiki.page_xml(redirect, 1), "a redirect", "redirect"),
        Item(title, wiki.page_xml(wiki.Page(title, article), 2), "an article", "kept"),
        Item(category.title, wiki.page_xml(category, 3), "a category", "other-namespace"),
    ]
    if language in BROKEN:
        what, expect, before, behind = BROKEN[language]
        page = wiki.Page(f"{title} (3)", "BEFORE text BEHIND")
        broken = wiki.page_xml(page, 4).replace("BEFORE", before).replace("BEHIND", behind)
        made.insert(1, Item(page.title, broken, what, expect))
    if language == CUT:
        page = wiki.Page(f"{title} (4)", "".join(chr(97 + n * n * 7 % 26) for n in range(99_999)))
        made.append(Item(page.title, wiki.page_xml(page, 5), "cut off", "truncated-record"))
    return made


def dump(language: str, items: list[str], more: list[str]) -> tuple[str, bytes]:
    """Return the file name and the bytes of a dump.

    Args:
        language: The language, which also determines the form of the dump.
        items: The XML of the planted pages.
        more: The XML of further pages, for the multistream dump only.
    """
    name = f"{language}wiki-20240101-pages-articles"
    whole = wiki.HEADER + "".join(items) + "</mediawiki>\n"
    if language == MULTISTREAM:
        every = [*items, *more]
        streams = [
            "".join(every[start : start + wiki.STREAM_PAGES]) for start in range(0, len(every), wiki.STREAM_PAGES)
        ]
        parts = (wiki.HEADER, *streams, "</mediawiki>\n")
        return f"{name}-multistream.xml.bz2", b"".join(bz2.compress(part.encode()) for part in parts)
    if language == PLAIN:
        return f"{name}.xml", whole.encode()
    if language == GZIPPED:
        return f"{name}.xml.gz", gzipped(whole.encode())
    if language == CUT:
        data = b"".join(
            bz2.compress(part.encode()) for part in (whole.removesuffix(items[-1] + "</mediawiki>\n"), items[-1])
        )
        return f"{name}.xml.bz2", data[: -len(data) // 40]
    data = b"\xff\xfe" + whole.encode("utf-16-le") if language == UTF_16 else whole.encode()
    return f"{name}.xml.bz2", bz2.compress(data)
