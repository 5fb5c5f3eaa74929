"""Generated text: sampled as asked for, whole characters, the same for the same seed."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from trainer_corpus import write_text_corpus

from filters.errors import UserError
from trainer import generate as module
from trainer.__main__ import main
from trainer.generate import generate, print_pieces, sample


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    corpus = write_text_corpus(folder / "corpus")
    options = ["--model", "demo", "--steps", "2", "--sequence-length", "32", "--batch-tokens", "64"]
    assert main(["train", str(corpus), "--output", str(folder / "run"), *options]) == 0
    return folder / "run"


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_temperature_0_is_the_likeliest_and_top_p_cuts_the_tail() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    assert sample(logits, 0.0, 1.0, chance()) == 1
    for top_p, possible in ((0.3, {1}), (0.5, {1, 2}), (0.8, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        generator = chance()
        assert {sample(logits, 1.0, top_p, generator) for _ in range(300)} == possible


def test_draws_have_the_probabilities_of_the_temperature() -> None:
    generator, logits = chance(), torch.tensor([0.2, 0.8]).log()
    share = sum(sample(logits, 0.5, 1.0, generator) for _ in range(3000)) / 3000
    assert share == pytest.approx(0.64 / 0.68, abs=0.02), "squared and normalised"


def test_the_same_seed_gives_the_same_text_after_the_prompt(run: Path) -> None:
    first, again, other = ("".join(generate(run, None, "The corpus", 40, 1.0, 1.0, seed)) for seed in (1, 1, 2))
    assert first == again != other and first.startswith("The corpus") and len(first) > 20


def test_a_character_of_several_tokens_comes_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 600 pieces have no such characters: they are spelled in bytes."""
    from manifests import tokenizer

    pieces = tokenizer.load(run.parent / "corpus")
    ids = iter([*pieces.encode("日é😀x")[1:], 2])
    monkeypatch.setattr(module, "sample", lambda *_: next(ids))
    texts = list(generate(run, None, "a", 40, 1.0, 1.0, 0))
    assert "".join(texts) == "a日é😀x" and "\ufffd" not in "".join(texts)
    assert texts[1:4] == ["é", "😀", "x"]


def test_broken_bytes_do_not_stop_the_text(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests import tokenizer

    pieces = tokenizer.load(run.parent / "corpus")
    ids = iter([pieces.piece_to_id("<0xE6>"), *pieces.encode("so")[:1], pieces.piece_to_id("<0xFF>"), 2])
    monkeypatch.setattr(module, "sample", lambda *_: next(ids))
    text = "".join(generate(run, None, "a", 40, 1.0, 1.0, 0))
    assert text.startswith("a\ufffd") and text.endswith("\ufffd")


def test_the_command_writes_text_and_refuses_nonsense(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(run), "--prompt", "The", "--tokens", "5", "--temperature", "0"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("The") and said.endswith("\n")
    assert main(["generate", str(run), "--top-p", "0"]) == 2
    assert "--top-p above 0" in capfd.readouterr().err
    with pytest.raises(UserError, match="holds no checkpoint"):
        list(generate(run.parent, None, "", 1, 1.0, 1.0, 0))


def test_a_terminal_that_lacks_the_characters_gets_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    def texts() -> Iterator[str]:
        yield "a\u65e5"
        assert raw.getvalue() == b"a?", "each piece is written when it comes"

    print_pieces(texts())
    assert raw.getvalue() == b"a?\n"
