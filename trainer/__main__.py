"""The command line of the trainer: `python -m trainer train | trace`, plain or under torchrun."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from manifests.errors import UserError

FIRST_SPEAKS_SECONDS = 10
"""how long other ranks wait with a mistake that all of them find: torchrun ends them as soon as the first has said it,
and would end the first before that if they were quicker"""


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 2 a mistake in what was asked for."""
    options = _parser().parse_args(arguments)
    try:
        return _train(options) if options.command == "train" else _trace(options)
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(FIRST_SPEAKS_SECONDS)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _train(options: argparse.Namespace) -> int:
    from trainer import parallel
    from trainer.train import Habits, finish, prepare, train

    asked = {
        name: getattr(options, name)
        for name in ("model", "steps", "seed", "sequence_length", "batch_tokens", "learning_rate", "warmup")
    }
    world = int(os.environ.get("WORLD_SIZE", "1"))
    manifest, plan, training = prepare(options.corpus, asked, options.verify, world)
    habits = Habits(
        options.micro_batch, options.checkpoint_every, options.validate_every, options.keep, options.stop_after
    )
    ranks = parallel.start(options.device, options.threads)
    try:
        said = train(options.corpus, options.output, manifest, plan, training, habits, ranks)
    finally:
        finish()
    if ranks.first:
        print(said)
    return 0


def _trace(options: argparse.Namespace) -> int:
    from trainer.trace import trace

    samples = trace(options.run, options.step, options.corpus)
    if options.json:
        print(json.dumps(samples, indent=2, ensure_ascii=False))
        return 0
    for sample in samples:
        place = f"{sample['shard']} from token {sample['token']}"
        print(f"sample {sample['sample']}  {sample['source']}  epoch {sample['epoch']}  {place}")
        for document in sample["documents"]:
            print(f"    {document['document']}  {document['url'] or document['file']}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train a LLaMA on a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, or go on training")
    train.add_argument("corpus", type=Path)
    train.add_argument("--model", required=True, help="demo, 125m, 350m, 1b3, 7b, 13b, 33b or 65b")
    train.add_argument("--steps", type=_count, required=True, help="optimiser steps of the whole run")
    train.add_argument("--output", type=Path, required=True, metavar="RUN", help="the run's folder")
    train.add_argument("--stop-after", type=_count, default=0, metavar="K", help="end early, after step K")
    train.add_argument("--batch-tokens", type=_count, help="tokens a step (default: the preset's)")
    train.add_argument("--sequence-length", type=_count, help="tokens a sequence (default: the preset's)")
    train.add_argument("--micro-batch", type=_count, default=8, help="sequences a rank holds at once")
    train.add_argument("--learning-rate", type=float, help="the peak (default: the preset's)")
    train.add_argument("--warmup", type=_count, help="steps of linear warm-up (default: the preset's)")
    train.add_argument("--seed", type=int, help="of weights and order (default: the corpus's)")
    train.add_argument("--checkpoint-every", type=_count, default=0, metavar="N", help="steps; always at the end")
    train.add_argument("--validate-every", type=_count, default=0, metavar="N", help="steps; always at the end")
    train.add_argument("--keep", type=_count, default=2, help="checkpoints that stay")
    train.add_argument("--verify", choices=("auto", "full", "fast"), default="auto", help="of shards, at the start")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument(
        "--threads", type=_count, default=1, help="of each rank on a CPU; losses depend on it (default: 1)"
    )
    trace = commands.add_parser("trace", help="the documents of one step's batch")
    trace.add_argument("run", type=Path)
    trace.add_argument("--step", type=_count, required=True, help="as metrics.csv counts them, from 1")
    trace.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
    trace.add_argument("--json", action="store_true")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def leave(code: int) -> NoReturn:
    """End this process now, without the destructors of native libraries: a thread that one of them has not joined by
    then aborts a run that is finished ("terminate called without an active exception")."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
