"""The benchmarks of LLaMA's paper, which are defined in `tasks.yaml`, and their prompts.

Every metric is a mean over questions. This is also true for a group of questions and for all of MMLU, because the
averages in the paper are means over questions (docs/evaluation.md shows the arithmetic).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from filters.errors import UserError
from manifests.files import sha256_json
from trainer.evaluation import items, layouts
from trainer.evaluation.items import LETTERS, Item
from trainer.evaluation.layouts import Data, download, find_files

Scores = tuple[float | None, float | None, float | None, float | None]  # scores of LLaMA 7B, 13B, 33B and 65B

# Rules that compare likelihoods of choices. All other rules score generated texts.
RANKED = ("raw", "characters", "tokens", "answer", "pair")
OLMES = "OLMES (Gu et al. 2024), section 3"


@dataclass(frozen=True, slots=True)
class Decoding:
    """The settings for the generation of answers.

    Attributes:
        tokens: Maximum number of tokens.
        stop: Texts at which the answer ends. They are not part of the answer.
        samples: Answers per question. Several answers are combined by a majority vote, or by pass@k for programs.
        temperature: See `trainer.generate.sample`.
        top_p: See `trainer.generate.sample`.
        k: The k of pass@k.
    """

    tokens: int
    stop: tuple[str, ...]
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 0.95
    k: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark with a prompt and a scoring rule.

    Attributes:
        name: Name of the task. If the form of the prompt is not that of the paper, it is added after a colon.
        data: The published files.
        split: Name of the split that is scored.
        prompt: Template of the context. Its names are an item's fields, `choice` and `letter`.
        answer: Template of the text after the context: a scored choice, or the answer of an example in the prompt.
        rule: Scoring rule (docs/evaluation.md).
        metric: Name of the main score.
        source: The paper or program from which the prompt was taken.
        shots: Numbers of examples in the prompt. Each number is a separate run.
        preamble: Template of the text before the first example. Its names are the item's fields.
        separator: Text after each example.
        decoding: Settings of the generation, or None if choices are ranked.
        paper: A dict from a row of the results to the paper's scores in percent. A row is "", "K shots", a group, or
            another metric. Not all scores were compared with the paper (docs/evaluation.md).
        paper_source: Table of the paper.
        letters: Prompt of the form with lettered choices (OLMES, Gu et al. 2024), or "" if the task has no such form.
        harness: Name of the task of lm-evaluation-harness that sends the same requests, or "".
    """

    name: str
    data: Data
    split: str
    prompt: str
    answer: str
    rule: str
    source: str
    metric: str = "accuracy"
    shots: tuple[int, ...] = (0,)
    preamble: str = ""
    separator: str = "\n\n"
    decoding: Decoding | None = None
    paper: Mapping[str, Scores] = field(default_factory=dict)
    paper_source: str = ""
    letters: str = ""
    harness: str = ""

    @property
    def is_ranked(self) -> bool:
        """Return True if the task compares likelihoods of given choices, False if the model generates the answer."""
        return self.rule in RANKED

    @property
    def version(self) -> str:
        """Return a hash of everything except the data on which requests and scores of the task depend."""
        parts = (self.prompt, self.answer, self.rule, self.preamble, self.separator, self.data.parse.__name__)
        decoding = [getattr(self.decoding, one.name) for one in fields(Decoding)] if self.decoding else None
        return sha256_json([*parts, decoding])[:12]


def format_item(task: Task, item: Item, shots: Sequence[Item] = ()) -> list[tuple[str, str]]:
    """Format a question.

    Args:
        task: The task.
        item: The question.
        shots: Examples to include in the prompt before the question.

    Returns:
        (context, continuation) for each choice. If the model generates the answer, only one pair: (context, "").
    """
    shown = "".join(_show(task, shot) + task.separator for shot in shots)
    before = task.preamble.format_map(item.fields) + shown
    if not task.is_ranked:
        return [(before + task.prompt.format_map(item.fields), "")]
    named = [_fill_choice(item, number) for number in range(len(item.choices))]
    return [(before + task.prompt.format_map(one), task.answer.format_map(one)) for one in named]


def _show(task: Task, shot: Item) -> str:
    named = _fill_choice(shot, shot.gold) if shot.choices else shot.fields
    return task.prompt.format_map(named) + task.answer.format_map(named)


def _fill_choice(item: Item, number: int) -> dict[str, str]:
    return {**item.fields, "choice": item.choices[number], "letter": LETTERS[number]}


