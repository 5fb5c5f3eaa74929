"""Measure how many pages that declare no encoding are decoded exactly, and at what speed.

The texts come from the shared Wikipedia samples, and from languages.tsv for other languages. Each page is encoded in
each encoding that websites used for its language.
"""

import bz2
import importlib
import re
import time
from collections.abc import Callable

from benchmarks.data import SHARED, table
from filters.data_files import read_rows
from filters.formats.charset import decode, decode_bytes, find_encoding

SIZES = (60, 120, 600, 2_500)  # characters of text per page
PAGES = 40  # the largest number of pages per language, encoding and size
WIKIPEDIAS = {
    "cs": "windows-1250 iso-8859-2",
    "pl": "windows-1250 iso-8859-2",
    "hu": "windows-1250 iso-8859-2",
    "de": "windows-1252",
    "fr": "windows-1252",
    "es": "windows-1252",
    "it": "windows-1252",
    "ca": "windows-1252",
    "ru": "windows-1251 koi8-r ibm866 iso-8859-5",
    "sr": "windows-1251 iso-8859-5",
}
# By name of an encoding in the WHATWG Encoding Standard: Python's codec for the same characters, if the name differs.
CODECS = {"windows-874": "cp874", "shift_jis": "cp932", "euc-kr": "cp949", "big5": "big5hkscs"}
_MARKUP = re.compile(
    r"\{\{.*?\}\}|\{\|.*?\|\}|&lt;.*?&gt;|\[\[[^\]|]*\||[\[\]']{2,}|==+|https?://\S+|&\w+;|\s+", re.DOTALL
)


def read_texts() -> list[tuple[str, str, str]]:
    """Return (language, encodings, text) of each language. `encodings` is a string of names separated by spaces."""
    texts = [(row[0], row[1], row[2]) for row in read_rows("benchmarks", "languages.tsv")]
    for code, encodings in WIKIPEDIAS.items():
        path = SHARED / f"wikipedia/minidumps/{code}.wiki.xml.bz2"
        if path.is_file():
            dump = bz2.decompress(path.read_bytes()).decode()
            pages = re.findall(r"<text[^>]*>(.*?)</text>", dump, re.DOTALL)
            texts.append((code, encodings, " ".join(_MARKUP.sub(" ", page) for page in pages)))
    return texts


def make_pages(texts: list[tuple[str, str, str]], size: int) -> list[tuple[str, str, str, bytes]]:
    """Return (language, encoding, page, bytes) of pages with `size` characters of text.

    Characters that an encoding cannot represent are removed from its pages.
    """
    pages = []
    for language, encodings, text in texts:
        text = re.sub(r" {2,}", " ", text)
        starts = range(0, len(text) - size + 1, size) if len(text) >= size else range(1)
        for encoding in encodings.split():
            codec = CODECS.get(encoding, encoding)
            for start in list(starts)[:PAGES]:
                part = text[start : start + size].encode(codec, "ignore").decode(codec)
                page = f"<html><head><title>{part[:20]}</title></head><body><p>{part}</p></body></html>"
                raw = page.encode(codec)
                if not raw.isascii() or b"\x1b" in raw:
                    pages.append((language, encoding, page, raw))
    return pages


def _decode_as(guess: str | None, body: bytes) -> str:
    """Decode a body by the encoding that a library guessed: a label of the Encoding Standard, or a Python codec."""
    name = (guess or "utf-8").lower()
    encoding = find_encoding(name.replace("_", "-")) or find_encoding(name)
    try:
        return decode_bytes(body, encoding) if encoding else body.decode(name, "replace")
    except LookupError:
        return ""


def _peers() -> dict[str, Callable[[bytes], str | None]]:
    """Return the detectors of other libraries that are installed: functions from bytes to an encoding's name."""
    peers: dict[str, Callable[[bytes], str | None]] = {}
    for name, package, call in (
        ("resiliparse", "resiliparse.parse.encoding", lambda m, b: m.detect_encoding(b, from_html_meta=False)),
        ("charset-normalizer", "charset_normalizer", lambda m, b: getattr(m.from_bytes(b).best(), "encoding", None)),
        ("faust-cchardet", "cchardet", lambda m, b: m.detect(b)["encoding"]),
        ("chardet", "chardet", lambda m, b: m.detect(b, prefer_superset=True)["encoding"]),
    ):
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        peers[name] = lambda body, module=module, call=call: call(module, body)
    return peers


def run() -> str:
    """Return a table of exactly decoded pages by page size and detector, and a table of our errors by language."""
    texts = read_texts()
    decoders: dict[str, Callable[[bytes], str]] = {"ours (chardetng)": lambda body: decode(body, None)}
    for name, peer in _peers().items():
        decoders[name] = lambda body, peer=peer: _decode_as(peer(body), body)
    rows: list[list[object]] = []
    misses: list[list[object]] = []
    for size in SIZES:
        pages = make_pages(texts, size)
        for name, decoder in decoders.items():
            begun = time.process_time()
            exact = [decoder(raw) == page for _, _, page, raw in pages]
            seconds = time.process_time() - begun
            groups: dict[tuple[str, str], list[bool]] = {}
            for (language, encoding, _, _), right in zip(pages, exact, strict=True):
                groups.setdefault((language, encoding), []).append(right)
            mean = sum(sum(group) / len(group) for group in groups.values()) / len(groups)
            rate = sum(len(raw) for *_, raw in pages) / seconds / 1e6
            rows.append([size, name, len(pages), f"{sum(exact) / len(exact):.3f}", f"{mean:.3f}", f"{rate:.1f}"])
            if name.startswith("ours"):
                misses += [
                    [size, *key, f"{len(group) - sum(group)} of {len(group)}"]
                    for key, group in groups.items()
                    if not all(group)
                ]
    head = ["characters", "detector", "pages", "exact", "mean over languages and encodings", "MB per CPU second"]
    return table(head, rows) + "\n\n" + table(["characters", "language", "encoding", "ours decodes wrongly"], misses)
