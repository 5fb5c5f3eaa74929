"""Measure the evaluator: `python -m benchmarks evaluation [--limit 50] [--tasks NAMES] [--harness]`.

A model with random weights is scored on every benchmark whose files are in `../shared/data/evaluation`. It has the
preset `10m`, 4,096 pieces, 12.5 million parameters and a context of 2,048 tokens. Scores have no meaning, only times:
the weights are random, and some files contain formatted prompts that can only partly be converted back to the published
layout. With --harness, lm-evaluation-harness scores the same questions of BoolQ, ARC and PIQA in the same process.
Times are CPU seconds without imports and without loading the model.
"""

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.data import ROOT, SHARED, table
from benchmarks.measure import cpu_seconds
from manifests import tokenizer
from manifests.sizes import Preset, get_preset
from trainer.evaluation.evaluate import Options, Records, TaskRun, evaluate, prepare
from trainer.evaluation.models import find_model, open_engine
from trainer.evaluation.results import format_table, summarize
from trainer.evaluation.tasks import choose_tasks
from trainer.hf import hf_names
from trainer.model import ROTARY_BASE, Llama

DATA = SHARED / "evaluation"
PIECES, CONTEXT = 4_096, 2_048
TIMED = ("boolq", "arc_easy", "arc_challenge", "piqa")
Row = dict[str, Any]


def write_random_model(folder: Path, size: Preset, pieces: bytes, context: int, seed: int = 0) -> None:
    """Write a Llama model with random weights and a SentencePiece tokenizer, in Hugging Face's layout.

    Args:
        folder: The folder to write.
        size: The preset of the model.
        pieces: The serialized SentencePiece model.
        context: The largest number of tokens, for the configuration files.
        seed: The seed of the random weights.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    model = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    torch.manual_seed(seed)
    tensors = {}
    for name, parameter in Llama(size, model.vocab_size()).named_parameters():
        names = hf_names(name)
        drawn = torch.ones_like(parameter) if parameter.ndim == 1 else torch.randn_like(parameter) * 0.05
        tensors |= {part: chunk.clone() for part, chunk in zip(names, drawn.chunk(len(names)), strict=True)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
        "hidden_act": "silu",
        "hidden_size": size.dimension,
        "intermediate_size": size.width,
        "max_position_embeddings": context,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "rms_norm_eps": size.norm_epsilon,
        "rope_theta": ROTARY_BASE,
        "tie_word_embeddings": False,
        "vocab_size": model.vocab_size(),
    }
    texts = {
        "config.json": config,
        "tokenizer.json": tokenizer.tokenizer_json(model),
        "tokenizer_config.json": tokenizer.tokenizer_config(model, context),
    }
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(pieces)


def write_published_layouts(root: Path) -> None:
    """Convert the files of `../shared/data/evaluation` to the published layouts and write them to a folder."""
    for source, target, convert in CONVERSIONS:
        with gzip.open(DATA / source, "rt", encoding="utf-8") as file:
            rows = [convert(json.loads(line)) for line in file]
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        if "label" in rows[0]:
            labels = "".join(f"{row['label']}\n" for row in rows)
            path.with_name(f"{path.stem}-labels.lst").write_text(labels, encoding="utf-8")
    for folder in ("crows_pairs", "gsm8k", "humaneval", "math", "natural_questions", "winogender"):
        shutil.copytree(DATA / folder, root / folder)


def _boolq(row: Row) -> Row:
    """Return a row of BoolQ in the published layout."""
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "answer": row["gold"] == 1}


def _piqa(row: Row) -> Row:
    """Return a row of PIQA in the published layout."""
    goal = row["query"].removeprefix("Question: ").strip()
    return {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def _arc(row: Row) -> Row:
    """Return a row of ARC or OpenBookQA in the published layout."""
    choices = [{"text": text, "label": letter} for text, letter in zip(row["choices"], "ABCDEFG", strict=False)]
    stem = row["query"].removeprefix("Question: ")
    return {"question": {"stem": stem, "choices": choices}, "answerKey": "ABCDEFG"[row["gold"]]}


def _winogrande(row: Row) -> Row:
    """Return a row of WinoGrande in the published layout: a sentence with a gap, and two options."""
    first, second = row["context_options"]
    words = takewhile(lambda pair: pair[0] == pair[1], zip(first.split(" "), second.split(" "), strict=False))
    shared = sum(len(word) + 1 for word, _ in words)
    options = {"option1": first[shared:], "option2": second[shared:]}
    return {"sentence": f"{first[:shared]}_ {row['continuation']}", **options, "answer": str(row["gold"] + 1)}


# (file in the shared data, file in the published layout, function that converts a row).
CONVERSIONS: tuple[tuple[str, str, Callable[[Row], Row]], ...] = (
    ("boolq/boolq.jsonl.gz", "boolq/dev.jsonl", _boolq),
    ("piqa/piqa.jsonl.gz", "piqa/dev.jsonl", _piqa),
    ("arc/arc_easy.jsonl.gz", "arc/ARC-Easy-Test.jsonl", _arc),
    ("arc/arc_challenge.jsonl.gz", "arc/ARC-Challenge-Test.jsonl", _arc),
    ("openbookqa/openbook_qa.jsonl.gz", "openbookqa/test.jsonl", _arc),
    ("winogrande/winogrande.jsonl.gz", "winogrande/dev.jsonl", _winogrande),
)


def main(arguments: list[str]) -> int:
    """Run the benchmark and print its tables. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks evaluation")
    parser.add_argument("--limit", type=int, default=50, help="number of questions per task (default: 50)")
    parser.add_argument("--tasks", default="", help="names, separated by commas (default: all whose files are present)")
    parser.add_argument("--harness", action="store_true", help="also score with lm-evaluation-harness")
    parser.add_argument(
        "--harness-batch", type=int, default=1, help="batch size of the harness (default: 1, as in the harness)"
    )
    options = parser.parse_args(arguments)
    if not DATA.is_dir():
        print(f"skipped: {DATA} is missing")
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name, "model"), Path(name, "data")
        write_published_layouts(data)
        write_random_model(folder, get_preset("10m"), _train_pieces(), CONTEXT)
        how = Options(limit=options.limit, shots=(0,), run_code=True)
        runs, refused = prepare(choose_tasks(data, options.tasks.split(",") if options.tasks else []), data, how)
        runs = [run for run in runs if not run.task.name.endswith(("_maj", "_100"))]
        source = find_model(folder)
        engine = open_engine(source, "cpu", "fp32")
        rows, records = [], {}
        for run in runs:
            started = cpu_seconds()
            records |= evaluate(source, lambda: engine, [run], Path(name, "out"), how)
            rows.append((run.name, len(run.items), cpu_seconds() - started))
        print(format_table(summarize(source, runs, records, refused)) + "\n")
        total = sum(seconds for _, _, seconds in rows)
        cells = [(name, count, f"{seconds:.2f}", f"{count / seconds:.1f}") for name, count, seconds in rows]
        cells.append(("all", sum(count for _, count, _ in rows), f"{total:.1f}", ""))
        print(table(("task", "questions", "CPU seconds", "questions per CPU second"), cells))
        if options.harness:
            seconds = {name: each for name, _, each in rows}
            print("\n" + _time_harness(folder, runs, data, records, seconds, options.harness_batch))
    return 0


