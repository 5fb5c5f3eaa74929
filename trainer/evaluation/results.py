"""Summarize an evaluation as JSON and as a table.

Both contain means with confidence intervals for each task and group, and the scores of LLaMA's paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trainer.evaluation.evaluate import BITS, JUDGES, Records, TaskRun
from trainer.evaluation.models import EvaluatedModel
from trainer.evaluation.score import mean

RESULTS = "results.json"
SIZES = ("7B", "13B", "33B", "65B")
HEAD = ("task", "metric", "score", "95 % interval", "chance", BITS, *(f"LLaMA {size}" for size in SIZES), "questions")


def summarize(
    source: EvaluatedModel, runs: Sequence[TaskRun], records: Records, refused: Mapping[str, str]
) -> dict[str, Any]:
    """Return the results of a model as they are written to results.json.

    Args:
        source: The model.
        runs: The runs.
        records: A dict from a question's key to its record.
        refused: A dict from the name of a run that cannot be scored to the reason.
    """
    model = {"sha256": source.sha256, "manifest_sha": source.manifest_sha, "step": source.step}
    done = [_summarize_run(run, records) for run in runs]
    return {"model": model, "runs": done, "not_scored": dict(refused)}


def _summarize_run(run: TaskRun, records: Records) -> dict[str, Any]:
    task = run.task
    found = [records[key] for key in run.keys]
    paper = task.paper if run.shots in task.shots else {}
    groups = sorted({name for one in found for name in one["groups"]})
    metrics = {name: asdict(mean([one["scores"][name] for one in found])) for name in found[0]["scores"]}
    return {
        "name": run.name,
        "task": task.name,
        "version": task.version,
        "shots": run.shots,
        "split": task.split,
        "metric": task.metric,
        "rule": task.rule,
        "prompt_from": task.source,
        "questions": len(found),
        "published_questions": task.data.count,
        "truncated": sum(one["truncated"] for one in found),
        "chance": sum(1 / len(item.choices) for item in run.items) / len(found) if task.is_ranked else None,
        "metrics": metrics,
        "groups": {
            name: asdict(mean([one["scores"][task.metric] for one in found if name in one["groups"]]))
            for name in groups
        },
        "paper": {name: dict(zip(SIZES, scores, strict=True)) for name, scores in paper.items()},
        "paper_table": task.paper_source,
        "comparable_with_paper": bool(paper) and len(found) == task.data.count and task.rule not in JUDGES,
    }


def format_table(results: Mapping[str, Any]) -> str:
    """Return results as a Markdown table in percent, followed by notes about its rows."""
    rows = [row for run in results["runs"] for row in _make_rows(run)]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (HEAD, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    lines += ["", "Scores in percent, LLaMA's as its paper prints them (docs/evaluation.md)."]
    lines += [f"- {note}" for run in results["runs"] for note in _list_notes(run)]
    lines += [f"- {name} is not scored: {reason}" for name, reason in results["not_scored"].items()]
    return "\n".join(lines)


def _make_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    metric, paper = run["metric"], run["paper"]
    bits = _format_bits(run["metrics"].get(BITS))
    scores = paper.get(f"{run['shots']} shots", paper.get("", {}))
    rows = [_make_row(run, run["name"], metric, run["metrics"][metric], bits, scores, str(run["questions"]))]
    further = [name for name in run["metrics"] if name in paper or name == "stereotype by sum"]
    rows += [_make_row(run, "", name, run["metrics"][name], "", paper.get(name, {}), "") for name in further]
    shown = [(name, group) for name, group in run["groups"].items() if name in paper]
    return rows + [
        _make_row(run, f"  {name}", metric, group, "", paper[name], str(group["count"])) for name, group in shown
    ]


def _make_row(
    run: Mapping[str, Any],
    name: str,
    metric: str,
    found: Mapping[str, Any],
    bits: str,
    paper: Mapping[str, Any],
    count: str,
) -> tuple[str, ...]:
    interval = f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"
    chance = "" if run["chance"] is None else f"{100 * run['chance']:.1f}"
    published = ["" if paper.get(size) is None else f"{paper[size]:g}" for size in SIZES]
    return (name, metric, f"{100 * found['value']:.1f}", interval, chance, bits, *published, count)


def _format_bits(found: Mapping[str, float] | None) -> str:
    return f"{found['value']:.3f} ± {found['high'] - found['value']:.3f}" if found else ""


def _list_notes(run: Mapping[str, Any]) -> list[str]:
    found, notes = run["metrics"][run["metric"]], []
    if run["questions"] != run["published_questions"]:
        notes.append(f"{run['questions']} of the {run['published_questions']:,} published questions")
    if run["truncated"]:
        notes.append(f"{run['truncated']} cut to the model's context")
    if run["chance"] is not None and found["low"] <= run["chance"] <= found["high"]:
        notes.append("not distinguishable from chance")
    if run["rule"] in JUDGES:
        notes.append("rated by a classifier of yours, not comparable with the paper")
    return [f"{run['name']}: {'; '.join(notes)}"] if notes else []
