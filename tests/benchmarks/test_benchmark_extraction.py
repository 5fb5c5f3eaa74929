"""The benchmarks `extraction` and `fit-extraction`: layout of gold sets, scores and intervals, labels and weights."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resiliparse.parse.html import HTMLTree

from benchmarks import extraction, fit_extraction
from benchmarks.extraction import Page, gold_text, interval, load_sets, overlap, report, score
from filters.data_files import parse_rows
from filters.html.blocks import parse_blocks
from filters.html.features import describe_blocks
from filters.html.model import MODEL, read_model

SUBJECTS = "rivers hills woods towns roads seas lakes fields".split()


def story(subject: str) -> list[str]:
    return [
        f"Paragraph {number} says what happens to the {subject}, and it says so at some length." for number in range(4)
    ]


def page_of(subject: str) -> str:
    menu = "".join(f"<li><a href=/{other}>All about {other}</a></li>" for other in SUBJECTS)
    lines = "".join(f"<p>{line}</p>" for line in story(subject))
    return f"<html><body><ul class=menu>{menu}</ul><article><h1>The {subject}</h1>{lines}</article></body></html>"


def write_set(folder: Path, name: str, pages: dict[str, tuple[str, dict[str, Any]]]) -> None:
    records = []
    for source, (html, _) in pages.items():
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html.encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{source}\r\n"
            f"X-Source-File: {source}\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        records.append(gzip.compress(head.encode() + body + b"\r\n\r\n"))
    (folder / f"{name}.warc.gz").write_bytes(b"".join(records))
    gold = "".join(json.dumps({"source_file": source, **record}) + "\n" for source, (_, record) in pages.items())
    (folder / f"{name}.gold.jsonl.gz").write_bytes(gzip.compress(gold.encode()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, subjects in (("one", SUBJECTS[:4]), ("two", SUBJECTS[4:])):
        pages = {f"{of}.html": (page_of(of), {"gold_text": "\n".join([f"The {of}", *story(of)])}) for of in subjects}
        write_set(tmp_path, name, pages)
    return tmp_path


def test_sets_are_read_without_pages_that_have_no_gold(tmp_path: Path) -> None:
    write_set(
        tmp_path,
        "set",
        {"a": ("<p>a", {"gold_text": "a"}), "b": ("<p>b", {"gold_text": " "}), "c": ("c", {"with": ["c"]})},
    )
    assert [page.name for page in load_sets([tmp_path])["set"]] == ["a", "c"]


def test_scores_of_words_snippets_and_parts() -> None:
    assert overlap("a b b c", "a b d") == (0.5, 2 / 3, 4 / 7)
    assert overlap("", "a") == (0.0, 0.0, 0.0)
    assert score("x one  two y", {"with": ["one two", "three"], "without": ["y", "z"]}) == (0.5, 0.5, 0.5)
    assert score("flour water", {"ingredients": ["flour"], "instructions": None})[1] == 1.0


def test_comments_of_readers_are_no_gold() -> None:
    assert gold_text({"gold_text": "text\n!@#$%^&*()  COMMENTS\nfirst!"}) == "text\n"


def test_intervals_hold_the_mean_and_are_narrow_for_equal_pages() -> None:
    assert interval([[0.5] * 9, [0.25] * 9]) == ("+0.3750", "+0.3750 to +0.3750")
    mean, spread = interval([[0.0, 1.0] * 20])
    low, high = map(float, spread.split(" to "))
    assert low < float(mean) == 0.5 < high


def test_the_report_names_sets_and_the_best_peer() -> None:
    sets = {"set": [Page("a", b"<p>one two", {"gold_text": "one two"})]}
    text = report(sets, {"ours": lambda html: "one two", "bad": lambda html: "", "good": lambda html: "one"})
    assert "set, 1 pages" in text and "ours minus good" in text
    assert "| ours | 1.0000 (1.000, 1.000) | 1.0000 (1.000, 1.000) |" in text


def test_a_missing_peer_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trafilatura", None)
    assert extraction.main(["--data", str(folder), "--sets", "one"]) == 0
    said = capsys.readouterr().out
    assert "| ours |" in said and "trafilatura" not in said and "two" not in said.split("\n")[2]


def test_a_folder_without_sets_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extraction.main(["--data", str(tmp_path)]) == 1
    assert fit_extraction.main(["--data", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().out


def test_labels_follow_the_gold_text_in_order() -> None:
    texts = ["Home", "The cat sat on the mat today", "It slept", "Home", "Something else is said here"]
    assert fit_extraction.align(texts, "The cat sat on the mat today. It slept.").tolist() == [0, 1, 1, 0, 0]


def test_weights_are_what_the_command_writes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pages give the same file, fewer sets give another file, and its model finds the text of new pages."""
    monkeypatch.setattr(fit_extraction, "STEPS", 200)
    files = [tmp_path / f"{number}.tsv" for number in range(3)]
    for file, left_out in zip(files, ([], [], ["two"]), strict=True):
        assert fit_extraction.main(["--data", str(folder), "--output", str(file), "--leave-out", *left_out]) == 0
    first, again, without = (file.read_text(encoding="utf-8") for file in files)
    assert first == again != without
    model = read_model(parse_rows(without))
    texts = [extraction.extract_or_nothing(page_of(subject), model) for subject in SUBJECTS[4:]]
    assert texts == ["\n\n".join([f"The {subject}", *story(subject)]) for subject in SUBJECTS[4:]]


