"""The benchmarks of LLaMA, read from the table `tasks.yaml`, and their prompts.

Every metric is the mean over questions, also that of a group or of all of MMLU: the paper's averages are means over
questions (docs/evaluation.md shows the arithmetic).
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

Scores = tuple[float | None, float | None, float | None, float | None]  # of the paper's 7B, 13B, 33B and 65B

RANKED = ("raw", "characters", "tokens", "answer", "pair")  # rules that compare likelihoods; all others read a text
OLMES = "OLMES (Gu et al. 2024), section 3"


@dataclass(frozen=True, slots=True)
class Decoding:
    """Settings by which an answer is written.

    Attributes:
        tokens: The largest number of tokens.
        stop: Texts before which the answer ends.
        samples: Answers per question; several are a majority vote, or pass@k for programs.
        temperature: 0 takes the most probable token.
        top_p: See `trainer.generate.sample`.
        k: Of pass@k.
    """

    tokens: int
    stop: tuple[str, ...]
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 0.95
    k: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark in one setting.

    Attributes:
        name: Its name; after a colon the form, if it is not the paper's.
        data: The published files.
        split: Name of the split that is scored.
        prompt: Template of the context, over an item's fields, `choice` and `letter`.
        answer: Template of what follows the context: a choice that is scored, or the answer of a shown example.
        rule: How answers are judged, a key of `trainer.evaluation.score.RULES`.
        metric: Name of the main score.
        source: Where the prompt is from.
        shots: Numbers of shown examples; each is a run of its own.
        preamble: Text before the first example; takes the fields of the item.
        separator: Text between examples.
        decoding: For tasks whose answer is written.
        paper: The paper's scores in percent by row of the results: "" or "K shots", a group, or a further metric. Not
            all were compared with the paper (docs/evaluation.md).
        paper_source: Table of the paper.
        letters: The prompt of the form with lettered choices (OLMES, Gu et al. 2024), or "" if the task has no such.
        harness: Name of the task of lm-evaluation-harness whose requests are the same, or "".
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
        """Return True if the task compares likelihoods of given texts."""
        return self.rule in RANKED

    @property
    def version(self) -> str:
        """Return a hash of all that the requests and scores of a question depend on beside its file."""
        parts = (self.prompt, self.answer, self.rule, self.preamble, self.separator, self.data.parse.__name__)
        decoding = [getattr(self.decoding, one.name) for one in fields(Decoding)] if self.decoding else None
        return sha256_json([*parts, decoding])[:12]


def format_item(task: Task, item: Item, shots: Sequence[Item] = ()) -> list[tuple[str, str]]:
    """Return the context and the continuation of each choice, or one context and "" where the model writes the answer.

    Args:
        task: The task.
        item: The question.
        shots: Examples to show before it.
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
    """Return the examples shown before a question: the first of the pool, of MMLU those of its subject.

    Raises:
        UserError: The pool has too few.
    """
    same = [shot for shot in pool if shot.groups[0] == item.groups[0]] if task.data.by_group else pool
    if len(same) < count:
        raise UserError(f"{task.name} has {len(same)} questions to show as examples, not {count}: give fewer --shots")
    return list(same[:count])


def lettered_form(task: Task) -> Task:
    """Return the form of a ranked task whose choices are listed by letter, and the letters scored."""
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
    """Return the tasks, their files in `root`, and where those are published."""
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
    """Fetch the files of tasks that are not there yet, and return one line for each benchmark."""
    benchmarks: dict[tuple[str, str], Data] = {}
    for task in select_tasks(names or list(TASKS)):
        benchmarks.setdefault((task.data.folder, task.data.items), task.data)
    lines = []
    for data in benchmarks.values():
        written = download(data, root)
        lines.append(f"{root / data.folder}: " + (f"{len(written)} files fetched" if written else "already there"))
    return "\n".join(lines)


def choose_tasks(root: Path, names: Sequence[str]) -> list[Task]:
    """Return the tasks of the given names, else those in the paper's form whose files are in `root`.

    Raises:
        UserError: A name is unknown, or no file of a benchmark is there.
    """
    if names:
        return select_tasks(names)
    found = [task for task in TASKS.values() if ":" not in task.name and find_files(task.data, root, task.data.items)]
    if not found:
        raise UserError(f"{root} holds no benchmark: give --data, or fetch them with --download")
    return found


def _read_tasks() -> dict[str, Task]:
    """Return the tasks of `tasks.yaml` by name, each with its form with lettered choices if it has one."""
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
    """Return plain values with tuples in place of lists."""
    if isinstance(value, dict):
        return {key: _freeze(inner) for key, inner in value.items()}
    return tuple(map(_freeze, value)) if isinstance(value, list) else value


TASKS = _read_tasks()
