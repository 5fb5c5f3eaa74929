"""The command line of the trainer: `python -m trainer COMMAND`; `train` runs alone, under torchrun or `launch`."""

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from filters.errors import UserError
from manifests.display import escape_unencodable_output

MODEL = "demo, 2m, 5m, 10m, 20m, 40m, 125m, 350m, 1b3, 7b, 13b, 33b, 65b, or dim=D,layers=L,heads=H"
SWITCH = argparse.BooleanOptionalAction
ERROR_DELAY_SECONDS = 10  # other ranks wait, as torchrun ends all ranks at the first exit: the first rank prints


def main(arguments: list[str]) -> int:
    """Run a command; return 0, or 2 after a mistake of the user."""
    commands = {"trace": _trace, "export": _export, "generate": _generate, "plot": _plot, "train": _train}
    try:
        if arguments[:1] == ["launch"]:
            return _launch(*_parse_launch(arguments[1:]))
        if arguments[:1] == ["train"]:
            from trainer.config import expand_config

            arguments = ["train", *expand_config(arguments[1:])]
        options = _parser().parse_args(arguments)
        text = commands[options.command](options)
        if text:
            print(text)
        return 0
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(ERROR_DELAY_SECONDS)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command resumes from the last checkpoint", file=sys.stderr)
        return 130


def _train(options: argparse.Namespace) -> str:
    from manifests.store import local
    from manifests.tools.verify import check_shards
    from trainer import parallel
    from trainer.config import RunOptions, TrainConfig, prepare
    from trainer.train import train

    options.device = parallel.resolve_device(options.device)
    options.precision = options.precision or ("bf16" if options.device == "cuda" else "fp32")
    values = vars(options)
    run_options = RunOptions(**_select_fields(RunOptions, values))
    plan_options = {name: values[name] for name in ("steps", "sequence_length", "batch_tokens")}
    corpus = local(options.corpus, options.cache, options.cache_bytes)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    manifest, plan, config = prepare(corpus, {**plan_options, **_select_fields(TrainConfig, values)}, world)
    ranks = parallel.start(options.device, options.threads, options.replicas)
    try:
        part = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        error = parallel.first_error_across_ranks(check_shards(corpus, manifest, options.verify, *part), ranks.world)
        if error:
            raise UserError(error)
        given = {name: value for name, value in values.items() if name not in ("command", "config")}
        summary = train(corpus, options.output, manifest, plan, config, run_options, ranks, given)
    finally:
        parallel.stop()
    return summary if ranks.first else ""


def _select_fields(settings: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in dataclasses.fields(settings) if field.name in values}


def _trace(options: argparse.Namespace) -> str:
    from trainer.events import trace_step

    samples = trace_step(options.run, options.step, options.corpus)
    if options.json:
        return json.dumps(samples, indent=2, ensure_ascii=False)
    lines = []
    for sample in samples:
        place = f"{sample['shard']} from token {sample['token']}"
        lines.append(f"sample {sample['sample']}  {sample['source']}  epoch {sample['epoch']}  {place}")
        lines += [f"    {one['document']}  {one['url'] or one['file']}" for one in sample["documents"]]
    return "\n".join(lines)


