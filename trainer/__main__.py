"""The command line of the trainer: `python -m trainer COMMAND`; `train` plain, under torchrun, or under `launch`."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from filters.errors import UserError
from manifests.display import spell_out_what_the_terminal_lacks
from trainer import options

FIRST_SPEAKS_SECONDS = 10
"""how long other ranks wait with a mistake that all of them find: torchrun ends them as soon as the first has said it,
and would end the first before that if they were quicker"""


def main(arguments: list[str]) -> int:
    """Run a command; gives the exit code: 0 well, 2 a mistake in what was asked for."""
    if arguments[:1] == ["launch"]:
        given, program = _launch_words(arguments[1:])
    else:
        given, program = _parser().parse_args(arguments), []
    commands = {"trace": _trace, "export": _export, "generate": _generate, "plot": _plot, "train": options.train}
    try:
        return _launch(given, program) if given.command == "launch" else commands[given.command](given)
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(FIRST_SPEAKS_SECONDS)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _trace(given: argparse.Namespace) -> int:
    from trainer.trace import trace

    samples = trace(given.run, given.step, given.corpus)
    if given.json:
        print(json.dumps(samples, indent=2, ensure_ascii=False))
        return 0
    for sample in samples:
        place = f"{sample['shard']} from token {sample['token']}"
        print(f"sample {sample['sample']}  {sample['source']}  epoch {sample['epoch']}  {place}")
        for document in sample["documents"]:
            print(f"    {document['document']}  {document['url'] or document['file']}")
    return 0


def _launch_words(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What comes before --, torchrun's own options among it (as `torchrun`), and what comes after."""
    cut = words.index("--") if "--" in words else len(words)
    given, others = _parser().parse_known_args(["launch", *words[:cut]])
    given.torchrun = others
    return given, words[cut + 1 :]


def _launch(options: argparse.Namespace, program: list[str]) -> int:
    from trainer.launch import launch, run_folder

    if program[:1] != ["train"]:
        raise UserError("give the command after --, as in `python -m trainer launch --nproc 8 -- train …`")
    return launch(options.torchrun, options.nproc, ["-m", "trainer", *program], run_folder(program))


def _export(options: argparse.Namespace) -> int:
    from trainer.hf import export

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
    options.add_train(commands)
    trace = commands.add_parser("trace", help="the documents of one step's batch")
    trace.add_argument("run", type=Path)
    trace.add_argument("--step", type=options.count, required=True, help="as metrics.csv counts them, from 1")
    trace.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
    trace.add_argument("--json", action="store_true")
    launch = commands.add_parser(
        "launch",
        help="train in several processes, by torchrun",
        usage="python -m trainer launch [--nproc N] [torchrun's options] -- train …",
    )
    launch.add_argument("--nproc", type=options.count, default=1, help="processes on this machine: one a GPU")
    export = commands.add_parser("export", help="write a checkpoint in Hugging Face's layout")
    generate = commands.add_parser("generate", help="let a checkpoint go on with a text")
    for command in (export, generate):
        command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's folder, or one checkpoint's")
        command.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
    export.add_argument("output", type=Path, metavar="OUT", help="a new folder")
    export.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    export.add_argument("--file-bytes", type=options.count, default=5_000_000_000, help="of weights in one file")
    generate.add_argument("--prompt", default="", help="the text to go on with")
    generate.add_argument("--tokens", type=options.count, default=200, help="at most so many")
    generate.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    generate.add_argument("--top-p", type=float, default=0.95, help="among the likeliest that have this share")
    generate.add_argument("--seed", type=int, default=0)
    plot = commands.add_parser("plot", help="draw a run's curves")
    plot.add_argument("run", type=Path)
    plot.add_argument("--output", type=Path, metavar="FILE", help=".html or .svg (default: RUN/curves.html)")
    plot.add_argument("--corpus", type=Path, help="where the corpus lies now (default: where it lay)")
    return parser


def leave(code: int) -> NoReturn:
    """End this process now, without the destructors of native libraries: a thread that one of them has not joined by
    then aborts a run that is finished ("terminate called without an active exception")."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    spell_out_what_the_terminal_lacks()
    leave(main(sys.argv[1:]))
