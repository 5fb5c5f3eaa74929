"""Measure the trainer: `python -m benchmarks train [--device cpu | cuda] [options of python -m trainer train]`.

On a CPU, the trainer's step and a plain PyTorch loop of the same model (no FSDP, no loader, no log) alternate in one
process, and their CPU time is measured. On a GPU, the whole trainer runs on synthetic tokens, and tokens per second and
MFU are read from its metrics. In both cases the figures, the versions and the command are written to a JSON file.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks import dry_run
from benchmarks.data import ROOT, table
from manifests.files import canonical_json, write_atomic
from manifests.manifest import load_manifest
from manifests.order import plan_for
from manifests.sizes import get_preset
from trainer import parallel
from trainer.__main__ import main as trainer_main
from trainer.data import BatchReader
from trainer.model import Llama
from trainer.step import OutlierDetector, Stepper, build_optimizer

KERNELS = 20  # number of operations listed in a profile
# The first steps are left out of medians. In these steps kernels are chosen, memory is allocated and blocks are
# compiled.
WARM = 3


def main(arguments: list[str]) -> int:
    """Run the benchmark, print a table and write the results file. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks train")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help="default: demo on a CPU, 1b3 on a GPU")
    parser.add_argument("--vocabulary", type=int, help="default: 2,048 on a CPU, 32,000 on a GPU")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-tokens", type=int, help="default: that of the preset on a CPU, 262,144 on a GPU")
    parser.add_argument("--sequence-length", type=int, help="default: that of the preset")
    parser.add_argument("--micro-batch", type=int, help="default: 8 on a CPU, chosen by memory on a GPU")
    parser.add_argument("--profile", action="store_true", help="also list the kernels that take the most time")
    parser.add_argument("--trainer", action="store_true", help="on a CPU, run the whole trainer, as on a GPU")
    parser.add_argument("--dry-run", action="store_true", help="derive memory and time on GPUs, without a GPU")
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/train.json"))
    options, more = parser.parse_known_args(arguments)
    on_gpu = options.device == "cuda"
    if options.dry_run:
        print(dry_run.run())
        return 0
    options.model = options.model or ("1b3" if on_gpu else "demo")
    options.vocabulary = options.vocabulary or (32_000 if on_gpu else 2_048)
    options.micro_batch = options.micro_batch or (None if on_gpu else 8)
    size = get_preset(options.model)
    options.batch_tokens = options.batch_tokens or (262_144 if on_gpu else size.batch_tokens)
    options.sequence_length = options.sequence_length or size.sequence_length
    with tempfile.TemporaryDirectory() as folder:
        corpus = _write_corpus(Path(folder), options)
        is_whole = on_gpu or options.trainer
        found = _run_trainer(corpus, options, more) if is_whole else _compare_with_bare_loop(corpus, options)
    facts = {
        "command": f"python -m benchmarks train {' '.join(arguments)}".strip(),
        "model": options.model,
        "parameters": size.count_parameters(options.vocabulary),
        "batch_tokens": options.batch_tokens,
        "sequence_length": options.sequence_length,
        "micro_batch": options.micro_batch,
        "device": torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} cores, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda or ""},
        **found,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.results, canonical_json(facts))
    print(
        table(
            ["", ""], [[key, json.dumps(value) if isinstance(value, dict) else value] for key, value in facts.items()]
        )
    )
    return 0


def run() -> str:
    """Run the benchmark on the CPU, for `python -m benchmarks all`. It prints its table, so the result is empty."""
    main([])
    return ""


