"""Lists of filters of three papers: every rule, and every stage, sees exactly what the rules before it leave."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import toy_lm
from corpus import build
from executed import covered_by_versions

from filters.errors import UserError
from filters.quality import perplexity, references
from filters.quality.duplicate_lines import remove_lines
from filters.quality.language import bundled_model_path, load
from manifests.ledger import imbalances, tally_from
from manifests.manifest import load_manifest
from manifests.recipe import Recipe, parse_recipe
from manifests.shard import open_shard
from manifests.tools.trace import trace as lineage_of
from pipeline.beam.engines import Engine
from pipeline.run import run
from pipeline.stages.filter import PASSES, order_of_passes, read_masks, read_scores
from pipeline.trace import Rederiver

ENGLISH = "The fishing boats came back to the harbour before the storm number {} reached the coast."
BAKER = "The old baker of the village carried bread and cakes number {} up the hill to the market."
GERMAN = "Die Fischerboote kehrten in den Hafen zurück, bevor der Sturm Nummer {} die Küste erreichte."
MENU, FOOTER = "Home, news, and the weather of the week.", "Impressum, Datenschutz und Nutzungsbedingungen der Seite."
NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million"
).split()


def page(number: int, sentence: str = ENGLISH, lines: int = 5) -> str:
    """A text whose lines no other page holds: CCNet's normal form takes all digits for one."""
    words = [f"{NUMBERS[number % 30]} {NUMBERS[number // 30]} {NUMBERS[line]}" for line in range(lines)]
    return "\n".join(sentence.format(word) for word in words)


def write_rows(folder: Path, texts: Mapping[str, str]) -> str:
    """Write documents by URL in two files; give the glob of both."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"text": text, "url": url, "timestamp": "2024-01-01T00:00:00Z"}) for url, text in texts.items()]
    for number in range(2):
        (folder / f"{number}.jsonl").write_text("\n".join(rows[number::2]) + "\n", encoding="utf-8")
    return str(folder / "*.jsonl")


def recipe(inputs: str, filters: list[Any], **more: Any) -> Recipe:
    source = {"weight": 1.0, "kind": "c4", "inputs": [inputs], "filters": filters}
    plain = {
        "name": "lists", "seed": 1, "goal_tokens": 100, "sources": {"web": source}, "tokenizer": {"vocabulary": 320},
        "deduplication": {"canaries": 0}, "shards": {"validation": 0.0}, **more,
    }  # fmt: skip
    return parse_recipe(plain, "r")


def filtered(made: Recipe, corpus: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Run up to `filter`: rows of `clean/` by URL, and the reasons of the others by URL."""
    with covered_by_versions():
        run(made, corpus, Engine(1, (), corpus / "runs", quiet=True), keep_dropped=10_000, only="filter")
    return by_url(corpus / "clean"), {url: row["reason"] for url, row in by_url(corpus / "dropped").items()}


def by_url(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()}


def verdicts(corpus: Path, read: Any) -> dict[str, Any]:
    """A stage's verdicts by URL."""
    found: dict[str, Any] = {}
    for path in sorted((corpus / "documents").rglob("*.parquet")):
        split = path.relative_to(corpus / "documents").as_posix().removesuffix(".parquet")
        found |= dict(zip(pq.read_table(path)["url"].to_pylist(), read(corpus, split), strict=True))
    return found


# What the duplicate-line stage sees

LINES = {"duplicate_lines": {"scope": "all", "keep": "none"}}
GERMANS = {"en/0": f"{MENU}\n{page(0)}", "de/0": f"{MENU}\n{page(1, GERMAN)}", "en/1": page(2), "de/1": page(3, GERMAN)}


