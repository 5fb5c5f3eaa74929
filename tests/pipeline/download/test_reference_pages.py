"""Cited pages fetched from a local server: what robots.txt and good manners ask for, each outcome named, resumed."""

import bz2
import errno
import gzip
import io
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from html import escape
from itertools import pairwise
from pathlib import Path

import pytest
from corpus import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving_server import Answer, Handler, Server, hang_up, mute, raw, serving, silent, status
from warcio.archiveiterator import ArchiveIterator
from warcio.warcwriter import BufferWARCWriter

from filters.errors import UserError
from filters.quality.urls import normalise
from manifests.source import Source
from pipeline.__main__ import main
from pipeline.download import page_archive, page_request
from pipeline.download.crawl import CrawlOptions
from pipeline.download.http import RetryPolicy
from pipeline.download.page_archive import PAGE, PageArchive
from pipeline.download.page_request import FetchError, RequestRules, is_public, parse_url
from pipeline.download.references import CrawlSummary, download_references, draw_cited_urls
from pipeline.stages.filter import SourceRules
from pipeline.stages.references import read_positives

BODY = b"<html><body><article><p>" + b"Where the facts of an article come from. " * 20 + b"</p></article></body></html>"
RULES = RequestRules("teratoken (+mailto:me@a.example)", idle_timeout=120, allow_private=True)
QUICK = RetryPolicy(attempts=3, backoff=0.001, max_wait=0.01)
OPTIONS = CrawlOptions(RULES, delay=0.001, parallel=4, max_bytes=50_000, policy=QUICK)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that answers for every host under .example."""
    find = page_request.find_addresses
    local = lambda host, port: ["127.0.0.1"] if host.endswith(".example") else find(host, port)  # noqa: E731
    monkeypatch.setattr(page_request, "find_addresses", local)
    with serving() as running:
        yield running


def at(server: Server, host: str, path: str, *answers: Answer) -> str:
    """Plan answers for a path, whatever the host, and return its URL at this host."""
    if answers:
        server.plan(path, *answers)
    return f"http://{host}.example:{server.server_port}{path}"


def page(body: bytes = BODY, kind: str = "text/html", **headers: str) -> Answer:
    return status(200, body, Content_Type=kind, **headers)


def outcomes(path: Path) -> dict[str, str]:
    """The outcomes in an archive, by URL, as another program reads them; its digests hold."""
    found = {}
    with path.open("rb") as file:
        for record in ArchiveIterator(file, check_digests="raise"):
            url, text = record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read()
            if record.rec_type == "response":
                assert record.rec_headers.get_header("WARC-Payload-Digest").startswith("sha1:")
                found[url] = PAGE
            elif record.rec_type == "metadata":
                found[url] = text.decode().removeprefix("reason: ").rstrip("\r\n")
    return found


def fetch(urls: list[str], path: Path, options: CrawlOptions = OPTIONS) -> CrawlSummary:
    return download_references(urls, path, options)


def asked(server: Server, path: str) -> int:
    return sum(one == path for one, _ in server.requests)


def test_each_answer_has_its_outcome(server: Server, tmp_path: Path) -> None:
    zipped = gzip.compress(BODY)
    cases: list[tuple[str, str, list[Answer]]] = [
        ("/page", PAGE, [page()]),
        ("/xhtml", PAGE, [page(kind="application/xhtml+xml; charset=utf-8")]),
        ("/untyped", PAGE, [status(200, BODY)]),
        ("/zipped", PAGE, [page(zipped, Content_Encoding="gzip")]),
        ("/chunked", PAGE, [raw(200, b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), Content_Type="text/html",
                                Transfer_Encoding="chunked")]),
        ("/odd-headers", PAGE, [page(X_Név="ä; ö=ü", Set_Cookie="a=1;\r\n b=é")]),
        ("/busy-then-page", PAGE, [status(503), status(429, Retry_After="0"), page()]),
        ("/broken-then-page", PAGE, [hang_up, raw(200, BODY[:90], Content_Type="text/html", Content_Length="900"),
                                     page()]),
        ("/gone", "http-404", [status(404)]),
        ("/secret", "http-403", [status(403)]),
        ("/none", "http-204", [status(204)]),
        ("/unmodified", "http-304", [status(304)]),
        ("/paper", "not-html", [page(b"%PDF-1.4", "application/pdf")]),
        ("/endless-film", "not-html", [raw(200, b"x" * 90_000, Content_Type="video/mp4")]),
        ("/untyped-text", "not-html", [status(200, b"plain words")]),
        ("/blank", "empty-body", [page(b" \n")]),
        ("/bad-gzip", "corrupt-body", [page(zipped[:50] + b"x" * 200, Content_Encoding="gzip")]),
        ("/stated-large", "too-large", [page(BODY + b"x" * 50_000)]),
        ("/large", "too-large", [raw(200, BODY + b"x" * 50_000, Content_Type="text/html")]),
        ("/circle", "too-many-redirects", [status(302, Location="/circle")]),
        ("/file", "not-http", [status(302, Location="file:///etc/hostname")]),
        ("/ftp", "not-http", [status(302, Location="ftp://a.example/x")]),
        ("/wrong", "not-http", [status(302, Location="http://[x")]),
        ("/nowhere", "http-302", [status(302)]),
        ("/busy", "http-503", [status(503)]),
        ("/dead", "unreachable", [hang_up]),
        ("/later", "http-503", [status(503, Retry_After="9999")]),
    ]  # fmt: skip
    wanted = {at(server, f"h{number % 5}", path, *answers): expected
              for number, (path, expected, answers) in enumerate(cases)}  # fmt: skip
    later = {url for url in wanted if url.endswith(("/busy", "/dead", "/later"))}
    summary = fetch(list(wanted), tmp_path / "cited.warc.gz")
    assert outcomes(tmp_path / "cited.warc.gz") == {url: what for url, what in wanted.items() if url not in later}
    assert summary == CrawlSummary(len(cases), Counter(wanted.values()), 8, 3)
    assert "not-html: 3\n" in summary.text() and "3 URLs failed for now" in summary.text()
    assert (asked(server, "/busy"), asked(server, "/later"), asked(server, "/circle")) == (3, 1, 6)
    assert {headers["User-Agent"] for _, headers in server.requests} == {RULES.agent}
    check_the_reader_takes_all(tmp_path, [url for url, what in wanted.items() if what == PAGE])


def check_the_reader_takes_all(folder: Path, pages: list[str]) -> None:
    source = Source.model_validate({"weight": 1.0, "kind": "common_crawl"})
    applied = SourceRules("web", [], {}, False)
    reads = partial(
        read_positives, folder, "web/cited", name="web", source=source, applied=applied, min_characters=300, seed=0
    )
    facts = reads(path=str(folder / "cited.warc.gz")).facts
    assert facts["pages"] == len(pages) and set(facts["dropped"]) <= {"archive-metadata"}


def test_the_same_command_asks_only_for_what_is_not_settled(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "cited.warc.gz"
    urls = [at(server, "a", "/page", page()), at(server, "b", "/gone", status(404)),
            at(server, "c", "/busy", status(503), status(503), status(503), page())]  # fmt: skip
    assert fetch(urls, path).temporary_failures == 1
    before = path.read_bytes()
    server.requests.clear()
    again = fetch(urls, path)
    assert again == CrawlSummary(3, Counter({PAGE: 2, "http-404": 1}), 1, 0)
    assert {one for one, _ in server.requests} == {"/busy", "/robots.txt"}
    assert path.read_bytes().startswith(before)
    server.requests.clear()
    assert fetch(urls, path) == CrawlSummary(3, Counter({PAGE: 2, "http-404": 1}), 0, 0) and not server.requests


def test_a_redirect_is_recorded_under_the_cited_url_with_the_final_one(server: Server, tmp_path: Path) -> None:
    at(server, "b", "/new/é", page())
    server.plan("/new/%C3%A9", page())
    other = f"http://b.example:{server.server_port}/new/é#part".encode().decode("latin-1")
    cited = at(server, "a", "/old", status(301, Location="/moved"), page())
    at(server, "a", "/moved", status(308, Location=other))
    fetch([cited], tmp_path / "cited.warc.gz")
    with (tmp_path / "cited.warc.gz").open("rb") as file:
        (record,) = [one for one in ArchiveIterator(file) if one.rec_type == "response"]
    assert record.rec_headers.get_header("WARC-Target-URI") == cited
    assert record.rec_headers.get_header("Final-URI") == f"http://b.example:{server.server_port}/new/é"
    assert record.rec_headers.get_header("WARC-IP-Address") == "127.0.0.1"
    assert asked(server, "/robots.txt") == 2  # of each host


@pytest.mark.parametrize(
    ("answers", "expected", "files"),
    [
        ([status(200, b"User-agent: *\nDisallow: /private")], {"/a": PAGE, "/private/b": "robots-disallowed"}, 1),
        ([status(200, b"User-agent: teratoken\nDisallow: /a\n\nUser-agent: *\nDisallow: /")],
         {"/a": "robots-disallowed", "/private/b": PAGE}, 1),
        ([status(404)], {"/a": PAGE, "/private/b": PAGE}, 1),
        ([status(403)], {"/a": PAGE, "/private/b": PAGE}, 1),  # RFC 9309, section 2.3.1.3
        ([status(302, Location="/robots.txt")], {"/a": PAGE, "/private/b": PAGE}, 6),  # section 2.3.1.2
        ([status(302, Location="http://other.example:{port}/elsewhere")],
         {"/a": PAGE, "/private/b": "robots-disallowed"}, 1),
        ([status(500)], {"/a": "robots-unreachable", "/private/b": "robots-unreachable"}, 3),  # section 2.3.1.4
        ([status(429)], {"/a": "robots-unreachable", "/private/b": "robots-unreachable"}, 3),
        ([hang_up], {"/a": "robots-unreachable", "/private/b": "robots-unreachable"}, 3),
        ([status(500), status(200, b"User-agent: *\nDisallow: /private")],
         {"/a": PAGE, "/private/b": "robots-disallowed"}, 2),
        ([status(200, b"User-agent: *\nDisallow: /private\n" + b"#" * 999_999)],
         {"/a": PAGE, "/private/b": "robots-disallowed"}, 1),
        ([status(200, b"User-agent: *\nCrawl-delay: 86400")],
         {"/a": "long-crawl-delay", "/private/b": "long-crawl-delay"}, 1),
    ],
)  # fmt: skip
def test_robots_are_obeyed(
    server: Server, tmp_path: Path, answers: list[Answer], expected: dict[str, str], files: int
) -> None:
    def with_port(answer: Answer) -> Answer:
        def send(handler: Handler) -> None:
            plain = handler.send_header
            handler.send_header = lambda name, value: plain(name, value.replace("{port}", str(server.server_port)))  # type: ignore[method-assign]
            answer(handler)

        return send

    server.plan("/elsewhere", status(200, b"User-agent: *\nDisallow: /private"))
    server.plan("/robots.txt", *map(with_port, answers))
    wanted = {at(server, "a", path, page()): outcome for path, outcome in expected.items()}
    summary = fetch(list(wanted), tmp_path / "cited.warc.gz")
    assert summary.counts == Counter(wanted.values()) and asked(server, "/robots.txt") == files
    settled = {url: what for url, what in wanted.items() if what != "robots-unreachable"}
    assert outcomes(tmp_path / "cited.warc.gz") == settled
    assert summary.temporary_failures == len(wanted) - len(settled)
    for path, outcome in expected.items():
        assert asked(server, path) == (outcome == PAGE)


def test_a_host_is_asked_for_one_page_at_a_time_with_a_delay_and_others_meanwhile(
    server: Server, tmp_path: Path
) -> None:
    times: list[tuple[str, float, float]] = []
    asked_now, most = 0, 0
    lock = threading.Lock()

    def slow(handler: Handler) -> None:
        nonlocal asked_now, most
        started = time.monotonic()
        with lock:
            asked_now += 1
            most = max(most, asked_now)
        time.sleep(0.15)
        with lock:
            asked_now -= 1
        times.append((str(handler.headers["Host"]), started, time.monotonic()))
        page()(handler)

    server.plan("/robots.txt", status(200, b"User-agent: *\nCrawl-delay: 0.2"))
    urls = [at(server, host, f"/{number}", slow) for number in range(4) for host in "abc"]
    urls.append(at(server, "a", "/moved", status(302, Location=at(server, "b", "/0"))))
    assert fetch(urls, tmp_path / "cited.warc.gz").counts == {PAGE: 13}
    assert most > 1
    for host in "abc":
        mine = sorted(one[1:] for one in times if one[0].startswith(host))
        assert len(mine) == 4 + (host == "b")
        assert all(after[0] - before[1] > 0.19 for before, after in pairwise(mine))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("ff02::1", False), ("::ffff:10.0.0.1", False), ("2002:0a00:0001::1", False), ("192.0.2.1", False),
        ("93.184.216.34", True), ("2606:4700::1111", True), ("::ffff:93.184.216.34", True),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0", "2130706433", "0x7f.1", "a.example"])
def test_private_addresses_are_refused_whatever_names_them(server: Server, tmp_path: Path, host: str) -> None:
    rules = RequestRules(RULES.agent, idle_timeout=120)
    options = CrawlOptions(rules, 0.001, policy=QUICK)
    url = f"http://{host}:{server.server_port}/page"
    summary = fetch([url], tmp_path / "cited.warc.gz", options)
    assert set(summary.counts) <= {"private-address", "no-such-host"} and server.requests == []


def test_a_redirect_to_a_private_address_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public and private hosts are one server here: the address that it has counts as public, another as private."""
    monkeypatch.setattr(page_request, "find_addresses", lambda host, port: [host if "." in host else "127.0.0.1"])
    monkeypatch.setattr(page_request, "is_public", lambda address: address == "127.0.0.1")
    server.plan("/a", status(302, Location=f"http://10.0.0.1:{server.server_port}/b"))
    url = f"http://site:{server.server_port}/a"
    options = CrawlOptions(RequestRules(RULES.agent, idle_timeout=120), 0.001, policy=QUICK)
    assert fetch([url], tmp_path / "cited.warc.gz", options).counts == {"private-address": 1}


