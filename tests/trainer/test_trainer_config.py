"""The configuration: sizes by name or in numbers, micro-batches that fit, and a YAML file of options."""

import csv
import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from trainer_corpus import write_corpus

from filters.errors import UserError
from manifests.sizes import PRESETS, Preset, get_preset
from trainer import checkpoint, parallel
from trainer.__main__ import _describe, _parser, main
from trainer.config import RUN_FILES, check_output, expand_config
from trainer.model import Block, Llama, Rotary
from trainer.parallel import choose_micro_batch, estimate_rank_memory, wrap_blocks

RATE = {"steps": 8, "schedule": "cosine", "learning_rate": 0.1, "warmup": 2}
MISTAKES_IN_STAGES = {
    "[]": "must be a list of stages",
    "3": "must be a list of stages",
    "[1]": "must be a list of stages",
    "{": "must be a JSON list of stages (",
    '[{"step": 2}]': "a stage has no key 'step': give some of steps, tokens, mixture",
    '[{"steps": 0}]': "steps of a stage must be a whole number above 0, not 0",
    '[{"steps": true}]': "steps of a stage must be a whole number above 0, not true",
    '[{"steps": 1, "schedule": "steep"}]': "schedule of a stage must be one of cosine, wsd",
    '[{"steps": 1, "tokens": 2}]': "each stage must have either steps or tokens",
    '[{"warmup": 1}]': "each stage must have either steps or tokens",
}
OPTIONS = ["--steps", "4", "--sequence-length", "16", "--batch-tokens", "64"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("config") / "corpus", documents=8)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_by_formula_are_those_of_the_model(name: str) -> None:
    size = PRESETS[name]
    with torch.device("meta"):
        model = Llama(size, 1_000)
    assert sum(p.numel() for p in model.parameters()) == size.count_parameters(1_000)
    assert sum(p.numel() for p in model.blocks.parameters()) == size.block_parameters


@pytest.mark.parametrize(("name", "millions"), [("2m", 2), ("5m", 5), ("10m", 10), ("20m", 20), ("40m", 40)])
def test_the_ladder_is_named_by_the_parameters_of_its_blocks(name: str, millions: int) -> None:
    assert PRESETS[name].block_parameters / 1e6 == pytest.approx(millions, rel=0.15)
    assert PRESETS[name].dimension == 64 * PRESETS[name].heads


def test_a_size_in_numbers_takes_the_settings_of_the_preset_below() -> None:
    size = get_preset("dim=256,layers=7,heads=8")
    assert (size.dimension, size.layers, size.heads) == (256, 7, 8)
    assert (size.learning_rate, size.batch_tokens) == (PRESETS["5m"].learning_rate, PRESETS["5m"].batch_tokens)
    assert get_preset("dim=8,layers=1,heads=2").sequence_length == PRESETS["demo"].sequence_length
    assert get_preset("heads=32,layers=32,dim=4096") == PRESETS["7b"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("8b", "--model 8b is not known: give one of demo, 2m"),
        ("dim=256,layers=4", "is not of the form dim=256,layers=4,heads=4"),
        ("dim=x,layers=4,heads=4", "three whole numbers"),
        ("dim=256,layers=0,heads=4", "three whole numbers"),
        ("dim=²,layers=4,heads=4", "three whole numbers"),
        ("dim=256,layers=4,heads=4,dim=512", "three whole numbers"),
        ("dim=100,layers=4,heads=3", "dim must be an even multiple of heads"),
    ],
)
def test_a_size_that_is_none_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        get_preset(name)


