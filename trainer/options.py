"""The command line of `train`."""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

from filters.errors import UserError


def count(text: str) -> int:
    """A whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def steps_range(text: str) -> tuple[int, int]:
    """`K` or `A:B`, both ends included."""
    begin, _, end = text.partition(":")
    found = count(begin), count(end or begin)
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError("the first step must not be after the last")
    return found


def add_train(commands: Any) -> None:
    """The options of `train`."""
    train = commands.add_parser("train", help="train, or go on training")
    train.add_argument("corpus", help="a corpus's folder, or its URL (s3://, gs://, hdfs://, file://)")
    what = train.add_argument_group("what is trained: must stay the same when a run goes on")
    what.add_argument("--model", required=True, help="demo, 125m, 350m, 1b3, 7b, 13b, 33b or 65b")
    what.add_argument("--steps", type=count, required=True, help="optimiser steps of the whole run")
    what.add_argument("--batch-tokens", type=count, help="tokens a step (default: the preset's)")
    what.add_argument("--sequence-length", type=count, help="tokens a sequence (default: the preset's)")
    what.add_argument("--learning-rate", type=float, help="the peak (default: the preset's)")
    what.add_argument("--warmup", type=count, help="steps of linear warm-up (default: the preset's)")
    what.add_argument("--seed", type=int, help="of weights and order (default: the corpus's)")
    what.add_argument("--init-from", dest="initial", default="", metavar="DIR", help="begin with published weights")
    what.add_argument("--precision", choices=("bf16", "fp32"), help="of products (default: bf16 on a GPU, else fp32)")
    what.add_argument("--document-masks", action="store_true", help="tokens see only their own document")
    what.add_argument(
        "--outlier-sigmas",
        type=float,
        default=6.0,
        metavar="S",
        help="leave out a step whose gradient norm is so many deviations above the mean; 0: only one not finite",
    )
    what.add_argument("--outlier-window", type=count, default=128, metavar="N", help="steps that mean is over")
    how = train.add_argument_group("how: may change")
    how.add_argument("--output", type=Path, required=True, metavar="RUN", help="the run's folder")
    how.add_argument("--stop-after", type=count, default=0, metavar="K", help="end early, after step K")
    how.add_argument(
        "--skip-steps",
        type=steps_range,
        action="append",
        default=[],
        metavar="A:B",
        help="leave these steps out, as metrics.csv counts them; the run remembers it",
    )
    how.add_argument("--micro-batch", type=count, default=8, help="sequences a rank holds at once")
    how.add_argument("--checkpoint-every", type=count, default=0, metavar="N", help="steps; always at the end")
    how.add_argument("--validate-every", type=count, default=0, metavar="N", help="steps; always at the end")
    how.add_argument("--keep", type=count, default=2, help="checkpoints that stay")
    how.add_argument("--verify", choices=("auto", "full", "sampled", "fast"), default="auto", help="of shards")
    how.add_argument("--cache", type=Path, default=Path("cache"), help="folder for shards fetched from a URL")
    how.add_argument(
        "--cache-bytes", type=count, default=1 << 40, metavar="N", help="of shards kept there (default: 1 TiB)"
    )
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    how.add_argument("--threads", type=count, default=1, help="of each rank on a CPU; losses depend on it (default: 1)")
    how.add_argument("--replicas", type=count, default=1, metavar="R", help="copies of the model, each spread over W/R")
    how.add_argument("--activation", choices=("none", "selective", "full"), default="none", help="checkpointing")
    how.add_argument("--compile", action="store_true", help="torch.compile, block by block")
    how.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard too")
    how.add_argument("--wandb", action="store_true", help="report to Weights & Biases too")
    how.add_argument("--peak-tflops", type=float, help="of one device, for MFU (default: a GPU's data sheet)")


def train(options: argparse.Namespace) -> int:
    """Run `train`; gives the exit code."""
    from manifests.store import local
    from manifests.tools.verify import check_shards
    from trainer import parallel
    from trainer.train import Habits, Training, finish, prepare
    from trainer.train import train as run

    options.device = parallel.kind_of(options.device)
    options.precision = options.precision or ("bf16" if options.device == "cuda" else "fp32")
    given = vars(options)
    asked = {name: given[name] for name in ("steps", "sequence_length", "batch_tokens", *_names(Training, given))}
    corpus = local(options.corpus, options.cache, options.cache_bytes)
    manifest, plan, training = prepare(corpus, asked, int(os.environ.get("WORLD_SIZE", "1")))
    habits = Habits(**{name: given[name] for name in _names(Habits, given)})
    ranks = parallel.start(options.device, options.threads, options.replicas)
    try:
        part = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        problem = parallel.first_of_all(check_shards(corpus, manifest, options.verify, *part), ranks.world)
        if problem:
            raise UserError(problem)
        said = run(corpus, options.output, manifest, plan, training, habits, ranks)
    finally:
        finish()
    if ranks.first:
        print(said)
    return 0


def _names(settings: Any, given: dict[str, Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(settings) if field.name in given]
