"""The command line of the trainer: `python -m trainer COMMAND`; `train` plain, under torchrun, or under `launch`."""

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
    program = arguments[arguments.index("--") + 1 :] if arguments[:1] == ["launch"] and "--" in arguments else []
    options, others = _parser().parse_known_args(arguments[: len(arguments) - len(program)])
    if others and options.command != "launch":
        _parser().parse_args(arguments)  # says what is wrong
    commands = {"train": _train, "trace": _trace, "export": _export, "generate": _generate, "plot": _plot}
    try:
        return (
            _launch(options.nproc, others, program)
            if options.command == "launch"
            else commands[options.command](options)
        )
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


def _launch(workers: int, others: list[str], program: list[str]) -> int:
    from trainer.launch import launch, run_folder

    if program[:1] != ["train"]:
        raise UserError("give the command after --, as in `python -m trainer launch --nproc 8 -- train …`")
    return launch([word for word in others if word != "--"], workers, ["-m", "trainer", *program], run_folder(program))


def _export(options: argparse.Namespace) -> int:
    from trainer.export import export

    print(export(options.checkpoint, options.output, options.corpus, options.dtype, options.file_bytes))
    return 0


def _generate(options: argparse.Namespace) -> int:
    from trainer.generate import generate, write

    sampling = (options.tokens, options.temperature, options.top_p, options.seed)
    write(generate(options.checkpoint, options.corpus, options.prompt, *sampling))
    return 0


def _plot(options: argparse.Namespace) -> int:
    from trainer.plot import plot

    print(plot(options.run, options.output, options.corpus))
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
    launch = commands.add_parser(
        "launch",
        help="train in several processes, by torchrun",
        usage="python -m trainer launch [--nproc N] [torchrun's options] -- train …",
    )
    launch.add_argument("--nproc", type=_count, default=1, help="processes on this machine: one a GPU")
    export = commands.add_parser("export", help="write a checkpoint in Hugging Face's layout")
    generate = commands.add_parser("generate", help="let a checkpoint go on with a text")
    for command in (export, generate):
        command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's folder, or one checkpoint's")
        command.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
    export.add_argument("output", type=Path, metavar="OUT", help="a new folder")
    export.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    export.add_argument("--file-bytes", type=_count, default=5_000_000_000, help="of weights in one file")
    generate.add_argument("--prompt", default="", help="the text to go on with")
    generate.add_argument("--tokens", type=_count, default=200, help="at most so many")
    generate.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    generate.add_argument("--top-p", type=float, default=0.95, help="among the likeliest that have this share")
    generate.add_argument("--seed", type=int, default=0)
    plot = commands.add_parser("plot", help="draw a run's curves")
    plot.add_argument("run", type=Path)
    plot.add_argument("--output", type=Path, metavar="FILE", help=".html, .svg or .png (default: RUN/curves.html)")
    plot.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
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
