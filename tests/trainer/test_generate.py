"""Text generation: sampling, complete characters, and the same text for the same seed."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from trainer_corpus import write_text_corpus

from filters.errors import UserError
from manifests.sizes import Preset
from trainer import generate as module
from trainer.__main__ import main
from trainer.evaluation.compare import HeldOut, score_run
from trainer.evaluation.models import find_model
from trainer.generate import continue_text, generate, print_pieces, sample
from trainer.model import KeyValueCache, Llama


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    corpus = write_text_corpus(folder / "corpus")
    options = ["--model", "demo", "--steps", "2", "--sequence-length", "32", "--batch-tokens", "64"]
    assert main(["train", str(corpus), "--output", str(folder / "run"), *options]) == 0
    return folder / "run"


def test_temperature_0_is_the_likeliest_and_top_p_cuts_the_tail() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    uniform = torch.linspace(0, 1 - 1e-6, 301)
    rows = logits.expand(len(uniform), 4)
    assert set(sample(rows, 0.0, 1.0, uniform).tolist()) == {1}
    for top_p, possible in ((0.3, {1}), (0.5, {1, 2}), (0.8, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        assert set(sample(rows, 1.0, top_p, uniform).tolist()) == possible


def test_draws_have_the_probabilities_of_the_temperature() -> None:
    logits = torch.tensor([0.2, 0.8]).log().expand(3000, 2)
    share = float(sample(logits, 0.5, 1.0, torch.linspace(0, 1 - 1e-6, 3000)).double().mean())
    assert share == pytest.approx(0.64 / 0.68, abs=0.02), "squared and normalised"


def test_the_same_seed_gives_the_same_text_after_the_prompt(run: Path) -> None:
    def texts() -> list[str]:
        return ["".join(generate(run, None, ["The corpus"], 8, 1.0, 1.0, seed)) for seed in range(5)]

    made = texts()
    assert made == texts() and all(text.startswith("The corpus") for text in made)
    # A barely trained model ends a text at once with a probability of about 1 in 600, so two of five texts do not.
    assert sum(len(text) > len("The corpus") for text in made) > 3 and len(set(made)) > 3


def test_a_character_of_several_tokens_comes_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocabulary of 600 pieces does not contain these characters, so they are encoded as several byte pieces."""
    from manifests import tokenizer

    pieces = tokenizer.load(run.parent / "corpus")
    ids = iter([*pieces.encode("日é😀x")[1:], 2])
    monkeypatch.setattr(module, "sample", lambda *_: torch.tensor([next(ids)]))
    texts = list(generate(run, None, ["a"], 40, 1.0, 1.0, 0))
    assert "".join(texts) == "a日é😀x" and "\ufffd" not in "".join(texts)
    assert [text for text in texts if text] == ["a日", "é", "😀", "x"]