@pytest.mark.parametrize("mode", ["none", "full"])
def test_what_a_block_keeps_is_what_the_choice_of_a_micro_batch_counts_on(mode: str) -> None:
    size = Preset(384, 6, 1, 1e-3, multiple=64)
    model = nn.Module()
    model.blocks = nn.ModuleList([Block(size)])
    wrap_blocks(model, mode, False)
    x = torch.randn(1, 128, size.dimension, requires_grad=True)
    held: dict[int, int] = {p.untyped_storage().data_ptr(): 0 for p in model.parameters()}
    tables = Rotary(size.dimension // size.heads)(0, 128, x)
    held |= {table.untyped_storage().data_ptr(): 0 for table in tables}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes() // 4)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.blocks[0](x, *tables)
    assert out.requires_grad
    assert sum(held.values()) / x.numel() == pytest.approx(parallel.KEPT_NUMBERS[mode], rel=0.12)


@given(st.sampled_from(list(PRESETS)), st.integers(1, 512), st.sampled_from([0, 24 << 30, 80 << 30]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_micro_batch_divides_and_more_memory_never_makes_it_smaller(
    name: str, sequences: int, memory: int, half: bool
) -> None:
    def choose(memory: int, activation: str = "none") -> int:
        of_one = estimate_rank_memory(PRESETS[name], 32_000, 2_048, 1, 8, half, activation)
        return choose_micro_batch(of_one, 2_048, sequences, memory)

    found = choose(memory)
    assert found >= 1 and sequences % found == 0
    assert choose(2 * memory) >= found and choose(memory, "full") >= found


def test_micro_batches_of_known_machines() -> None:
    small = estimate_rank_memory(PRESETS["demo"], 2_048, 256, 1, 1, False, "none")
    assert choose_micro_batch(small, 256, 16, 0) == 8
    large = estimate_rank_memory(PRESETS["7b"], 32_000, 2_048, 1, 1, True, "none")
    assert choose_micro_batch(large, 2_048, 16, 80 << 30) == 1, "it does not fit at all"


def test_a_file_of_options_is_the_command_line_and_is_saved_with_the_run(corpus: Path, tmp_path: Path) -> None:
    text = f"corpus: {corpus}\noutput: {tmp_path / 'run'}\nmodel: {{dim: 32, layers: 1, heads: 2}}\nsteps: 9\n"
    text += (
        "sequence_length: 16\nbatch_tokens: 64\nlearning_rate: 1e-3\ndocument_masks: true\nskip_steps: ['2', '3:3']\n"
    )
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--steps", "4", "--stop-after", "1"]) == 0
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text(encoding="utf-8"))
    assert (saved["steps"], saved["model"], saved["learning_rate"]) == (4, "dim=32,layers=1,heads=2", 1e-3)
    assert saved["document_masks"] is True and saved["skip_steps"] == ["2:2", "3:3"] and saved["precision"] == "fp32"
    assert main(["train", f"--config={tmp_path / 'run/config.yaml'}"]) == 0
    assert checkpoint.list_checkpoints(tmp_path / "run")[-1][0] == 4


def test_stages_set_mixture_and_rate_and_a_file_of_options_may_hold_them(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [
        {"steps": 2, "mixture": {"web": 1}, "schedule": "constant"},
        {"tokens": 128, "mixture": {"books": 1.0}, "schedule": "linear", "learning_rate": 0.01},
    ]
    plain = {"corpus": str(corpus), "output": str(tmp_path / "run"), "model": "dim=32,layers=1,heads=2"}
    plain |= {"sequence_length": 16, "batch_tokens": 64, "stages": stages, "warmup": 1}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "run.yaml")]) == 0
    with (tmp_path / "run/metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["learning_rate"] for row in rows] == ["0.002", "0.002", "0.01", "0.005"]
    assert [(bool(row["loss_web"]), bool(row["loss_books"])) for row in rows] == [(True, False)] * 2 + [
        (False, True)
    ] * 2
    assert main(["train", "--config", str(tmp_path / "run/config.yaml")]) == 0, "it is finished"
    command = ["train", str(corpus), "--model", "demo", "--output", str(tmp_path / "none"), *OPTIONS[2:]]
    assert main(command) == 2 and "give --steps, or a list of --stages" in capsys.readouterr().err
    assert main([*command, "--stages", '[{"steps": 1, "mixture": {"wiki": 1}}]']) == 2
    assert "a stage weighs wiki, which the corpus lacks: give some of books, web" in capsys.readouterr().err
    assert main([*command, "--stages", json.dumps(stages), "--steps", "5"]) == 2
    assert "--steps is 5, and the --stages have 4 steps: leave --steps out" in capsys.readouterr().err
    assert main(["train", *command[2:], "--steps", "1"]) == 2 and "give the corpus" in capsys.readouterr().err
    for text, words in MISTAKES_IN_STAGES.items():
        with pytest.raises(SystemExit):
            main([*command, "--stages", text])
        assert f"argument --stages: {words}" in capsys.readouterr().err


def test_a_file_of_options_is_read_as_it_looks(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "skip_steps: [5:7, '8', 9, 10:12]\nevaluate_tasks: [boolq, piqa]\ncorpus: OLD\nwandb: no\n", encoding="utf-8"
    )
    words = expand_config(["NEW", "--config", str(tmp_path / "run.yaml"), "--model", "demo", "--output", "R"])
    options = _parser().parse_args(["train", *words])
    assert options.skip_steps == [(5, 7), (8, 8), (9, 9), (10, 12)], "not step 307"
    assert options.evaluate_tasks == "boolq,piqa" and options.wandb is False
    assert options.corpus == "NEW", "the command line overrides the file, of a corpus that was moved too"
    assert _parser().parse_args(["train", *[word for word in words if word != "NEW"]]).corpus == "OLD"


def test_a_folder_of_other_files_is_no_run(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run in a folder of photos or in its own corpus would be mixed with files that it must not change."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"")
    for folder, held in ((tmp_path / "photos", "a.jpg"), (corpus, "manifest.json, manifest.json.sha256, shards")):
        before = sorted(folder.rglob("*"))
        assert main(["train", str(corpus), "--model", "demo", "--output", str(folder), *OPTIONS]) == 2
        assert (
            f"--output {folder} contains other files than a run ({held}): give a new or empty"
            in capsys.readouterr().err
        )
        assert sorted(folder.rglob("*")) == before
    (tmp_path / "logged").mkdir()
    (tmp_path / "logged/out.log").write_bytes(b"")
    check_output(tmp_path / "logged")
    for name in RUN_FILES:  # A run that was killed at its start may have only one of these files.
        (tmp_path / "photos" / name).mkdir()
        check_output(tmp_path / "photos")
        (tmp_path / "photos" / name).rmdir()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"plan": {"steps": 9}}, "--steps (8 before, 9 now)"),
        ({"plan": {"global_batch": 2, "sequence_length": 32}}, "--sequence-length (16 before, 32 now)"),
        ({"plan": {"global_batch": 2}}, "--batch-tokens (64 before, 32 now)"),
        ({"plan": {"manifest_sha": "b", "steps": 9}}, 'corpus ("a" before, "b" now)'),
        ({"training": {"init_from": "DIR"}}, '--init-from (none before, "DIR" now)'),
        ({"training": {"outlier_sigmas": 0}}, "--outlier-sigmas (6.0 before, 0 now)"),
        ({"training": {"learning_rate": [{**RATE, "warmup": 3}]}}, "--warmup (2 before, 3 now)"),
        ({"training": {"learning_rate": [RATE, RATE]}}, "--stages (none before, ["),
    ],
)
def test_a_run_resumed_with_another_option_names_it_and_both_values(changed: dict[str, Any], told: str) -> None:
    plan = {"manifest_sha": "a", "seed": 0, "sequence_length": 16, "global_batch": 4, "steps": 8, "stages": []}
    training = {"init_from": "", "outlier_sigmas": 6.0, "learning_rate": [RATE]}
    saved = {"plan": plan, "training": training}
    checkpoint.check_same_settings(saved, saved, Path("run"))
    now = {part: {**values, **changed.get(part, {})} for part, values in saved.items()}
    with pytest.raises(UserError, match=re.escape(f"run holds a run with another {told}")):
        checkpoint.check_same_settings(saved, now, Path("run"))


