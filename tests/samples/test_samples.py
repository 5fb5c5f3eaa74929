"""The bundled sample has the same bytes each time. Its good records are readable, and its broken records are broken."""

import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from filters.reasons import Reason

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make():
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        import make
    finally:
        sys.path.pop(0)
    return make.make


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def records(file: Path) -> list[tuple[str, str, int, bytes]]:
    """Return (type, URL, status, body as stored) of all records of an archive."""
    found = []
    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, no_record_parse=False):
            status = (
                int(record.http_headers.get_statuscode()) if record.http_headers and record.rec_type != "request" else 0
            )
            url = record.rec_headers.get_header("WARC-Target-URI") or ""
            found.append((record.rec_type, url, status, record.raw_stream.read()))
    return found


def listed(sample: Path, name: str):
    return json.loads((sample / name).read_text("utf-8"))


def planted(sample: Path, file: str) -> list[dict[str, str]]:
    return [row for row in listed(sample, "planted.json") if row["file"] == file]


def test_same_bytes_twice(make, sample, tmp_path):
    make(tmp_path, small=True)
    assert checksums(tmp_path) == checksums(sample)


def test_files_and_sizes(sample):
    names = set(checksums(sample))
    web = {"manual-00000.warc.gz", "manual-00001.warc.gz", "pages.warc.gz", "broken.warc.gz", "plain.warc"}
    assert {name for name in names if name.startswith("web/")} == {f"web/{name}" for name in web}
    assert len([name for name in names if name.startswith("books/")]) == 8
    assert (
        len([name for name in names if re.fullmatch(r"wet/CC-MAIN-[^/]+/segments/[^/]+/wet/.*\.warc\.wet\.gz", name)])
        == 6
    )
    assert {name for name in names if name.startswith(("wiki/", "odd/"))} == {
        "wiki/samplewiki-20240101-pages-articles.xml.bz2", "odd/records.warc.gz", "odd/pages.arc.gz",
    }  # fmt: skip
    assert 150_000 < sum(file.stat().st_size for file in sample.rglob("*") if file.is_file()) < 1_500_000
    committed = [file for file in (ROOT / "samples").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in committed) < 1_500_000


def test_documentation_pages(sample):
    found = [row for number in range(2) for row in records(sample / f"web/manual-0000{number}.warc.gz")]
    assert Counter(kind for kind, *_ in found) == {"warcinfo": 2, "response": 40}
    assert len({url for kind, url, *_ in found if kind == "response"}) == 40
    text = "".join(body.decode() for *_, body in found)
    assert text.count("<p>") > 200
    assert not re.search(r"0x[0-9a-fA-F]{6,}", text)
    for path in (str(ROOT), str(Path.home()), sys.prefix, sys.base_prefix):
        assert len(path) < 6 or path not in text


def test_pages_hold_every_kind_of_record(sample):
    found = records(sample / "web/pages.warc.gz")
    kinds = Counter(kind for kind, *_ in found)
    one_each = ("warcinfo", "request", "metadata", "revisit", "conversion", "resource", "surprise")
    assert all(kinds[kind] == 1 for kind in one_each) and kinds["response"] > 90
    assert len(found) == len(planted(sample, "web/pages.warc.gz")) + 1
    statuses = Counter(status for kind, _, status, _ in found if kind == "response")
    assert {301, 302, 404, 500, 503} < set(statuses) and statuses[200] > 80


def test_planted_reasons_are_in_the_catalogue(sample):
    rows = listed(sample, "planted.json")
    reasons = {reason.value for reason in Reason}
    assert {row["expect"] for row in rows} - reasons == {"kept", "any", "dropped", "duplicate"}
    others = [*listed(sample, "planted-odd.json"), *listed(sample, "planted-blocked.json")]
    assert {row["expect"] for row in others} - reasons == {"kept"}
    assert {row["file"] for row in [*rows, *others]} < set(checksums(sample))


def test_encodings_are_what_they_say(sample):
    bodies = {url: body for kind, url, _, body in records(sample / "web/pages.warc.gz") if kind == "response"}
    assert "самовар" in bodies["http://weekly.example/ru/windows-1251-nowhere.html"].decode("cp1251")
    assert "豆腐" in bodies["http://weekly.example/ja/shift_jis-header.html"].decode("shift_jis")
    assert "茶馆" in bodies["http://weekly.example/zh/gbk-meta.html"].decode("gbk")
    with pytest.raises(UnicodeDecodeError):
        bodies["http://weekly.example/es/iso-8859-1-nowhere.html"].decode("utf-8")
    assert bodies["http://weekly.example/en/lighthouse-lens.html"].startswith(b"\x1f\x8b")
    bomb = bodies["https://odd.example/hostile/bomb"]
    assert len(bomb) < 500_000 and len(gzip.decompress(bomb)) == 2**26
    with pytest.raises((zlib.error, gzip.BadGzipFile)):
        gzip.decompress(bodies["https://odd.example/hostile/gzip-broken"])


