"""`plot`: the curves of a run as a page or picture of its own, with nothing but its CSV files to draw from."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.report.html import Html, element, text
from manifests.report.lines import STYLE, Chart, Point, lines, stacked
from manifests.report.style import STYLE as PAGE_STYLE
from trainer.trace import corpus_of, facts_of
from trainer.unigrams import unigram_entropy

POINTS = 200
"""a curve is drawn through at most so many means"""


def plot(run: Path, output: Path | None, corpus: Path | None) -> str:
    """Draw a run's curves into RUN/curves.html, or `output` (.html or .svg), and say where. `corpus`: where it lies
    now. Raises UserError."""
    target = output or run / "curves.html"
    if target.suffix not in (".html", ".svg"):
        raise UserError(f"--output {target} ends neither in .html nor in .svg: give one of them")
    drawn = charts(run, floors(run, corpus))
    whole = stacked(drawn) if target.suffix == ".svg" else page(run.resolve().name, drawn)
    write_atomic(target, whole.encode())
    return str(target)


def floors(run: Path, corpus: Path | None) -> dict[str, float]:
    """Each source's unigram entropy in nats a token; empty where the corpus is not to be found."""
    facts = facts_of(run)
    if corpus is None and not (Path(facts["corpus"]) / "manifest.json").is_file():
        return {}
    try:
        return unigram_entropy(*corpus_of(run, facts["plan"]["manifest_sha"], corpus))
    except FileNotFoundError:  # a copy of a corpus elsewhere, whose shards come and go
        return {}


def charts(run: Path, levels: dict[str, float]) -> list[Chart]:
    """Loss with each source's, held-out loss, learning rate and gradient norm; a chart without points is left out."""
    rows, held_out = _rows(run / "metrics.csv"), _rows(run / "validation.csv")
    if not rows:
        raise UserError(f"{run} has no metrics.csv with a step in it yet: train first")
    sources = sorted(name[5:] for name in rows[0] if name.startswith("loss_"))
    colours = {name: number for number, name in enumerate(sources, start=1)}
    loss, validation = Chart("Training loss, nats a token"), Chart("Held-out loss, nats a token")
    for name in sources:
        loss.curves[name] = (colours[name], _curve(rows, f"loss_{name}"))
        if name in levels:
            loss.levels[f"{name}: unigrams"] = (colours[name], levels[name])
    loss.curves["all"] = (0, _curve(rows, "loss"))  # last, so that it lies above
    for name in sorted({row["source"] for row in held_out}):
        mine = [row for row in held_out if row["source"] == name]
        validation.curves[name] = (colours.get(name, 0), _curve(mine, "loss"))
    rate = Chart("Learning rate", {"": (0, _curve(rows, "learning_rate"))})
    norm = Chart("Gradient norm before clipping", {"": (0, _curve(rows, "gradient_norm"))})
    return [chart for chart in (loss, validation, rate, norm) if any(points for _, points in chart.curves.values())]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _curve(rows: Iterable[dict[str, str]], column: str) -> list[Point]:
    """(step, value) of the rows that have a number there, in at most `POINTS` means of neighbours."""
    found = []
    for row in rows:
        try:
            point = float(row["step"]), float(row[column])
        except (KeyError, TypeError, ValueError):  # a step left out, or a line cut off
            continue
        if math.isfinite(point[1]):
            found.append(point)
    size = -(-len(found) // POINTS) or 1
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def page(name: str, drawn: list[Chart]) -> Html:
    """A page without scripts or anything from elsewhere."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width"),
        element("title", text(name)),
        element("style", Html(PAGE_STYLE + STYLE)),
    )
    body = element("body", element("header", element("h1", text(name))), element("main", *map(lines, drawn)))
    return Html(f"<!doctype html>\n{element('html', head, body, lang='en')}\n")