def _time_harness(
    folder: Path, runs: Sequence[TaskRun], data: Path, records: Records, ours: Mapping[str, float], batch: int
) -> str:
    """Score the runs of `TIMED` tasks with lm-evaluation-harness; return a table of differences and CPU seconds."""
    from trainer.evaluation.harness import compare_run, open_harness_model

    model = open_harness_model(folder, "cpu", batch)
    found = [compare_run(model, run, data, records) for run in runs if run.name in TIMED]
    rows = [(one.name, one.questions, sum(map(len, one.different.values())), one.largest) for one in found]
    times = [(ours[one.name], one.cpu_seconds) for one in found]
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows), max(row[3] for row in rows)))
    times.append((sum(mine for mine, _ in times), sum(theirs for _, theirs in times)))
    head = (
        "task",
        "questions",
        "scored differently",
        "largest difference, nats",
        "CPU s, ours",
        "CPU s, harness",
        "ratio",
    )
    pairs = zip(rows, times, strict=True)
    cells = [
        (name, count, different, f"{apart:.1e}", f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.2f}")
        for (name, count, different, apart), (mine, theirs) in pairs
    ]
    return table(head, cells)


def _train_pieces() -> bytes:
    """Train a SentencePiece model on the texts of samples/ and docs/; return it serialized."""
    from manifests.recipe import Tokenizer
    from pipeline.stages.tokenizer import train_bpe

    paths = sorted([*(ROOT / "samples").rglob("*.txt"), *(ROOT / "docs").rglob("*.md")])
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return train_bpe(texts, Tokenizer(vocabulary=PIECES, character_coverage=0.999))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