def test_a_stage_that_differs_is_numbered() -> None:
    plan = {"manifest_sha": "a", "sequence_length": 16, "global_batch": 4, "steps": 16}
    saved, now = (
        {"plan": plan, "training": {"learning_rate": [RATE, {**RATE, "schedule": name}]}} for name in ("wsd", "linear")
    )
    with pytest.raises(UserError, match=re.escape('--stages, stage 2 schedule ("wsd" before, "linear" now)')):
        checkpoint.check_same_settings(saved, now, Path("run"))


def test_no_url_of_a_traced_step_drives_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"document": "00", "url": "http://a\n\x1b[2J\u202e", "file": "b"}
    sample = {"sample": 0, "source": "web", "epoch": 0, "shard": "s", "token": 0, "documents": [document]}
    monkeypatch.setattr("trainer.events.trace_step", lambda *_: [sample])
    assert main(["trace", "run", "--step", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["    00  http://a\\n\\x1b[2J\\u202e"]


def test_mistakes_in_options_are_sentences(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    for file, words in (("none.yaml", "cannot be read as YAML"), ("list.yaml", "holds no mapping of options")):
        assert main(["train", "--config", str(tmp_path / file)]) == 2
        assert words in capsys.readouterr().err
    assert expand_config(["--steps", "3", "--config"]) == ["--steps", "3", "--config"]
    command = ["train", str(corpus), "--model", "demo", "--output", str(tmp_path / "run"), *OPTIONS]
    assert main([*command, "--batch-tokens", "70"]) == 2
    assert "not a multiple of the sequence of 16: give 64 or 80" in capsys.readouterr().err
    assert main([*command, "--skip-steps", "2:40"]) == 2
    assert "--skip-steps: the run has no step 40, give steps from 1 to 4" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([*command, "--output", str(tmp_path / "file")]) == 2
    assert f"error: {tmp_path / 'file'} cannot be written (File exists): give a folder" in capsys.readouterr().err
    assert "make room there" in _describe(OSError(28, "No space left on device", "metrics.csv"))
    for value in ("nan", "0", "-1", "inf"):
        with pytest.raises(SystemExit):
            main([*command, "--learning-rate", value])
        assert "must be a finite number above 0" in capsys.readouterr().err


def test_a_folder_without_rights_is_named_whether_it_is_read_or_written() -> None:
    for number, words in {
        errno.EACCES: "r/x cannot be used (no): give this user the right to use it",
        errno.EROFS: "r/x cannot be written (no): give a folder that can be written",
        errno.ENOSPC: "r/x cannot be written (no): make room there",
    }.items():
        assert _describe(OSError(number, "no", "r/x")).startswith(words)