def _write_corpus(folder: Path, options: argparse.Namespace) -> Path:
    """Write a corpus of synthetic documents of about 55 tokens each, enough for all steps within the epoch limits."""
    sys.path.insert(0, str(ROOT / "tests"))
    from trainer_corpus import write_corpus

    tokens = options.batch_tokens * (2 * options.steps + 2)
    return write_corpus(folder / "corpus", options.vocabulary, documents=max(600, tokens // (6 * 50 * 20)))


def _run_trainer(corpus: Path, options: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """Run the whole trainer and return the medians of its metrics, without the first `WARM` steps."""
    run = corpus.parent / "run"
    names = ("device", "model", "steps", "batch_tokens", "sequence_length", "micro_batch")
    values = {f"--{name.replace('_', '-')}": getattr(options, name) for name in names}
    given = [str(part) for name, value in values.items() if value is not None for part in (name, value)]

    def train(folder: Path, *last: str) -> None:
        if trainer_main(["train", str(corpus), "--output", str(folder), *given, *more, *last]) != 0:
            raise RuntimeError("the trainer failed")

    train(run)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[WARM:]
    found: dict[str, Any] = {}
    for name in ("tokens_per_second", "mfu_6n", "mfu_no_embedding", "mfu_attention", "memory_gb"):
        values = [float(row[name]) for row in rows if row[name]]
        found[name] = statistics.median(values) if values else None
    facts = json.loads((run / "run.json").read_bytes())
    found["peak_flops"], found["precision"] = facts["peak_flops"], facts["training"]["precision"]
    found["micro_batch"] = json.loads((run / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])["micro_batch"]
    if options.profile:
        found["kernels"] = _profile(options, lambda: train(corpus.parent / "profiled", "--stop-after", str(WARM)))
    return found


def _profile(options: argparse.Namespace, work: Callable[[], None]) -> dict[str, str]:
    """Profile a function. Return the operations with the most self time: milliseconds and number of calls."""
    on_gpu = options.device == "cuda"
    kinds = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=kinds) as profiler:
        work()
    clock = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = sorted(profiler.key_averages(), key=lambda row: -getattr(row, clock))[:KERNELS]
    return {row.key[:80]: f"{getattr(row, clock) / 1e3:.1f} ms in {row.count} calls" for row in rows}


def _compare_with_bare_loop(corpus: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure CPU seconds of our step (loader, FSDP2, guards, metrics) and of the plain loop's step, in alternation."""
    size, manifest = get_preset(options.model), load_manifest(corpus)
    sequences = options.batch_tokens // options.sequence_length
    plan = plan_for(manifest, 0, options.sequence_length, sequences, options.steps)
    data, ranks = BatchReader(corpus, plan), parallel.start("cpu", 1)
    try:
        model = parallel.build(size, options.vocabulary, 0, ranks)
        norms = OutlierDetector(6.0, 128, ranks.device)
        optimizer = build_optimizer(model, size.learning_rate)
        stepper = Stepper(model, optimizer, norms, ranks, options.batch_tokens, options.micro_batch, None, None)
        plain = Llama(size, options.vocabulary)
        parallel.initialize(plain, 0)
        bare = _bare_step(plain, options)
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        losses = []
        for step in range(options.steps):
            tokens = data.batch(step, 0, 1).tokens.to(torch.int64)
            result = _timed(seconds["ours"], lambda k=step: stepper.step(data.batch(k, 0, 1), 1e-4)())
            loss = _timed(seconds["bare"], lambda t=tokens: bare(t))
            losses.append(abs(result.losses.sum() / options.batch_tokens - loss))
    finally:
        parallel.stop()
    ours, floor = (statistics.median(seconds[name][WARM:]) for name in ("ours", "bare"))
    ratios = [a / b for a, b in zip(seconds["ours"][WARM:], seconds["bare"][WARM:], strict=True)]
    return {
        "ours_tokens_per_cpu_second": round(options.batch_tokens / ours),
        "bare_tokens_per_cpu_second": round(options.batch_tokens / floor),
        "ours_over_bare_seconds": round(statistics.median(ratios), 3),
        "ours_over_bare_quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
        "largest_difference_of_losses": max(losses),
    }


def _bare_step(model: Llama, options: argparse.Namespace) -> Callable[[torch.Tensor], float]:
    """Return the step of a plain PyTorch loop: a function from (G, L + 1) tokens to the mean loss per token."""
    optimizer = build_optimizer(model, 1e-4)

    def step(tokens: torch.Tensor) -> float:
        total = 0.0
        for part in tokens.split(options.micro_batch):
            loss = F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            (loss / options.batch_tokens).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total / options.batch_tokens

    return step


def _timed(seconds: list[float], work: Callable[[], Any]) -> Any:
    """Call `work` and return its result. Append the CPU seconds of this process that the call took to `seconds`."""
    begun = time.process_time()
    result = work()
    seconds.append(time.process_time() - begun)
    return result
