"""Modified Kneser-Ney: by hand on a tiny corpus, by its laws on any, and beside lmplz where that is built."""

import io
import math
import subprocess
from pathlib import Path

import kenlm
import numpy as np
import pytest
import toy_lm
from hypothesis import example, given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from filters.models.kneser_ney import (
    FALLBACK,
    LOG_ZERO,
    Model,
    discounts_of,
    estimate,
    run_lmplz,
    write_arpa,
)
from filters.quality.perplexity import load_kenlm
from filters.quality.pieces import PieceEncoder, number_pieces

ROOT = Path(__file__).resolve().parents[1]
LMPLZ = ROOT / "build/lmplz/bin/lmplz"
Entries = dict[str, tuple[float, float]]
sentences = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9), min_size=1, max_size=40).filter(any)


def model_of(text: list[list[str]], order: int) -> Model:
    pieces = sorted({word for sentence in text for word in sentence})
    ids = np.array([pieces.index(word) for sentence in text for word in sentence], np.int32)
    offsets = np.cumsum([0, *map(len, text)])
    return estimate(ids, offsets, pieces, order)


def arpa_of(model: Model) -> bytes:
    file = io.BytesIO()
    write_arpa(model, file)
    return file.getvalue()


def entries(arpa: bytes) -> Entries:
    """{n-gram: (log10 probability, log10 back-off)}"""
    rows = [line.split("\t") for line in arpa.decode().split("\n") if "\t" in line]
    return {row[1]: (float(row[0]), float(row[2]) if len(row) > 2 else 0.0) for row in rows}


def written(model: Model, path: Path) -> kenlm.Model:
    path.write_bytes(arpa_of(model))
    return load_kenlm(str(path))


def distribution(model: kenlm.Model, context: list[str], words: list[str]) -> dict[str, float]:
    """p(word | <s> context) of each word, as kenlm answers it."""
    state, after = kenlm.State(), kenlm.State()
    model.BeginSentenceWrite(state)
    for word in context:
        model.BaseScore(state, word, after)
        state, after = after, kenlm.State()
    return {word: 10 ** model.BaseScore(state, word, after) for word in words}


def farthest(ours: Entries, theirs: Entries) -> float:
    assert ours.keys() == theirs.keys()
    pairs = [pair for ngram in ours for pair in zip(ours[ngram], theirs[ngram], strict=True)]
    return max(abs(a - max(b, LOG_ZERO)) for a, b in pairs)  # lmplz writes -inf


def test_a_bigram_model_is_what_the_formulas_give_by_hand() -> None:
    """Two sentences, "a b" and "a c": n-grams too few for the closed form, so the discounts are the fallback.

    Bigrams (raw counts): <s> a 2, a b 1, a c 1, b </s> 1, c </s> 1. Unigrams (words before them): a 1, b 1, c 1,
    </s> 2, in all 5. Left over of unigrams: (3 * 0.5 + 1 * 1) / 5 = 0.5, spread over a, b, c, </s>, <unk>: 0.1 each.
    """
    found = entries(arpa_of(model_of([["a", "b"], ["a", "c"]], 2)))
    a = b = (1 - 0.5) / 5 + 0.1
    end = (2 - 1) / 5 + 0.1
    expected = {
        "<unk>": (0.1, 1.0),
        "<s>": (1.0, 1.0 / 2),  # D(2) / 2
        "</s>": (end, 1.0),
        "a": (a, 2 * 0.5 / 2),
        "b": (b, 0.5),
        "c": (b, 0.5),
        "<s> a": ((2 - 1) / 2 + 0.5 * a, 1.0),
        "a b": ((1 - 0.5) / 2 + 0.5 * b, 1.0),
        "a c": ((1 - 0.5) / 2 + 0.5 * b, 1.0),
        "b </s>": ((1 - 0.5) / 1 + 0.5 * end, 1.0),
        "c </s>": ((1 - 0.5) / 1 + 0.5 * end, 1.0),
    }
    assert found.keys() == expected.keys()
    for ngram, values in expected.items():
        assert found[ngram] == pytest.approx([math.log10(value) for value in values], abs=1e-6), ngram


def test_a_middle_order_counts_what_stands_before_it() -> None:
    """ "x y" follows two words, <s> and z, but occurs three times; "<s> x" counts as often as it occurs."""
    text = [["x", "y"], ["z", "x", "y"], ["x", "y"], ["w", "v"], ["q", "z"]]
    found = entries(arpa_of(model_of(text, 3)))
    # of x: "x y" alone follows it, adjusted count 2 (fallback discount 1), so y keeps half and half is left over
    assert found["x"][1] == pytest.approx(math.log10(1 / 2), abs=1e-6)
    y = 10 ** found["y"][0]
    assert found["x y"][0] == pytest.approx(math.log10((2 - 1) / 2 + y / 2), abs=1e-6)
    # of <s>: x 2, z 1, w 1, q 1 in all 5; D2 + 3 D1 = 2.5 left over
    assert found["<s>"][1] == pytest.approx(math.log10(2.5 / 5), abs=1e-6)


def test_discounts_are_chen_and_goodmans_or_the_fallback() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [60, 20, 10, 5, 3])
    y = 60 / (60 + 2 * 20)
    closed = (1 - 2 * y * 20 / 60, 2 - 3 * y * 10 / 20, 3 - 4 * y * 5 / 10)
    assert discounts_of(counts) == pytest.approx(closed)
    assert discounts_of(np.repeat([1, 2, 4], [60, 20, 5])) == FALLBACK  # nothing seen three times
    assert discounts_of(np.repeat([1, 2, 3, 4], [60, 20, 60, 90])) == FALLBACK  # out of range