def test_lines_are_compared_among_the_documents_that_rules_before_leave(tmp_path: Path) -> None:
    """A line that only a dropped page repeats is no duplicate."""
    inputs, language = write_rows(tmp_path / "in", GERMANS), {"language": {"keep": ["en"]}}
    kept, dropped = filtered(recipe(inputs, [language, LINES]), tmp_path / "language first")
    assert {url: row["text"] for url, row in kept.items()} == {url: GERMANS[url] for url in ("en/0", "en/1")}
    assert dropped == {"de/0": "language", "de/1": "language"}
    masks = verdicts(tmp_path / "language first", read_masks)
    assert {url: len(mask) for url, mask in masks.items()} == {"en/0": 6, "de/0": 0, "en/1": 5, "de/1": 0}
    kept, dropped = filtered(recipe(inputs, [LINES, language]), tmp_path / "lines first")
    assert {url: row["text"] for url, row in kept.items()} == {"en/0": page(0), "en/1": page(2)}
    assert dropped == {"de/0": "language", "de/1": "language"}
    assert all(len(mask) for mask in verdicts(tmp_path / "lines first", read_masks).values())


def test_lines_are_compared_as_the_rules_before_leave_them(tmp_path: Path) -> None:
    """C4's rules take a line's citation marks: only then are two lines the same."""
    texts = {"a": f"{page(0)}\n{ENGLISH.format('[1]x')}", "b": f"{page(1)}\n{ENGLISH.format('x')}"}
    inputs = write_rows(tmp_path / "in", texts)
    after, _ = filtered(recipe(inputs, ["c4", LINES]), tmp_path / "after")
    assert {url: row["text"] for url, row in after.items()} == {"a": page(0), "b": page(1)}
    before, _ = filtered(recipe(inputs, [LINES, "c4"]), tmp_path / "before")
    assert all(row["text"].endswith(ENGLISH.format("x")) for row in before.values())


def test_annotated_rules_leave_every_document_to_the_stages_after_them(tmp_path: Path) -> None:
    inputs = write_rows(tmp_path / "in", GERMANS)
    told = {"language": {"keep": ["en"], "mode": "annotate"}}
    kept, dropped = filtered(recipe(inputs, [told, LINES]), tmp_path / "c")
    assert not dropped and {url: row["text"] for url, row in kept.items()} == {
        "en/0": page(0), "de/0": page(1, GERMAN), "en/1": page(2), "de/1": page(3, GERMAN),
    }  # fmt: skip
    assert {url: (row["language"], row["flags"]) for url, row in kept.items()} == {
        url: (url[:2], ["language"] if url[:2] == "de" else []) for url in GERMANS
    }


# CCNet's list, C4's and the paper's


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Pages in two languages; some short, some with lines of others, some that read like nothing in the training."""
    found = {}
    for number in range(60):
        lines = [MENU] * (number % 3 == 0) + page(number, (ENGLISH, BAKER)[number % 2], lines=8).split("\n")
        found[f"http://en.example/{number}"] = "\n".join(lines)
    for number in range(60, 80):
        found[f"http://de.example/{number}"] = f"{page(number, GERMAN)}\n{FOOTER}"
    for number in range(80, 100):
        odd = " ".join(f"zx{NUMBERS[(number * step) % 30]}" for step in range(1, 9))
        found[f"http://odd.example/{number}"] = f"{page(number, lines=3)}\nThe {odd} of {NUMBERS[number % 30]} qq."
    found["http://short.example/"] = MENU
    found["http://menu.example/"] = f"{MENU}\n{FOOTER}"
    return found


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("text") / "like.txt"
    pages = [page(number, (ENGLISH, BAKER)[number % 2], lines=6) for number in range(100, 400, 3)]
    path.write_text("\n".join(pages), encoding="utf-8")
    text = {"text": [str(path), *map(str, toy_lm.TEXTS)], "order": 3, "vocabulary": 400}
    return {"train": {"en": text}, "head": 30, "tail": 60, "keep": ["head", "middle"]}


def plain_lines(pages: Mapping[str, str]) -> dict[str, str]:
    """Texts without the lines that more than one of them holds; without digits, CCNet's form is lower case."""
    holders = Counter(line.lower() for text in pages.values() for line in set(text.split("\n")))
    masks = {url: np.array([holders[line.lower()] > 1 for line in text.split("\n")]) for url, text in pages.items()}
    return {url: left for url, text in pages.items() if (left := remove_lines(text, masks[url]))}