@pytest.mark.parametrize("answer", [mute, silent(b"<html>"), "drip"])
def test_a_server_without_an_end_is_left(server: Server, tmp_path: Path, answer: Answer | str) -> None:
    def drip(handler: Handler) -> None:
        for byte in b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n" + b"X: y\r\n" * 100:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.02)

    plan = drip if isinstance(answer, str) else answer
    options = CrawlOptions(RequestRules(RULES.agent, 120, 2, True), 0.001, policy=QUICK)
    url = at(server, "a", "/a", plan)
    summary = fetch([url], tmp_path / "cited.warc.gz", options)
    assert set(summary.counts) == {"too-slow"}
    brief = CrawlOptions(RequestRules(RULES.agent, 1, 120, True), 0.001, policy=RetryPolicy(attempts=1))
    if plan is not drip:
        assert fetch([url], tmp_path / "again.warc.gz", brief).counts == {"unreachable": 1}


def test_urls_that_are_none(server: Server, tmp_path: Path) -> None:
    for url in ("ftp://a.example/", "http://", "//a.example/", "http://a..example/", "http://[::1", "http://a:x/", "a"):
        with pytest.raises(FetchError, match="not-http"):
            parse_url(url)
    assert parse_url("HTTPS://Bücher.example:444/ä b?q=%20ö|#x").target == "/%C3%A4%20b?q=%20%C3%B6%7C"
    assert parse_url("http://bücher.example").origin == "http://xn--bcher-kva.example:80"
    urls = ["http://a..example/x", at(server, "a", "/ü|{}", page()), "http://a..example/x"]
    assert fetch(urls, tmp_path / "cited.warc.gz").counts == {"not-http": 2, "http-404": 1}
    assert server.requests[-1][0] == "/%C3%BC%7C%7B%7D"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of three pages and two reasons."""
    path = tmp_path_factory.mktemp("written") / "cited.warc.gz"
    with serving() as server:
        urls = [server.plan(f"/{name}", page()) for name in ("a", "b", "ç")] + [
            server.url + "/none",
            server.url + "/no",
        ]
        server.plan("/%C3%A7", page())
        fetch(urls, path)
    return path


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_archive_cut_anywhere_is_continued(written: Path, data: st.DataObject) -> None:
    stored = written.read_bytes()
    with closing(PageArchive(written, RULES.agent)) as archive:
        whole = list(archive.done.items())
    assert len(whole) == 5 and written.read_bytes() == stored
    cut = data.draw(st.integers(0, len(stored)))
    path = written.with_name("cut.warc.gz")
    path.write_bytes(stored[:cut])
    try:
        with closing(PageArchive(path, RULES.agent)) as archive:
            kept = archive.file.tell()
            assert list(archive.done.items()) == whole[: len(archive.done)]
            for url, _ in whole[len(archive.done) :]:
                archive.write_reason(url, "http-410")
    except UserError:
        assert 0 < cut < stored.find(b"\x1f\x8b", 1)  # within its first record, which is written at once
        return
    assert list(outcomes(path)) == [url for url, _ in whole]
    if cut:
        assert path.read_bytes()[:kept] == stored[:kept] and kept <= cut


def test_files_that_cannot_be_continued(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.warc.gz"
    other.write_bytes(b"my only copy of something")
    with pytest.raises(UserError, match="not an archive that this command wrote"):
        PageArchive(other, "")
    assert other.read_bytes() == b"my only copy of something"
    with closing(PageArchive(written, "")), pytest.raises(UserError, match="another process"):
        PageArchive(written, "")
    with pytest.raises(UserError, match="cannot be written"):
        PageArchive(other / "deeper", "")


def test_an_archive_that_two_processes_begin_has_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, make_head = tmp_path / "cited.warc.gz", page_archive._make_head

    def make_while_another_opens(*arguments: str) -> bytes:
        monkeypatch.undo()
        with pytest.raises(UserError, match="another process is writing it"):
            PageArchive(path, "agent")
        return make_head(*arguments)

    monkeypatch.setattr(page_archive, "_make_head", make_while_another_opens)
    with closing(PageArchive(path, "agent")) as archive:
        archive.write_reason("http://a.example/", "http-404")
    assert outcomes(path) == {"http://a.example/": "http-404"}


def test_an_archive_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A dump that is named by mistake: it must neither be continued nor lose a cut record at its end."""
    path, writer = tmp_path / "dump.warc.gz", BufferWARCWriter(gzip=True)
    writer.write_record(writer.create_warcinfo_record(path.name, {"software": "Nutch", "description": "teratoken"}))
    writer.write_record(writer.create_warc_record("http://a.example/", "response", io.BytesIO(b"HTTP/1.1 200 OK")))
    path.write_bytes(dump := writer.get_contents()[:-5])
    with pytest.raises(UserError, match="not an archive that this command wrote"):
        PageArchive(path, "agent")
    assert path.read_bytes() == dump


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [(OSError(errno.ENOSPC, "No space left on device"), UserError, "No space left on device.*run again"),
     (RuntimeError("a bug"), RuntimeError, "a bug")],
)  # fmt: skip
def test_an_error_of_a_worker_ends_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], words: str
) -> None:
    def fail(archive: PageArchive, record: bytes) -> None:
        raise error

    monkeypatch.setattr(PageArchive, "_append", fail)
    urls = [at(server, host, "/page", page()) for host in "abcdefgh"]
    with pytest.raises(kind, match=words):
        fetch(urls, tmp_path / "cited.warc.gz")


