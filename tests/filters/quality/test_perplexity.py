"""Perplexity as CCNet computes it, its cut-offs and percentiles, and the pieces it is computed on."""

import math
from collections import Counter
from pathlib import Path

import kenlm
import numpy as np
import pytest
import sentencepiece
import toy_lm
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from filters.models.kneser_ney import estimate, write_arpa
from filters.quality.perplexity import (
    PageScorer,
    bucket,
    cuts_from,
    histogram,
    load_cutoffs,
    load_kenlm,
    load_scorer,
    perplexity_of,
)
from filters.quality.pieces import (
    CACHED_WORDS,
    LONGEST_PIECE,
    PieceEncoder,
    normalize_for_lm,
    number_pieces,
    train_pieces,
)

CCNET = Path(__file__).parents[3] / "../shared/data/common_crawl/ccnet/cutoff.csv"
Files = tuple[str, str]
pages = st.text(
    st.one_of(st.sampled_from("the of and 00..,é’▁\n\n \u00a0\u3000喜한"), st.characters(exclude_categories=["Cs"]))
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A SentencePiece model and an ARPA model."""
    folder = tmp_path_factory.mktemp("lm")
    pieces = toy_lm.pieces(folder / "en.sp.model")
    encoder = PieceEncoder(pieces)
    with (folder / "en.arpa").open("wb") as file:
        write_arpa(estimate(*number_pieces(map(encoder.sentence, toy_lm.lines())), 3), file)
    return pieces, str(folder / "en.arpa")


def as_ccnet(files: Files, lines: list[str]) -> tuple[float, int]:
    """The score of lines, one sentence each, the way of cc_net's perplexity.py."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=files[0])
    model = kenlm.Model(files[1])
    log10, length = 0.0, 0
    for line in lines:
        words = pieces.encode_as_pieces(normalize_for_lm(line))
        log10 += model.score(" ".join(words))
        length += len(words) + 1
    return log10, length


TEXT = "The Licensed Work’s TERMS (2024) — see below…\n\n  Café, naïve: 喜び\nof\u00a0the and 12,345 \n\t\nas is"


def test_a_page_scores_as_in_ccnet_line_by_line(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    scorer = PageScorer(*files)
    log10, tokens = scorer.score(TEXT)
    assert capfd.readouterr() == ("", "")
    expected, length = as_ccnet(files, [line for line in TEXT.split("\n") if line.strip()])
    assert (log10, tokens) == (pytest.approx(expected, abs=1e-4), length)
    assert scorer.perplexity(TEXT) == round(10 ** (-expected / length), 1)


def test_or_as_one_document(files: Files) -> None:
    log10, tokens = PageScorer(*files, "document").score(TEXT)
    expected, length = as_ccnet(files, [TEXT])
    assert (log10, tokens) == (pytest.approx(expected, abs=1e-4), length)
    assert tokens != PageScorer(*files).score(TEXT)[1]


def test_text_like_the_models_has_the_lower_perplexity(files: Files) -> None:
    scorer = PageScorer(*files)
    like, unlike = "subject to the terms and conditions of this license", "xkcd qwfp zxcv jjjj kkvq"
    assert scorer.perplexity(like) < scorer.perplexity(unlike) / 5


@pytest.mark.parametrize("text", ["", "\n \t\n", "\u0301", "\x00\x1f\x85", "\ufeff"])
def test_a_page_without_words_has_infinite_perplexity(files: Files, text: str) -> None:
    for unit in ("line", "document"):
        scorer = PageScorer(*files, unit)
        assert scorer.score(text) == (0.0, 0)
        assert scorer.perplexity(text) == math.inf


def test_perplexity_is_bounded() -> None:
    assert perplexity_of(-2.0, 1) == 100.0
    assert perplexity_of(-1.2345, 1) == 17.2
    assert perplexity_of(-1e9, 3) == perplexity_of(0.0, 0) == math.inf


@settings(deadline=None)
@given(pages)
def test_words_are_segmented_as_in_their_line(files: Files, text: str) -> None:
    """Ties apart: as many pieces, that spell the same and score the same."""
    model = sentencepiece.SentencePieceProcessor(model_file=files[0])
    line = normalize_for_lm(text)
    ours = PieceEncoder(files[0]).sentence(line).decode().split(" ")[1:]
    theirs = model.encode(line, out_type=str)
    assert "".join(ours) == "".join(theirs)
    assert len(ours) == len(theirs)
    scores = [sum(model.get_score(model.piece_to_id(piece)) for piece in side) for side in (ours, theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_the_state_of_the_cache_changes_nothing(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [normalize_for_lm(line) for line in toy_lm.lines()[:50]]
    encoder = PieceEncoder(files[0])
    once = [encoder.sentence(line) for line in lines]
    assert 0 < len(encoder) < CACHED_WORDS
    monkeypatch.setattr("filters.quality.pieces.CACHED_WORDS", 7)
    small = PieceEncoder(files[0])
    assert [small.sentence(line) for line in lines] == once
    assert len(small) <= 7
    assert small.sentence("0" * 100_000).count(b" ") > 1_000
    assert max(map(len, small)) <= 256


def test_what_cannot_be_a_word_is_unknown(files: Files) -> None:
    encoder = PieceEncoder(files[0])
    assert encoder.sentence("喜" * 20) == " ▁ ".encode() + ("喜" * 20).encode()
    assert encoder.sentence("喜" * LONGEST_PIECE) == " ▁ <unk>".encode()
    ids, offsets, pieces = number_pieces([b" a <unk> b", b"", b" <unk>", b" b"])
    assert (ids.tolist(), offsets.tolist(), pieces) == ([0, 1, 1], [0, 2, 3], ["a", "b"])


def test_training_pieces_gives_the_same_bytes_twice() -> None:
    once, again = (train_pieces(iter(toy_lm.lines()), 400, 0.9995) for _ in range(2))
    assert once == again
    assert sentencepiece.SentencePieceProcessor(model_proto=once).get_piece_size() == 400


def test_too_little_text_for_the_pieces_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"too small for a vocabulary of 65,536 pieces: .* set vocabulary to [\d,]+ or"):
        train_pieces(toy_lm.lines(), 65_536, 0.9995)
    with pytest.raises(UserError, match="vocabulary 20"):
        train_pieces(toy_lm.lines(), 20, 0.9995)
    with pytest.raises(UserError, match="no text to train"):
        train_pieces([], 400, 0.9995)


def test_models_that_are_none_are_the_users_mistake(files: Files, tmp_path: Path) -> None:
    for damage in (b"", b"\xdc\xff" * 999, Path(files[1]).read_bytes()[:5_000]):
        (tmp_path / "model").write_bytes(damage)
        with pytest.raises(UserError, match="not a language model"):
            load_kenlm(str(tmp_path / "model"))
        with pytest.raises(UserError, match="not a readable SentencePiece model"):
            PieceEncoder(str(tmp_path / "model"))
    with pytest.raises(UserError, match="absent"):
        load_scorer(str(tmp_path / "absent"), files[1])
    with pytest.raises(UserError, match="absent"):
        load_scorer(files[0], str(tmp_path / "absent"))
    assert load_scorer(*files) is load_scorer(*files)


def test_a_model_whose_pieces_reach_over_blanks_is_refused(tmp_path: Path) -> None:
    for name, options in {"no_prefix": {"add_dummy_prefix": False}, "over": {"split_by_whitespace": False}}.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(toy_lm.lines()),
            model_prefix=str(tmp_path / name),
            vocab_size=400,
            minloglevel=2,
            **options,
        )
        with pytest.raises(UserError, match="SentencePiece's defaults"):
            PieceEncoder(str(tmp_path / f"{name}.model"))


def test_buckets_and_what_is_at_the_cut() -> None:
    cuts = (340.0, 520.1)
    assert [bucket(p, *cuts) for p in (1.0, 339.9, 340.0, 520.0, 520.1, 1e9)] == [
        *("head", "head", "middle", "middle", "tail", "tail")
    ]
    assert bucket(np.float32(520.1), *cuts) == "tail"  # 520.099976, yet as written
    assert bucket(math.inf, math.inf, math.inf) == bucket(math.nan, *cuts) == "tail"


@pytest.mark.skipif(not CCNET.exists(), reason="CCNet's cutoff.csv (../shared/data) is not here")
def test_ccnets_cut_offs() -> None:
    cuts = load_cutoffs(CCNET)
    assert len(cuts) == 48
    assert (cuts["en"], cuts["de"], cuts["zh"][0] < cuts["zh"][1]) == ((340, 520), (370, 590), True)
    assert load_cutoffs(CCNET, 1, 1)["it"] == (100, 100)


def test_a_table_of_cut_offs_that_is_none_is_the_users_mistake(tmp_path: Path) -> None:
    table = tmp_path / "cutoff.csv"
    with pytest.raises(UserError, match="cannot be read"):
        load_cutoffs(table)
    table.write_text(",en,fr\n30,340,180\n60,520,330\n", encoding="utf-8")
    assert load_cutoffs(table) == {"en": (340.0, 520.0), "fr": (180.0, 330.0)}
    with pytest.raises(UserError, match="no row for percentile 61"):
        load_cutoffs(table, 30, 61)
    for number, damaged in enumerate(("", ",en\n30\n", ",en\n30,x\n", "\x00", ",en\nthirty,340\n")):
        table = tmp_path / f"{number}.csv"
        table.write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match=r"not a table|no row"):
            load_cutoffs(table)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a table"):
        load_cutoffs(table)


def test_percentiles_by_nearest_rank() -> None:
    values = np.array([15.0, 20.0, 35.0, 40.0, 50.0])  # the textbook's example of nearest rank
    assert cuts_from(histogram(values), 5, 30) == (15.0, 20.0)
    assert cuts_from(histogram(values), 40, 99) == (20.0, 50.0)
    assert cuts_from(histogram(np.array([340.3, 340.3, 1e300, math.inf, math.nan])), 30, 60) == (340.3, 340.3)
    assert histogram(np.array([math.inf, math.nan])) == {}


@given(st.lists(st.floats(1, 1e6, width=32), min_size=1), st.integers(0, 99), st.integers(1, 99))
def test_percentiles_are_exact_and_add_up_over_parts(values: list[float], cut: int, percentile: int) -> None:
    whole = np.array(values, np.float32)
    parts = Counter(histogram(whole[:cut])) + Counter(histogram(whole[cut:]))
    assert dict(parts) == histogram(whole)
    ranked = sorted(np.rint(whole.astype(np.float64) * 10) / 10)
    expected = ranked[math.ceil(percentile * len(ranked) / 100) - 1]
    assert cuts_from(dict(parts), percentile, 99)[0] == expected
