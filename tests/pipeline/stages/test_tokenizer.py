"""The tokenizer's training, sample and card; and that `transformers` makes the same ids of the same model."""

import gzip
import json
import math
import random
import re
import unittest.mock
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from corpus import SHARED
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from small_tokenizers import CODE, opened, sample_texts, small_model, texts, trained

from filters.errors import UserError
from filters.models.sentencepiece import byte_values, decoded_form, summarize_metrics, tokenizer_metrics
from manifests.document import order_key
from manifests.ledger import Tally
from manifests.recipe import Recipe, Tokenizer
from pipeline.beam.fingerprint import reached_symbols
from pipeline.beam.step import Output, Receipt, Result, Step, Task, Unit
from pipeline.beam.task import Job
from pipeline.dedup.survivors import survivor_units
from pipeline.stages import tokenize, tokenizer
from pipeline.stages.tokenizer import (
    LINE_BYTES,
    RESERVED,
    draw_documents,
    read_drawn,
    sentences,
    train,
    train_bpe,
    train_step,
)

RULES = Tokenizer(vocabulary=3_000, character_coverage=0.999)


def pieces_of(proto: bytes) -> list[tuple[str, float]]:
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    return [(model.id_to_piece(at), model.get_score(at)) for at in range(model.get_piece_size())]


# training


def test_training_again_gives_the_same_bytes_and_more_threads_the_same_pieces() -> None:
    threaded = RULES.model_copy(update={"threads": 3})
    twice = [train_bpe(sample_texts(), threaded) for _ in range(2)]
    assert train_bpe(iter(sample_texts()), RULES) == small_model()
    assert twice[0] == twice[1] and pieces_of(twice[0]) == pieces_of(small_model())
    assert pieces_of(train_bpe(sample_texts()[:-3], RULES)) != pieces_of(small_model())


def test_the_model_is_made_as_llamas() -> None:
    pieces = [piece for piece, _ in pieces_of(small_model())]
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    assert pieces[3:259] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert not [piece for piece in pieces[259:] if len(piece) > 1 and any(c.isdigit() for c in piece)]
    assert "\u2581\u2581\u2581\u2581" in pieces and "\n" not in "".join(pieces[259:])
    assert opened().encode("2024", out_type=str) == ["\u2581", "2", "0", "2", "4"]
    assert opened().unk_id() == 0 and opened().pad_id() == -1


words = st.text(st.sampled_from("abc\u00e9\u6f22\U0001f680\r\t\xa0\u2028"), min_size=1, max_size=7)


@settings(deadline=None)
@given(st.lists(st.tuples(words, st.sampled_from([" ", "  ", "\n", " \n\n", RESERVED]))))
def test_lines_hold_every_word_once_and_only_spaces_are_left_out(parts: list[tuple[str, str]]) -> None:
    text = "".join(word + gap for word, gap in parts)
    with unittest.mock.patch.object(tokenizer, "LINE_CHARACTERS", 8):
        lines = list(sentences(text))
    assert all(0 < len(line) <= 8 for line in lines)
    assert [word for line in lines for word in line.split(" ") if word] == [
        word for word in re.split(f"[ \n{RESERVED}]", text) if word
    ]