def dump(path: Path, *articles: str) -> Path:
    page_of = "<page><title>T</title><ns>{}</ns><id>1</id><revision><text>{}</text></revision></page>"
    body = "".join(page_of.format(0, escape(text)) for text in articles) + page_of.format(1, "http://talk.example/")
    path.write_bytes(bz2.compress(f"<mediawiki>{body}</mediawiki>".encode()))
    return path


def test_urls_are_drawn_by_hash_each_page_once(tmp_path: Path) -> None:
    many = [f"<ref>http://a.example/{number}</ref>" for number in range(60)]
    one, two = dump(tmp_path / "one.xml.bz2", *many[:40]), dump(tmp_path / "two.xml.bz2", *many[20:])
    drawn = draw_cited_urls([one, two], 1000, 0)
    assert sorted(drawn) == sorted(f"http://a.example/{number}" for number in range(60)) != drawn
    for most in range(1, 60, 7):
        assert draw_cited_urls([two, one], most, 0) == drawn[:most]
    assert draw_cited_urls([one, two], 60, 1) != drawn
    copy = "https://web.archive.org/web/2019/"
    forms = (
        "[http://www.b.example/x/#part X]",
        f"{copy}http://b.example/x",
        "//b.example/x",
        "https://b.example/x?utm_source=w",
    )
    assert draw_cited_urls([dump(tmp_path / "w.xml.bz2", *map("[{}]".format, forms))], 9, 0) == [
        "http://www.b.example/x/"
    ]
    (left,) = draw_cited_urls([dump(tmp_path / "w.xml.bz2", f"<ref>{copy}http://lost.example/y</ref>")], 9, 0)
    assert left == f"{copy}http://lost.example/y" and normalise(left) == "//lost.example/y"