def choose_shots(task: Task, item: Item, pool: Sequence[Item], count: int) -> list[Item]:
    """Return the examples for the prompt of a question.

    They are the first `count` items of the pool. For MMLU, only items with the question's subject are used.

    Raises:
        UserError: The pool has too few items.
    """
    same = [shot for shot in pool if shot.groups[0] == item.groups[0]] if task.data.by_group else pool
    if len(same) < count:
        raise UserError(f"{task.name} has {len(same)} questions to show as examples, not {count}: give fewer --shots")
    return list(same[:count])


def lettered_form(task: Task) -> Task:
    """Return a form of a ranked task in which the prompt lists the choices by letter, and the letters are scored."""
    return replace(
        task,
        name=f"{task.name}:letters",
        prompt=task.letters,
        answer=" {letter}",
        rule="raw",
        source=OLMES,
        paper={},
        letters="",
        harness="",
    )


def select_tasks(names: Sequence[str]) -> list[Task]:
    """Return the tasks of the given names, in the order of the table.

    Raises:
        UserError: A name is not in the table.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise UserError(f"--tasks {unknown[0]} is not known: `python -m trainer evaluate --list` shows the names")
    return [task for name, task in TASKS.items() if name in names]


def list_tasks(root: Path, names: Sequence[str]) -> str:
    """Return text lines with the tasks, their files in `root`, and the URLs at which the files are published."""
    lines = []
    for task in select_tasks(names or list(TASKS)):
        data = task.data
        state = "present" if find_files(data, root, data.items) else "missing"
        wanted = ", ".join(pattern for pattern in (data.items, *data.beside, data.shots) if pattern)
        shots = "/".join(map(str, task.shots))
        lines.append(f"{task.name:32} {state}  {data.count:,} questions of {task.split}, {shots} shots, {task.rule}")
        lines.append(f"    {root / data.folder}: {wanted}")
        lines += [f"    {url}" for url in data.urls]
    return "\n".join(lines)


def download_tasks(root: Path, names: Sequence[str]) -> str:
    """Download the missing files of tasks. Return one line per benchmark."""
    benchmarks: dict[tuple[str, str], Data] = {}
    for task in select_tasks(names or list(TASKS)):
        benchmarks.setdefault((task.data.folder, task.data.items), task.data)
    lines = []
    for data in benchmarks.values():
        written = download(data, root)
        lines.append(f"{root / data.folder}: " + (f"{len(written)} files fetched" if written else "already there"))
    return "\n".join(lines)


def choose_tasks(root: Path, names: Sequence[str]) -> list[Task]:
    """Return the tasks with the given names. Without names, return the tasks whose files are in `root`.

    Without names, only tasks in the form of the paper are returned.

    Raises:
        UserError: A name is unknown, or `root` contains no files of a benchmark.
    """
    if names:
        return select_tasks(names)
    found = [task for task in TASKS.values() if ":" not in task.name and find_files(task.data, root, task.data.items)]
    if not found:
        raise UserError(f"{root} holds no benchmark: give --data, or fetch them with --download")
    return found


def _read_tasks() -> dict[str, Task]:
    """Return a dict from name to task of `tasks.yaml`. Forms with lettered choices are included."""
    rows = yaml.safe_load(Path(__file__).with_name("tasks.yaml").read_text(encoding="utf-8"))
    tasks = [_make_task(name, _freeze(row)) for name, row in rows.items()]
    return {one.name: one for task in tasks for one in (task, *([lettered_form(task)] if task.letters else []))}


def _make_task(name: str, row: dict[str, Any]) -> Task:
    files = dict(row["data"])
    files |= {"rows": getattr(layouts, files["rows"]), "parse": getattr(items, f"parse_{files['parse']}")}
    if "ranges" in files:
        files["ranges"] = tuple(range(*bounds) for bounds in files["ranges"])
    decoding = Decoding(**row["decoding"]) if "decoding" in row else None
    return Task(**{**row, "name": name, "data": Data(**files), "decoding": decoding})


def _freeze(value: Any) -> Any:
    """Return a value in which all lists are replaced by tuples, also inside dicts and lists."""
    if isinstance(value, dict):
        return {key: _freeze(inner) for key, inner in value.items()}
    return tuple(map(_freeze, value)) if isinstance(value, list) else value


TASKS = _read_tasks()
