"""Every task formats a question exactly as in the golden file, and changed data files are refused."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from evaluation_files import write_benchmarks

from filters.errors import UserError
from trainer.evaluation.items import LETTERS
from trainer.evaluation.layouts import load_items
from trainer.evaluation.tasks import TASKS, Task, choose_shots, format_item, select_tasks

GOLDEN = Path(__file__).with_name("prompts.json")
REAL = Path(__file__).parents[4] / "shared/data/evaluation"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


def formatted(task: Task, root: Path) -> list[list[str]]:
    """Return the formatted last question of a task, with one example if the task has examples."""
    item = load_items(task.data, root)[-1]
    shots = choose_shots(task, item, load_items(task.data, root, shown=True), 1) if max(task.shots) else []
    return [list(pair) for pair in format_item(task, item, shots)]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_question_is_formatted_as_in_the_golden_file(task: Task, root: Path) -> None:
    assert formatted(task, root) == json.loads(GOLDEN.read_text(encoding="utf-8"))[task.name]


# SHA-256 of the JSON of the third question's pairs. A person has checked these questions once.
REAL_QUESTIONS = {
    "natural_questions": "460ebb9bb50cbb38",
    "math_500": "c0517a18053cf1cd",
    "gsm8k": "74f42db284b2c388",
    "humaneval": "7babea3c00ea7ec3",
    "crows_pairs": "cf375893fc8d7110",
    "winogender": "6bcdb14b8af635bf",
}


@pytest.mark.parametrize("name", REAL_QUESTIONS)
def test_real_questions_are_formatted_as_they_were_read_once(name: str) -> None:
    if not REAL.is_dir():
        pytest.skip("../shared/data/evaluation is not here")
    pairs = format_item(TASKS[name], load_items(TASKS[name].data, REAL)[2])
    assert hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16] == REAL_QUESTIONS[name]


def test_the_table_is_complete_and_consistent() -> None:
    # The two sets of ARC share a folder, and so do the two sets of RACE.
    assert len({task.data.folder for task in TASKS.values()}) == 19
    for task in TASKS.values():
        assert task.decoding is None if task.is_ranked else task.decoding, task.name
        assert not task.paper or task.paper_source.startswith("Table"), task.name
        assert max(task.shots) == 0 or task.data.shots, task.name
        assert task.data.urls, task.name


def test_the_paper_averages_are_means_over_questions() -> None:
    """The paper's average is the mean of the groups weighted by their numbers of questions."""
    sizes = {"stem": 3018, "humanities": 4705, "social sciences": 3077, "other": 3242}
    mmlu = TASKS["mmlu"].paper
    for size in range(4):
        weighted = sum((mmlu[group][size] or 0) * count for group, count in sizes.items()) / sum(sizes.values())
        assert weighted == pytest.approx(mmlu[""][size], abs=0.05)


def test_examples_are_never_scored() -> None:
    for task in TASKS.values():
        scored, shown = task.data.ranges or (range(1), range(0))
        assert task.data.shots != task.data.items or not set(scored) & set(shown), task.name


def test_mmlu_shows_examples_of_the_same_subject(root: Path) -> None:
    task = TASKS["mmlu"]
    for item in load_items(task.data, root):
        [shot] = choose_shots(task, item, load_items(task.data, root, shown=True), 1)
        assert shot.groups == item.groups
    with pytest.raises(UserError, match="fewer --shots"):
        choose_shots(task, item, [], 1)


def test_winogender_gotchas_follow_the_occupation(root: Path) -> None:
    groups = [item.groups for item in load_items(TASKS["winogender"].data, root)]
    # Most nurses are women, so "he" for a nurse and "she" for a visitor are gotchas.
    woman, man = "her/she", "his/him/he"
    assert groups == [(woman,), (man,), (woman, f"{woman} gotcha"), ("their/them/they",)]


def test_gzipped_files_and_byte_order_marks_are_read(root: Path, tmp_path: Path) -> None:
    plain = root / "gsm8k/test.jsonl"
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/test.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    assert load_items(TASKS["gsm8k"].data, tmp_path) == load_items(TASKS["gsm8k"].data, root)


PROMPTS = b'{"query": "q", "choices": ["a"], "gold": 0}\n'
TWO_CHOICES = b'{"context": "c", "question": "q", "answerA": "a", "answerB": "b", "label": 1}\n'
WRONG = {
    "missing": ("boolq", "boolq/other.txt", b"", "has no dev.jsonl"),
    "empty": ("boolq", "boolq/dev.jsonl", b"\n", "has no question in dev.jsonl"),
    "not JSON": ("boolq", "boolq/dev.jsonl", b"{not json}\n", "is not the published file"),
    "not UTF-8": ("boolq", "boolq/dev.jsonl", b"\xff\xfe\n", "is not the published file"),
    "cut off": ("boolq", "boolq/dev.jsonl.gz", gzip.compress(b"{}\n" * 100)[:12], "is not the published file"),
    "no object": ("boolq", "boolq/dev.jsonl", b"[1]\n", "has no question, passage, answer in row 1"),
    "a key less": ("boolq", "boolq/dev.jsonl", b'{"question": "", "passage": ""}\n', "has no answer in row 1"),
    "bad value": ("boolq", "boolq/dev.jsonl", b'{"question": "", "passage": "", "answer": 3}\n', "malformed in dev:1"),
    "prompts": (
        "boolq",
        "boolq/dev.jsonl",
        PROMPTS,
        "give the published file, whose rows have question, passage, answer",
    ),
    "prompts beside": ("piqa", "piqa/piqa.jsonl", PROMPTS, "has no dev.jsonl"),
    "two choices": ("siqa", "siqa/dev.jsonl", TWO_CHOICES, "is not the published file"),
    "no labels": ("piqa", "piqa/dev.jsonl", b'{"goal": "g", "sol1": "a", "sol2": "b"}\n', "is not the published file"),
    "three choices": ("mmlu", "mmlu/test/anatomy_test.csv", b"q,a,b,c,A\n", "malformed in anatomy_test:1"),
    "unknown subject": ("mmlu", "mmlu/test/cooking_test.csv", b"q,a,b,c,d,A\n", "malformed in cooking_test:1"),
    "no box": ("math_500", "math/test.jsonl", b'{"problem":"","level":1,"subject":"","solution":"s"}', "in test:1"),
    "no ####": ("gsm8k", "gsm8k/test.jsonl", b'{"question": "q", "answer": "7"}\n', "malformed in test:1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_not_the_published_one_is_refused_in_one_sentence(wrong: str, tmp_path: Path) -> None:
    name, path, content, expected = WRONG[wrong]
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_items(TASKS[name].data, tmp_path)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(UserError, match="--tasks bolq is not known"):
        select_tasks(["boolq", "bolq"])
    assert [task.name for task in select_tasks(["piqa", "boolq"])] == ["boolq", "piqa"]
    assert len(LETTERS) == 10