def command(server: Server, folder: Path, *options: str) -> list[str]:
    quick = ["--delay=0.001", "--backoff=0.001", "--quiet", "--allow-private", "--contact=me@a.example"]
    return [
        "download",
        "references",
        str(folder / "w.xml.bz2"),
        f"--output={folder / 'cited.warc.gz'}",
        *quick,
        *options,
    ]


def test_the_command_and_its_exit_codes(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = [at(server, "a", "/page", page()), at(server, "b", "/busy", status(503), status(503), status(503), page())]
    dump(tmp_path / "w.xml.bz2", *urls)
    assert main(command(server, tmp_path)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 URLs: 1 pages, 1 of them fetched now",
        "  http-503: 1",
        "1 URLs failed for now: the same command tries them again",
    ]
    assert main(command(server, tmp_path)) == 0
    assert capsys.readouterr().out == "2 URLs: 2 pages, 1 of them fetched now\n"
    assert main(command(server, tmp_path, "--most=1", "--contact=né")) == 2
    assert "--contact" in capsys.readouterr().err
    dump(tmp_path / "w.xml.bz2", "nothing")
    assert main(command(server, tmp_path)) == 2 and "cites a URL" in capsys.readouterr().err
    (tmp_path / "w.xml.bz2").unlink()
    assert main(command(server, tmp_path)) == 2 and "give paths of Wikipedia dumps" in capsys.readouterr().err


def _hear_keys() -> None:
    """In a child: what starts in the background of a script ignores the keyboard, and its children with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_stop_from_the_keyboard_leaves_a_file_to_continue(tmp_path: Path) -> None:
    with serving() as server:
        dump(tmp_path / "w.xml.bz2", *(server.plan(f"/{number}", page()) for number in range(200)))
        options = [*command(server, tmp_path, "--delay=0.05")]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            preexec_fn=_hear_keys,
        )
        while len(server.requests) < 5 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130 and b"continue" in error
        before = len(outcomes(tmp_path / "cited.warc.gz"))
        assert 0 < before < 200
        server.requests.clear()
        assert main(command(server, tmp_path, "--delay=0.001")) == 0
        assert len(server.requests) == 200 - before + 1
        assert len(outcomes(tmp_path / "cited.warc.gz")) == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_https_pages_and_their_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["-subj", "/CN=a.example", "-addext", "subjectAltName=DNS:a.example"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    monkeypatch.setattr(page_request, "find_addresses", lambda host, port: ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with Server() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.plan("/page", page())
        urls = [f"https://{host}.example:{server.server_port}/page" for host in "ab"]
        assert fetch(urls, tmp_path / "one.warc.gz").counts == {"bad-certificate": 2}
        trusted = ssl.create_default_context(cafile=str(tmp_path / "certificate"))
        monkeypatch.setattr(page_request, "_tls", lambda: trusted)
        fetch(urls, tmp_path / "two.warc.gz")
        assert outcomes(tmp_path / "two.warc.gz") == {urls[0]: PAGE, urls[1]: "bad-certificate"}
        server.shutdown()
