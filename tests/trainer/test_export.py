"""After export or import of weights, transformers and this project compute the same."""

import errno
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import torch.distributed as dist
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from trainer_corpus import write_text_corpus

from filters.errors import UserError
from manifests.manifest import load_manifest
from manifests.sizes import PRESETS
from trainer import checkpoint, parallel
from trainer.__main__ import main
from trainer.generate import load_model
from trainer.hf import export, hf_names, load_hf_weights, open_checkpoint, read_norm_epsilon
from trainer.model import ROTARY_BASE, Llama

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra dev)")
ROOT = Path(__file__).parents[2]
SIZE, VOCABULARY = PRESETS["demo"], 600


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a few steps on real text."""
    folder = tmp_path_factory.mktemp("export")
    corpus = write_text_corpus(folder / "corpus", VOCABULARY)
    options = ["--model", "demo", "--steps", "30", "--sequence-length", "64", "--batch-tokens", "512"]
    assert main(["train", str(corpus), "--output", str(folder / "run"), *options, "--stop-after", "12"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def out(run: Path) -> Path:
    export(run, run.parent / "hf", None)
    return run.parent / "hf"


def tokens() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def ours(run: Path) -> torch.Tensor:
    return load_model(open_checkpoint(run))(tokens())


@torch.no_grad()
def theirs(folder: Path) -> torch.Tensor:
    return transformers.LlamaForCausalLM.from_pretrained(folder)(tokens()).logits


def test_all_may_read_what_is_exported(out: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o666 & ~mask}


def test_transformers_gives_the_same_logits(run: Path, out: Path) -> None:
    assert ours(run).abs().max() > 0.5
    assert (ours(run) - theirs(out)).abs().max() < 1e-5


def test_losses_and_gradients_are_those_of_transformers(run: Path, out: Path) -> None:
    mine, other = load_model(open_checkpoint(run)), transformers.LlamaForCausalLM.from_pretrained(out)
    rows = tokens()
    loss = mine(rows[:, :-1], rows[:, 1:])[0] / rows[:, 1:].numel()
    expected = other(rows, labels=rows).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    gradients = {name: parameter.grad for name, parameter in other.named_parameters()}
    for name, parameter in mine.named_parameters():
        theirs = torch.cat([gradients.pop(part) for part in hf_names(name)])
        assert (parameter.grad - theirs).norm() < 1e-4 * theirs.norm(), name
    assert not gradients


@torch.no_grad()
def test_in_bfloat16_the_model_is_no_less_exact_than_that_of_transformers(run: Path, out: Path) -> None:
    """Norms and rotations are computed in float32, as in the published code.

    The median over tokens is compared. For some tokens the sum of many terms is near zero, and its relative error is
    then determined by rounding alone.
    """
    rows = torch.randint(0, VOCABULARY, (64, 40), generator=torch.Generator().manual_seed(0))
    exact, mine = (load_model(open_checkpoint(run), dtype=dtype)(rows) for dtype in (torch.float32, torch.bfloat16))
    other = transformers.LlamaForCausalLM.from_pretrained(out, dtype=torch.bfloat16)(rows).logits
    error, theirs = ((logits - exact).norm(dim=-1).median().item() for logits in (mine, other))
    assert error < 1.1 * theirs
    x = torch.randn(64, SIZE.dimension, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = transformers.models.llama.modeling_llama.LlamaRMSNorm(SIZE.dimension).bfloat16()  # all weights are 1
    assert torch.equal(Llama(SIZE, 8).norm.bfloat16()(x), norm(x))


def test_the_7b_preset_is_the_default_of_transformers() -> None:
    config, size = transformers.LlamaConfig(), PRESETS["7b"]
    numbers = (config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads)
    assert numbers == (size.dimension, size.width, size.layers, size.heads) and config.vocab_size == 32_000
    assert (config.rms_norm_eps, config.max_position_embeddings) == (size.norm_epsilon, size.sequence_length)
    assert config.rope_parameters["rope_theta"] == ROTARY_BASE and config.hidden_act == "silu"


def test_several_files_are_as_good_as_one(run: Path, out: Path, tmp_path: Path) -> None:
    said = export(run, tmp_path / "split", None, file_bytes=1_000_000)
    index = json.loads((tmp_path / "split/model.safetensors.index.json").read_text(encoding="utf-8"))
    files = sorted(path.name for path in (tmp_path / "split").glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values())) and len(files) > 3 and f"{len(files)} files" in said
    whole = load_file(out / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 4 for tensor in whole.values())
    assert max((tmp_path / "split" / name).stat().st_size for name in files) < 1_010_000
    assert torch.equal(theirs(tmp_path / "split"), theirs(out))


def test_the_configuration_is_the_model_and_the_card_names_the_corpus(run: Path, out: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(out)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 4, 4)
    assert (config.intermediate_size, config.vocab_size, config.max_position_embeddings) == (SIZE.width, VOCABULARY, 64)
    assert config.rope_parameters["rope_theta"] == 10_000 and not config.tie_word_embeddings
    manifest = load_manifest(run.parent / "corpus")
    assert manifest.manifest_sha in (out / "README.md").read_text(encoding="utf-8")
    assert (out / "tokenizer.model").read_bytes() == (run.parent / "corpus/models/tokenizer.model").read_bytes()


@pytest.fixture(scope="module")
def both(out: Path) -> tuple[Any, sentencepiece.SentencePieceProcessor]:
    model = sentencepiece.SentencePieceProcessor(model_proto=(out / "tokenizer.model").read_bytes())
    return transformers.AutoTokenizer.from_pretrained(out), model


@given(text=st.text(max_size=60) | st.text(st.sampled_from(" aeinrst\n#=1`|</s>▁\u00e9\ufffd"), max_size=40))
@example(text="  two  spaces ")
@example(text="</s> <s> <unk> <0x0A>")
@example(text="日本語 😀\r\n\tx")
@settings(max_examples=150, deadline=None)
def test_the_tokenizer_gives_the_same_ids(both: tuple[Any, Any], text: str) -> None:
    tokenizer, model = both
    assert tokenizer(text)["input_ids"] == [1, *model.encode(text)]
    assert tokenizer.decode(model.encode(text)) == model.decode(model.encode(text))


def test_the_tokenizer_gives_the_same_ids_for_long_texts(both: tuple[Any, Any]) -> None:
    tokenizer, model = both
    for path in (Path(__file__), Path(__file__).parents[2] / "docs/performance.md"):
        text = path.read_text(encoding="utf-8")
        assert tokenizer(text)["input_ids"] == [1, *model.encode(text)]


def test_transformers_generates_text_from_it(out: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    given_ids = tokenizer("The corpus", return_tensors="pt")
    made = model.generate(**given_ids, max_new_tokens=20, do_sample=False, pad_token_id=2)
    assert made.shape[1] > given_ids["input_ids"].shape[1]
    assert tokenizer.decode(made[0], skip_special_tokens=True).startswith("The corpus")


@pytest.fixture(scope="module")
def scoring() -> Any:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra eval)")
    pytest.importorskip("accelerate", reason="lm-eval's Hugging Face adapter needs accelerate (extra eval)")
    spec = importlib.util.spec_from_file_location("score", ROOT / "samples/score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lm_eval_scores_it(scoring: Any, out: Path) -> None:
    """The choices are phrases of the training set and their reversed letters. A trained model prefers the phrases."""
    right = ["a shard that differs", "the number of ranks", "every byte of it", "the trainer reads", "in the manifest"]
    rows = [{"question": "It is", "choices": [text, text[::-1]], "answer": 0} for text in right]
    assert scoring.score(out, rows) >= 0.8


def test_what_make_demo_trained_generates_and_scores(
    scoring: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, corpus = ROOT / "build/demo/run", ROOT / "build/demo/corpus"
    if not (run / "checkpoints/step-00000250").is_dir():
        pytest.skip("there is no finished build/demo/run: `make demo` trains it")
    export(run, tmp_path / "hf", corpus)
    assert scoring.main(corpus, tmp_path / "hf") == 0
    said = capsys.readouterr().out.splitlines()
    rows = scoring.questions(corpus)
    assert len(rows) > 50 and len(" ".join(said[:-1])) > len(rows[0]["question"]) + 20
    share = float(said[-1].split()[0])
    assert share > 0.5 + 3 * (0.25 / len(rows)) ** 0.5, "chance, within three deviations"


@pytest.fixture
def ranks() -> Iterator[parallel.Ranks]:
    yield parallel.start("cpu", 1)
    dist.destroy_process_group()


@torch.no_grad()
def adopted(folder: Path, ranks: parallel.Ranks) -> torch.Tensor:
    model = parallel.build(SIZE, VOCABULARY, 1, ranks)
    load_hf_weights(model, folder)
    return model(tokens())


def test_what_was_exported_is_imported_bit_for_bit(run: Path, out: Path, tmp_path: Path, ranks: parallel.Ranks) -> None:
    assert torch.equal(adopted(out, ranks), ours(run))
    export(run, tmp_path / "split", None, file_bytes=500_000)
    assert torch.equal(adopted(tmp_path / "split", ranks), ours(run))


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_16_bit_weights_are_imported(run: Path, tmp_path: Path, kind: str, ranks: parallel.Ranks) -> None:
    export(run, tmp_path / "half", None, kind)
    made = load_file(tmp_path / "half/model.safetensors")
    assert {tensor.dtype for tensor in made.values()} == {getattr(torch, kind)}
    expected = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32)
    with torch.no_grad():
        assert (adopted(tmp_path / "half", ranks) - expected(tokens()).logits).abs().max() < 1e-5


def copied(out: Path, to: Path, **settings: object) -> Path:
    """Copy the exported model to a new folder, with changed settings in its configuration."""
    to.mkdir()
    (to / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes())
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (to / "config.json").write_text(json.dumps({**config, **settings}), encoding="utf-8")
    return to


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_attention_heads": 8, "head_dim": None}, "heads 8, the model 4"),
        ({"num_key_value_heads": 2}, "heads of keys 2, the model 4"),
        ({"rope_theta": 5e5}, "rotary base 500000.0"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "kind of rotary positions linear"),
        ({"vocab_size": 32_000}, "vocabulary 32000, the model 600"),
        ({"attention_bias": True}, "biases True"),
    ],
)
def test_another_model_is_refused(
    run: Path, out: Path, tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    entry = load_manifest(run.parent / "corpus").tokenizer
    with pytest.raises(UserError, match=words):
        read_norm_epsilon(copied(out, tmp_path / "x", **settings), SIZE, entry)


def test_wrong_shapes_missing_tensors_and_damage_are_refused(out: Path, tmp_path: Path) -> None:
    folder, model = copied(out, tmp_path / "x"), Llama(SIZE, VOCABULARY)
    tensors = load_file(folder / "model.safetensors")
    norm = tensors.pop("model.norm.weight")
    for changed, words in (
        ({"model.norm.weight": norm[:64].clone()}, r"shape \(64,\)"),
        ({}, "no readable model.norm.weight"),
    ):
        save_file({**tensors, **changed}, folder / "model.safetensors")
        with pytest.raises(UserError, match=words):
            load_hf_weights(model, folder)
    (folder / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(UserError, match="cannot be read"):
        load_hf_weights(model, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="give a model folder"):
        load_hf_weights(model, folder)


def test_another_tokenizer_and_no_configuration_are_refused(run: Path, out: Path, tmp_path: Path) -> None:
    entry = load_manifest(run.parent / "corpus").tokenizer
    assert read_norm_epsilon(out, SIZE, entry) == 1e-6
    folder = copied(out, tmp_path / "x")
    (folder / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(UserError, match="a different tokenizer"):
        read_norm_epsilon(folder, SIZE, entry)
    for config in ("{", "[]", "{}"):
        (folder / "config.json").write_text(config, encoding="utf-8")
        with pytest.raises(UserError, match="no readable config"):
            read_norm_epsilon(folder, SIZE, entry)


def test_mistakes_are_one_sentence(run: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["export", str(run), str(out)], "is not empty"),
        (["export", str(tmp_path), str(tmp_path / "x")], "holds no checkpoint"),
        (["export", str(run), str(tmp_path / "x"), "--corpus", str(tmp_path)], "has no manifest.json"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    one = checkpoint.list_checkpoints(run)[-1][1]
    assert main(["export", str(one), str(tmp_path / "one"), "--dtype", "bfloat16"]) == 0
    assert "step 12, 1 file of bfloat16 weights" in capsys.readouterr().out


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the same command would be refused later, because the folder is not empty."""

    def fill_disk(path: Path, tensors: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.EFBIG, "File too large")

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("trainer.hf.write_tensors", fill_disk)
        assert main(["export", str(run), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'} cannot be written (File too large): make room there" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    assert main(["export", str(run), str(tmp_path / "out")]) == 0


def test_training_goes_on_from_what_was_exported(
    run: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(run.parent / "corpus"), "--output", str(tmp_path / "run"), "--model", "demo", "--steps", "3"]
    words += ["--sequence-length", "64", "--batch-tokens", "512"]
    assert main([*words, "--init-from", str(out), "--stop-after", "1"]) == 0
    first = float((tmp_path / "run/metrics.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[2])
    drawn = float((run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[2])
    assert first < drawn - 0.3, "trained already"
    assert main(words) == 2
    assert f'another --init-from ("{out}" before, none now)' in capsys.readouterr().err
    assert main([*words, "--init-from", str(out)]) == 0


def test_the_epsilon_of_published_norms_stays_with_the_run(run: Path, out: Path, tmp_path: Path) -> None:
    """Start from weights with epsilon 1e-5, resume, and export: transformers and our code give the same logits.

    With another epsilon the logits differ.
    """
    folder, mine = copied(out, tmp_path / "published", rms_norm_eps=1e-5), tmp_path / "run"
    words = ["train", str(run.parent / "corpus"), "--output", str(mine), "--model", "demo", "--steps", "3"]
    words += ["--sequence-length", "64", "--batch-tokens", "512", "--init-from", str(folder)]
    assert main([*words, "--stop-after", "1"]) == 0
    shutil.rmtree(folder)  # The epsilon is saved with the run.
    assert main(words) == 0
    assert json.loads((mine / "run.json").read_text(encoding="utf-8"))["training"]["norm_epsilon"] == 1e-5
    export(mine, tmp_path / "hf", None)
    assert json.loads((tmp_path / "hf/config.json").read_text(encoding="utf-8"))["rms_norm_eps"] == 1e-5
    assert (ours(mine) - theirs(tmp_path / "hf")).abs().max() < 1e-5
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf", rms_norm_eps=1e-4)
    with torch.no_grad():
        other = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", config=config)(tokens()).logits
    assert (ours(mine) - other).abs().max() > 1e-5, "the epsilon tells"
