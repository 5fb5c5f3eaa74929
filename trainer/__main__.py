"""The command line of the trainer: `python -m trainer COMMAND`.

`train` runs as a single process, or in several processes under torchrun or `python -m trainer launch`.
"""

import argparse
import errno
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from filters.errors import UserError
from manifests.arguments import ABOVE_ZERO, AT_LEAST_ZERO, COUNT, POSITIVE, SHARE, Parser, describe
from manifests.display import end_quietly, escape_unencodable_output, safe_line
from manifests.sizes import PRESETS
from trainer.schedule import SCHEDULES

FULL = (errno.ENOSPC, errno.EDQUOT)  # error numbers of a full disk or an exhausted quota
DISK_ERRORS = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
# Arguments that are not written to RUN/config.yaml.
UNSAVED = ("command", "config", "function", "stop_after")
SWITCH = argparse.BooleanOptionalAction
# Default folder and size in bytes of the cache for shards that are downloaded from a URL.
CACHE, CACHE_BYTES = Path("cache"), 1 << 40
# Seconds that ranks other than the first wait before they exit with an error, so that the first rank can print it.
ERROR_DELAY_SECONDS = 10


def main(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The words of the command line after `python -m trainer`.

    Returns:
        0 after success, 2 after a mistake of the user, 130 after Ctrl-C. `launch` returns the code of its processes.
    """
    try:
        if arguments[:1] == ["launch"]:
            return _launch(*_parse_launch(arguments[1:]))
        if arguments[:1] == ["train"]:
            from trainer.config import expand_config

            arguments = ["train", *expand_config(arguments[1:])]
        options = _parser().parse_args(arguments)
        if options.command != "train" and vars(options).get("corpus"):
            from manifests.shard import open_cached

            options.corpus = open_cached(options.corpus, CACHE, CACHE_BYTES)
        text: str = options.function(options)
        if text:
            print(text)
        return 0
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK_ERRORS:
            raise
        if os.environ.get("RANK", "0") != "0":
            time.sleep(ERROR_DELAY_SECONDS)
        print(f"error: {safe_line(_describe(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = ": the same command resumes from the last checkpoint" if arguments[:1] == ["train"] else ""
        print(f"stopped{advice}", file=sys.stderr)
        return 130


def _describe(error: Exception) -> str:
    """Return one sentence that describes an error and says what the user should do."""
    if not isinstance(error, OSError):
        return str(error)
    what, advice = "written", "make room there" if error.errno in FULL else "give a folder that can be written"
    if error.errno in (errno.EACCES, errno.EPERM):  # These errors also occur for files that are only read.
        what, advice = "used", "give this user the right to use it, or give another path"
    return f"{error.filename or 'the disk'} cannot be {what} ({error.strerror}): {advice}"


def _train(options: argparse.Namespace) -> str:
    from manifests.shard import open_cached
    from manifests.tools.verify import check_shards
    from trainer import parallel
    from trainer.config import RunOptions, check_output, prepare, select_fields
    from trainer.model import resolve_device
    from trainer.train import RunSetup, train

    if options.corpus is None:
        raise UserError("give the corpus, its folder or URL, as in `python -m trainer train CORPUS …`")
    check_output(options.output)
    options.device = resolve_device(options.device)
    options.precision = options.precision or ("bf16" if options.device == "cuda" else "fp32")
    options.compile = options.device == "cuda" if options.compile is None else options.compile
    values = vars(options)
    corpus = open_cached(options.corpus, options.cache, options.cache_bytes)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    manifest, plan, config = prepare(corpus, values, world)
    ranks = parallel.start(
        options.device, options.threads, options.replicas, options.deterministic, options.hang_seconds
    )
    try:
        evaluate = _prepare_evaluation(options, corpus, plan.sequence_length, ranks.is_first)
        part = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        error = parallel.first_error_across_ranks(check_shards(corpus, manifest, options.verify, *part), ranks.world)
        if error:
            raise UserError(error)
        given = {name: value for name, value in values.items() if name not in UNSAVED}
        settings = manifest, plan, config, RunOptions(**select_fields(RunOptions, values))
        summary = train(RunSetup(corpus, options.output, *settings, ranks, given, evaluate))
    finally:
        parallel.stop()
    return summary if ranks.is_first else ""


def _prepare_evaluation(options: argparse.Namespace, corpus: Path, length: int, is_first: bool) -> Any:
    if not options.evaluate_every:
        if options.evaluate_tasks:
            raise UserError("--evaluate-tasks does nothing without --evaluate-every: give its number of steps")
        return None
    from trainer.evaluation.training import evaluate_step, prepare_runs

    runs = prepare_runs(_names(options.evaluate_tasks), options.evaluate_data, options.evaluate_limit)
    return functools.partial(
        evaluate_step, run=options.output, corpus=corpus, length=length, runs=runs, is_first=is_first
    )


def _trace(options: argparse.Namespace) -> str:
    from trainer.events import trace_step

    samples = trace_step(options.run, options.step, options.corpus)
    if options.json:
        return json.dumps(samples, indent=2, ensure_ascii=False)
    lines = []
    for sample in samples:
        place = f"{sample['shard']} from token {sample['token']}"
        lines.append(f"sample {sample['sample']}  {sample['source']}  epoch {sample['epoch']}  {place}")
        lines += [safe_line(f"    {one['document']}  {one['url'] or one['file']}") for one in sample["documents"]]
    return "\n".join(lines)


def _parse_launch(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the arguments of `launch`.

    Returns:
        The options before `--`, and the words after `--`. Words before `--` that are not options of `launch` are
        options of torchrun; they are in the attribute `torchrun`.
    """
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, unknown = _parser().parse_known_args(["launch", *arguments[:cut]])
    options.torchrun = unknown
    return options, arguments[cut + 1 :]


def _launch(options: argparse.Namespace, program: list[str]) -> int:
    from trainer.config import expand_config
    from trainer.launch import launch

    if program[:1] != ["train"]:
        raise UserError("give the command after --, as in `python -m trainer launch --nproc 8 -- train …`")
    # The options of `train` are parsed here too, so that a mistake is reported once and not by each rank.
    run = _parser().parse_args(["train", *expand_config(program[1:])]).output
    return launch(options.torchrun, options.nproc, ["-m", "trainer", *program], run)


def _export(options: argparse.Namespace) -> str:
    from trainer.hf import export

    return export(options.checkpoint, options.output, options.corpus, options.dtype, options.file_bytes)


def _generate(options: argparse.Namespace) -> str:
    from trainer.generate import generate, print_pieces

    sampling = (options.tokens, options.temperature, options.top_p, options.seed, options.device)
    print_pieces(generate(options.checkpoint, options.corpus, options.prompt or [""], *sampling))
    return ""


def _evaluate(options: argparse.Namespace) -> str:
    from trainer.evaluation.tasks import download_tasks, list_tasks

    if options.list:
        return list_tasks(options.data, options.tasks)
    if options.download:
        return download_tasks(options.data, options.tasks)
    if options.model is None:
        raise UserError("give a MODEL to evaluate, or --list or --download")
    return _evaluate_model(options)


def _evaluate_model(options: argparse.Namespace) -> str:
    """Evaluate a model. Return a table of its scores and the scores of LLaMA's paper."""
    from manifests.files import canonical_json, write_atomic
    from trainer.evaluation.evaluate import Options, evaluate, prepare
    from trainer.evaluation.judges import open_judge
    from trainer.evaluation.models import find_model, open_engine
    from trainer.evaluation.results import RESULTS, format_table, summarize
    from trainer.evaluation.tasks import choose_tasks
    from trainer.model import resolve_device

    judges = {kind: open_judge(kind, path) for kind, path in options.judge}
    device = resolve_device(options.device)
    precision = options.precision or ("bf16" if device == "cuda" else "fp32")
    how = Options(options.limit, options.shots, options.samples, judges, options.run_code, precision)
    tasks = choose_tasks(options.data, options.tasks)
    runs, refused = prepare(tasks, options.data, how)
    if not runs or (options.tasks and refused):
        raise UserError("; ".join(dict.fromkeys(refused.values())))
    source = find_model(options.model, options.corpus)
    output = options.output or options.model / "evaluation"
    records = evaluate(source, lambda: open_engine(source, device, precision), runs, output, how)
    results = {**summarize(source, runs, records, refused), "precision": precision}
    text = format_table(results)
    if options.harness:
        from trainer.evaluation.harness import compare_with_harness
        from trainer.hf import export

        folder = options.model
        if not (folder / "config.json").is_file():
            folder = output / f"exported-{source.sha256[:16]}"  # The folder name depends on the checkpoint.
            if not folder.exists():
                export(options.model, folder, options.corpus)
        results["harness"], lines = compare_with_harness(folder, runs, options.data, records, device)
        text += "\n\n" + lines
    write_atomic(output / RESULTS, canonical_json(results))
    return f"{text}\n{output / RESULTS}"


def _plot(options: argparse.Namespace) -> str:
    from trainer.curves import plot

    return plot(options.run, options.output, options.corpus)


def _compare(options: argparse.Namespace) -> str:
    from trainer.evaluation.compare import compare, read_held_out

    text, values = compare(options.runs, read_held_out(options.held_out))
    return json.dumps(values, indent=2) if options.json else text


def _stages(text: str) -> list[dict[str, Any]]:
    from trainer.config import parse_stages

    return parse_stages(text)


def _step_range(text: str) -> tuple[int, int]:
    """Parse `K` or `A:B` into (first step, last step). Both steps are included."""
    begin, _, end = text.partition(":")
    steps = POSITIVE(begin), POSITIVE(end or begin)
    if steps[0] > steps[1]:
        raise argparse.ArgumentTypeError("the first step must not be after the last")
    return steps


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m trainer", description="Train a LLaMA on a corpus.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, function: Callable[..., Any], summary: str, **settings: Any) -> Parser:
        made: Parser = commands.add_parser(name, **describe(summary), **settings)
        made.set_defaults(function=function)
        return made

    _add_train(command("train", _train, "train, or resume training"))
    trace = command("trace", _trace, "print the documents of the batch of one step").add_argument
    trace("--step", type=POSITIVE, required=True, help="number of the step, counted from 1 as in metrics.csv")
    trace("--json", action="store_true", help="print JSON")
    usage = "python -m trainer launch [--nproc N] [torchrun's options] -- train …"
    launcher = command("launch", _launch, "train in several processes with torchrun", usage=usage)
    launcher.accepts_unknown, launch = True, launcher.add_argument
    launch("--nproc", type=POSITIVE, default=1, help="number of processes on this machine, one per GPU (default: 1)")
    export = command("export", _export, "write a checkpoint in Hugging Face's layout").add_argument
    generate = command("generate", _generate, "continue a text with a checkpoint").add_argument
    for add in (export, generate):
        add("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a run or of one checkpoint")
    export("output", type=Path, metavar="OUT", help="folder to create")
    export("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="type of the weights")
    export("--file-bytes", type=POSITIVE, default=5_000_000_000, help="largest size of one file of weights in bytes")
    generate(
        "--prompt", action="append", metavar="TEXT", help="text to continue; may be repeated (default: an empty text)"
    )
    generate("--device", choices=("auto", "cpu", "cuda"), default="auto")
    generate("--tokens", type=POSITIVE, default=200, help="largest number of tokens to generate (default: 200)")
    generate("--temperature", type=AT_LEAST_ZERO, default=0.8, help="0 takes the most probable token (default: 0.8)")
    generate("--top-p", type=SHARE, default=0.95, help="total probability of the tokens to sample from (default: 0.95)")
    generate("--seed", type=int, default=0, help="seed of the random numbers")
    plot = command("plot", _plot, "draw the curves of a run").add_argument
    plot("--output", type=Path, metavar="FILE", help="file to write, .html or .svg (default: RUN/curves.html)")
    compare = command("compare", _compare, "compare runs on held-out text, over several seeds").add_argument
    compare("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs; the first run belongs to the baseline")
    compare("--held-out", type=Path, required=True, metavar="FILE", help="file that `python -m manifests freeze` wrote")
    compare("--json", action="store_true", help="print JSON")
    for add in (trace, plot):
        add("run", type=Path, metavar="RUN", help="folder of a run")
    evaluate = command("evaluate", _evaluate, "score a model on the benchmarks of LLaMA's paper").add_argument
    _add_evaluate(evaluate)
    for add in (trace, export, generate, plot, evaluate):
        add("--corpus", help="folder or URL of the corpus, if it was moved")
    return parser


def _add_evaluate(evaluate: Callable[..., Any]) -> None:
    model = "folder of a run, of one checkpoint, or of a Llama in Hugging Face's layout"
    evaluate("model", type=Path, nargs="?", metavar="MODEL", help=model)
    tasks = "names of tasks, separated by commas (default: all tasks whose files are in DIR)"
    evaluate("--tasks", type=_names, default=[], metavar="NAMES", help=tasks)
    evaluate("--data", type=Path, default=Path("evaluation"), metavar="DIR", help="folder of the task files")
    evaluate("--output", type=Path, metavar="OUT", help="folder for the results (default: MODEL/evaluation)")
    evaluate("--limit", type=POSITIVE, metavar="N", help="maximum questions per task, drawn by hash (default: all)")
    shots = "numbers of examples in a prompt, separated by commas (default: as in the paper)"
    evaluate("--shots", type=_numbers, metavar="K", help=shots)
    evaluate("--samples", type=POSITIVE, metavar="N", help="answers per question (default: as the task defines)")
    judge = "classifier for toxicity, truthful or informative: a fastText model or a folder of transformers"
    evaluate("--judge", type=_judge, action="append", default=[], metavar="KIND=PATH", help=judge)
    evaluate("--run-code", action="store_true", help="run the programs that the model writes, in a sandbox")
    evaluate("--harness", action="store_true", help="also score with lm-evaluation-harness, and compare")
    evaluate("--list", action="store_true", help="list the tasks, their files and where they are published")
    evaluate("--download", action="store_true", help="download the published files into DIR")
    evaluate("--device", choices=("auto", "cpu", "cuda"), default="auto")
    evaluate("--precision", choices=("bf16", "fp32"), help="precision of products (default: bf16 on a GPU)")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(COUNT(number) for number in text.split(","))


def _judge(text: str) -> tuple[str, Path]:
    kind, _, path = text.partition("=")
    if kind not in ("toxicity", "truthful", "informative") or not path:
        raise argparse.ArgumentTypeError("must be toxicity=PATH, truthful=PATH or informative=PATH")
    return kind, Path(path)


def _add_train(parser: argparse.ArgumentParser) -> None:
    train = parser.add_argument
    corpus = "folder or URL of the corpus (s3://, gs://, hdfs://, file://)"
    train("corpus", nargs="?", default=argparse.SUPPRESS, help=corpus)
    # A --config file gives the corpus as an option, which comes before the positional argument.
    train("--corpus", help=argparse.SUPPRESS)
    train("--config", metavar="FILE", help="read options from a YAML file; options on the command line override them")
    _add_fixed_options(parser.add_argument_group("options that must stay the same when a run is resumed").add_argument)
    _add_changeable_options(parser.add_argument_group("options that may change").add_argument)


def _add_fixed_options(fixed: Callable[..., Any]) -> None:
    fixed("--model", required=True, help=f"{', '.join(PRESETS)}, or dim=D,layers=L,heads=H")
    fixed("--steps", type=POSITIVE, help="optimizer steps of the whole run")
    fixed("--batch-tokens", type=POSITIVE, help="tokens per step (default: the preset's)")
    fixed("--sequence-length", type=POSITIVE, help="tokens per sequence (default: the preset's)")
    fixed("--learning-rate", type=ABOVE_ZERO, help="peak learning rate (default: the preset's)")
    fixed("--warmup", type=POSITIVE, help="steps of linear warm-up (default: the preset's)")
    schedules = "learning rate after the warm-up (default: cosine, to a tenth of the peak)"
    fixed("--schedule", choices=tuple(SCHEDULES), default="cosine", help=schedules)
    stages = "list of stages, each with steps or tokens, and optionally mixture, schedule, learning_rate, warmup"
    fixed("--stages", type=_stages, metavar="JSON", help=stages)
    fixed("--seed", type=int, help="seed of initial weights and data order (default: the corpus's)")
    fixed("--init-from", default="", metavar="DIR", help="folder of published weights to start from")
    fixed("--precision", choices=("bf16", "fp32"), help="precision of products (default: bf16 on a GPU, else fp32)")
    fixed("--document-masks", action=SWITCH, default=False, help="tokens attend only to their own document")
    sigmas = "skip steps whose gradient norm is S deviations above the mean (default: 6; 0: only if not finite)"
    fixed("--outlier-sigmas", type=AT_LEAST_ZERO, default=6.0, metavar="S", help=sigmas)
    fixed("--outlier-window", type=POSITIVE, default=128, metavar="N", help="steps in that mean (default: 128)")


def _add_changeable_options(free: Callable[..., Any]) -> None:
    free("--output", type=Path, required=True, metavar="RUN", help="folder of the run; it is created")
    free("--stop-after", type=COUNT, default=0, metavar="K", help="stop early after step K, with a checkpoint")
    skip = "skip these steps, counted from 1 as in metrics.csv; the run stores them"
    free("--skip-steps", type=_step_range, action="append", default=[], metavar="A:B", help=skip)
    free("--micro-batch", type=POSITIVE, help="sequences that a rank processes at once (default: by memory)")
    minutes = "minutes between checkpoints (default: 15; 0: none)"
    free("--checkpoint-minutes", type=AT_LEAST_ZERO, default=15.0, metavar="M", help=minutes)
    free("--checkpoint-every", type=COUNT, default=0, metavar="N", help="steps between checkpoints (default: by time)")
    free("--validate-every", type=COUNT, default=0, metavar="N", help="steps between validations (default: at the end)")
    limit = "end the run after N consecutive steps with gradients that are not finite (default: 5)"
    free("--non-finite-limit", type=POSITIVE, default=5, metavar="N", help=limit)
    hang = "seconds without progress after which a run counts as hung and ends (default: 1800)"
    free("--hang-seconds", type=ABOVE_ZERO, default=1800.0, metavar="S", help=hang)
    evaluate = "steps between evaluations on benchmarks (docs/evaluation.md)"
    free("--evaluate-every", type=COUNT, default=0, metavar="N", help=evaluate)
    free("--evaluate-tasks", default="", metavar="NAMES", help="names of the tasks, separated by commas")
    free("--evaluate-data", type=Path, default=Path("evaluation"), metavar="DIR", help="folder of the task files")
    free("--evaluate-limit", type=POSITIVE, default=200, metavar="N", help="maximum questions per task (default: 200)")
    free("--keep", type=POSITIVE, default=2, help="number of checkpoints to keep (default: 2)")
    free("--verify", choices=("auto", "full", "fast"), default="auto", help="checks before the first step")
    free("--cache", type=Path, default=CACHE, help=f"folder for shards downloaded from a URL (default: {CACHE})")
    size = "size of the cache in bytes (default: 1 TiB)"
    free("--cache-bytes", type=POSITIVE, default=CACHE_BYTES, metavar="N", help=size)
    free("--device", choices=("auto", "cpu", "cuda"), default="auto")
    free("--threads", type=POSITIVE, default=1, help="threads per rank on a CPU; they change last digits (default: 1)")
    free("--replicas", type=POSITIVE, default=1, metavar="R", help="model copies, each on W/R of W ranks (default: 1)")
    free("--activation", choices=("none", "selective", "full"), default="none", help="what to recompute to save memory")
    free("--compile", action=SWITCH, help="use torch.compile, block by block (default on a GPU)")
    same_bits = "use algorithms that give the same bits each time, where PyTorch has them"
    free("--deterministic", action=SWITCH, default=False, help=same_bits)
    free("--tensorboard", action=SWITCH, default=False, help="also write RUN/tensorboard")
    free("--wandb", action=SWITCH, default=False, help="also report to Weights & Biases")
    free("--peak-tflops", type=ABOVE_ZERO, help="peak rate of one device, for MFU (default: from the GPU's data sheet)")


def exit_now(code: int) -> NoReturn:
    """End this process at once, without running the destructors of native libraries.

    If a native library has not joined one of its threads, its destructor would abort a finished run with the message
    "terminate called without an active exception".
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    escape_unencodable_output()
    exit_now(end_quietly(lambda: main(sys.argv[1:])))