def plain_language(pages: Mapping[str, str]) -> dict[str, str]:
    model = load(str(bundled_model_path()))
    found = {url: model.top(text, 0) for url, text in pages.items()}
    return {url: text for url, text in pages.items() if found[url][0] == "en" and found[url][1] >= 0.5}


def plain_perplexity(pages: Mapping[str, str], corpus: Path) -> dict[str, str]:
    """Texts below the 60th percentile of these very texts."""
    folder = corpus / "models/perplexity/web"
    scorer = perplexity.load_scorer(str(folder / "en.sp.model"), str(folder / "en.arpa"))
    scores = {url: scorer.perplexity(text) for url, text in pages.items()}
    cuts = perplexity.cuts_from(perplexity.histogram(np.array(list(scores.values()), np.float32)), 30, 60)
    assert tuple(json.loads((corpus / "models/cuts/web.json").read_bytes())["en"].values())[:3] == (
        len(pages), cuts[0], cuts[1],
    )  # fmt: skip
    return {url: text for url, text in pages.items() if round(scores[url], 1) < cuts[1]}


LANGUAGE = {"language": {"keep": ["en"], "threshold": 0.5, "characters": 0}}


def test_ccnets_list_step_by_step(texts: dict[str, str], training: dict[str, Any], tmp_path: Path) -> None:
    """Length, lines, language, perplexity: percentiles are over the pages that the three before leave."""
    filters = [{"min_characters": 60}, LINES, LANGUAGE, {"perplexity": training}]
    kept, dropped = filtered(recipe(write_rows(tmp_path / "in", texts), filters), tmp_path / "c")
    long = {url: text for url, text in texts.items() if len(text) >= 60}
    of_lines = plain_lines(long)
    of_language = plain_language(of_lines)
    expected = plain_perplexity(of_language, tmp_path / "c")
    assert {url: row["text"] for url, row in kept.items()} == expected
    assert 10 < len(expected) < len(of_language) < len(of_lines) < len(long) < len(texts)
    assert {url for url, reason in dropped.items() if reason == "perplexity"} == of_language.keys() - expected.keys()
    scored = {url for url, score in verdicts(tmp_path / "c", read_scores).items() if score is not None}
    assert scored == of_language.keys()