@settings(max_examples=25, deadline=None)
@given(sentences, st.integers(2, 6), st.lists(st.sampled_from("abcdefghz"), max_size=5))
def test_probabilities_after_any_context_add_up_to_one(
    tmp_path_factory: pytest.TempPathFactory, text: list[list[str]], order: int, context: list[str]
) -> None:
    model = model_of(text, order)
    loaded = written(model, tmp_path_factory.mktemp("lm") / "m.arpa")
    after = distribution(loaded, context, [word for word in model.words if word != "<s>"])
    assert sum(after.values()) == pytest.approx(1, abs=1e-6)
    assert min(after.values()) > 0


def test_kenlm_reads_what_was_written(tmp_path: Path) -> None:
    text = [list("abcab"), list("bca"), list("abcd"), list("d")]
    model = model_of(text, 3)
    loaded = written(model, tmp_path / "m.arpa")
    assert loaded.order == 3
    found = entries((tmp_path / "m.arpa").read_bytes())
    by_hand = found["<s> a"][0] + found["<s> a b"][0] + found["a b c"][0]
    assert loaded.score("a b c", bos=True, eos=False) == pytest.approx(by_hand, abs=1e-5)
    unseen = found["<unk>"][0] + found["c"][1] + found["b c"][1]
    assert loaded.score("a b c z", bos=True, eos=False) == pytest.approx(by_hand + unseen, abs=1e-5)


def test_the_file_is_the_same_twice_and_whatever_the_pieces_that_do_not_occur() -> None:
    text = [list("abcab"), list("bca"), []]
    pieces = ["b", "never", "a", "c"]
    ids = np.array([pieces.index(word) for sentence in text for word in sentence], np.int32)
    offsets = np.cumsum([0, *map(len, text)])
    once, again = (arpa_of(estimate(ids, offsets, pieces, 4)) for _ in range(2))
    assert once == again
    assert farthest(entries(once), entries(arpa_of(model_of(text, 4)))) == 0


def test_a_discount_of_zero_leaves_a_file_that_kenlm_reads(tmp_path: Path) -> None:
    """Only bigrams seen twice follow a, and their discount is 0: no probability is left for others, log10 -inf."""
    model = model_of([list("acbacbcb")], 2)
    assert model.orders[1].discounts[1] == 0
    loaded = written(model, tmp_path / "m.arpa")
    assert entries((tmp_path / "m.arpa").read_bytes())["a"][1] == LOG_ZERO
    after = distribution(loaded, ["a"], ["a", "b", "c", "</s>", "<unk>"])
    assert after["c"] == pytest.approx(1, abs=1e-6)
    assert sum(after.values()) == pytest.approx(1, abs=1e-6)


def test_a_text_without_words_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="no text to learn from"):
        estimate(np.array([], np.int32), np.array([0, 0]), [], 5)


def test_programs_that_are_missing_or_fail_are_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make lmplz"):
        run_lmplz(tmp_path / "lmplz", tmp_path / "text", tmp_path / "m.arpa", 5)
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\necho first >&2\necho no more disk >&2\nexit 3\n", encoding="utf-8")
    fails.chmod(0o755)
    with pytest.raises(UserError, match="code 3: no more disk"):
        run_lmplz(fails, tmp_path / "text", tmp_path / "m.arpa", 5)


@pytest.mark.skipif(not LMPLZ.exists(), reason="lmplz is not built: run `make lmplz`")
@pytest.mark.parametrize("order", [2, 3, 5])
def test_every_number_is_lmplzs(tmp_path: Path, order: int) -> None:
    encoder = PieceEncoder(toy_lm.pieces(tmp_path / "sp.model"))
    text = [encoder.sentence(line) for line in toy_lm.lines()]
    (tmp_path / "text").write_bytes(b"\n".join(text) + b"\n")
    run_lmplz(LMPLZ, tmp_path / "text", tmp_path / "theirs.arpa", order, "64M")
    ours = written(estimate(*number_pieces(text), order), tmp_path / "ours.arpa")
    theirs = load_kenlm(str(tmp_path / "theirs.arpa"))
    files = [entries((tmp_path / name).read_bytes()) for name in ("ours.arpa", "theirs.arpa")]
    assert farthest(*files) < 1e-5
    assert max(abs(ours.score(line) - theirs.score(line)) for line in text) < 1e-3
    convert = [LMPLZ.with_name("build_binary"), "probing", tmp_path / "ours.arpa", tmp_path / "ours.bin"]
    subprocess.run(convert, check=True)
    mapped = load_kenlm(str(tmp_path / "ours.bin"))
    assert [mapped.score(line) for line in text] == [ours.score(line) for line in text]


@pytest.mark.skipif(not LMPLZ.exists(), reason="lmplz is not built: run `make lmplz`")
@settings(max_examples=15, deadline=None)
@given(sentences, st.integers(2, 6))
@example([["a"]], 6)
def test_every_number_is_lmplzs_on_the_smallest_texts(text: list[list[str]], order: int) -> None:
    """Where discounts fall back, and one n-gram's count of counts matters."""
    stdin = "".join(" ".join(sentence) + "\n" for sentence in text).encode()
    command = [str(LMPLZ), "-o", str(order), "-S", "32M", "--discount_fallback"]
    theirs = subprocess.run(command, input=stdin, capture_output=True, check=True).stdout
    assert farthest(entries(arpa_of(model_of(text, order))), entries(theirs)) < 1e-5
