"""Train a model: the same bytes for the same texts, in this process and in another, and scores that mean something."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import fasttext
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from filters.models.fasttext import minimum_count
from filters.quality.references import load, prepare, train

ROOT = Path(__file__).parents[3]


def texts(seed: int, first: int) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(f"w{drawn.randrange(first, first + 300)}" for _ in range(60)) for _ in range(120)]


POSITIVES, NEGATIVES = texts(1, 0), texts(2, 150)
SETTINGS = {"dimension": 10, "epochs": 40, "learning_rate": 1.0, "seed": 7}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "references.bin"
    path.write_bytes(train(POSITIVES, NEGATIVES, **SETTINGS))
    return str(path)


def test_the_same_texts_give_the_same_bytes(model: str) -> None:
    made = Path(model).read_bytes()
    assert train(POSITIVES, NEGATIVES, **SETTINGS) == made
    assert train(iter(POSITIVES[::-1]), iter(NEGATIVES[::-1]), **SETTINGS) == made
    assert train(POSITIVES, NEGATIVES, **(SETTINGS | {"seed": 8})) != made
    assert train(NEGATIVES, POSITIVES, **SETTINGS) != made


@pytest.mark.parametrize("filling", ["0", "85", "170"])
def test_another_process_gives_the_same_bytes(model: str, filling: str) -> None:
    """Whatever its memory held before: glibc fills what it allocates with the complement of MALLOC_PERTURB_."""
    code = (
        "import hashlib, json, sys; from filters.quality.references import train\n"
        "print(hashlib.sha256(train(**json.load(sys.stdin))).hexdigest())"
    )
    request = json.dumps({"positives": POSITIVES, "negatives": NEGATIVES, **SETTINGS}).encode()
    environment = {**os.environ, "MALLOC_PERTURB_": filling}
    run = subprocess.run([sys.executable, "-c", code], input=request, cwd=ROOT, capture_output=True, env=environment)
    assert (run.stderr, run.stdout.decode().strip()) == (b"", hashlib.sha256(Path(model).read_bytes()).hexdigest())


def test_training_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    train(POSITIVES[:5], NEGATIVES[:5], **SETTINGS)
    assert capfd.readouterr() == ("", "")


def test_every_first_value_comes_from_the_seed(tmp_path: Path) -> None:
    """Without learning, the model's vectors are the first ones: all within fastText's bounds, and all others for
    another seed, also one of more than fastText's 32 bits."""

    def first(seed: int) -> np.ndarray:
        path = tmp_path / "model.bin"
        words = " ".join(map(str, range(500)))
        path.write_bytes(train([words], [words], dimension=40, epochs=1, learning_rate=1e-12, seed=seed))
        return fasttext.load_model(str(path)).get_input_matrix()

    matrices = [first(seed) for seed in (3, 2**31 + 4, -5)]
    for matrix in matrices:
        assert matrix.shape == (501, 40) and (np.abs(matrix) <= 1 / 40).all()
        assert (np.abs(matrix).mean(axis=1) > 1 / 160).all(), "no row left empty: the mean is 1/80"
    assert all((one != other).mean() > 0.99 for one, other in itertools.pairwise(matrices))


def test_scores_tell_the_classes_apart(model: str) -> None:
    loaded = load(model)
    assert load(model) is loaded
    unseen = [loaded.score(text) for text in texts(3, 0)], [loaded.score(text) for text in texts(4, 150)]
    right = sum(score > 0.5 for score in unseen[0]) + sum(score < 0.5 for score in unseen[1])
    assert right / 240 > 0.95 and all(0.0 <= score <= 1.0 for scores in unseen for score in scores)


@pytest.mark.parametrize(
    "trick", ["__label__cc", "</s>", "\n", "\0", "\u2028", "__label____label__cc", "__la</s>bel__cc"]
)
def test_no_text_ends_or_labels_itself(model: str, trick: str) -> None:
    """What stands behind fastText's own tokens counts: otherwise a page could hide from the model."""
    unknown = " zzz "
    assert load(model).score(NEGATIVES[0] + unknown + POSITIVES[0]) != load(model).score(NEGATIVES[0])
    plain = load(model).score(f"{NEGATIVES[0]} {POSITIVES[0]}")
    assert load(model).score(f"{NEGATIVES[0]} {trick} {POSITIVES[0]}") == pytest.approx(plain, abs=1e-5)
    tricked = [f"{text} {trick} {text}" for text in POSITIVES[:20]]
    learnt = train(tricked, NEGATIVES[:20], **SETTINGS)
    assert learnt == train([f" {prepare(text)}\n" for text in tricked], NEGATIVES[:20], **SETTINGS)


@given(
    st.text()
    | st.lists(st.sampled_from(["__label__", "__", "label", "</s>", "<", "/s>", " ", "a", "\0", "\n"])).map("".join)
)
@settings(max_examples=500, deadline=None)
def test_prepared_text_is_one_line_of_plain_words(text: str) -> None:
    prepared = prepare(text)
    assert prepare(prepared) == prepared == " ".join(prepared.split())
    assert "__label__" not in prepared and "</s>" not in prepared and "\0" not in prepared


@given(st.text(alphabet=st.characters(), max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_a_score(model: str, text: str) -> None:
    assert 0.0 <= load(model).score(text) <= 1.0


def test_odd_texts_have_a_score(model: str) -> None:
    assert load(model).score("") == load(model).score(" \n\0__label__</s>") == 0.0
    assert 0.0 < load(model).score("\ud800 lone") < 1.0
    assert 0.0 < load(model).score("x" * 1_000_000) < 1.0


@given(st.lists(st.integers(1, 9)), st.integers(0, 20))
def test_the_vocabulary_is_limited_by_rareness(counts: list[int], most: int) -> None:
    fewest = minimum_count(counts, most)
    assert sum(count >= fewest for count in counts) <= most
    assert fewest == 1 or sum(count >= fewest - 1 for count in counts) > most


def test_mistakes_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text of the class __label__wiki"):
        train(["", "\n"], NEGATIVES, **SETTINGS)
    with pytest.raises(UserError, match="no text of the class __label__cc"):
        train(POSITIVES, [], **SETTINGS)
    with pytest.raises(UserError, match="lower the learning rate"):
        train(POSITIVES, NEGATIVES, **(SETTINGS | {"learning_rate": 1e9}))


def test_a_file_that_is_no_reference_model_is_refused_in_a_sentence(tmp_path: Path, model: str) -> None:
    path = tmp_path / "model.bin"
    for content in (b"", b"no fastText model at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable fastText model"):
            load(str(path))
    with pytest.raises(UserError, match="is not a readable fastText model"):
        load(str(tmp_path / "none.bin"))
    (tmp_path / "other.bin").write_bytes(Path(model).read_bytes().replace(b"__label__wiki", b"__label__good"))
    with pytest.raises(UserError, match="has no label __label__wiki"):
        load(str(tmp_path / "other.bin"))