def test_what_a_run_trains_on_may_be_a_pattern_in_an_object_store(
    texts: dict[str, str], training: dict[str, Any], tmp_path: Path
) -> None:
    """Of a language model and of the classifier of references, whose texts were taken for single models to copy."""
    folder = tmp_path / "stored"
    folder.mkdir()
    for number, path in enumerate(training["train"]["en"]["text"]):
        (folder / f"{number}.txt").write_bytes(Path(path).read_bytes())
    wiki = (
        "<mediawiki><page><title>A</title><ns>0</ns><id>1</id><revision><text>{}</text></revision></page></mediawiki>"
    )
    cited = "".join(f"&lt;ref&gt;[{url} x]&lt;/ref&gt;" for url in texts)
    (folder / "wiki.xml").write_text(wiki.format(cited), encoding="utf-8")
    text = training["train"]["en"] | {"text": [f"file://{folder}/*.txt"]}
    like_wiki = {"references": {"wiki": [f"file://{folder}/*.xml"], "min_characters": 0, "threshold": 0.0,
                                "min_positives": 10, "dimension": 4, "held_out": 0.3}}  # fmt: skip
    filters = [LANGUAGE, {"perplexity": training | {"train": {"en": text}}}, like_wiki]
    made = recipe(write_rows(tmp_path / "in", texts), filters)
    with pytest.raises(UserError, match="too few pages to train on"):  # all are cited: what was cited is known
        filtered(made, tmp_path / "c")
    plain = recipe(write_rows(tmp_path / "in", texts), [LANGUAGE, {"perplexity": training}])
    filtered(plain, tmp_path / "plain")
    for name in ("models/perplexity/web/en.arpa", "models/cuts/web.json"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_perplexity_before_lines_ranks_all_pages_with_all_their_lines(
    texts: dict[str, str], training: dict[str, Any], tmp_path: Path
) -> None:
    """The other order is another corpus: more pages are ranked, and lines are compared among fewer."""
    inputs = write_rows(tmp_path / "in", texts)
    kept, _ = filtered(recipe(inputs, [LANGUAGE, {"perplexity": training}, LINES]), tmp_path / "c")
    of_language = plain_language(texts)
    expected = plain_lines(plain_perplexity(of_language, tmp_path / "c"))
    assert {url: row["text"] for url, row in kept.items()} == expected
    assert order_of_passes(recipe(inputs, [LANGUAGE, {"perplexity": training}, LINES])) == [
        "url_dedup", "perplexity", "line_dedup", "references",
    ]  # fmt: skip


def test_c4s_list_counts_sentences_after_duplicate_lines(tmp_path: Path) -> None:
    """URL, page rules, lines, sentences again: the builder's order (test_c4_rebuilt has its steps written out)."""
    words = tmp_path / "words.txt"
    words.write_text("scoundrel\n", encoding="utf-8")
    lines = {"duplicate_lines": {"scope": "all", "keep": "none", "normalise": "c4"}}
    texts = {
        "http://a.example/1": f"{MENU}\n{page(1, lines=3)}",
        "http://a.example/2": f"{MENU}\n{page(2, lines=2)}",  # three sentences, of which one is everywhere
        "http://a.example/3": f"{page(3, lines=3)}\nHe was a scoundrel in all that he did.",
        "http://a.example/4": f"Menu\n{page(4, lines=3)}",
        "http://a.example/5": f"{{}}\n{page(5, lines=3)}\nIt ends with {{ a bracket here.",
    }
    inputs = write_rows(tmp_path / "in", texts)
    filters = ["max_characters", "newest_url", "c4", lines, "min_sentences", {"bad_words": str(words)}]
    kept, dropped = filtered(recipe(inputs, filters), tmp_path / "c")
    assert {url: row["text"] for url, row in kept.items()} == {
        "http://a.example/1": page(1, lines=3), "http://a.example/4": page(4, lines=3),
    }  # fmt: skip
    assert dropped == {
        "http://a.example/2": "c4-too-few-sentences", "http://a.example/3": "c4-bad-word",
        "http://a.example/5": "c4-curly-bracket",
    }  # fmt: skip
    without = [*filters[:4], filters[5]]
    kept, _ = filtered(recipe(inputs, without), tmp_path / "without")
    assert kept["http://a.example/2"]["text"] == page(2, lines=2)


def test_newest_page_is_of_the_pages_that_rules_before_leave(tmp_path: Path) -> None:
    """An overlong page is no newer copy, but a page that only later rules drop is one."""
    folder = tmp_path / "in"
    folder.mkdir()
    versions = {2024: f"{page(1)}\n{page(2)}", 2023: page(3), 2022: page(4)}
    rows = [{"text": text, "url": "http://a.example/", "timestamp": f"{year}-01-01"} for year, text in versions.items()]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    most, inputs = {"max_characters": 600}, str(folder / "*.jsonl")
    kept, _ = filtered(recipe(inputs, [most, "newest_url"]), tmp_path / "length first")
    assert [row["text"] for row in kept.values()] == [page(3)]
    kept, _ = filtered(recipe(inputs, ["newest_url", most]), tmp_path / "length last")
    assert not kept


WIKI = "<mediawiki><page><title>A</title><ns>0</ns><id>1</id><revision><text>{}</text></revision></page></mediawiki>"


def test_the_papers_list_step_by_step(texts: dict[str, str], training: dict[str, Any], tmp_path: Path) -> None:
    """Lines, language, n-gram model, reference classifier (LLaMA, section 2.1), through all stages, and traced."""
    cited = [url for number, url in enumerate(texts) if "en.example" in url and number % 2]
    (tmp_path / "w.xml").write_text(WIKI.format("".join(f"[{url} x] " for url in cited)), encoding="utf-8")
    trained = {"wiki": [str(tmp_path / "w.xml")], "min_positives": 5, "min_characters": 100, "dimension": 8,
               "epochs": 50, "threshold": 0.5}  # fmt: skip
    ranked = {**training, "head": 50, "tail": 90}
    filters = [LINES, LANGUAGE, {"perplexity": ranked}, {"references": trained}]
    inputs, corpus = write_rows(tmp_path / "in", texts), tmp_path / "c"
    manifest = build(recipe(inputs, filters, deduplication={"minhash": None}), corpus, keep_dropped=10_000)
    of_language = plain_language(plain_lines(texts))
    scores = verdicts(corpus, read_scores)
    cuts = json.loads((corpus / "models/cuts/web.json").read_bytes())["en"]
    assert cuts["documents"] == len(of_language)
    of_model = {url: text for url, text in of_language.items() if round(scores[url], 1) < cuts["tail"]}
    model = references.load(str(corpus / "models/references/web.bin"))
    expected = {url: text for url, text in of_model.items() if model.score(text) >= 0.5}
    kept = by_url(corpus / "clean")
    assert {url: row["text"] for url, row in kept.items()} == expected
    dropped = {url: row["reason"] for url, row in by_url(corpus / "dropped").items()}
    assert {url for url in dropped if dropped[url] == "not-reference-like"} == of_model.keys() - expected.keys()
    sampled = [row for path in (corpus / "blocks/references/sample").rglob("*.parquet")
               for row in pq.read_table(path).to_pylist()]  # fmt: skip
    assert {row["text"] for row in sampled if row["cited"]} == {of_model[url] for url in cited if url in of_model}
    assert {row["text"] for row in sampled} <= set(of_model.values()), "dropped pages train nothing"
    ledger = load_manifest(corpus).ledger
    assert imbalances(ledger) == []
    tally = tally_from(ledger["filter"]["web"])
    assert tally.entered["records"] == len(texts) and tally.out["records"] == len(expected) > 5
    rederiver = Rederiver(corpus, {})
    for entry in manifest.shards():
        for token in open_shard(corpus / "shards" / entry.path).offsets[:-1].tolist():
            same, finding = rederiver.check(entry.path, lineage_of(corpus, entry.path, token))
            assert same, finding


# The order of the stages

NEWEST, CUT = "newest_url", {"perplexity": {"models": "m"}}


def two_sources(first: list[Any], second: list[Any]) -> Recipe:
    sources = {name: {"weight": 1.0, "kind": "c4", "filters": filters}
               for name, filters in (("one", first), ("two", second))}  # fmt: skip
    return parse_recipe({"name": "x", "seed": 1, "goal_tokens": 1, "sources": sources}, "r")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [], list(PASSES)),
        ([LINES, NEWEST], [], ["line_dedup", "url_dedup", "perplexity", "references"]),
        ([CUT, LINES], [NEWEST], ["url_dedup", "perplexity", "line_dedup", "references"]),
        ([LINES, NEWEST], [CUT, LINES], ["perplexity", "line_dedup", "url_dedup", "references"]),
    ],
)
def test_stages_run_in_an_order_that_suits_every_list(first: list[Any], second: list[Any], expected: list[str]) -> None:
    assert order_of_passes(two_sources(first, second)) == expected


def test_opposite_orders_of_two_sources_are_refused() -> None:
    with pytest.raises(UserError, match=r"sources one and two: .* in opposite orders: give both lists the same order"):
        order_of_passes(two_sources([LINES, NEWEST], [NEWEST, LINES]))