def test_broken_is_broken_and_whole_members_are_whole(sample):
    data = (sample / "web/broken.warc.gz").read_bytes()
    with pytest.raises((ArchiveLoadFailed, zlib.error)):
        records(sample / "web/broken.warc.gz")
    found = b""
    for start in (match.start() for match in re.finditer(rb"\x1f\x8b\x08", data)):
        unpacker = zlib.decompressobj(31)
        try:
            text = unpacker.decompress(data[start:])
        except zlib.error:
            continue
        found += text if unpacker.eof else b""
    rows = planted(sample, "web/broken.warc.gz")
    whole = [row["url"] for row in rows if row["expect"] == "kept"]
    assert len(whole) == 7 and all(f"WARC-Target-URI: {url}\r\n".encode() in found for url in whole)
    cut = [row["url"] for row in rows if row["expect"] == "corrupt-gzip" and "member" in row["what"]]
    assert all(f"WARC-Target-URI: {url}\r\n".encode() not in found for url in cut)


def test_plain_has_one_lying_length(sample):
    data = (sample / "web/plain.warc").read_bytes()
    assert data.startswith(b"WARC/1.0\r\n") and data.count(b"WARC-Type: response") == 5
    first = next(iter(ArchiveIterator(io.BytesIO(data))))
    assert first.rec_type == "warcinfo"
    wrong = 0
    for head in re.finditer(rb"WARC/1\.0\r\n.*?Content-Length: (\d+).*?\r\n\r\n", data, re.DOTALL):
        wrong += data[head.end() + int(head[1]) :][:4] != b"\r\n\r\n"
    assert wrong == 1


def test_books(sample):
    folder = sample / "books"
    story = (folder / "the-keeper-of-the-lower-light.txt").read_bytes()
    assert story.startswith(b"\xef\xbb\xbf") and story.count(b"\r\n") == story.count(b"\n")
    french = (folder / "le-pain-du-village.txt").read_bytes()
    assert "À partir de ce moment" in french.decode("latin-1")
    with pytest.raises(UnicodeDecodeError):
        french.decode("utf-8")
    first, second = (
        set((folder / f"marks-that-remember{edition}.txt").read_text("utf-8").split("\n"))
        for edition in ("", "-second-edition")
    )
    assert first != second and len(first & second) > 0.85 * len(first)
    assert (folder / "not-found.txt").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert gzip.decompress((folder / "a-page-a-day.txt.gz").read_bytes()).decode().startswith("A PAGE A DAY")


@pytest.mark.parametrize(
    "what",
    [
        "gzip body",
        "chunked body",
        "chunked gzip body",
        "brotli body",
        "zstandard body",
        "deflate body",
        "latin-1 in the header",
    ],
)
def test_every_wrapping_of_a_page_is_in_the_sample(sample: Path, what: str) -> None:
    assert [row for row in planted(sample, "web/pages.warc.gz") if row["what"] == what and row["expect"] == "kept"]


def test_rows_and_books_of_other_forms(sample):
    from manifests.source import Source
    from pipeline.sources import books, c4

    (path,) = (sample / "c4").iterdir()
    found = list(c4.read(path.read_bytes(), path.name, "c4", Source(weight=1.0, kind="c4")))
    for item in listed(sample, "planted-rows.json"):
        reason = found[item["line"]].reason
        assert (reason.value if reason else "kept") == item["expect"], item["what"]
    assert len([outcome for outcome in found if outcome.document]) == len(found) - 4 > 50
    for name, title in {"pg999999.txt": "The Book of Ten Places", "ten-more-places.epub": "Ten More Places"}.items():
        stored = (sample / "books" / name).read_bytes()
        (outcome,) = books.read(stored, name, "books", Source(weight=1.0, kind="books"))
        assert outcome.document and outcome.document.metadata["title"] == title
        assert "Gutenberg" not in outcome.document.text and "Transcriber" not in outcome.document.text
        assert outcome.document.text.startswith(title.upper() if name.endswith("txt") else "")
