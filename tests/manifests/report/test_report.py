"""Test the report: it needs only the corpus, has a limited size, is safe with hostile strings, and is accessible.

If a browser is installed, the report is opened in it.
"""

import html
import itertools
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus import ROOT
from pages import BROWSER, MEASURE, Page, browse, contrast, said
from synthetic import write_hostile

from filters.reasons import DESCRIPTIONS
from manifests.__main__ import main
from manifests.manifest import load_manifest, write_manifest
from manifests.report.data import ReportData, read_flow
from manifests.report.html import read_style
from manifests.report.page import POLICY, write_report

LIGHT, DARK = (
    dict(re.findall(r"--(\w+):(#\w+);", line)) for line in read_style("colors").splitlines() if "--paper" in line
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: the report is not opened in a browser")


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    write_hostile(folder)
    return folder


@pytest.fixture(scope="module")
def page(corpus: Path) -> Page:
    return Page((corpus / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def hostile_text(hostile: Path) -> str:
    return write_report(hostile).read_text("utf-8")


def test_a_run_leaves_a_report_with_the_corpus_s_numbers(corpus: Path, page: Page) -> None:
    manifest, words = load_manifest(corpus), said(page)
    records = sum(found["in"]["records"] for found in manifest.ledger["extract"].values())
    assert f"{records:,} records" in words and manifest.manifest_sha in words and "demo" in words
    for source in manifest.sources.values():
        assert f"{source.documents:,} documents" in words
    assert "The ledger balances" in words


def test_every_reason_is_there_with_its_number_and_meaning(corpus: Path, page: Page) -> None:
    words = said(page)
    for sources in load_manifest(corpus).ledger.values():
        for tally in sources.values():
            for reason in {*tally["dropped"], *tally["removed"]}:
                meaning = DESCRIPTIONS[reason]
                assert reason in words and meaning[0].upper() + meaning[1:] in words


def test_the_tables_hold_what_the_rivers_draw_and_both_balance(corpus: Path, page: Page) -> None:
    words, manifest = said(page), load_manifest(corpus)
    for unit in ("records", "characters", "tokens"):
        one = read_flow(manifest, unit)
        assert one.balance == 0 and one.total > 0
        for flow in [*one.entered, *one.arrived, *(flow for _, flows in one.stages for flow in flows)]:
            assert f"{flow.amount:,}" in words


def test_it_shows_what_the_issue_asks_for(page: Page) -> None:
    words = said(page)
    for title in ("Length in characters", "Length in tokens", "Top domains", "Languages", "Years", "Licences",
                  "Documents per cluster", "Canaries", "tokenizer.card.json", "Mixture", "Cost", "peak memory",
                  "goal_tokens: 2000000"):  # fmt: skip
        assert title in words, title


def test_it_is_made_again_from_the_corpus_alone(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (corpus / "report.html").read_bytes()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("manifest.json", "statistics.json"):
        shutil.copy(corpus / name, moved / name)
    for name in ("models", "runs"):
        shutil.copytree(corpus / name, moved / name)
    assert main(["report", str(moved)]) == 0 and capsys.readouterr().out == f"{moved}/report.html\n"
    assert (moved / "report.html").read_bytes() == before
    assert main(["report", str(moved), "--output", str(tmp_path / "there.html")]) == 0
    assert (tmp_path / "there.html").read_bytes() == before
    assert str(corpus.parent) not in before.decode() and str(ROOT) not in before.decode()


def test_of_a_corpus_in_a_store_it_is_made_again_there(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERATOKEN_SCRATCH", str(tmp_path / "scratch"))
    store = tmp_path / "store"
    shutil.copytree(corpus, store, ignore=lambda folder, names: {"shards", "clean", "documents", "report.html"})
    assert main(["report", store.as_uri()]) == 0
    assert capsys.readouterr().out == f"{store.as_uri()}/report.html\n"
    assert (store / "report.html").read_bytes() == (corpus / "report.html").read_bytes()


def test_a_corpus_without_statistics_runs_or_cards_has_a_report(corpus: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, load_manifest(corpus))
    words = said(Page(write_report(tmp_path).read_text("utf-8")))
    assert "no statistics.json" in words and "no records of its runs" in words and "The ledger balances" in words


def test_an_imbalance_is_said(corpus: Path, tmp_path: Path) -> None:
    plain = load_manifest(corpus).model_dump()
    plain["ledger"]["filter"]["books"]["out"]["records"] -= 1
    write_manifest(tmp_path, type(load_manifest(corpus)).model_validate(plain))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "The ledger does NOT balance: stage filter, source books" in said(page)


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "has no manifest.json" in capsys.readouterr().err


def test_it_stays_small_for_a_corpus_of_any_size(hostile: Path, hostile_text: str) -> None:
    assert len((hostile / "report.html").read_bytes()) < 5_000_000
    assert len((hostile / "statistics.json").read_bytes()) > 5_000_000, "the corpus is too small to show anything"


def test_nothing_foreign_becomes_markup(hostile_text: str) -> None:
    parsed = Page(hostile_text)
    assert parsed.open == [] and not parsed.all("script", "img", "iframe", "object", "embed", "form", "base")
    own = {"aria-hidden", "aria-label", "aria-labelledby", "charset", "class", "content", "cx", "cy", "d", "height",
           "href", "http-equiv", "id", "lang", "name", "r", "rel", "role", "scope", "stroke-width", "style", "tabindex",
           "viewbox", "width", "x", "y"}  # fmt: skip
    for tag, attributes in parsed.elements:
        assert set(attributes) <= own, (tag, attributes)
        assert tag != "a" or (attributes["href"] or "").startswith("#")
        assert "style" not in attributes or re.fullmatch(r"inline-size:[\d.]+%", attributes["style"] or "")
    assert all(within[-1:] in (("head",),) for (tag, _), within in zip(parsed.elements, parsed.within, strict=True)
               if tag in {"style", "meta", "link"})  # fmt: skip
    for character in "\x00\x1b\u202e\u2066\ufeff\ud800":
        assert character not in hostile_text and f"‹U+{ord(character):04X}›" in hostile_text
    assert "<bdi>&lt;/script&gt;&lt;img src=http://hostile.example/x onerror=alert(1)&gt;" in hostile_text


def test_what_could_not_be_shown_is_named(hostile: Path, hostile_text: str) -> None:
    assert "runs/20260102T000000Z.json" in ReportData(hostile).costs[2]
    assert "models/024.card.json" in hostile_text and "140 more sources" in hostile_text


def test_it_fetches_nothing_and_says_so(page: Page) -> None:
    (policy,) = [meta for meta in page.all("meta") if meta.get("http-equiv")]
    assert policy["content"] == POLICY == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    styles = [path.read_text(encoding="utf-8") for path in (ROOT / "manifests/report").glob("*.css")]
    assert len(styles) == 3 and not any("url(" in style for style in styles) and not page.all("script")


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_a_screen_reader_finds_its_way(which: str, page: Page, hostile_text: str) -> None:
    parsed = page if which == "page" else Page(hostile_text)
    tags = [tag for tag, _ in parsed.elements]
    assert parsed.all("html")[0]["lang"] == "en" and parsed.all("title")
    assert [tags.count(landmark) for landmark in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all((one["href"] or "")[1:] in ids for one in parsed.all("a"))
    assert all(one["aria-labelledby"] in ids for one in parsed.all("section"))
    assert all(one.get("scope") in {"col", "row"} for one in parsed.all("th"))
    drawings = [place for place, tag in enumerate(tags) if tag == "svg"]
    assert drawings and len(parsed.all("table")) == len(parsed.all("caption"))
    for place in drawings:
        attributes = parsed.elements[place][1]
        assert attributes["role"] == "img" and attributes["aria-label"]
        assert tags[place + 1 : place + 3] == ["title", "desc"]
    assert all(one["aria-hidden"] == "true" for one in parsed.all("span") if one.get("class") == "bar")


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_can_be_read_in_both_schemes(colours: dict[str, str]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("paper", "sheet"):
        for ink in ("ink", "quiet", "accent"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


@pytest.fixture
def proxy() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a local port, and yield the port and the list of all requests received."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    asked.append(connection.recv(4_096))

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], asked


@needs_browser
@pytest.mark.parametrize("which", ["corpus", "hostile"])
def test_a_browser_opens_it_without_errors_and_asks_nobody(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, proxy: tuple[int, list[bytes]], hostile_text: str
) -> None:
    port, asked = proxy
    report = request.getfixturevalue(which) / "report.html"
    dom, logged = browse(report, tmp_path, f"--proxy-server=127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>")
    assert "CONSOLE" not in logged and "Refused" not in logged
    assert not any(b"hostile.example" in request or b"example.org" in request for request in asked)
    parsed, manifest = Page(dom), load_manifest(report.parent)
    assert manifest.manifest_sha in said(parsed) and not parsed.all("script", "img")
    records = sum(found["in"]["records"] for found in manifest.ledger["extract"].values())
    assert f"{records:,}" in said(parsed)
    title = dom.partition("<title>")[2].partition("</title>")[0]
    assert html.unescape(title).endswith("corpus report")


@needs_browser
@pytest.mark.parametrize(
    ("which", "width", "dark"),
    [("corpus", 320, False), ("corpus", 360, True), ("corpus", 1280, True), ("hostile", 360, False)],
)
def test_nothing_is_wider_than_the_page_and_its_scheme_is_the_reader_s(
    which: str, width: int, dark: bool, request: pytest.FixtureRequest, tmp_path: Path, hostile_text: str
) -> None:
    text = (request.getfixturevalue(which) / "report.html").read_text("utf-8").replace("<details", "<details open")
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=width, page=html.escape(text)), "utf-8")
    dom, _ = browse(frame, tmp_path, f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    inner, outer, ground, smallest = json.loads(html.unescape(dom.partition("<title>")[2].partition("</title>")[0]))
    assert 0 < outer <= inner <= width
    paper = (DARK if dark else LIGHT)["paper"]
    assert ground == f"rgb({', '.join(str(int(paper[place : place + 2], 16)) for place in (1, 3, 5))})"
    assert smallest >= 9, "labels of charts too small to read"


def test_names_of_which_none_stands_out_are_said_to_be_so(corpus: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, load_manifest(corpus))
    plain = json.loads((corpus / "statistics.json").read_bytes())
    plain["sources"]["common_crawl"]["names"]["domains"] = {"top": [], "total": 70_000, "error": 34}
    (tmp_path / "statistics.json").write_text(json.dumps(plain), encoding="utf-8")
    assert "Top domains: no name has more than 34 of 70,000 documents" in said(
        Page(write_report(tmp_path).read_text("utf-8"))
    )