def test_comments_that_a_gold_text_holds_teach_nothing() -> None:
    comments = "".join(f"<div class=comment><p>{line}</p></div>" for line in story("seas"))
    page = Page("a", f"{page_of('woods')}<div id=comments>{comments}</div>".encode(), {})
    gold = "\n".join(story("woods") + story("seas"))
    labelled = fit_extraction.label_page(page._replace(gold={"gold_text": gold}), "set")
    assert labelled is not None and labelled.labels[-4:].tolist() == [1.0] * 4
    assert not labelled.weights[-4:].any() and labelled.weights[:-4].all()


def test_snippets_outweigh_what_other_extractors_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_extraction, "extractors", lambda: dict.fromkeys(fit_extraction.TEACHERS, lambda html: ""))
    first, _, _, last = story("hills")
    page = Page("a", page_of("hills").encode(), {"with": [first, last], "without": ["All about seas"]})
    labelled = fit_extraction.label_page(page, "set")
    assert labelled is not None and labelled.labels.sum() == 2 and labelled.labels[9] == labelled.labels[12] == 1.0
    assert min(labelled.weights[9], labelled.weights[12]) > max(labelled.weights[10:12]) > 0


def test_gradients_are_those_of_the_loss() -> None:
    chance = np.random.default_rng(0)
    network = [chance.normal(size=size) for size in ((5, 3), (3,), (3,), (5,), (1,))]
    inputs, labels, weights, kept = chance.normal(size=(9, 5)), chance.random(9), chance.random(9), np.ones((9, 3))

    def loss() -> float:
        hidden, bias, output, direct, intercept = network
        scores = np.maximum(inputs @ hidden + bias, 0) @ output + inputs @ direct + intercept
        return float(weights @ (np.log1p(np.exp(scores)) - labels * scores))

    found = fit_extraction.compute_gradients(network, inputs, labels, weights, kept)
    for part, gradient in zip(network, found, strict=True):
        for place in np.ndindex(part.shape):
            before = loss()
            part[place] += 1e-6
            assert gradient[place] == pytest.approx((loss() - before) / 1e-6, abs=1e-4)
            part[place] -= 1e-6


def test_the_weights_are_of_each_feature() -> None:
    body = HTMLTree.parse("<p>text").body
    assert body is not None
    assert set(MODEL.features) == describe_blocks(parse_blocks(body.html), "").columns.keys()
    for network in (MODEL.blocks, MODEL.context):
        assert network.weights.shape == (len(network.inputs), len(network.output) + 1)