@settings(deadline=None)
@given(texts.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_no_line_is_one_that_the_trainer_would_leave_out(text: str) -> None:
    for line in sentences(text * 300):
        assert 0 < len(line.encode()) <= LINE_BYTES and RESERVED not in line and "\n" not in line


def test_a_cut_line_trains_what_the_whole_one_does() -> None:
    """A space is all that is lost at a cut, and SentencePiece puts one before a line."""
    line = " ".join(f"{word}ing {word}ed the  {word}" for word in ["walk", "talk", "play", "look"] * 200)
    rules = Tokenizer(vocabulary=300)
    with unittest.mock.patch.object(tokenizer, "LINE_CHARACTERS", 40):
        assert len(list(sentences(line))) > 100
        cut = train_bpe([line], rules)
    assert pieces_of(cut) == pieces_of(train_bpe([line], rules))


def test_lines_that_sentencepiece_leaves_out_in_silence_are_learned_from() -> None:
    marked = "\n".join(f"zyx{RESERVED}zyx zyx zyx" for _ in range(300))
    long_line = "qwq " * 5_000
    pieces = {
        piece for piece, _ in pieces_of(train_bpe([*sample_texts()[:5], marked, long_line], Tokenizer(vocabulary=600)))
    }
    assert {"\u2581zyx", "\u2581qwq"} <= pieces


def test_too_little_text_is_a_mistake_that_says_what_to_do() -> None:
    for few in ([], [""], ["abc"], ["\n \n"]):
        with pytest.raises(
            UserError, match=r"no tokenizer of 3,000 pieces can be trained on \d+ characters: lower tokenizer.voc.*, or"
        ):
            train_bpe(few, RULES)


# the sample

SEED = 7
Row = tuple[bytes, str | None, str]
CLEAN = pa.schema([("id", pa.binary()), ("language", pa.string()), ("text", pa.large_string())])
"""what the tokenizer reads of a clean file"""


def draw_all(corpus: Path, splits: dict[str, list[Row]], budget: int, share: float = 1.0) -> dict[str, Receipt]:
    """Write clean files and draw from them."""
    found = {}
    for name, rows in splits.items():
        path = corpus / f"clean/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([dict(zip(CLEAN.names, row, strict=True)) for row in rows], schema=CLEAN)
        pq.write_table(table, path)
        result = draw_documents(
            corpus, name, source=name.split("/")[0], budget=budget, share=share, seed=SEED, verdicts=""
        )
        found[name] = Receipt("", [Output(path, 0, "") for path in result.paths], {}, result.facts)
    return found


def rows_of(sizes: list[int]) -> list[Row]:
    return [(b"%016d" % at, "en", (f"{at}\u6f22" * size)[:size]) for at, size in enumerate(sizes)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 40), st.just(5_000)), max_size=25), st.integers(1, 400), st.integers(1, 4))
def test_the_sample_is_the_documents_of_the_smallest_keys_up_to_the_budget(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], budget: int, count: int
) -> None:
    rows = rows_of(sizes)
    apart = tmp_path_factory.mktemp("apart")
    receipts = draw_all(apart, {f"web/{at}": rows[at::count] for at in range(count)}, budget)
    found = [text for _, _, text in read_drawn(apart, sorted(receipts), {"web": budget})]
    ordered = sorted(rows, key=lambda row: order_key(SEED, "tokenizer/sample", row[0]))
    whole = "".join(text for _, _, text in ordered).encode()
    assert len("".join(found).encode()) <= budget
    assert "".join(found) == whole[:budget].decode(errors="ignore")
    for name in receipts:  # no split holds more than the budget, and the document that crosses it
        held = pa.ipc.open_file(apart / f"blocks/tokenizer/sample/{name}.arrow").read_all()
        assert sum(len(text.encode()) for text in held.column("text").to_pylist()[:-1]) < budget


def test_each_source_has_its_own_budget(tmp_path: Path) -> None:
    rows = {"web/a": rows_of([900] * 3), "web/b": [], "books/a": rows_of([10] * 30)}
    receipts = draw_all(tmp_path, rows, 10_000)
    found = Counter[str]()
    for source, language, text in read_drawn(tmp_path, sorted(receipts), {"web": 1_000, "books": 55}):
        assert language == "en"
        found[source] += len(text.encode())
    assert 990 < found["web"] <= 1_000 and 50 < found["books"] <= 55


def recipe(**rules: Any) -> Recipe:
    sources = {"web": {"kind": "common_crawl", "weight": 3}, "books": {"weight": 1}, "wikipedia": {"weight": 1}}
    plain = {"name": "x", "seed": SEED, "goal_tokens": 1, "sources": sources, "tokenizer": rules}
    return Recipe.model_validate(plain)