def _parse_launch(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the arguments before --, with torchrun's own as `torchrun`; return them and the program after --."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, unknown = _parser().parse_known_args(["launch", *arguments[:cut]])
    options.torchrun = unknown
    return options, arguments[cut + 1 :]


def _launch(options: argparse.Namespace, program: list[str]) -> int:
    from trainer.config import expand_config
    from trainer.launch import find_run_folder, launch

    if program[:1] != ["train"]:
        raise UserError("give the command after --, as in `python -m trainer launch --nproc 8 -- train …`")
    return launch(options.torchrun, options.nproc, ["-m", "trainer", *program], find_run_folder(expand_config(program)))


def _export(options: argparse.Namespace) -> str:
    from trainer.hf import export

    return export(options.checkpoint, options.output, options.corpus, options.dtype, options.file_bytes)


def _generate(options: argparse.Namespace) -> str:
    from trainer.generate import generate, print_pieces

    sampling = (options.tokens, options.temperature, options.top_p, options.seed)
    print_pieces(generate(options.checkpoint, options.corpus, options.prompt, *sampling))
    return ""


def _plot(options: argparse.Namespace) -> str:
    from trainer.metrics import plot

    return plot(options.run, options.output, options.corpus)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _whole(text: str) -> int:
    return _count(text) if text != "0" else 0


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a finite number above 0")
    return number


def _step_range(text: str) -> tuple[int, int]:
    """Parse `K` or `A:B`, both ends included."""
    begin, _, end = text.partition(":")
    steps = _count(begin), _count(end or begin)
    if steps[0] > steps[1]:
        raise argparse.ArgumentTypeError("the first step must not be after the last")
    return steps


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train a LLaMA on a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands)
    trace = commands.add_parser("trace", help="show the documents of one step's batch")
    trace.add_argument("--step", type=_count, required=True, help="the step, counted from 1 as in metrics.csv")
    trace.add_argument("--json", action="store_true", help="print JSON")
    usage = "python -m trainer launch [--nproc N] [torchrun's options] -- train …"
    launch = commands.add_parser("launch", help="train in several processes, by torchrun", usage=usage)
    launch.add_argument("--nproc", type=_count, default=1, help="processes on this machine, one per GPU")
    export = commands.add_parser("export", help="write a checkpoint in Hugging Face's layout")
    generate = commands.add_parser("generate", help="continue a text with a checkpoint")
    for command in (export, generate):
        command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's folder, or one checkpoint's")
    export.add_argument("output", type=Path, metavar="OUT", help="a new folder")
    export.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    export.add_argument("--file-bytes", type=_count, default=5_000_000_000, help="bytes of weights in one file")
    generate.add_argument("--prompt", default="", help="the text to continue")
    generate.add_argument("--tokens", type=_count, default=200, help="the largest number of tokens to generate")
    generate.add_argument("--temperature", type=float, default=0.8, help="0 takes the most probable token")
    generate.add_argument("--top-p", type=float, default=0.95, help="sample from this share of probability (nucleus)")
    generate.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    plot = commands.add_parser("plot", help="draw a run's curves")
    plot.add_argument("--output", type=Path, metavar="FILE", help=".html or .svg (default: RUN/curves.html)")
    for command in (trace, plot):
        command.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    for command in (trace, export, generate, plot):
        command.add_argument("--corpus", type=Path, help="the corpus's folder, if it has moved")
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser("train", help="train, or resume training")
    train.add_argument("corpus", help="a corpus's folder, or its URL (s3://, gs://, hdfs://, file://)")
    train.add_argument("--config", metavar="FILE", help="read options from a YAML file; those given here override them")
    fixed = train.add_argument_group("settings that must stay the same when a run is resumed")
    fixed.add_argument("--model", required=True, help=MODEL)
    fixed.add_argument("--steps", type=_count, required=True, help="optimizer steps of the whole run")
    fixed.add_argument("--batch-tokens", type=_count, help="tokens per step (default: the preset's)")
    fixed.add_argument("--sequence-length", type=_count, help="tokens per sequence (default: the preset's)")
    fixed.add_argument("--learning-rate", type=_positive, help="the peak (default: the preset's)")
    fixed.add_argument("--warmup", type=_count, help="steps of linear warm-up (default: the preset's)")
    fixed.add_argument("--seed", type=int, help="of weights and data order (default: the corpus's)")
    fixed.add_argument("--init-from", default="", metavar="DIR", help="start from published weights")
    fixed.add_argument("--precision", choices=("bf16", "fp32"), help="of products (default: bf16 on a GPU, else fp32)")
    fixed.add_argument(
        "--document-masks", action=SWITCH, default=False, help="tokens attend to their own document only"
    )
    sigmas = "skip a step whose gradient norm is S deviations above the mean; 0: only norms that are not finite"
    fixed.add_argument("--outlier-sigmas", type=float, default=6.0, metavar="S", help=sigmas)
    fixed.add_argument("--outlier-window", type=_count, default=128, metavar="N", help="steps behind that mean")
    free = train.add_argument_group("settings that may change")
    free.add_argument("--output", type=Path, required=True, metavar="RUN", help="the run's folder")
    free.add_argument("--stop-after", type=_whole, default=0, metavar="K", help="stop early, after step K")
    skip = {"metavar": "A:B", "help": "skip these steps, counted from 1 as in metrics.csv; the run remembers them"}
    free.add_argument("--skip-steps", type=_step_range, action="append", default=[], **skip)
    free.add_argument("--micro-batch", type=_count, help="sequences that a rank holds at once (default: by memory)")
    free.add_argument("--checkpoint-every", type=_whole, default=0, metavar="N", help="steps (always at the end)")
    free.add_argument("--validate-every", type=_whole, default=0, metavar="N", help="steps (always at the end)")
    free.add_argument("--keep", type=_count, default=2, help="checkpoints to keep")
    free.add_argument("--verify", choices=("auto", "full", "sampled", "fast"), default="auto", help="check of shards")
    free.add_argument("--cache", type=Path, default=Path("cache"), help="folder for shards fetched from a URL")
    size = "size of the cache in bytes (default: 1 TiB)"
    free.add_argument("--cache-bytes", type=_count, default=1 << 40, metavar="N", help=size)
    free.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    free.add_argument("--threads", type=_count, default=1, help="of a rank on a CPU; losses depend on it (default: 1)")
    free.add_argument("--replicas", type=_count, default=1, metavar="R", help="model copies, each on W/R ranks")
    free.add_argument("--activation", choices=("none", "selective", "full"), default="none", help="checkpointing")
    free.add_argument("--compile", action=SWITCH, default=False, help="use torch.compile, block by block")
    free.add_argument("--tensorboard", action=SWITCH, default=False, help="also write RUN/tensorboard")
    free.add_argument("--wandb", action=SWITCH, default=False, help="also report to Weights & Biases")
    free.add_argument("--peak-tflops", type=_positive, help="of one device, for MFU (default: a GPU's data sheet)")


def leave(code: int) -> NoReturn:
    """End this process at once, without the destructors of native libraries.

    A thread that one of them has not joined would otherwise abort a finished run ("terminate called without an active
    exception").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    escape_unencodable_output()
    leave(main(sys.argv[1:]))
