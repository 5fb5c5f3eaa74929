"""`plot`: the curves of a run as a page or picture of its own, with nothing but its CSV files to draw from."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from manifests.errors import UserError
from manifests.files import write_atomic
from manifests.manifest import load_manifest
from trainer.metrics import unigram_entropy

POINTS = 200
"""a curve is drawn through at most so many means"""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 58, 130, 34, 34
"""of a chart and its margins, in pixels"""
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7a3e9d", "#555555")
DARK = ("#5ab0e6", "#ff9248", "#35c99b", "#e6a3c8", "#e0c040", "#9ad4f5", "#bd8ae0", "#bbbbbb")
"""for colour-blind readers too (after Okabe and Ito), on white and on black"""

Point = tuple[float, float]


@dataclass
class Chart:
    """One chart: curves by name, each with the number of its colour, and level lines drawn dashed."""

    title: str
    unit: str
    curves: dict[str, tuple[int, list[Point]]] = field(default_factory=dict)
    levels: dict[str, tuple[int, float]] = field(default_factory=dict)


def plot(run: Path, output: Path | None, corpus: Path | None) -> str:
    """Draw a run's curves into RUN/curves.html, or `output` (.html or .svg), and say where.
    `corpus`: where it lies now; without one the unigram entropies are left out. Raises UserError."""
    target = output or run / "curves.html"
    if target.suffix not in (".html", ".svg"):
        raise UserError(f"--output {target} ends neither in .html nor in .svg: give one of them")
    drawn = charts(run, floors(run, corpus))
    write_atomic(target, (svg(drawn) if target.suffix == ".svg" else page(run.resolve().name, drawn)).encode())
    return str(target)


def floors(run: Path, corpus: Path | None) -> dict[str, float]:
    """Each source's unigram entropy in nats a token; empty where the corpus is not to be found."""
    try:
        facts = json.loads((run / "run.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{run} holds no run: give the --output folder of `python -m trainer train`") from error
    folder = corpus or Path(facts["corpus"])
    if corpus is None and not (folder / "manifest.json").is_file():
        return {}
    manifest = load_manifest(folder)
    if manifest.manifest_sha != facts["plan"]["manifest_sha"]:
        raise UserError(f"{folder} is not the corpus that {run} was trained on: give --corpus")
    try:
        return unigram_entropy(folder, manifest)
    except FileNotFoundError:  # a copy of a corpus elsewhere, whose shards come and go
        return {}


def charts(run: Path, levels: dict[str, float]) -> list[Chart]:
    """Loss with each source's, held-out loss, learning rate and gradient norm; a chart without points is left out."""
    rows, held_out = _rows(run / "metrics.csv"), _rows(run / "validation.csv")
    if not rows:
        raise UserError(f"{run} has no metrics.csv with a step in it yet: train first")
    sources = sorted(name[5:] for name in rows[0] if name.startswith("loss_"))
    colours = {name: number for number, name in enumerate(sources, start=1)}
    loss = Chart("Training loss", "nats a token")
    for name in sources:
        loss.curves[name] = (colours[name], _curve(rows, f"loss_{name}"))
        if name in levels:
            loss.levels[f"{name}: unigrams"] = (colours[name], levels[name])
    loss.curves["all"] = (0, _curve(rows, "loss"))  # last, so that it lies above
    validation = Chart("Held-out loss", "nats a token")
    for name in sorted({row["source"] for row in held_out}):
        mine = [row for row in held_out if row["source"] == name]
        validation.curves[name] = (colours.get(name, 0), _curve(mine, "loss"))
    rate = Chart("Learning rate", "", {"": (0, _curve(rows, "learning_rate"))})
    norm = Chart("Gradient norm before clipping", "", {"": (0, _curve(rows, "gradient_norm"))})
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
            step, value = float(row["step"]), float(row[column])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            found.append((step, value))
    size = -(-len(found) // POINTS) or 1
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within a range."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [number * apart for number in range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)]


def page(name: str, drawn: Sequence[Chart]) -> str:
    """A page without scripts or anything from elsewhere."""
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(name)}</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}body{margin:2rem auto;'
        f"max-width:{WIDTH}px;font:15px system-ui,sans-serif}}svg{{max-width:100%;height:auto}}</style>\n"
        f"<h1>{escape(name)}</h1>\n{svg(drawn)}</html>\n"
    )