def test_budgets_are_in_proportion_to_the_weights_of_what_is_there(tmp_path: Path) -> None:
    filtered = {
        name: Receipt("f", [Output(f"clean/{name}.parquet", 9, "")], {}, {})
        for name in ("web/a", "web/b", "books/a", "wikipedia/a")
    }
    documents = {"web": 4_000, "books": 3, "wikipedia": 0}
    counts = {name: Tally(out=Counter(records=records)) for name, records in documents.items()}
    clusters = Receipt("f", [], counts, {"text_bytes": {"web": 1_500, "books": 100, "wikipedia": 0}})
    clean = survivor_units(filtered, clusters)
    step = tokenizer.sample_step(recipe(sample_bytes=1_000), clean, clusters)
    assert {unit.name: unit.source for unit in step.units} == {name: name.split("/")[0] for name in filtered}
    assert step.by_source["web"] == {"source": "web", "budget": 750, "share": 0.5}
    assert step.by_source["books"] == {"source": "books", "budget": 250, "share": 1.0}
    assert step.by_source["wikipedia"]["budget"] == 0
    few = tokenizer.sample_step(recipe(sample_bytes=100), clean, clusters).by_source
    assert few["web"]["share"] == 0.25, "1,000 of 4,000 documents, where 200 would hold the budget on average"
    assert few["books"] == {"source": "books", "budget": 25, "share": 1.0}, "one of three might be none"
    path = tmp_path / "given.model"
    path.write_bytes(small_model())
    measured = tokenizer.sample_step(recipe(path=str(path)), clean, clusters)
    assert {arguments["budget"] for arguments in measured.by_source.values()} == {tokenizer.CARD_BYTES}


@given(st.lists(st.integers(1, 1_000).map(lambda n: n / 1_000), min_size=2, max_size=6), st.randoms())
@example([0.1, 0.2, 0.3], None)
def test_budgets_do_not_depend_on_the_order_of_sources(weights: list[float], order: random.Random | None) -> None:
    """Two recipes of one hash may name their sources in another order, and Python 3.12 sums floats differently."""
    plain = recipe(sample_bytes=1_000_000).model_dump(exclude={"sources"})
    names = [f"source_{number}" for number in range(len(weights))]
    clusters = Receipt("f", [], {}, {"text_bytes": dict.fromkeys(names, 9)})
    for _ in range(3):
        sources = {
            name: {"kind": "books", "weight": weights[names.index(name)]} for name in sorted(names, reverse=True)
        }
        if order is not None:
            sources = dict(order.sample(list(sources.items()), len(sources)))
        found = tokenizer.sample_step(Recipe.model_validate({**plain, "sources": sources}), [], clusters).by_source
        for name, weight in zip(names, weights, strict=True):
            assert found[name]["budget"] == int(1_000_000 * weight / math.fsum(weights))


def test_a_tokenizer_without_any_document_is_refused_with_what_took_them(tmp_path: Path) -> None:
    lost = {"in": {"records": 2}, "out": {}, "dropped": {"too_short": {"records": 2}}, "removed": {}}
    kept = {"in": {"records": 2}, "out": {"records": 2}, "dropped": {}, "removed": {}}
    with pytest.raises(UserError, match=r"no document was kept \(books: 2 of 2 records were dropped as too_short\)"):
        tokenizer.require_text(recipe(), {"extract": {"books": lost}})
    tokenizer.require_text(recipe(path="given.model"), {"extract": {"books": lost}})
    tokenizer.require_text(recipe(), {"extract": {"books": lost, "web": kept}})


# the card


def run_train(corpus: Path, receipts: dict[str, Receipt], made: Recipe) -> tuple[dict[str, Any], Result]:
    units = [Unit(name, source=receipt.facts["source"]) for name, receipt in sorted(receipts.items())]
    by_source = {receipt.facts["source"]: receipt.facts for receipt in receipts.values()}
    step = train_step(made, Step(tokenizer.SAMPLE, draw_documents, units, {}, by_source))
    result = Job(str(corpus), "", (), "", train, step.settings, {}).call(Task(step.name, "all", ""))
    return json.loads((corpus / tokenizer.CARD).read_bytes()), result