def test_broken_bytes_do_not_stop_the_text(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests import tokenizer

    pieces = tokenizer.load(run.parent / "corpus")
    ids = iter([pieces.piece_to_id("<0xE6>"), *pieces.encode("so")[:1], pieces.piece_to_id("<0xFF>"), 2])
    monkeypatch.setattr(module, "sample", lambda *_: torch.tensor([next(ids)]))
    text = "".join(generate(run, None, ["a"], 40, 1.0, 1.0, 0))
    assert text.startswith("a\ufffd") and text.endswith("\ufffd")


def test_the_command_writes_text_and_refuses_nonsense(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(run), "--prompt", "The", "--tokens", "5", "--temperature", "0"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("The") and said.endswith("\n")
    for option, value, words in (("--top-p", "0", "above 0 and at most 1"), ("--temperature", "nan", "at least 0")):
        with pytest.raises(SystemExit):
            main(["generate", str(run), option, value])
        assert f"argument {option}: must be " in (said := capfd.readouterr().err) and words in said
    with pytest.raises(UserError, match="holds no checkpoint"):
        list(generate(run.parent, None, [""], 1, 1.0, 1.0, 0))


def test_the_corpus_may_be_named_by_its_url(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--corpus", (run.parent / "corpus").as_uri(), "--prompt", "The", "--tokens", "1", "--device", "cpu"]
    assert main(["generate", str(run), *words]) == 0 and capfd.readouterr().out.startswith("The")
    assert main(["trace", str(run), "--step", "1", *words[:2]]) == 0 and "train-" in capfd.readouterr().out
    assert main(["trace", str(run), "--step", "1", "--corpus", tmp_path.as_uri()]) == 2


def test_a_checkpoint_may_be_named_from_within_its_folder(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run / "checkpoints")
    assert main(["generate", "step-00000002", "--prompt", "The", "--tokens", "1", "--device", "cpu"]) == 0
    assert capfd.readouterr().out.startswith("The")


def test_no_command_reads_weights_whose_bytes_have_changed(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The changed weights are plausible numbers, so only the hash shows the damage."""
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run/checkpoints/step-00000002/rank-00000.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    damaged = "step-00000002 is damaged (the bytes of rank-00000.safetensors have changed)"
    for command in (["export", str(tmp_path / "run"), str(tmp_path / "out")], ["generate", str(tmp_path / "run")]):
        assert main(command) == 2
        said = capfd.readouterr()
        assert (
            f"{damaged}: no other checkpoint of its run is complete: train the run again" in said.err and not said.out
        )
    assert not (tmp_path / "out").exists()
    held_out = HeldOut([], ["a"], ["text"], "")
    for read in (lambda path: find_model(path).open(), lambda path: score_run(path, held_out)):
        with pytest.raises(UserError, match=re.escape(damaged)):
            read(tmp_path / "run")


def test_a_terminal_that_lacks_the_characters_gets_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    def texts() -> Iterator[str]:
        yield "a\u65e5"
        assert raw.getvalue() == b"a?", "each piece is written when it comes"

    print_pieces(texts())
    assert raw.getvalue() == b"a?\n"


def small() -> Llama:
    torch.manual_seed(0)
    model = Llama(Preset(32, 4, 2, 1e-3, multiple=8), 16).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@torch.no_grad()
def test_logits_by_a_cache_are_those_of_the_whole_text() -> None:
    model, tokens = small(), torch.randint(0, 16, (3, 12), generator=torch.Generator().manual_seed(0))
    whole = model(tokens)
    cache = KeyValueCache(model, 3, 12)
    parts = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 10), (10, 12))]
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-4) and cache.length == 12
    assert torch.allclose(model(tokens, last=2), whole[:, -2:], atol=1e-5)


@torch.no_grad()
def test_chosen_rows_of_a_cache_have_the_logits_of_each_text() -> None:
    model, tokens = small(), torch.randint(0, 16, (2, 9), generator=torch.Generator().manual_seed(1))
    cache = KeyValueCache(model, 2, 9)
    model(tokens[:, :7], cache=cache)
    chosen = cache.select(torch.tensor([1, 0, 0]))
    more = model(tokens[[1, 0, 0], 7:], cache=chosen)
    for row, text in enumerate((1, 0, 0)):
        assert torch.allclose(more[row], model(tokens[text : text + 1])[0, 7:], atol=1e-4)
    assert cache.length == 7, "the cache itself did not grow"


@torch.no_grad()
def test_a_text_grows_beyond_what_the_model_sees() -> None:
    model, text = small(), [1, 5]
    likeliest = list(continue_text(model, text, 20, 8, 0.0, 1.0, 0))
    begin = 0
    for token in likeliest:
        begin = len(text) - 4 if len(text) - begin > 8 else begin
        assert token == int(model(torch.tensor([text[begin:]]))[0, -1].argmax())
        text.append(token)


def test_several_prompts_are_printed_one_below_the_other(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(run), "--prompt", "The", "--prompt", "A corpus", "--tokens", "4", "--device", "cpu"]
    assert main(words) == 0
    first, _, second = capfd.readouterr().out.partition("\n\n")
    assert first.startswith("The") and "A corpus" in second


def test_generating_loads_neither_the_compiler_nor_distributed_tensors() -> None:
    heavy = ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.checkpoint")
    code = f"import sys, trainer.generate; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert said.stdout == "[]\n"