def svg(drawn: Sequence[Chart]) -> str:
    """All charts one below the other, light or dark as the reader's system is."""
    shades = [f".c{n}{{stroke:{colour}}}.t{n}{{fill:{colour}}}" for n, colour in enumerate(LIGHT)]
    dark = [f".c{n}{{stroke:{colour}}}.t{n}{{fill:{colour}}}" for n, colour in enumerate(DARK)]
    style = (
        "text{font:12px system-ui,sans-serif;fill:#333}.h{font-size:15px;font-weight:600}.g{stroke:#8884}"
        ".l{fill:none;stroke-width:1.6;stroke-linejoin:round}.d{stroke-dasharray:5 4;stroke-width:1}"
        f"{''.join(shades)}@media(prefers-color-scheme:dark){{text{{fill:#ccc}}{''.join(dark)}}}"
    )
    parts = [_chart(chart, number * HEIGHT) for number, chart in enumerate(drawn)]
    height = HEIGHT * len(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><style>{style}</style>\n{"".join(parts)}</svg>\n'
    )


def _chart(chart: Chart, down: int) -> str:
    points = [point for _, curve in chart.curves.values() for point in curve]
    heights = [y for _, y in points] + [level for _, level in chart.levels.values()]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    x1 += x0 == x1
    y0, y1 = min(heights), max(heights)
    slack = (y1 - y0) * 0.04 or abs(y0) * 0.1 or 1.0
    y0, y1 = y0 - slack, y1 + slack

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return across, down + HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    left, right, bottom = LEFT, WIDTH - RIGHT, down + HEIGHT - BOTTOM
    unit = f", {chart.unit}" if chart.unit else ""
    out = [f'<text class="h" x="{left}" y="{down + 20}">{escape(chart.title + unit)}</text>']
    for tick in ticks(y0, y1):
        y = place(x0, tick)[1]
        out.append(f'<path class="g" d="M{left} {y:.1f}H{right}"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in ticks(x0, x1):
        x = place(tick, y0)[0]
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:,.0f}</text>')
    out.append(f'<text x="{left - 20}" y="{bottom + 18}" text-anchor="end">step</text>')
    labels: list[tuple[float, str, int]] = []
    for name, (colour, level) in chart.levels.items():
        y = place(x0, level)[1]
        out.append(f'<path class="l d c{colour % len(LIGHT)}" d="M{left} {y:.1f}H{right}"/>')
        labels.append((y, name, colour))
    for name, (colour, curve) in chart.curves.items():
        if not curve:
            continue
        line = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in curve)
        dot = "h.01" if len(curve) == 1 else ""
        wide = ' stroke-width="5" stroke-linecap="round"' if dot else ""
        out.append(f'<path class="l c{colour % len(LIGHT)}"{wide} d="M{line}{dot}"/>')
        labels.append((place(*curve[-1])[1], name, colour))
    out += [
        f'<text class="t{colour % len(LIGHT)}" x="{right + 6}" y="{y + 4:.1f}">{escape(name)}</text>'
        for y, name, colour in _apart(labels, bottom - 4)
    ]
    return "\n".join(out) + "\n"


def _apart(labels: list[tuple[float, str, int]], bottom: float) -> list[tuple[float, str, int]]:
    """Labels moved so that none covers another or lies below the chart."""
    moved: list[tuple[float, str, int]] = []
    for y, name, colour in sorted(labels):
        moved.append((max(y, moved[-1][0] + 14) if moved else y, name, colour))
    above = range(len(moved) - 1, -1, -1)
    return [(min(y, bottom - 14 * n), name, colour) for n, (y, name, colour) in zip(above, moved, strict=True)]