def numbered(parts: list[tuple[str | None, str]], first: int) -> list[Row]:
    return [(b"%016d" % (first + at), language, text) for at, (language, text) in enumerate(parts)]


def test_a_card_of_a_given_tokenizer_says_what_it_makes_of_the_corpus(tmp_path: Path) -> None:
    """By hand: the letters are known to the model, the rocket (4 bytes) is not."""
    path = tmp_path / "given.model"
    path.write_bytes(small_model())
    web = [("en", "the the\n"), ("en", "\U0001f680"), ("fr", "la\u2581la")]
    receipts = draw_all(tmp_path, {"web/a": numbered(web, 0), "books/a": numbered([(None, "the")], 9)}, 1_000)
    card, result = run_train(tmp_path, receipts, recipe(path=str(path)))
    assert (tmp_path / tokenizer.MODEL).read_bytes() == small_model()
    languages = {(row.pop("source"), row.pop("language")): row for row in card["languages"]}
    assert list(languages) == [("books", None), ("web", "en"), ("web", "fr")]
    # "the the\n": 3 tokens, 8 bytes; the rocket: a space, and 4 bytes as 4 tokens
    expected = {"documents": 2, "characters": 9, "bytes": 12, "tokens": 8, "unknown": 0, "bytes_per_token": 1.5}
    assert languages["web", "en"] == {**expected, "covered": 0.875, "byte_token_share": 0.5}
    assert languages["books", None] == card["sources"]["books"] and languages["books", None]["bytes_per_token"] == 3.0
    assert card["sources"]["web"]["documents"] == 3 and card["sources"]["web"]["characters"] == 14
    counts = {"documents": 4, "characters": 17, "space_marks": 1, "lone_surrogates": 0, "differing": 0}
    assert card["round_trip"] == counts
    assert card["trained_on"] is None and (card["unk"], card["bos"], card["eos"]) == (0, 1, 2)
    assert result.facts["bytes_per_token"] == {name: row["bytes_per_token"] for name, row in card["sources"].items()}


def test_a_card_of_a_trained_tokenizer_says_what_it_was_trained_on(tmp_path: Path) -> None:
    rows = numbered([("en", text) for text in sample_texts()], 0)
    receipts = draw_all(tmp_path, {"web/a": rows, "books/a": numbered([(None, CODE * 9)], 999)}, 30_000)
    card, result = run_train(tmp_path, receipts, recipe(vocabulary=600, character_coverage=0.99))
    seen = card["trained_on"]
    assert seen["books"] == {"documents": 1, "bytes": len((CODE * 9).encode())}
    assert 29_990 < seen["web"]["bytes"] <= 30_000 and 1 < seen["web"]["documents"] < len(rows)
    assert result.facts["vocabulary"] == 600 and card["round_trip"]["differing"] == 0
    assert card["settings"]["character_coverage"] == 0.99 and "path" not in card["settings"]
    assert 0.98 < card["sources"]["web"]["covered"] < 1
    again, _ = run_train(tmp_path, receipts, recipe(vocabulary=600, character_coverage=0.99))
    assert again == card


@settings(max_examples=200, deadline=None)
@given(texts)
def test_counts_of_any_text(text: str) -> None:
    counts = tokenizer_metrics(text, opened(), byte_values(opened()))
    unknown = [c for c in decoded_form(text) if c not in "\n " and opened().piece_to_id(c) == opened().unk_id()]
    assert counts["byte_characters"] == len(unknown)
    assert counts["byte_tokens"] == len("".join(unknown).encode())
    assert counts["differing"] == 0 and counts["newlines"] == text.count("\n") and counts["unknown"] == 0
    assert counts["bytes"] == len(text.encode("utf-8", "surrogatepass"))
    assert counts["lone_surrogates"] == any("\ud800" <= c <= "\udfff" for c in text)
    assert 0 <= summarize_metrics(counts)["covered"] <= 1


