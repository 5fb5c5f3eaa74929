"""docs/extend.md as a user runs it: its rule, source and recipe in another folder, with the installed package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.manifest import load_manifest
from manifests.shard import open_shard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extend.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("elsewhere")
    for block in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (made / block[0]).write_text(block[1], encoding="utf-8")
    (made / "threads").mkdir()
    lines = []
    for number in range(60):
        words = " ".join(f"word{(number * 7 + place) % 90}" for place in range(40))
        lines.append({"title": f"Thread {number}", "posts": [words, f"Thanks for {number}.\n-- \nsent by me {number}"]})
    lines += [{"title": "LOUD", "posts": ["ALL OF THIS IS WRITTEN IN CAPITALS"]}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "{broken\n"
    (made / "threads/one.jsonl").write_text(text, encoding="utf-8")
    return made


def run(folder: Path, *arguments: str, package: str = "pipeline") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", package, *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8",
        check=False, timeout=600, env=_environment(),
    )  # fmt: skip


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Path:
    done = run(folder, "run", "forum.yaml", "--output", "forum", "--quiet", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return folder / "forum"


def test_the_rule_and_the_source_are_in_ledger_and_signals(corpus: Path) -> None:
    manifest = load_manifest(corpus)
    ledger = manifest.ledger
    assert ledger["extract"]["forum"]["dropped"]["corrupt-record"]["records"] == 1
    assert ledger["filter"]["forum"]["dropped"]["custom-shouting"]["records"] == 1
    assert ledger["filter"]["forum"]["removed"]["custom-signature"]["characters"] > 60
    assert manifest.findings["reasons"]["custom-shouting"] == "a text mostly in capital letters"
    rows = pq.read_table(corpus / "clean/forum/one.jsonl.parquet").to_pylist()
    assert len(rows) == 60 and all(0 < dict(row["signals"])["capitals"] < 0.6 for row in rows)
    assert all("sent by me" not in row["text"] and row["text"].startswith("Thread ") for row in rows)


def test_the_report_and_show_describe_the_users_reasons(corpus: Path, folder: Path) -> None:
    assert "A text mostly in capital letters" in (corpus / "report.html").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "manifests", "show", "forum"], cwd=folder, capture_output=True, text=True,
        encoding="utf-8", check=False, env={**_environment(), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0 and "custom-shouting" in done.stdout, done.stderr


def test_a_trace_from_elsewhere_finds_the_code_in_the_corpus(corpus: Path, tmp_path: Path, folder: Path) -> None:
    shard = load_manifest(corpus).sources["forum"].train[0].path
    done = run(tmp_path, "trace", str(corpus), shard, "5", "--input", f"forum={folder / 'threads'}")
    assert done.returncode == 0 and "the same" in done.stdout, done.stdout + done.stderr


def test_verify_and_remove_from_elsewhere_find_the_code_in_the_corpus(
    corpus: Path, tmp_path: Path, folder: Path
) -> None:
    shard, left = load_manifest(corpus).sources["forum"].train[0].path, tmp_path / "left"
    (tmp_path / "list").write_text(open_shard(corpus / "shards" / shard).row(0)["document"].hex(), encoding="utf-8")
    commands = (
        ("manifests", "verify", str(corpus)),
        ("manifests", "remove", str(corpus), "--list", "list", "--output", str(left)),
        ("manifests", "verify", str(left)),
        ("pipeline", "trace", str(left), shard, "5", "--input", f"forum={folder / 'threads'}"),
    )
    for package, *words in commands:
        done = run(tmp_path, *words, package=package)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_edited_rule_redoes_only_what_depends_on_it(corpus: Path, folder: Path) -> None:
    rule = folder / "my_rules.py"
    before = {path: path.stat().st_mtime_ns for path in (corpus / "receipts/extract").rglob("*.json")}
    text = rule.read_text(encoding="utf-8")
    rule.write_text(text.replace('"""Drop texts in capital', '"""Drop all texts in capital'), encoding="utf-8")
    again = run(folder, "run", "forum.yaml", "--output", "forum", "--quiet", "--workers", "1")
    assert "nothing to do" in again.stdout, "an edited docstring redoes nothing" + again.stderr
    rule.write_text(text.replace("capitals > self", "capitals >= self"), encoding="utf-8")
    again = run(folder, "run", "forum.yaml", "--output", "forum", "--quiet", "--workers", "1")
    rule.write_text(text, encoding="utf-8")
    assert again.returncode == 0 and "nothing to do" not in again.stdout, again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (corpus / "receipts/extract").rglob("*.json")}


MISTAKES = [
    ("my_rules:CompanyPolicy", "my_rules:Policy", "module my_rules has no Policy"),
    ("my_rules:CompanyPolicy", "no_rules:Policy", "No module named 'no_rules'"),
    ("my_rules:CompanyPolicy: {most_capitals: 0.6}", "my_rules:Share", "is no"),
    ("most_capitals: 0.6", "most_capitols: 0.6", "did you mean 'most_capitals'?"),
    ("most_capitals: 0.6", "most_capitals: 6", "less than or equal to 1"),
    ("kind: my_sources:Forum", "kind: my_sources:ForumSettings", "is not a reader"),
    ("{title: true}", "{titel: true}", "did you mean 'title'?"),
]
RUN_ALL = """
import sys
from pipeline.__main__ import main
for number in range(int(sys.argv[1])):
    assert main(["run", f"wrong-{number}.yaml", "--output", "wrong", "--quiet"]) == 2
"""


@pytest.fixture(scope="module")
def refusals(folder: Path) -> list[str]:
    """What one process says of each mistake, line by line."""
    text = (folder / "forum.yaml").read_text(encoding="utf-8")
    for number, (old, new, _) in enumerate(MISTAKES):
        assert old in text
        (folder / f"wrong-{number}.yaml").write_text(text.replace(old, new), encoding="utf-8")
    command = [sys.executable, "-c", RUN_ALL, str(len(MISTAKES))]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", check=False, timeout=600, env=_environment()
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert not (folder / "wrong/manifest.json").exists()
    return done.stderr.strip().splitlines()


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_refused_in_one_sentence(refusals: list[str], number: int) -> None:
    assert len(refusals) == len(MISTAKES) and MISTAKES[number][2] in refusals[number]


def test_a_rule_that_fails_ends_the_run_with_a_sentence(folder: Path, corpus: Path) -> None:
    rule = (folder / "my_rules.py").read_text(encoding="utf-8")
    (folder / "bad_rules.py").write_text(rule.replace("letters = [", "letters = 1 / 0 or ["), encoding="utf-8")
    recipe = (folder / "forum.yaml").read_text(encoding="utf-8").replace("my_rules:", "bad_rules:")
    (folder / "bad.yaml").write_text(recipe, encoding="utf-8")
    done = run(folder, "run", "bad.yaml", "--output", "bad", "--quiet", "--workers", "1")
    assert done.returncode == 2 and "bad_rules:CompanyPolicy failed on document" in done.stderr, done.stderr
    assert "ZeroDivisionError" in done.stderr and "Traceback" not in done.stderr
