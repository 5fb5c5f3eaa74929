"""Evaluate a model on tasks, one record per question.

The records are appended to `OUTPUT/items.jsonl`. A record is used again if the same model is evaluated with the same
requests, so an interrupted evaluation can be continued.
"""

import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from filters.errors import UserError
from manifests.files import sha256_json
from trainer.evaluation import score
from trainer.evaluation.engine import Engine, build_choice_request, build_prompt
from trainer.evaluation.items import Item
from trainer.evaluation.judges import Judge
from trainer.evaluation.layouts import load_items
from trainer.evaluation.models import EvaluatedModel
from trainer.evaluation.sandbox import run_program
from trainer.evaluation.score import Likelihood
from trainer.evaluation.tasks import Task, choose_shots, format_item
from trainer.events import open_for_append, read_lines

ITEMS = "items.jsonl"
BITS = "bits per byte"  # name of a metric
# Context for the unconditional likelihood in the rule "answer" (section 3 of LLaMA's paper).
ANSWER = "Answer:"
JUDGES = {"toxicity": ("toxicity",), "truth": ("truthful", "informative")}  # rule -> judges that it needs
PORTION = 2_048  # number of questions that are encoded at once
LINE_SECONDS = 15.0  # seconds between two lines of progress if the output is not a terminal
COLUMNS = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

Record = dict[str, Any]
Records = dict[str, Record]  # key of a question (see TaskRun.keys) -> record


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an evaluation.

    Attributes:
        limit: Maximum number of questions per task, or None for all.
        shots: Numbers of examples in the prompt, or None to use those of each task.
        samples: Answers per question, or None to use the number of each task.
        judges: A dict from what a classifier rates to the classifier.
        run_code: True to run programs that the model writes, in the sandbox.
        precision: "fp32" or "bf16", the type of weights and products. It changes the last digits of a likelihood.
    """

    limit: int | None = None
    shots: tuple[int, ...] | None = None
    samples: int | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    run_code: bool = False
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task with a fixed number of examples in the prompt, and its formatted questions.

    Attributes:
        name: Name in the results.
        task: The task.
        shots: Number of examples in the prompt.
        items: The questions.
        pairs: (context, continuation) pairs of each question, see `format_item`.
        keys: Key of each question's record. It is a hash of everything except the model on which the record depends.
    """

    name: str
    task: Task
    shots: int
    items: list[Item]
    pairs: list[list[tuple[str, str]]]
    keys: list[str]


def prepare(tasks: Sequence[Task], data: Path, options: Options) -> tuple[list[TaskRun], dict[str, str]]:
    """Read the questions of tasks and format them.

    Returns:
        The runs, and a dict from the name of a run that cannot be scored to the reason.
    """
    runs: list[TaskRun] = []
    refused: dict[str, str] = {}
    load = functools.cache(functools.partial(load_items, root=data))  # Files are read once for all numbers of examples.
    for task in tasks:
        for shots in options.shots or task.shots:
            name = task.name if task.shots == (shots,) else f"{task.name} {shots}-shot"
            try:
                runs.append(_prepare_run(name, task, shots, load, options))
            except UserError as error:
                refused[name] = str(error)
    return runs, refused


def _prepare_run(name: str, task: Task, shots: int, load: Callable[..., list[Item]], options: Options) -> TaskRun:
    """Prepare a task with a number of examples. Raise UserError if it cannot be scored."""
    needed = JUDGES.get(task.rule, ())
    for kind in needed:
        if kind not in options.judges:
            raise UserError(f"{task.name} cannot be scored without a judge: give --judge {kind}=PATH")
    if task.rule == "program" and not options.run_code:
        raise UserError(f"{task.name} runs programs that the model writes: give --run-code to run them in the sandbox")
    if task.decoding and options.samples:
        task = replace(task, decoding=replace(task.decoding, samples=options.samples))
    if task.decoding and task.decoding.samples < task.decoding.k:
        raise UserError(f"{task.name} needs {task.decoding.k} answers to a question: give --samples {task.decoding.k}")
    items = _sample_items(load(task.data), options.limit)
    pool = load(task.data, shown=True) if shots else []
    pairs = [format_item(task, item, choose_shots(task, item, pool, shots)) for item in items]
    judged_by = [options.judges[kind].sha256 for kind in needed]
    setting = [task.name, task.version, judged_by, options.precision]
    keys = [sha256_json([*setting, asdict(item), pair])[:24] for item, pair in zip(items, pairs, strict=True)]
    return TaskRun(name, task, shots, items, pairs, keys)


def _sample_items(items: list[Item], limit: int | None) -> list[Item]:
    """Return at most `limit` questions, selected by a hash of their names because files are sorted by topic."""
    drawn = sorted(items, key=lambda item: sha256_json(item.name))[:limit]
    names = {item.name for item in drawn}
    return [item for item in items if item.name in names]