def test_a_model_that_does_not_give_a_document_back_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "given.model"
    path.write_bytes(small_model())
    receipts = draw_all(tmp_path, {"web/a": numbered([("en", "the")], 0)}, 1_000)
    with (
        unittest.mock.patch("filters.models.sentencepiece.decode_ids", return_value="another"),
        pytest.raises(UserError, match="does not restore 1 of 1 documents"),
    ):
        run_train(tmp_path, receipts, recipe(path=str(path)))


def test_a_given_tokenizer_that_cannot_be_used_is_found_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        tokenizer.check(recipe(path=str(tmp_path / "absent.model")))
    (tmp_path / "unigram.model").write_bytes(trained(model_type="unigram"))
    with pytest.raises(UserError, match=r"unigram.model is not a BPE model"):
        tokenizer.check(recipe(path=str(tmp_path / "unigram.model")))
    tokenizer.check(recipe())


def test_the_stages_versions_cover_what_shapes_tokens() -> None:
    for function in (train, tokenize.encode_documents):
        assert "filters.models.sentencepiece" in {module for module, _ in reached_symbols(function)}
    assert ("filters.models.sentencepiece", "tokenizer_metrics") in reached_symbols(train)


# transformers


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`LlamaTokenizer`, loaded from nothing but our model, without a network."""
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.model").write_bytes(small_model())
    with unittest.mock.patch.dict("os.environ", {"HF_HUB_OFFLINE": "1"}):
        transformers = pytest.importorskip("transformers")
        converter = pytest.importorskip("transformers.convert_slow_tokenizer")
        # sentencepiece's own copy of this module is for a protobuf newer than Beam allows; transformers has another
        own = pytest.importorskip("transformers.utils.sentencepiece_model_pb2_new")
        with unittest.mock.patch.object(converter, "import_protobuf", return_value=own):
            return transformers.LlamaTokenizer.from_pretrained(folder)


SPECIAL = re.compile("<s>|</s>|<unk>")
"""what `transformers` takes for BOS, EOS and unknown wherever it stands in a text; SentencePiece takes it for text"""
LED_BY_SPACE = (" ", "\u2581")
"""`transformers` puts no space before a text that begins with one; SentencePiece puts one before every text"""


def ids_of(llama: Any, text: str) -> list[int]:
    return list(llama.encode(text, add_special_tokens=False))


@settings(max_examples=400, deadline=None)
@given(texts.map(decoded_form))
def test_transformers_gives_the_same_ids(llama: Any, text: str) -> None:
    assume(not SPECIAL.search(text) and not text.startswith(LED_BY_SPACE))
    assert ids_of(llama, text) == opened().encode(text)


@settings(max_examples=200, deadline=None)
@given(texts.map(decoded_form))
def test_transformers_takes_a_leading_space_for_the_one_before_a_text(llama: Any, text: str) -> None:
    assume(not SPECIAL.search(text) and not text.startswith("\u2581"))
    assert ids_of(llama, " " + text) == opened().encode(text) if text else True


def test_transformers_takes_literal_special_pieces_for_them(llama: Any) -> None:
    for place, piece in enumerate(["<unk>", "<s>", "</s>"]):
        assert ids_of(llama, piece) == [place]
        assert place not in opened().encode(piece)


def real_texts() -> list[str]:
    """Real books and pages; none where they are not."""
    books = [gzip.decompress(path.read_bytes()).decode("utf-8") for path in sorted(SHARED.glob("gutenberg/a-a*.gz"))]
    rows = [gzip.decompress(path.read_bytes()) for path in sorted(SHARED.glob("c4_redpajama/redpajama-*.gz"))]
    return [*books, *(json.loads(line)["text"] for row in rows for line in row.splitlines()[:10])]


def test_transformers_gives_the_same_ids_on_the_samples(llama: Any) -> None:
    for text in [*sample_texts(), *real_texts()]:
        assert not text.startswith(LED_BY_SPACE) and ids_of(llama, text) == opened().encode(text)
