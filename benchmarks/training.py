"""Tokens a second of the demo model on a CPU: our trainer beside a bare PyTorch loop of the same model, one thread."""

import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.data import ROOT, table
from trainer.__main__ import main as trainer_main
from trainer.model import Llama, parameter_count
from trainer.optimizer import build_optimizer
from trainer.parallel import initialise
from trainer.presets import PRESETS

STEPS = 12
VOCABULARY = 2048


def bare() -> list[float]:
    """Tokens a second of each step of a plain loop: no FSDP, no logging, no checkpoint, random tokens."""
    size = PRESETS["demo"]
    model = Llama(size, VOCABULARY)
    initialise(model, 0)
    optimizer = build_optimizer(model, size.learning_rate)
    sequences = size.batch_tokens // size.sequence_length
    tokens = torch.randint(0, VOCABULARY, (sequences, size.sequence_length + 1))
    rates = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        for part in tokens.split(8):
            loss = F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            (loss / size.batch_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.append(size.batch_tokens / (time.perf_counter() - begun))
    return rates


def run() -> str:
    """Median tokens a second after the first steps."""
    sys.path.insert(0, str(ROOT / "tests"))
    from trainer_corpus import write_corpus

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", vocabulary=VOCABULARY, documents=600)
        arguments = ["train", str(corpus), "--model", "demo", "--steps", str(STEPS), "--output", f"{folder}/run"]
        if trainer_main(arguments) != 0:
            raise RuntimeError("the trainer did not end well")
        with (Path(folder) / "run/metrics.csv").open(newline="") as file:
            ours = [float(row["tokens_per_second"]) for row in csv.DictReader(file)]
    floor = bare()
    mine, plain = statistics.median(ours[2:]), statistics.median(floor[2:])
    count = parameter_count(Llama(PRESETS["demo"], VOCABULARY))
    rows = [
        ["trainer (FSDP2, world 1)", f"{mine:,.0f}"],
        ["bare loop", f"{plain:,.0f}"],
        ["ratio", f"{mine / plain:.2f}"],
    ]
    return f"demo preset, {count:,} parameters, one thread\n\n{table(['', 'tokens a second'], rows)}"