def evaluate(
    source: EvaluatedModel,
    load: Callable[[], Engine],
    runs: Sequence[TaskRun],
    output: Path,
    options: Options,
    note_progress: Callable[[], object] = lambda: None,
) -> Records:
    """Score the questions that have no record yet. Return the records of all questions.

    Args:
        source: The model.
        load: A function that loads the model. It is called only if a question must be scored.
        runs: The runs.
        output: Folder of the records.
        options: Options of the evaluation.
        note_progress: A function that is called after each scored question.
    """
    records = read_records(output / ITEMS, source.sha256)
    waiting = [(run, [n for n, key in enumerate(run.keys) if key not in records]) for run in runs]
    if any(numbers for _, numbers in waiting):
        engine = load()
        output.mkdir(parents=True, exist_ok=True)
        with open_for_append(output / ITEMS) as file:
            for run, numbers in waiting:
                for number, found in _show_progress(run.name, len(numbers), _answer(engine, run, numbers, options)):
                    item = run.items[number]
                    facts = {"model": source.sha256, "key": run.keys[number], "task": run.name, "item": item.name}
                    records[run.keys[number]] = {**facts, "groups": list(item.groups), **found}
                    file.write(json.dumps(records[run.keys[number]], ensure_ascii=False) + "\n")
                    file.flush()
                    note_progress()
    return records


def read_records(path: Path, model: str) -> Records:
    """Return a dict from key to record, for the records of a model in `items.jsonl`."""
    return {record["key"]: record for record in read_lines(path) if record["model"] == model}


def _answer(engine: Engine, run: TaskRun, numbers: list[int], options: Options) -> Iterator[tuple[int, Record]]:
    """Score questions and yield (index of the question, its record).

    The questions of a portion have the same examples in their prompts, so that the prefix is computed once.
    """
    answer = _score_choices if run.task.is_ranked else _generate_answers
    for _, same in groupby(numbers, lambda number: run.items[number].groups[0] if run.task.data.by_group else ""):
        portion = list(same)
        for start in range(0, len(portion), PORTION):
            yield from answer(engine, run, portion[start : start + PORTION], options)


def _score_choices(engine: Engine, run: TaskRun, numbers: list[int], options: Options) -> Iterator[tuple[int, Record]]:
    """Score questions with choices. Yield (index of the question, its record)."""
    unconditional: dict[tuple[str, ...], list[Likelihood]] = {}
    if run.task.rule == "answer":
        texts = list(dict.fromkeys(tuple(text for _, text in run.pairs[number]) for number in numbers))
        asked = [
            build_choice_request(engine.vocabulary, [(ANSWER, text) for text in one], engine.length) for one in texts
        ]
        unconditional = {texts[number]: found for number, found in engine.score_choices(asked)}
    requests = [build_choice_request(engine.vocabulary, run.pairs[number], engine.length) for number in numbers]
    for place, found in engine.score_choices(requests):
        if not all(math.isfinite(one.nats) for one in found):
            raise UserError("the model's likelihoods are not finite, so it has no score: give another checkpoint")
        item, texts_ = run.items[numbers[place]], tuple(text for _, text in run.pairs[numbers[place]])
        scores = score.score_choices(run.task.rule, item, texts_, found, unconditional.get(texts_, ()))
        nats = [round(one.nats, 6) for one in found]
        yield numbers[place], {"scores": scores, "truncated": requests[place].truncated, "nats": nats}


def _generate_answers(
    engine: Engine, run: TaskRun, numbers: list[int], options: Options
) -> Iterator[tuple[int, Record]]:
    """Generate and score answers. Yield (index of the question, its record)."""
    decoding = run.task.decoding
    assert decoding is not None
    contexts = [run.pairs[number][0][0] for number in numbers]
    requests = [build_prompt(engine.vocabulary, text, engine.length, decoding.tokens) for text in contexts]
    for place, texts in engine.generate_answers(requests, decoding, [run.keys[number] for number in numbers]):
        scores = score_texts(run.task, run.items[numbers[place]], texts, options)
        yield numbers[place], {"scores": scores, "truncated": requests[place].truncated, "texts": texts}


def score_texts(task: Task, item: Item, texts: Sequence[str], options: Options) -> dict[str, float]:
    """Return a dict from metric to the score of a question's generated answers."""
    if task.rule in score.WRITTEN:
        return {task.metric: score.WRITTEN[task.rule](item, texts)}
    if task.rule == "program":
        programs = [f"{item.fields['start']}{text}\n{item.fields['test']}" for text in texts]
        passed = sum(run_program(program).passed for program in programs)
        return {task.metric: score.pass_at_k(len(texts), passed, task.decoding.k if task.decoding else 1)}
    if task.rule == "toxicity":
        return {task.metric: options.judges["toxicity"].rate(texts)[0]}
    asked = [f"Q: {item.fields['question']}\nA: {texts[0].strip()}"]
    truthful, informative = (options.judges[kind].rate(asked)[0] > 0.5 for kind in JUDGES["truth"])
    return {"truthful": float(truthful), "truthful and informative": float(truthful and informative)}


def _show_progress(name: str, total: int, results: Iterator[tuple[int, Record]]) -> Iterator[tuple[int, Record]]:
    """Yield `results`, and show the progress on standard error.

    In a terminal, a progress bar is shown. Otherwise a line is printed every LINE_SECONDS.
    """
    bar = Progress(*COLUMNS, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    started = said = time.monotonic()
    with bar:
        task = bar.add_task(name, total=total)
        for done, result in enumerate(results, start=1):
            yield result
            bar.update(task, completed=done)
            if bar.disable and (time.monotonic() - said > LINE_SECONDS or done == total):
                said = time.monotonic()
                print(f"{name}: {done}/{total} questions, {said - started:.0f} s", file=sys.stderr, flush=True)
